"""Small random ONNX networks with everything that a rewrite may stumble over, for properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.networks import BOOL, INT64, info, network

SIDE = 4


class _Maker:
    """Makes nodes of tensors [SIDE, SIDE]; names are reused in branches, and many nodes have none."""

    def __init__(self, draw: Any) -> None:
        self._draw, self._count = draw, 0
        self.functions: dict[str, Any] = {}

    def name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def constant(self, nodes: list[onnx.NodeProto], value: Any) -> str:
        name = self.name()
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value))))
        return name

    def weight(self, nodes: list[onnx.NodeProto]) -> str:
        seed = self._draw(st.integers(0, 9))
        return self.constant(nodes, np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32))

    def graph(self, sources: list[str], depth: int) -> tuple[list[onnx.NodeProto], str]:
        """Return nodes and the last tensor that they make of some of ``sources``."""
        nodes: list[onnx.NodeProto] = []
        known = list(sources)
        kinds = ["relu", "weights", "identity", "view", "function", "dropout"] + (["if", "loop"] if depth else [])
        for kind in self._draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5)):
            source = self._draw(st.sampled_from(known))
            made = self.name()
            named = {"name": self._draw(st.sampled_from(["", "", "same", f"n{made}"]))}
            if kind == "relu":
                nodes.append(helper.make_node("Relu", [source], [made], **named))
            elif kind == "weights":
                turned, weight = self.name(), self.weight(nodes)
                nodes.append(helper.make_node("Transpose", [weight], [turned], **named))
                nodes.append(helper.make_node("MatMul", [source, turned], [made], **named))
            elif kind == "identity":
                nodes.append(helper.make_node("Identity", [source], [made], **named))
            elif kind == "dropout":
                nodes.append(helper.make_node("Dropout", [source], [made], **named))
            elif kind == "view":
                self.view(nodes, source, made)
            elif kind == "function":
                self.call(nodes, source, made)
            elif kind == "if":
                self.branch(nodes, known, source, made, depth)
            else:
                self.loop(nodes, known, source, made, depth)
            known.append(made)
        return nodes, known[-1]

    def view(self, nodes: list[onnx.NodeProto], source: str, made: str) -> None:
        shape, first, one, whole = (self.name() for _ in range(4))
        index, axes, rest = (self.constant(nodes, np.int64(v)) for v in (0, [0], [-1]))
        nodes += [
            helper.make_node("Shape", [source], [shape]),
            helper.make_node("Gather", [shape, index], [first]),
            helper.make_node("Unsqueeze", [first, axes], [one]),
            helper.make_node("Concat", [one, rest], [whole], axis=0),
            helper.make_node("Reshape", [source, whole], [made]),
        ]

    def call(self, nodes: list[onnx.NodeProto], source: str, made: str) -> None:
        if "f" not in self.functions:
            body = [
                helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.full(1, 2, np.float32))),
                helper.make_node("Mul", ["p", "k"], ["t1"]),
                helper.make_node("Neg", ["t1"], ["q"]),
            ]
            self.functions["f"] = helper.make_function("own", "f", ["p"], ["q"], body, [helper.make_opsetid("", 18)])
        nodes.append(helper.make_node("f", [source], [made], domain="own"))

    def branch(self, nodes: list[onnx.NodeProto], known: list[str], source: str, made: str, depth: int) -> None:
        yes = self.name()
        if self._draw(st.booleans()):  # decided by the shape, or by the data
            size, limit = self.name(), self.constant(nodes, np.int64(SIDE * SIDE))
            nodes.append(helper.make_node("Size", [source], [size]))
            nodes.append(helper.make_node(self._draw(st.sampled_from(["Equal", "Less"])), [size, limit], [yes]))
        else:
            total, zero = self.name(), self.constant(nodes, np.float32(0))
            nodes.append(helper.make_node("ReduceSum", [source], [total], keepdims=0))
            nodes.append(helper.make_node("Greater", [total, zero], [yes]))
        graphs = []
        start = most = self._count
        for _ in range(2):
            if self._draw(st.booleans()):  # the tensors of two branches may have the same names
                self._count = start
            inner, last = self.graph(known, depth - 1)
            end = self.name()
            inner.append(helper.make_node("Identity", [last], [end]))
            graphs.append(helper.make_graph(inner, "b", [], [info(end, None)]))
            most = max(most, self._count)
        self._count = most
        nodes.append(helper.make_node("If", [yes], [made], then_branch=graphs[0], else_branch=graphs[1]))

    def loop(self, nodes: list[onnx.NodeProto], known: list[str], source: str, made: str, depth: int) -> None:
        trips, on = self.constant(nodes, np.int64(2)), self.constant(nodes, np.bool_(True))
        i, condition, state, still, end = (self.name() for _ in range(5))
        inner, last = self.graph([*known, state], depth - 1)
        inner.append(helper.make_node("Identity", [condition], [still]))
        inner.append(helper.make_node("Identity", [last], [end]))
        body = helper.make_graph(
            inner,
            "l",
            [info(i, [], INT64), info(condition, [], BOOL), info(state, None)],
            [info(still, [], BOOL), info(end, None)],
        )
        nodes.append(helper.make_node("Loop", [trips, on, source], [made], body=body))


@st.composite
def networks(draw: Any) -> onnx.ModelProto:
    """Draw a network of x [SIDE, SIDE] with one or two outputs."""
    maker = _Maker(draw)
    nodes, last = maker.graph(["x"], draw(st.integers(0, 2)))
    outputs: dict[str, Any] = {last if last != "x" else "y": None}
    if last == "x":
        nodes.append(helper.make_node("Relu", ["x"], ["y"]))
    if draw(st.booleans()):
        nodes.append(helper.make_node("Identity", [next(iter(outputs))], ["z"]))
        outputs["z"] = None
    side = draw(st.sampled_from([[SIDE, SIDE], ["n", SIDE]]))
    return network(nodes, {"x": side}, outputs, functions=list(maker.functions.values()))
