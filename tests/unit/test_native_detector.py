"""The native detector finds the same boxes, to the last digit, as the one in numpy and OpenCV that it replaced."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import Task
from mmedge.bundle.tasks import Detection
from mmedge.errors import EngineError
from mmedge.interpret import make_interpreter
from mmedge.interpret.nms import suppress
from mmedge.types import AnyArray, Snapshot
from tests.oracle import detector as oracle

SEEN = Snapshot(t_ns=0, seq=0, present={"image": True})
Layout = Literal["yolo", "yolo-objectness", "boxes"]


def to_picture(corners: AnyArray) -> None:
    corners /= 64.0


def answer(reader: Any, raw: AnyArray) -> bytes:
    try:
        with np.errstate(all="ignore"):
            return msgspec.json.encode(reader(raw, SEEN))
    except EngineError as error:
        return str(error).encode()


def both(layout: Layout, classes: int, raw: AnyArray, **keys: float) -> tuple[bytes, bytes]:
    spec = Detection(layout=layout, input="image", iou=keys["iou"], max_boxes=int(keys["most"]))
    task = Task(kind="detection", output="s.y", labels="l", threshold=keys["threshold"], detection=spec)
    labels = tuple(f"c{k}" for k in range(classes))
    ours = make_interpreter("things", task, labels, to_picture)
    return answer(ours, raw), answer(oracle.Detector("things", task, labels, to_picture), raw)


def output(layout: Layout, classes: int, rows: int, rng: np.random.Generator) -> AnyArray:
    """Return boxes on a coarse grid, so that many are equal or touch, with scores of a few values."""
    place = rng.integers(-8, 72, (rows, 4)).astype(np.float32)
    place[:, 2:] = rng.integers(-1, 40, (rows, 2))
    scores = rng.integers(0, 12, (rows, classes)).astype(np.float32) / rng.choice([11, 12, 1000])
    if layout == "boxes":
        place[:, 2:] += place[:, :2]
        return np.concatenate([place, scores[:, :1], rng.integers(0, classes, (rows, 1))], axis=1, dtype=np.float32)[
            None
        ]
    if layout == "yolo":
        return np.ascontiguousarray(np.concatenate([place, scores], axis=1).T)[None]
    return np.concatenate([place, rng.integers(0, 3, (rows, 1)) / 2, scores], axis=1, dtype=np.float32)[None]


@given(
    st.sampled_from(["yolo", "yolo-objectness", "boxes"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 0.2, 0.45, 0.5, 1.0]),
    st.integers(1, 40),
    st.sampled_from([np.float32, np.float32, np.float16, np.float64]),
    st.sampled_from([None, None, None, np.nan, np.inf, -np.inf, 7.5, -0.0, 3e4]),
)
@settings(max_examples=400, deadline=None)
def test_the_same_boxes(
    layout: Layout,
    seed: int,
    rows: int,
    classes: int,
    threshold: float,
    iou: float,
    most: int,
    dtype: type,
    odd: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    raw = output(layout, classes, rows, rng).astype(dtype)
    if odd is not None:
        raw.reshape(-1)[rng.integers(raw.size)] = odd
    ours, theirs = both(layout, classes, raw, threshold=threshold, iou=iou, most=most)
    assert ours == theirs


@pytest.mark.parametrize("layout", ["yolo", "yolo-objectness", "boxes"])
def test_the_same_boxes_of_many(layout: Layout) -> None:
    rng = np.random.default_rng(1)
    raw = output(layout, 3, 9000, rng)
    scores = rng.permutation(raw[0, 4:].size).astype(np.float32) / raw[0, 4:].size  # all different
    if layout == "yolo":
        raw[0, 4:] = scores.reshape(raw[0, 4:].shape)
    else:
        raw[0, :, 4] = rng.permutation(9000) / 9000
    ours, theirs = both(layout, 3, raw, threshold=0.01, iou=0.5, most=1000)
    assert ours == theirs
    assert ours.count(b"label") > 300


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.booleans(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_suppression_keeps_what_opencv_does(seed: int, n: int, classes: bool, iou: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(-20, 20, (n, 4)) / rng.choice([1, 3, 1e9])
    scores, kinds = rng.integers(-1, 9, n) / 9, rng.integers(0, 4, n) if classes else None
    kept = suppress(corners, scores, iou, kinds)
    assert kept.dtype == np.intp
    assert kept.tolist() == oracle.suppress(corners, scores, iou, kinds).tolist()


def test_no_rows_are_no_boxes() -> None:
    task = Task(kind="detection", output="s.y", labels="l", detection=Detection(layout="boxes", input="image"))
    found = make_interpreter("things", task, ("a",), to_picture)(np.zeros((1, 0, 6), np.float32), SEEN)
    assert (found.label, found.boxes) == (None, ())
