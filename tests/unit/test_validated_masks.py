"""A mask is measured on the samples that have all its inputs, with their number; few samples validate nothing."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mmedge.bundle import load
from mmedge.bundle.decoding import decode_manifest
from mmedge.bundle.manifest import Manifest, Mask
from mmedge.errors import CheckError
from mmedge.export import Recipe, run_steps, to_onnx
from mmedge.export.datasets.base import Dataset, Sample
from mmedge.export.measure import MaskAccuracy, Measurement, measure
from mmedge.export.models.staged import StagedModel
from mmedge.export.training import mask_figures, save_weights
from mmedge.export.training.evaluate import counts, examine
from mmedge.export.training.validated_masks import MIN_SAMPLES, Judged, wilson
from mmedge.export.training.weights import make_model
from tests.measured import project
from tests.tiny import manifest, members
from tests.tiny_training import write_wav

NAMES = ("a", "b", "c")
THREE = """
name = "t"
licence = "MIT"
[data]
dataset = "data:Data"
[inputs.a]
modality = "tensor"
shape = [1, 1]
[inputs.b]
modality = "tensor"
shape = [1, 1]
[inputs.c]
modality = "tensor"
shape = [1, 1]
[model]
factory = "model:make"
[stages.sum]
inputs = { a = "a", b = "b", c = "c", present = "@present" }
outputs = { state = ["batch", 2], same = ["batch", 1] }
[tasks.state]
kind = "classification"
output = "sum.state"
labels = ["calm", "alarm"]
[tasks.same]
kind = "verification"
output = "sum.same"
labels = ["no", "yes"]
[train]
workers = 0
batch_size = 7
[export]
precisions = ["fp32"]
targets = ["cpu"]
[sync]
trigger = "a"
"""


class Listed(Dataset):
    """A data set of samples that are given."""

    def __init__(self, recipe: Recipe, samples: list[Sample]) -> None:
        super().__init__(recipe)
        self.samples = samples

    def prepare(self) -> None: ...

    def split(self, name: Any, *, epoch: int = 0) -> Any:
        return self.samples

    def groups(self, name: Any) -> frozenset[str]:
        return frozenset((name,))


class Sum(torch.nn.Module):
    """Alarm where those present sum up to more than nothing; the same where the spread is small."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, a: Any, b: Any, c: Any, present: Any) -> Any:
        x = torch.cat([a, b, c], 1) * present * self.gain
        total = x.sum(1, keepdim=True)
        return torch.cat([-total, total], 1), 1 - (x - total / 3).abs().sum(1, keepdim=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, StagedModel, Any]:
    recipe = project(tmp_path_factory.mktemp("three"), THREE)
    model = StagedModel(recipe, {"sum": Sum()}).eval()
    return recipe, model, to_onnx(model, recipe)


def oracle(samples: list[Sample]) -> dict[tuple[str, str], tuple[int, int]]:
    """Count by hand: (task, mask) -> right answers, samples."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for mask in ("abc", "ab", "ac", "bc", "a", "b", "c"):
        for task in ("state", "same"):
            right = total = 0
            for sample in samples:
                if any(name not in sample.inputs for name in mask):
                    continue
                x = [float(sample.inputs[name][0]) if name in mask else 0.0 for name in NAMES]
                named = {sample.labels.get(name, -1) for name in mask}
                if task == "state":
                    known = named - {-1}
                    if len(known) != 1:
                        continue
                    right += (sum(x) > 0) == (known == {1})
                else:
                    if len(mask) < 2 or -1 in named:
                        continue
                    spread = sum(abs(value - sum(x) / 3) for value in x)
                    right += (1 - spread >= 0) == (len(named) == 1)
                total += 1
            if total:
                found[task, "+".join(mask)] = right, total
    return found


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_masks_are_counted_as_by_hand(three: tuple[Recipe, StagedModel, Any], data: st.DataObject) -> None:
    recipe, model, onnx = three
    there = data.draw(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=24))
    # Never near the bounds between two answers, where single precision would decide.
    numbers = st.sampled_from([-1.3, -0.45, 0.25, 0.55, 1.7])
    samples = [
        Sample(
            inputs={name: np.float32([data.draw(numbers)]) for name in NAMES if name in names},
            labels={name: data.draw(st.sampled_from([-1, 0, 1])) for name in names},
        )
        for names in there
    ]
    want = oracle(samples)
    dataset = Listed(recipe, samples)
    for found in (counts(recipe, examine(model, dataset, samples, recipe)[0]), measure([onnx], dataset).counts):
        got = {(task, mask): (c.total, c.samples) for task, rows in found.items() for mask, c in rows.items()}
        assert got == want


@given(samples=st.integers(1, 5000), share=st.floats(0, 1))
def test_the_interval_is_that_of_the_score_test(samples: int, share: float) -> None:
    right = round(share * samples)
    low, high = wilson(right, samples)
    assert 0 <= low <= right / samples + 1e-4
    assert right / samples - 1e-4 <= high <= 1
    for bound in (low, high):  # where the score test is just at 1.96 standard errors
        if 0.002 < bound < 0.998:
            slack = 1e-4 / np.sqrt(bound * (1 - bound) / samples)
            z = abs(right / samples - bound) / np.sqrt(bound * (1 - bound) / samples)
            assert z == pytest.approx(1.95996, abs=2 * slack + 1e-3)


def test_few_samples_validate_nothing(three: tuple[Recipe, Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    rows = {
        "state": {
            "a+b": Judged(total=20, samples=MIN_SAMPLES),
            "a": Judged(total=29, samples=MIN_SAMPLES - 1),
        }
    }
    with caplog.at_level(logging.WARNING):
        (only,) = mask_figures(three[0], rows)
    assert only == {
        "present": ["a", "b"],
        "metric": "top1",
        "value": 0.6667,
        "samples": 30,
        "low": wilson(20, 30)[0],
        "high": wilson(20, 30)[1],
    }
    (told,) = [record.getMessage() for record in caplog.records]
    assert "a (29)" in told
    assert "a + b + c (0)" in told  # it never occurs
    assert "a + b (" not in told


def test_a_folder_whose_rows_lack_modalities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Of 100 rows 64 have picture and sound, 36 the sound alone: no mask is measured on what it lacks."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = """
name = "t"
licence = "MIT"
[data]
folder = "rows"
[inputs.image]
modality = "image"
size = [4, 4]
frame = [8, 8]
color = "gray"
mean = [0.5]
std = [0.25]
[inputs.audio]
modality = "audio"
sample_rate_hz = 8000
window_ms = 100
[model]
factory = "model:make"
[stages.net]
inputs = { image = "image", audio = "audio", present = "@present" }
outputs = { y = ["batch", 2] }
[tasks.t]
kind = "classification"
output = "net.y"
labels = ["dark", "bright"]
[train]
weights = "w.safetensors"
workers = 0
[export]
precisions = ["fp32"]
targets = ["cpu"]
[sync]
trigger = "image"
"""
    model = """
