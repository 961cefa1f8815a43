"""Boxes of any layout that is planted in a head: they are decoded as they were planted, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import Detection, Task
from mmedge.export.brought.boxes import problem, unclear
from mmedge.interpret import make_interpreter, recognise
from mmedge.types import Snapshot

STRIDES = (8, 16, 32)


def cells(size: tuple[int, int]) -> np.ndarray:
    """Return x, y and stride of each cell, [n, 3]."""
    parts = []
    for stride in STRIDES:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        parts.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], axis=1))
    return np.concatenate(parts).astype(np.float64)


def raw_head(size: tuple[int, int], classes: int, seed: int, anchors: int) -> dict[str, np.ndarray]:
    """Return what a head gives before its decoding: offsets, logarithms of sizes, probabilities."""
    rng = np.random.default_rng(seed)
    grid = np.concatenate([np.tile(cells(size)[cells(size)[:, 2] == s], (anchors, 1)) for s in STRIDES])
    n = len(grid)
    logits = rng.normal(-4, 1, (n, classes))
    return {
        "grid": grid,
        "offset": rng.uniform(0, 1, (n, 2)),
        "size": rng.normal(0.5, 0.5, (n, 2)),
        "objectness": 1 / (1 + np.exp(-rng.normal(-2, 1, (n, 1)))),
        "scores": 1 / (1 + np.exp(-logits)),
        "logits": logits,
    }


# How a head may tell a box whose centre and size in pixels are given: only `centre` is right.
def boxes_as(kind: str, raw: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    stride = raw["grid"][:, 2:]
    centre, side = (raw["grid"][:, :2] + raw["offset"]) * stride, np.exp(raw["size"]) * stride
    scale = np.array([size[1], size[0]])
    return {
        "centre": np.concatenate([centre, side], axis=1),
        "raw": np.concatenate([raw["offset"], raw["size"]], axis=1),
        "corners": np.concatenate([centre - side / 2, centre + side / 2], axis=1),
        "shares": np.concatenate([centre / scale, side / scale], axis=1),
        "y first": np.concatenate([centre[:, ::-1], side[:, ::-1]], axis=1),
        "cells": np.concatenate([centre / stride, side / stride], axis=1),
    }[kind]


SIZES = st.tuples(st.sampled_from((128, 160, 256, 320)), st.sampled_from((128, 192, 320)))
KINDS = ("centre", "raw", "corners", "shares", "y first", "cells")


@settings(max_examples=60, deadline=None)
@example((128, 128), 1, "centre", True, False, False, True, 1, 0)  # 6 values a box, which a list of boxes has too
@given(
    SIZES,
    st.integers(1, 6),
    st.sampled_from(KINDS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from((1, 3)),
    st.integers(0, 1000),
)
def test_planted_boxes_are_decoded_or_refused(size, classes, kind, objectness, logits, first, named, anchors, seed):
    raws = [raw_head(size, classes, seed + k, anchors) for k in range(3)]
    for raw in raws:  # planted: one sure box, in a cell of the middle stride
        index = int(np.flatnonzero(raw["grid"][:, 2] == 16)[5])
        raw["scores"][index], raw["objectness"][index] = 0.01, 0.98
        raw["scores"][index, 0] = 0.99
    samples = []
    for raw in raws:
        parts = [boxes_as(kind, raw, size), *([raw["objectness"]] if objectness else [])]
        rows = np.concatenate([*parts, raw["logits" if logits else "scores"]], axis=1)
        samples.append((rows.T if first else rows)[None].astype(np.float32))
    shape, known = samples[0].shape, classes if named else None
    found = recognise((1, 3, *size), [shape], known)
    if found is None:
        return
    layout, count = found
    if known and count not in (None, known):
        return  # `new` refuses: the file names other classes
    if unclear(layout, shape, size, known) or problem(layout, samples, size, sorted_out=named):
        assert not (kind == "centre" and named and not logits and objectness != first), "a good head was refused"
        return
    labels = tuple(map(str, range(count or known or 1)))
    spec = Detection(layout=layout, input="image")
    task = Task(kind="detection", output="net.y", labels="labels.txt", threshold=0.9, detection=spec)

    def to_shares(corners: np.ndarray) -> None:
        corners /= np.array([size[1], size[0]] * 2)

    reader = make_interpreter("boxes", task, labels, to_shares)
    for raw, sample in zip(raws, samples, strict=True):
        told = reader(sample, Snapshot(t_ns=0, seq=0, present={"image": True}))
        centre = boxes_as("centre", raw, size)[int(np.flatnonzero(raw["grid"][:, 2] == 16)[5])]
        (x1, y1), (x2, y2) = centre[:2] - centre[2:] / 2, centre[:2] + centre[2:] / 2
        want = np.clip(np.array([x1, y1, x2, y2]) / np.array([size[1], size[0]] * 2), 0, 1)
        assert told.label == "0"
        assert np.allclose([told.boxes[0].x1, told.boxes[0].y1, told.boxes[0].x2, told.boxes[0].y2], want, atol=0.01)


LISTED = np.array([[10, 20, 60, 90, 0.9, 1], [0, 0, 30, 40, 0.5, 0], [100, 50, 120, 200, 0.2, 3]], np.float32)


@pytest.mark.parametrize(
    ("columns", "scale", "said"),
    [
        ([0, 1, 2, 3, 4, 5], 1.0, None),
        ([0, 1, 2, 3, 5, 4], 1.0, "fifth value is the class"),
        ([2, 3, 0, 1, 4, 5], 1.0, "no two corners"),
        ([0, 1, 2, 3, 4, 4], 1.0, "no score and class"),
        ([0, 1, 2, 3, 4, 5], 1 / 256, "in 0..1"),
        ([0, 1, 2, 3, 4, 5], 9.0, "outside of 256x256"),
    ],
)
def test_rows_of_six_are_judged_by_what_they_hold(columns, scale, said):
    rows = LISTED[:, columns].copy()
    rows[:, :4] *= scale
    found = problem("boxes", [rows[None]], (256, 256))
    assert (found is None) == (said is None)
    assert said is None or said in found[0]


def test_nothing_found_shows_nothing():
    empty = [np.zeros((1, 100, 6), np.float32)]
    assert "found nothing on noise" in problem("boxes", empty, (256, 256))[0]
    assert problem("boxes", empty, (256, 256), sorted_out=True) is None


@pytest.mark.parametrize(
    ("layout", "shape", "classes", "is_clear"),
    [
        ("yolo", (1, 84, 2100), None, True),
        ("yolo", (1, 5, 2100), None, True),
        ("yolo", (1, 85, 2100), None, False),  # 4 + 81, or 5 + 80
        ("yolo", (1, 11, 2100), None, False),
        ("yolo", (1, 11, 2100), 7, True),
        ("yolo", (1, 85, 6300), None, False),  # three boxes a cell have an objectness
        ("yolo-objectness", (1, 2100, 85), None, True),
        ("yolo-objectness", (1, 2100, 84), None, False),  # 5 + 79, or 4 + 80
        ("yolo-objectness", (1, 6300, 11), None, False),
        ("yolo-objectness", (1, 6300, 85), None, True),
        ("boxes", (1, 300, 6), None, False),
    ],
)
def test_what_a_shape_leaves_open_is_asked_for(layout, shape, classes, is_clear):
    assert (unclear(layout, shape, (320, 320), classes) is None) == is_clear
