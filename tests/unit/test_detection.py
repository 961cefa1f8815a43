"""Detection: three layouts decoded, mapped back to the camera's picture, one box a thing, whatever comes."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import Detection, ImageInput, Task
from mmedge.errors import EngineError
from mmedge.interpret import Interpreter, make_interpreter
from mmedge.preprocess import ImagePreprocessor
from mmedge.preprocess.fit import Seen, to_picture
from mmedge.types import Box, Frame, Snapshot, TaskResult

SEEN = Snapshot(t_ns=0, seq=0, present={"camera": True})
BEFORE = {"yolo": 4, "yolo-objectness": 5}


def seat(**changes: Any) -> ImageInput:
    plain: dict[str, Any] = {"size": (64, 64), "color": "gray", "mean": (0.0,), "std": (1.0,), "frame": (64, 64)}
    return ImageInput(**{**plain, **changes})


def detector(
    layout: str, classes: int = 3, spec: ImageInput | None = None, seen: Seen | None = None, **changes: Any
) -> Interpreter:
    detection = {name: changes.pop(name) for name in ("iou", "max_boxes") if name in changes}
    task = Task(
        kind="detection",
        output="net.y",
        labels="l",
        threshold=changes.pop("threshold", 0.25),
        detection=Detection(layout=layout, input="camera", **detection),  # type: ignore[arg-type]
        **changes,
    )
    back = partial(to_picture, spec or seat(), seen=seen)
    return make_interpreter("things", task, tuple(f"c{i}" for i in range(classes)), back)


def output(layout: str, corners: Any, scores: Any, classes: Any, count: int = 3) -> np.ndarray:
    """Return what a network with ``layout`` gives for these boxes."""
    corners, scores, classes = np.asarray(corners, float).reshape(-1, 4), np.asarray(scores), np.asarray(classes)
    if layout == "boxes":
        rows = np.concatenate([corners, scores[:, None], classes[:, None]], axis=1)
    else:
        every = np.zeros((len(scores), count))
        every[np.arange(len(scores)), classes] = scores if layout == "yolo" else 1.0
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        objectness = [scores[:, None]] if layout == "yolo-objectness" else []
        rows = np.concatenate([centre, size, *objectness, every], axis=1)
    return np.ascontiguousarray(rows.T if layout == "yolo" else rows, np.float32)[None]


def overlap(a: Box, b: Box) -> float:
    width = max(min(a.x2, b.x2) - max(a.x1, b.x1), 0.0)
    height = max(min(a.y2, b.y2) - max(a.y1, b.y1), 0.0)
    both = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1)
    return width * height / (both - width * height)


@pytest.mark.parametrize("layout", ["yolo", "yolo-objectness", "boxes"])
def test_a_layout_is_decoded(layout: str) -> None:
    raw = output(layout, [[8, 16, 24, 48], [40, 4, 60, 12], [0, 0, 9, 9]], [0.5, 0.9, 0.1], [2, 0, 1])
    result = detector(layout)(raw, SEEN)
    first, second = result.boxes
    assert (result.label, result.score) == (first.label, first.score) == ("c0", 0.9)
    assert (first.x1, first.y1, first.x2, first.y2) == (0.625, 0.0625, 0.9375, 0.1875)
    assert (second.label, second.x1, second.y1, second.x2, second.y2) == ("c2", 0.125, 0.25, 0.375, 0.75)


FITS = [
    seat(fit=fit, frame=frame, reduce=reduce)
    for fit in ("stretch", "crop", "letterbox")
    for frame, reduce in (((480, 640), 1), ((640, 480), 1), ((481, 643), 4), ((64, 200), 2))
]


@pytest.mark.parametrize("spec", FITS, ids=lambda s: f"{s.fit}-{s.frame[0]}x{s.frame[1]}-{s.reduce}")
@pytest.mark.parametrize("camera", [(480, 640), (720, 1280), (333, 251)])
def test_a_box_comes_back_to_where_the_camera_saw_it(spec: ImageInput, camera: tuple[int, int]) -> None:
    """A white rectangle goes through the real preprocessing; its edges in the tensor are the detector's boxes."""
    height, width = camera
    box = (round(width * 0.42), round(height * 0.40), round(width * 0.61), round(height * 0.66))
    pixels = np.zeros(camera, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    frame = Frame(
        stream="camera", seq=0, capture_ns=0, arrive_ns=0, data=pixels, format="gray8", width=width, height=height
    )
    tensor = np.empty(spec.tensor_shape, np.float32)
    ImagePreprocessor(spec).tensor(frame, tensor)
    bright = [np.flatnonzero(tensor[0, 0].max(axis=axis) > 0.5) for axis in (0, 1)]
    (x1, x2), (y1, y2) = ((found[0], found[-1] + 1) for found in bright)
    seen = Seen.of(frame)
    (found,) = detector("boxes", spec=spec, seen=seen)(output("boxes", [[x1, y1, x2, y2]], [0.9], [0]), SEEN).boxes
    # One pixel of the network's input, seen in the camera's picture.
    pixel = np.zeros((1, 4))
    pixel[0, 2:] = 1.0
    to_picture(spec, pixel, seen)
    one_x, one_y = pixel[0, 2] - pixel[0, 0], pixel[0, 3] - pixel[0, 1]
    for got, want, one in (
        (found.x1, box[0] / width, one_x),
        (found.x2, box[2] / width, one_x),
        (found.y1, box[1] / height, one_y),
        (found.y2, box[3] / height, one_y),
    ):
        assert abs(got - want) <= one


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
def test_boxes_are_clipped_to_the_picture(fit: str) -> None:
    spec = seat(fit=fit, frame=(60, 120))
    (box,) = detector("boxes", spec=spec)(output("boxes", [[-900, -900, 900, 900]], [0.9], [0]), SEEN).boxes
    assert (box.x1, box.y1, box.x2, box.y2) == (0.0, 0.0, 1.0, 1.0)
    outside = output("boxes", [[900, 900, 950, 950]], [0.9], [0])
    assert detector("boxes", spec=spec)(outside, SEEN) == TaskResult(label=None, score=None)


def reference(raw: np.ndarray, threshold: float, iou: float, max_boxes: int) -> list[tuple[float, Box]]:
    """Decode ``yolo`` as one would explain it: row by row, box by box."""
    found = []
    for column in raw[0].T.astype(float):
        x, y, w, h, *scores = column.tolist()
        score = max(scores)
        if score >= threshold and score > 0:
            corners = [(x - w / 2) / 64, (y - h / 2) / 64, (x + w / 2) / 64, (y + h / 2) / 64]
            x1, y1, x2, y2 = (round(min(max(c, 0.0), 1.0), 5) for c in corners)
            if x2 > x1 and y2 > y1:
                label = f"c{scores.index(score)}"
                found.append((score, Box(label=label, score=round(score, 4), x1=x1, y1=y1, x2=x2, y2=y2)))
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(found, key=lambda pair: -pair[0]):
        if all(other.label != box.label or overlap(other, box) <= iou for _, other in kept):
            kept.append((score, box))
    return kept[:max_boxes]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 0.6]),
    st.sampled_from([0.0, 0.2, 0.45, 0.9, 1.0]),
    st.integers(1, 40),
)
@example(0, 60, 1, 0.0, 0.45, 40)
@settings(max_examples=150, deadline=None)
def test_yolo_is_decoded_like_the_plain_reference(
    seed: int, rows: int, classes: int, threshold: float, iou: float, max_boxes: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.uniform(-10, 74, (1, 4 + classes, rows)).astype(np.float32)
    raw[:, 2:4] = rng.uniform(-2, 40, (1, 2, rows))
    raw[:, 4:] = rng.uniform(0, 1, (1, classes, rows))
    found = detector("yolo", classes, threshold=threshold, iou=iou, max_boxes=max_boxes)(raw, SEEN).boxes
    # Overlaps that equal the limit but for rounding may go either way; none do at random.
    assert list(found) == [box for _, box in reference(raw, threshold, iou, max_boxes)]
    assert all(a.score >= b.score for a, b in pairwise(found))
    for k, a in enumerate(found):
        assert 0 <= a.x1 < a.x2 <= 1
        assert 0 <= a.y1 < a.y2 <= 1
        assert all(a.label != b.label or overlap(a, b) <= iou + 1e-6 for b in found[:k])


@pytest.mark.parametrize(
    ("layout", "raw", "message"),
    [
        ("yolo", np.zeros((1, 8, 10), np.float32), "match the layout 'yolo' with 3 labels"),
        ("yolo-objectness", np.zeros((1, 8, 10), np.float32), "match the layout 'yolo-objectness' with 3 labels"),
        ("boxes", np.zeros((1, 10, 7), np.float32), "match the layout 'boxes' with 3 labels"),
        ("boxes", np.zeros(6, np.float32), "match the layout 'boxes' with 3 labels"),
        ("boxes", output("boxes", [[0, 0, 9, 9]], [0.5], [3]), "class 3, but there are only 3 labels"),
        ("boxes", output("boxes", [[0, 0, 9, 9]], [0.5], [-1]), "class -1"),
        ("boxes", output("boxes", [[0, 0, 9, 9]], [0.5], [0.5]), "class 0.5"),
        ("yolo", output("yolo", [[0, 0, 9, 9]], [7.5], [0]), "probabilities must be 0 to 1"),
        ("boxes", output("boxes", [[0, 0, 9, 9]], [7.5], [0]), "probabilities must be 0 to 1"),
    ],
)
def test_an_output_that_fits_no_layout_is_an_error(layout: str, raw: np.ndarray, message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        detector(layout)(raw, SEEN)
    assert caught.value.where == "task 'things'"
    assert caught.value.fix


@pytest.mark.parametrize("layout", ["yolo", "yolo-objectness", "boxes"])
def test_boxes_without_an_area_and_of_any_size_are_bounded(layout: str) -> None:
    corners = [[9, 9, 1, 1], [5, 5, 5, 60], [-3e38, -3e38, 3e38, 3e38], [3e38, 0, 3e38, 9], [0, 0, 0, 0]]
    if layout != "boxes":  # centre and size of the third are finite, their sum in 32 bits would not be
        corners[2] = [-1e38, -1e38, 1e38, 1e38]
    result = detector(layout)(output(layout, corners, [0.9] * 5, [0] * 5), SEEN)
    assert [(b.x1, b.y1, b.x2, b.y2) for b in result.boxes] == [(0.0, 0.0, 1.0, 1.0)]


@pytest.mark.parametrize("layout", ["yolo", "yolo-objectness", "boxes"])
def test_a_hundred_thousand_boxes_are_bounded(layout: str) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (100_000, 2))
    raw = output(
        layout,
        np.concatenate([corner, corner + 0.2], axis=1),
        rng.uniform(0.5, 1, 100_000),
        rng.integers(0, 3, 100_000),
    )
    detect = detector(layout, threshold=0.0, max_boxes=1000)
    begin_s = time.process_time()
    result = detect(raw, SEEN)
    assert time.process_time() - begin_s < 10
    assert len(result.boxes) == 1000
    assert result.boxes[0].score > 0.999


def test_without_its_picture_a_detection_is_undefined() -> None:
    away = Snapshot(t_ns=0, seq=0, present={"camera": False})
    result = detector("boxes")(output("boxes", [[0, 0, 9, 9]], [0.9], [0]), away)
    assert result == TaskResult(label=None, score=None)


def test_what_people_and_programs_read() -> None:
    raw = output("boxes", [[0, 0, 16, 32], [32, 0, 64, 16]], [0.9, 0.8], [1, 0])
    result = detector("boxes")(raw, SEEN)
    assert str(result) == "c1 0.90 (x 0..25 %, y 0..50 %), c0 0.80 (x 50..100 %, y 0..25 %)"
    assert msgspec.json.decode(msgspec.json.encode(result))["boxes"][0] == {
        "label": "c1",
        "score": 0.9,
        "x1": 0.0,
        "y1": 0.0,
        "x2": 0.25,
        "y2": 0.5,
    }
    assert b"boxes" not in msgspec.json.encode(TaskResult(label="a", score=1.0))
    many = TaskResult(label="c1", score=0.9, boxes=result.boxes * 3)
    assert str(many).endswith("and 3 more")