import torch
from torch import nn
from mmedge.export.models.staged import StagedModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Linear(1, 1)

    def forward(self, image, audio, present):
        x = image.mean((2, 3)) * present[:, :1] + audio.mean(1, keepdim=True) * present[:, 1:] + 0 * self.own.bias
        return torch.cat([-x, x], 1)


def make(recipe):
    return StagedModel(recipe, {"net": Net()})
"""
    rows = tmp_path / "rows"
    rows.mkdir()
    for label, level in (("dark", 0), ("bright", 255)):
        cv2.imwrite(str(rows / f"{label}.png"), np.full((8, 8), level, np.uint8))
        write_wav(rows / f"{label}.wav", np.full(800, -0.5 if label == "dark" else 0.5), 8000)
    lines = ["split,group,label,image,audio,text"]
    for number in range(100):
        label = ("dark", "bright")[number % 2]
        # The pictures of every fourth row that has both lie: alone they are right on 48 of 64.
        shown = ("bright", "dark")[number % 2] if number % 8 < 2 else label
        both = number < 64
        lines.append(f"validation,v{number},{label},{f'{shown}.png' if both else ''},{label}.wav,")
    lines += [f"{split},{split},dark,dark.png,dark.wav," for split in ("train", "test")]
    (rows / "index.csv").write_text("\n".join(lines) + "\n")
    recipe = project(tmp_path, text, model=model)
    save_weights(make_model(recipe), {}, tmp_path / "w.safetensors")
    report = run_steps(recipe, output=tmp_path / "a.mmedge", progress=lambda text, share: None)
    assert report.measurement is not None
    with load(tmp_path / "a.mmedge") as bundle:
        found = {"+".join(m.present): (m.value, m.samples) for m in bundle.manifest.validated_masks}
    assert found["audio"] == (1.0, 100)
    assert found["image"] == (0.75, 64)
    assert found["image+audio"][1] == 64
    document = json.loads(json.dumps(report.to_dict()))["measurement"]
    assert {"+".join(row["present"]): row["samples"] for row in document["rows"]} == {
        "image+audio": 64,
        "image": 64,
        "audio": 100,
    }
    # With two rows that have both, that mask and the picture are not validated.
    short = [line for number, line in enumerate(lines) if number in (0, 1, 2) or number > 64]
    (rows / "index.csv").write_text("\n".join(short) + "\n")
    with caplog.at_level(logging.WARNING):
        again = run_steps(recipe, output=tmp_path / "b.mmedge", progress=lambda text, share: None)
    with load(tmp_path / "b.mmedge") as bundle:
        assert {"+".join(m.present): m.samples for m in bundle.manifest.validated_masks} == {"audio": 38}
    assert any("image + audio (2), image (2)" in record.getMessage() for record in caplog.records)
    written = io.StringIO()
    again.print(Console(file=written, width=140))
    assert "2 (< 30: not validated)" in written.getvalue()


def test_gates_use_the_samples_of_their_mask() -> None:
    """Three lost of 300 pass a gate of 1 %, three lost of 40 that have all inputs do not."""

    def of(samples: int) -> Measurement:
        row = MaskAccuracy(task="t", present=("a", "b"), samples=samples, right={"fp32": samples, "int8": samples - 3})
        return Measurement(samples=300, of=300, rows=(row,))

    of(300).raise_for_status(0.4)
    with pytest.raises(CheckError, match="of 40 validation samples"):
        of(40).raise_for_status(0.4)


def test_manifests_without_numbers_are_read_and_written_as_before() -> None:
    before = msgspec.json.encode(msgspec.convert(manifest(members()), Manifest))
    assert b'{"present":["image"],"metric":"top1","value":0.9}' in before
    assert msgspec.json.encode(decode_manifest(before)) == before
    told = Mask(present=("image",), metric="top1", value=0.9, samples=186, low=0.85, high=0.94)
    after = before.replace(b'{"present":["image"],"metric":"top1","value":0.9}', msgspec.json.encode(told))
    assert told in decode_manifest(after).validated_masks
