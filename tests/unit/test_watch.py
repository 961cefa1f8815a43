"""A network that takes too long is ended, and the next run is as if nothing had been."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import mmedge
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import EngineError
from mmedge.fusion import load_graph
from tests.hostile import golden, network, pack


def counting() -> bytes:
    """Count to x[0]: as long as its input says."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "one"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 2]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "true", "zeros"], ["y"], body=body),
    ]
    return network(nodes, true=np.bool_(1), zeros=np.zeros((1, 2), np.float32), one=np.float32([[0, 0]]))


def test_a_run_that_takes_too_long_is_ended_and_the_next_is_not() -> None:
    with OnnxRuntimeEngine(counting(), name="net") as engine:
        engine.limit(2000)
        for trips in (1e18, 3, 1e18, 5):
            engine.inputs["x"][...] = trips
            before = time.monotonic()
            if trips > 100:
                with pytest.raises(EngineError, match="did not finish within 2000 ms and was ended"):
                    engine.run()
                assert 1.5 < time.monotonic() - before < 60
            else:
                engine.run()
                assert engine.outputs["y"].tolist() == [[0, 0]]


def test_a_bundle_has_a_limit_of_its_own_and_the_run_goes_on(tmp_path: Path) -> None:
    files = {"s.onnx": counting(), "s.npz": golden(), "l.txt": b"a\nb\n"}
    stages = {"s": {"inputs": {"x": "x"}, "outputs": {"y": [1, 2]}, "timeout_ms": 2000}}
    inputs = {"x": "push://"}
    with mmedge.Pipeline(pack(tmp_path / "n.mmedge", files, stages=stages), inputs, results="all") as pipe:
        statuses = []
        for trips in (1, 1e18, 2):
            pipe.push("x", np.full((1, 2), trips, np.float32), time.monotonic_ns())
            result = next(iter(pipe))
            statuses.append((result.status, result.present["x"]))
    assert statuses == [("ok", True), ("unvalidated", False), ("ok", True)]
    assert pipe.statistics.stage_errors == {"s": 1}


def test_a_network_that_is_slow_here_has_the_time_it_needs(tmp_path: Path) -> None:
    files = {"s.onnx": counting(), "s.npz": golden(), "l.txt": b"a\nb\n"}
    with mmedge.load(pack(tmp_path / "n.mmedge", files)) as bundle:
        graph = load_graph(bundle)
        assert graph.stages[0].engine._limit_ms >= 1000  # type: ignore[attr-defined]
        graph.close()
