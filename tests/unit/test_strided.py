"""Networks that run on large inputs alone are rewritten, at the sizes that they are declared with or at some found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from mmedge.errors import ConfigError
from mmedge.export import Recipe
from mmedge.export.brought.brought import bring
from mmedge.export.int8.prepare import prepare
from mmedge.export.onnx.opset import opset_of, raise_opset
from tests.networks import FLOAT, NODE, network

RECIPE = """
name = "t"
licence = "MIT"
[inputs.x]
modality = "tensor"
shape = [1, 1, {size}, {size}]
[stages.net]
onnx = "net.onnx"
inputs = {{ x = "x" }}
outputs = {{ y = [1, 1] }}
[sync]
trigger = "x"
"""


def strided(layers: int, opset: int = 9) -> onnx.ModelProto:
    """So many convolutions of 8 x 8 in steps of 2 without padding: 5 of them take in 218 x 218 at least, 8 1786."""
    names = ["x", *(f"c{k}" for k in range(layers))]
    nodes = [
        NODE("Conv", [one, "w"], [other], kernel_shape=[8, 8], strides=[2, 2], auto_pad="VALID", name=other)
        for one, other in pairwise(names)
    ]
    nodes += [
        NODE("GlobalAveragePool", [names[-1]], ["g"]),
        NODE("Flatten", ["g"], ["f"]),
        NODE("Softmax", ["f"], ["y"]),
    ]
    w = np.random.default_rng(0).normal(0, 0.1, (1, 1, 8, 8)).astype(np.float32)
    return network(nodes, {"x": (FLOAT, ["n", 1, "h", "w"])}, {"y": (FLOAT, ["n", 1])}, opset=opset, w=w)


@pytest.mark.parametrize("layers", [5, 6])
def test_a_size_is_found_at_which_it_runs(layers: int) -> None:
    assert opset_of(raise_opset(strided(layers))) == 13
    assert len([node for node in prepare(strided(layers, 18)).graph.node if node.op_type == "Conv"]) == layers


def test_where_none_runs_the_sizes_that_were_tried_are_said() -> None:
    for rewrite in (raise_opset, lambda model: prepare(strided(8, 18))):
        with pytest.raises(ConfigError, match=r"none of the inputs that were tried .*\[1, 1, 1024, 1024\]") as caught:
            rewrite(strided(8))
        assert "open dimensions" in str(caught.value.fix)


def test_the_declared_size_is_the_one_that_counts(tmp_path: Path) -> None:
    onnx.save(strided(8), tmp_path / "net.onnx")
    (tmp_path / "r.toml").write_text(RECIPE.format(size=1800))
    _, networks = bring(Recipe.load(tmp_path / "r.toml"))
    assert opset_of(networks["net"]) == 13
    made = prepare(strided(8, 18), "net", {"x": (1, 1, 1800, 1800)})
    assert made.graph.input[0].name == "x"
