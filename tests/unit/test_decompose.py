"""Operators that TensorRT's builder fails on are written out, and compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.onnx.decompose import TENSORRT_FAILS, decompose


def attention(heads: int, groups: int, tokens: int, *, causal: bool, masked: bool, flat: bool) -> onnx.ModelProto:
    """Return attention, opset 23: of [1, heads, tokens, 8], or flat with the heads side by side."""
    sizes = {"q": heads * groups, "k": heads, "v": heads}
    shapes = {name: [1, tokens, 8 * n] if flat else [1, n, tokens, 8] for name, n in sizes.items()}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    names = ["q", "k", "v"]
    weights = []
    if masked:
        allowed = np.tril(np.ones((tokens, tokens), np.bool_), 1)
        weights, names = [numpy_helper.from_array(allowed, "allowed")], [*names, "allowed"]
    more = {"q_num_heads": heads * groups, "kv_num_heads": heads} if flat else {}
    node = helper.make_node("Attention", names, ["y"], name="look", is_causal=int(causal), **more)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["q"])
    graph = helper.make_graph([node], "attention", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@settings(max_examples=20, deadline=None)
@given(
    heads=st.integers(1, 3),
    groups=st.integers(1, 2),
    tokens=st.integers(1, 6),
    causal=st.booleans(),
    masked=st.booleans(),
    flat=st.booleans(),
)
def test_attention_is_written_out_and_computes_the_same(
    heads: int, groups: int, tokens: int, causal: bool, masked: bool, flat: bool
) -> None:
    model = attention(heads, groups, tokens, causal=causal, masked=masked, flat=flat)
    written = decompose(model, TENSORRT_FAILS)  # which holds both against each other
    assert "Attention" not in {node.op_type for node in written.graph.node}
    assert [value.name for value in written.graph.input] == ["q", "k", "v"]


def test_what_has_none_of_them_stays_as_it_is() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"])], "one", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert decompose(model, TENSORRT_FAILS) is model
    assert "Erf" in {node.op_type for node in decompose(model, {"Gelu"}).graph.node}
    private = helper.make_node("Attention", ["x"], ["y"], domain="com.example")
    own = helper.make_model(helper.make_graph([private], "own", [x], [y]), ir_version=10)
    assert decompose(own, TENSORRT_FAILS) is own


def test_what_is_written_out_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pytest.importorskip("tensorrt_rtx")
    from mmedge.engine.compile import compile_variant

    model = attention(2, 1, 5, causal=False, masked=False, flat=False)
    content = decompose(model, TENSORRT_FAILS).SerializeToString()
    assert compile_variant(content, "0" * 64, "attention", "fp32").plan_path.stat().st_size > 0
