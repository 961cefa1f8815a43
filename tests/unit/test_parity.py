"""What a rewrite changes is found, with the first node that differs; what it keeps passes."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mmedge.errors import CheckError, ConfigError
from mmedge.export.onnx.feeds import sample_feeds
from mmedge.export.onnx.parity import check_rewrite, difference
from mmedge.export.onnx.to_onnx import MAX_REL, _compare
from tests.networks import FLOAT, INT64, network

NODE = helper.make_node


def chain(*operators: str, shape: object = (2, 3)) -> onnx.ModelProto:
    """Return a chain of operators with names n0, n1, ... and tensors t1, t2, ..."""
    last = len(operators)
    nodes = [
        NODE(op, [f"t{i}" if i else "x"], [f"t{i + 1}" if i + 1 < last else "y"], name=f"n{i}")
        for i, op in enumerate(operators)
    ]
    return network(nodes, {"x": list(shape)}, {"y": None})


@pytest.mark.parametrize("at", range(4))
def test_the_first_node_that_differs_is_named(at):
    operators = ["Neg", "Sigmoid", "Exp", "Tanh"]
    other = [*operators[:at], "Abs" if at else "Relu", *operators[at + 1 :]]
    with pytest.raises(CheckError, match=rf"rewrite 'mine' .*'n{at}' \({operators[at]}\)") as caught:
        check_rewrite(chain(*operators), chain(*other), "mine", where="net.onnx")
    assert caught.value.where == "net.onnx"
    check_rewrite(chain(*operators), chain(*operators), "mine")


def test_what_differs_at_one_size_alone_is_found():
    """A Reshape that was folded for a batch of one."""
    before = network([NODE("Flatten", ["x"], ["y"], name="flat")], {"x": ["n", 2, 2]}, {"y": None})
    after = network([NODE("Reshape", ["x", "s"], ["y"])], {"x": ["n", 2, 2]}, {"y": None}, s=np.int64([1, 4]))
    with pytest.raises(CheckError, match="does not run any more"):
        check_rewrite(before, after, "fold")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Relu", "Abs"),  # negative numbers
        ("Identity", "Tanh"),  # large numbers
        ("Sign", "Ceil"),
        ("Abs", "Identity"),
        ("Reciprocal", "Identity"),
    ],
)
def test_every_kind_of_number_is_tried(before, after):
    with pytest.raises(CheckError):
        check_rewrite(chain(before), chain(after), "other")


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.UINT8, TensorProto.INT16, TensorProto.BOOL])
def test_whole_numbers_are_compared_exactly(kind):
    def one(add: int) -> onnx.ModelProto:
        nodes = [NODE("Cast", ["x"], ["c"], to=INT64), NODE("Add", ["c", "k"], ["y"])]
        return network(nodes, {"x": (kind, [3])}, {"y": (INT64, [3])}, k=np.int64(add))

    check_rewrite(one(5), one(5), "same")
    with pytest.raises(CheckError, match="3 of 3 values"):
        check_rewrite(one(1 << 40), one((1 << 40) + 1), "other")


def test_texts_are_compared():
    def one(what: str) -> onnx.ModelProto:
        kind = TensorProto.STRING
        nodes = [NODE("StringConcat", ["x", "end"], ["y"])]
        return network(nodes, {"x": (kind, ["n"])}, {"y": (kind, None)}, opset=20, end=np.array([what], object))

    check_rewrite(one("a"), one("a"), "same")
    with pytest.raises(CheckError, match="of 1 values"):
        check_rewrite(one("a"), one("b"), "other")


def test_what_draws_by_lot_is_held_to_its_shape_alone():
    nodes = [NODE("RandomNormalLike", ["x"], ["y"], name="lot")]
    before = network(nodes, {"x": [3]}, {"y": [3]})
    after = network([NODE("Identity", ["x"], ["i"]), NODE("RandomNormalLike", ["i"], ["y"])], {"x": [3]}, {"y": [3]})
    check_rewrite(before, after, "copied")


def test_a_network_that_does_not_run_is_said():
    broken = network([NODE("MatMul", ["x", "w"], ["y"])], {"x": [2, 3]}, {"y": None}, w=np.ones((4, 3), "f"))
    other = copy.deepcopy(broken)
    other.graph.node[0].name = "n"
    with pytest.raises(ConfigError, match="cannot run the network"):
        check_rewrite(broken, other, "renamed")
    with pytest.raises(CheckError, match="does not run any more"):
        check_rewrite(chain("Relu"), chain("NoSuchOperator"), "other")


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6), st.data())
def test_arrays_are_equal_to_themselves_and_not_to_others(values, data):
    array = np.array(values, np.float32)
    assert difference(array, array.copy(), 1e-4) is None
    other = array.copy()
    index = data.draw(st.integers(0, len(values) - 1))
    finite = np.abs(array[np.isfinite(array)]).max(initial=1e-3).astype(np.float64)
    other[index] = np.float32(min(finite * 3 + 1, 3e38)) if np.isfinite(other[index]) else 0.0
    if other[index] != array[index] and finite < 1e38:
        assert difference(array, other, 1e-4) is not None


def boxes(count: int = 200) -> np.ndarray:
    """Return boxes in pixels with the scores of 80 classes, as a detector gives them, [1, 84, count]."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.05, (1, 80, count))
    return np.concatenate([rng.uniform(0, 640, (1, 4, count)), scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("gone", [slice(4, None), 83], ids=["all classes", "one class"])
def test_scores_beside_boxes_are_judged_by_their_own_range(gone, turned):
    want = boxes()
    got = want.copy()
    got[:, gone] = 0
    if turned:
        want, got = want.transpose(0, 2, 1), got.transpose(0, 2, 1)
    assert difference(want, got, 1e-4) is not None
    assert _compare("s", "y", got[None], want[None]).max_rel > MAX_REL
    rounded = (want * (1 + 5e-6)).astype(np.float32)
    assert difference(want, rounded, 1e-4) is None
    assert _compare("s", "y", rounded[None], want[None]).max_rel < 1e-4


def test_rows_of_zeros_and_rounding_of_narrow_types_pass():
    want = boxes()
    want[:, 5] = 0
    got = want.copy()
    got[:, 5] = 640 * 3e-7  # what sums of the largest leave
    assert difference(want, got, 1e-4) is None
    half = want.astype(np.float16)
    other = half.copy()
    other[:, 5] = 0.5  # one step of float16 at 640
    assert difference(half, other, 4e-3) is None


def test_sequences_and_nothing_are_compared():
    one, other = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert difference([one], [one], 0) is None
    assert difference([one], [other], 0) is not None
    assert difference([one], [one, one], 0) is not None
    assert difference(None, None, 0) is None
    assert difference(None, one, 0) is not None
    assert difference(one, one.astype(np.int64), 0) is not None


def test_inputs_are_the_same_in_every_process_and_cover_open_sizes():
    model = network(
        [NODE("Add", ["x", "z"], ["y"])],
        {"x": ["batch", "n"], "z": ["batch", "n"]},
        {"y": (FLOAT, None)},
    )
    feeds = [list(sample_feeds(model)) for _ in range(2)]
    shapes = {feed["x"].shape for feed in feeds[0]}
    assert len(shapes) > 4
    assert len({shape[0] for shape in shapes}) > 2
    for one, other in zip(*feeds, strict=True):
        assert one["x"].shape == one["z"].shape
        np.testing.assert_array_equal(one["x"], other["x"])
    fixed = list(sample_feeds(model, {"x": (1, 7)}, {"z": np.ones((1, 7), np.float32)}))
    assert {feed["x"].shape for feed in fixed} == {(1, 7)}
    assert all((feed["z"] == 1).all() for feed in fixed)
