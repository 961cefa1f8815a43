"""Outputs in the shape of boxes that are none: refused with the reason, unless the user says what they are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mmedge.bundle import load
from tests.networks import FLOAT, head, telling
from tests.unit.test_new_boxes import boxes_as, raw_head

pytestmark = pytest.mark.parallel

SIDE = 256


def yolox(kind: str, classes: int = 80) -> onnx.ModelProto:
    """A head of YOLOX: one box a cell, its objectness, its classes; as ``kind`` tells boxes."""
    raw = raw_head((SIDE, SIDE), classes, 0, 1)
    rows = np.concatenate([boxes_as(kind, raw, (SIDE, SIDE)), raw["objectness"], raw["scores"]], axis=1)
    return telling({"x": (FLOAT, [1, 3, SIDE, SIDE])}, output=rows[None].astype(np.float32))


def test_an_undecoded_head_is_refused_with_what_to_do(new, tmp_path):
    told = new(yolox("raw"))
    assert "looks like boxes, but its centres are 0" in told["message"]
    assert "not decoded" in told["message"]
    assert "--decode_in_inference" in told["fix"]
    assert "--layout none" in told["fix"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("kind", "options", "layout"),
    [
        ("centre", (), "yolo-objectness"),
        ("raw", ("--layout", "none"), None),
        ("raw", ("--layout", "net=yolo-objectness"), "yolo-objectness"),
    ],
)
def test_a_decoded_head_and_the_users_word_are_taken(new, kind, options, layout):
    told = new(yolox(kind), *options)
    with load(told["bundle"]) as bundle:
        if layout is None:
            assert (bundle.tasks, bundle.outputs) == ({}, ("net.output",))
            return
        assert bundle.tasks["net"].detection.layout == layout
        assert len(bundle.labels("net")) == 80


def test_what_six_values_are_is_asked_for(new):
    boxes = telling({"x": (FLOAT, [1, 3, SIDE, SIDE])}, y=head("boxes", [1, 300, 6], (SIDE, SIDE)))
    told = new(boxes)
    assert "the order of the six values of a box is not in the file" in told["message"]
    assert "--layout boxes" in told["fix"]
    assert new(boxes, "--layout", "boxes", "--classes", "80")["bundle"]


def test_a_layout_that_cannot_be_is_refused(new):
    classes = telling({"x": (FLOAT, [1, 3, SIDE, SIDE])}, y=np.ones((1, 10), np.float32))
    assert "is not of the layout 'boxes'" in new(classes, "--layout", "boxes")["message"]
