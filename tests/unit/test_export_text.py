"""Texts on the host: a tokenizer is trained, samples become tokens, the bundle carries what it needs."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmedge.bundle import load
from mmedge.bundle.manifest import Sync, TextInput
from mmedge.errors import ConfigError
from mmedge.export import Recipe, pack, to_onnx
from mmedge.export.brought.token_inputs import padding_of
from mmedge.export.datasets.folder import Folder
from mmedge.export.keys import graph_digest
from mmedge.export.onnx.to_onnx import random_samples
from mmedge.export.recording_files import recording_files
from mmedge.export.recordings import RawSamples, raw_samples
from mmedge.export.tokenizer import check_vocabulary, load_tokenizer, train_tokenizer
from mmedge.fusion import load_graph
from mmedge.fusion.feed import make_feed
from mmedge.plan import plan_sync
from mmedge.preprocess import Tokenizer
from mmedge.sync import Synchronizer
from mmedge.types import Snapshot, Text
from tests.conftest import WriteClip
from tests.texts import tokenizer_json

SAID = [f"{lead}{word}" for word in ("dark", "bright", "It's") for lead in ("", "it's ", "I see ", "so ")] * 3
RAW = train_tokenizer(SAID, 120)
SPEC = TextInput(max_tokens=8, tokenizer="said.json", pad=0)
TOKENIZER = Tokenizer(RAW, SPEC)
RECIPE = """
name = "t"
licence = "Apache-2.0"
[inputs.image]
modality = "image"
size = [8, 8]
frame = [8, 8]
color = "gray"
mean = [0.5]
std = [0.25]
[inputs.claim]
modality = "text"
max_tokens = 8
tokenizer = "said.json"
[model]
factory = "tests.unit.test_export_text:make"
[stages.reader]
inputs = { ids = "claim" }
outputs = { said = ["batch", 2] }
[tasks.word]
kind = "classification"
output = "reader.said"
labels = ["dark", "bright"]
[export]
precisions = ["fp32"]
[missing.claim]
policy = "zero"
[sync]
trigger = "image"
"""


class Reader(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(rows, 4, padding_idx=0)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids).mean(1))  # type: ignore[no-any-return]


class Model(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.reader = Reader(rows)


def make(recipe: Recipe) -> nn.Module:
    return Model(TOKENIZER.size)


def ids(text: str) -> list[int]:
    out = np.empty((1, 8), np.int64)
    TOKENIZER.ids(text, out)
    return [int(token) for token in out[0] if token != 0]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "said.json").write_bytes(RAW)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return Recipe.load(path)


def test_a_tokenizer_knows_its_words_and_every_letter() -> None:
    assert TOKENIZER.size <= 120
    assert ids("dark") == ids("DARK") == ids("  Dárk\n") != ids("bright")
    assert len(ids("dark")) == 1
    assert 1 not in ids("dark, z?")  # a letter and a sign that nobody said
    assert 1 in ids("dark \U0001f600")
    assert ids("it's dark")[-1:] == ids("dark")


@given(st.text(max_size=60))
def test_any_text_fits_a_trained_tokenizer(text: str) -> None:
    assert all(0 < token < TOKENIZER.size for token in ids(text))


def test_the_same_texts_give_the_same_bytes_in_any_process() -> None:
    code = (
        "import sys; from mmedge.export.tokenizer import train_tokenizer; from tests.unit.test_export_text import SAID;"
        "sys.stdout.buffer.write(train_tokenizer(reversed(SAID), 120))"
    )
    # -P as pytest runs: the installed package, not the folder; the tests themselves are found by the path.
    path = f"import sys; sys.path.append({str(Path(__file__).parents[2])!r});"
    done = subprocess.run([sys.executable, "-P", "-c", path + code], stdout=subprocess.PIPE, check=True, timeout=120)
    assert done.stdout == RAW


@pytest.mark.parametrize(
    ("texts", "vocabulary", "message"), [([], 99, "no text"), ([" ", ""], 99, "no text"), (SAID, 9, "characters")]
)
def test_what_cannot_be_learnt_is_refused(texts: list[str], vocabulary: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_tokenizer(texts, vocabulary)


def test_a_tokenizer_travels_in_the_bundle(recipe: Recipe, tmp_path: Path) -> None:
    model = make(recipe)
    onnx = to_onnx(model, recipe)
    path = pack(tmp_path / "t.mmedge", recipe, [onnx], samples=RawSamples.split(random_samples(recipe, 12)))
    with load(path) as bundle:
        seat = bundle.inputs["claim"]
        assert isinstance(seat, TextInput)
        assert seat.tokenizer == "tokenizer/claim.json"
        assert bundle.read(seat.tokenizer) == RAW
        golden = bundle.golden("golden/reader.npz")
        assert golden["in.ids"].dtype == np.int64
        graph = load_graph(bundle)  # which passes its golden self-test
        text = Text(stream="claim", seq=0, capture_ns=0, arrive_ns=0, text="It's dark")
        present = {"image": False, "claim": True}
        graph.run(Snapshot(t_ns=0, seq=0, present=present, values={"claim": text}), lambda *_: 0)
        out = np.empty((1, 8), np.int64)
        TOKENIZER.ids("It's dark", out)
        with torch.no_grad():
            want = model.reader(torch.from_numpy(out)).numpy()  # type: ignore[operator]
        np.testing.assert_allclose(graph.output("reader.said"), want, rtol=1e-5, atol=1e-6)
        graph.close()


def test_an_embedding_that_is_too_small_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    good = to_onnx(Model(TOKENIZER.size), recipe).models["reader"]
    check_vocabulary(good, "ids", TOKENIZER)
    larger = Tokenizer(RAW, TextInput(max_tokens=8, pad=TOKENIZER.size))
    with pytest.raises(ConfigError, match=f"{TOKENIZER.size + 1} tokens, but the embedding has {TOKENIZER.size} rows"):
        check_vocabulary(good, "ids", larger)


def test_a_tokenizer_that_is_not_there_is_named(recipe: Recipe, tmp_path: Path) -> None:
    key = graph_digest(recipe)
    (tmp_path / "said.json").write_bytes(train_tokenizer(SAID[:-1], 110))
    assert graph_digest(recipe) != key
    (tmp_path / "said.json").write_bytes(RAW[:-9])
    with pytest.raises(ConfigError, match="not a tokenizer") as caught:
        load_tokenizer(recipe, "claim")
    assert caught.value.where == "inputs.claim.tokenizer"
    (tmp_path / "said.json").unlink()
    with pytest.raises(ConfigError, match="cannot read the tokenizer"):
        load_tokenizer(recipe, "claim")


def test_a_folder_s_texts_are_tokens(recipe: Recipe, tmp_path: Path) -> None:
    rows = ["split,group,label,image,audio,text", 'train,a,dark,,,"it\'s dark, so"', "train,a,bright,,,bright"]
    rows += ["validation,b,dark,,,dark", "test,c,bright,,,bright", "test,c,dark,,, dark "]
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    data = Folder(recipe, tmp_path)
    data.prepare()
    samples = data.split("train")
    assert [samples[i].labels for i in range(2)] == [{"claim": 0}, {"claim": 1}]
    assert [int(token) for token in samples[0].inputs["claim"] if token] == ids("it's dark, so")
    batch = data.collate([samples[0], samples[1]])
    assert batch["inputs"]["claim"].shape == (2, 8)
    assert batch["inputs"]["claim"].dtype == torch.int64
    assert batch["present"].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    "text", ["", "  ", "\t", "\u3000", "\xa0", "\x1c", "\u0301", "\ufe0f", "\u200b", "?", " dark "]
)
def test_a_folder_s_text_is_there_when_it_would_be_in_a_run(recipe: Recipe, tmp_path: Path, text: str) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    with (tmp_path / "index.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["split", "group", "label", "image", "audio", "text"])
        lines.writerows([name, name, "dark", "a.png", "", text] for name in ("train", "validation", "test"))
    data = Folder(recipe, tmp_path)
    batch = data.collate([data.split("train")[0]])

    sync = Synchronizer(plan_sync({"claim": SPEC}, {"claim": True}, {}, Sync(trigger="claim")), started_ns=0)
    sync.push(Text(stream="claim", seq=0, capture_ns=0, arrive_ns=0, text=text))
    (snapshot,) = sync.poll()
    reason = snapshot.reason
    feed, out = make_feed("claim", SPEC, raw=False, read=lambda name: RAW), np.full((1, 8), -7, np.int64)
    if reason is None:
        feed.fill(snapshot, out, lambda *_: 0)
    else:
        feed.fill_absent(out)
    assert batch["present"].tolist() == [[1, float(reason is None)]]
    assert batch["inputs"]["claim"].tolist() == out.tolist()


def test_recordings_may_have_texts_beside_them(recipe: Recipe, tmp_path: Path, write_clip: WriteClip) -> None:
    (tmp_path / "lab").mkdir()
    for name in ("one", "two"):
        write_clip(f"lab/{name}.mkv", times_s=tuple(k / 25 for k in range(9)), size=(16, 16))
    (tmp_path / "lab" / "one.claim.txt").write_text("dark\nit's bright\n")
    calibrated = msgspec.structs.replace(
        recipe, calibration=msgspec.structs.replace(recipe.calibration, recordings="lab")
    )
    samples = raw_samples(calibrated, 18)
    found = {name: [] for name in ("one", "two")}  # type: ignore[var-annotated]
    for sample in (*samples.calibration, *samples.held_out):
        found[sample.name.split()[0]].append([int(token) for token in sample.arrays["claim"][0] if token])
    assert found["one"][:3] == [ids("dark"), ids("it's bright"), ids("dark")]
    assert found["two"] == [[]] * 9
    assert [path.name for path in recording_files(calibrated)] == ["one.mkv", "two.mkv", "one.claim.txt"]


def test_recorded_texts_calibrate(recipe: Recipe, tmp_path: Path, write_clip: WriteClip) -> None:
    from mmedge.replay.inputs import plain_seats, record

    clip = write_clip("c.mkv", times_s=tuple(k / 25 for k in range(15)), size=(16, 16))
    (tmp_path / "claim.txt").write_text("it's dark\n")
    uris = {"image": str(clip), "claim": f"text://{tmp_path / 'claim.txt'}"}
    record(tmp_path / "lab", uris, plain_seats(uris))
    calibrated = msgspec.structs.replace(
        recipe, calibration=msgspec.structs.replace(recipe.calibration, recordings="lab")
    )
    samples = raw_samples(calibrated, 15)
    last = samples.held_out[-1].arrays["claim"]
    assert last.shape == (1, 8)
    assert [int(token) for token in last[0] if token] == ids("it's dark")


def special(number: int, text: str) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": True, **flags}


START = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}},
}
FEW = {"!": 0, "a": 1, "[UNK]": 2}
AROUND = {"added_tokens": [special(2, "[UNK]"), special(3, "<s>")], "post_processor": START}
END = {**AROUND, "added_tokens": [*AROUND["added_tokens"], special(4, "</s>")]}
OWN = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}


@pytest.mark.parametrize(
    ("words", "changes", "pad", "told"),
    [
        ({**FEW, "[PAD]": 3}, {}, 3, False),
        (FEW, {"padding": {**OWN, "pad_id": 7, "pad_token": "a"}}, 7, False),
        ({"!": 1, "a": 2, "[UNK]": 3}, {}, 0, False),
        ({**FEW, "b": 5}, {}, 3, False),
        (FEW, {"added_tokens": [special(3, "<|endoftext|>")]}, 3, False),
        (FEW, END, 4, False),
        (FEW, AROUND, 2, True),
        (FEW, {}, 2, True),
    ],
    ids=["named", "padding", "zero", "gap", "special", "end", "around", "none"],
)
def test_padding_is_what_no_text_gives_if_there_is_such(tmp_path, words, changes, pad, told):
    raw = tokenizer_json(words, **changes)
    (tmp_path / "t.json").write_bytes(raw)
    number, hint = padding_of(tmp_path / "t.json")
    assert (number, hint is not None) == (pad, told)
    ids = np.empty((1, 16), np.int64)
    Tokenizer(raw, TextInput(max_tokens=16, pad=9)).ids("a ! [ b never", ids)
    assert (number in ids) == told
