"""Renaming and rewriting reach branches and bodies at every depth, and stop where a name means something else there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import helper

from mmedge.bundle.manifest import ImageInput
from mmedge.errors import CheckError, ConfigError
from mmedge.export.judge import judge_session
from mmedge.export.onnx.graphs import all_nodes, captured, defined, fresh, name_once, rename, sort_nodes, tensor_names
from mmedge.export.onnx.parity import check_rewrite
from mmedge.export.preprocess import onnx_prefix
from mmedge.export.preprocess.onnx_prefix import Preprocessor, merge_prefix
from tests.networks import BOOL, FLOAT, INT64, info, network
from tests.onnx_graphs import networks

NODE = helper.make_node
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


@settings(deadline=None, max_examples=40, suppress_health_check=SLOW)
@given(networks())
def test_every_tensor_may_have_another_name(model):
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    renamed = copy_of(model)
    taken = tensor_names(renamed.graph)
    names = {name: fresh("other", taken) for name in defined(renamed.graph) if name not in outside}
    rename(renamed.graph, names)
    check_rewrite(model, renamed, "renamed")


@settings(deadline=None, max_examples=40, suppress_health_check=SLOW)
@given(networks())
def test_names_are_given_once_and_nodes_sorted(model):
    changed = copy_of(model)
    nodes = list(changed.graph.node)[::-1]
    backwards = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(backwards)
    sort_nodes(changed.graph)
    name_once(changed)
    names = [node.name for node in all_nodes(changed.graph)]
    assert len(names) == len(set(names))
    once = copy_of(changed)
    sort_nodes(changed.graph)
    name_once(changed)
    assert changed == once
    check_rewrite(model, changed, "named")


def looping() -> onnx.ModelProto:
    """A body whose state is called as the tensor around it, and which reads the input through a branch."""
    branch = [helper.make_graph([NODE(op, ["x"], ["r"])], "b", [], [info("r", None)]) for op in ("Identity", "Neg")]
    body = helper.make_graph(
        [
            NODE("Identity", ["c"], ["d"]),
            NODE("If", ["flag"], ["r2"], then_branch=branch[0], else_branch=branch[1]),
            NODE("Add", ["v", "r2"], ["w"]),
        ],
        "body",
        [info("i", [], INT64), info("c", [], BOOL), info("v", None)],
        [info("d", [], BOOL), info("w", None)],
    )
    nodes = [
        NODE("ReduceMean", ["x"], ["m"], keepdims=0),
        NODE("Greater", ["m", "half"], ["flag"]),
        NODE("Relu", ["x"], ["begin"]),
        NODE("Loop", ["n", "", "begin"], ["y"], body=body),
    ]
    return network(nodes, {"x": [1, 3, 6, 8]}, {"y": (FLOAT, [1, 3, 6, 8])}, half=np.float32(0.5), n=np.int64(2))


SEAT = ImageInput(size=(6, 8), frame=(12, 16), mean=(0.1,) * 3, std=(0.3,) * 3)


def test_preprocessing_reaches_what_branches_and_bodies_read():
    model = looping()
    merged = merge_prefix(model, {"x": SEAT})
    frame = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), dtype=np.uint8)
    tensor = Preprocessor({"x": SEAT})({"x": frame})["x"]
    want, got = (judge_session(m).run(None, {"x": v})[0] for m, v in ((model, tensor), (merged, frame)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_preprocessing_takes_no_name_that_is_there():
    nodes = [NODE("Neg", ["x"], ["x/tensor"]), NODE("Relu", ["x/tensor"], ["y"])]
    model = network(nodes, {"x": [1, 3, 6, 8]}, {"y": (FLOAT, [1, 3, 6, 8])})
    merged = merge_prefix(model, {"x": SEAT})
    assert judge_session(merged).run(None, {"x": np.zeros((1, 12, 16, 3), np.uint8)})[0].max() > 0


def test_a_prefix_that_reaches_only_the_outermost_nodes_is_found(monkeypatch):
    """The fault that was there: what a branch reads stayed the raw input."""

    def shallow(graph, names):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]

    monkeypatch.setattr(onnx_prefix, "rename", shallow)
    with pytest.raises((CheckError, ConfigError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        merge_prefix(looping(), {"x": SEAT})


def test_what_a_body_takes_from_around_it():
    (body,) = (attribute.g for attribute in looping().graph.node[-1].attribute)
    assert captured(body) == {"x", "flag"}
