"""OpenVINO behind the door that ONNX Runtime stands behind: the same answers, in the precision that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import mmedge
from mmedge.engine.openvino import OpenVINOEngine
from mmedge.errors import ConfigError, EngineError
from mmedge.fusion import load_graph
from tests.hostile import with_network
from tests.networks import FLOAT, INT64, NODE, network

pytest.importorskip("openvino", reason="the extra mmedge[openvino] is not installed")
DIGITS = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"


def line(name: str, shape: list[int | str] | None = None) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    nodes = [NODE("Reshape", ["x", "all"], ["y"])]
    model = network(nodes, {"x": (kind, shape or [2, 3])}, {"y": (kind, None)}, all=np.array([-1], np.int64))
    return model.SerializeToString()


def chain(length: int, size: int) -> bytes:
    nodes = [NODE("MatMul", [f"h{i}" if i else "x", "w"], [f"h{i + 1}"]) for i in range(length)]
    w = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32) / np.float32(size) ** 0.5
    return network(nodes, {"x": [size, size]}, {f"h{length}": [size, size]}, w=w).SerializeToString()


@pytest.mark.parametrize("name", ["float32", "float16", "uint8", "uint16", "int8", "int16", "int32", "int64", "bool"])
def test_numbers_go_in_and_come_out(name: str) -> None:
    given = np.array([[0, 1, 2], [3, 4, 5]]).astype(name)
    with OpenVINOEngine(line(name)) as engine:
        assert engine.inputs["x"].dtype == name
        np.testing.assert_array_equal(engine({"x": given})["y"], given.ravel())


@pytest.mark.parametrize("name", ["float64", "uint32", "uint64"])
def test_what_it_would_compute_in_another_type_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="OpenVINO does not compute 'x' in its own type") as caught:
        OpenVINOEngine(line(name), name="net")
    assert "onnxruntime" in str(caught.value.fix)


def test_float32_stays_float32_on_one_thread() -> None:
    """Its default on a CPU with bf16 instructions is bf16."""
    with OpenVINOEngine(chain(3, 64)) as engine:
        said = {key: engine._model.get_property(key) for key in ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS")}
        assert said["INFERENCE_PRECISION_HINT"].to_dtype() == np.float32
        assert said["INFERENCE_NUM_THREADS"] == 1
        x = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
        got = engine({"x": x})["h3"]
    with mmedge.load_engine(chain(3, 64), backend="onnxruntime") as other:
        want = other({"x": x})["h3"]
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_inputs_that_come_back_aliases_and_open_dimensions() -> None:
    nodes = [NODE("Relu", ["x"], ["a"]), NODE("Identity", ["a"], ["b"])]
    floats = (FLOAT, ["batch", 3])
    ends = {"a": floats, "b": floats, "u": (INT64, [2])}
    model = network(nodes, {"x": floats, "u": (INT64, [2])}, ends).SerializeToString()
    x, u = np.array([[-1, 2, 3]], np.float32), np.array([5, 1 << 40])
    with mmedge.load_engine(model, backend="openvino") as engine:
        got = engine({"x": x, "u": u})
    assert got["a"].tolist() == got["b"].tolist() == [[0, 2, 3]]
    assert got["u"].tolist() == u.tolist()
    with pytest.raises(ConfigError, match="height"):
        mmedge.load_engine(line("float32", ["batch", "height"]), backend="openvino")


def test_an_output_whose_size_hangs_on_the_data() -> None:
    nodes = [NODE("NonZero", ["x"], ["y"])]
    model = network(nodes, {"x": [1, 4]}, {"y": (INT64, [2, "n"])}).SerializeToString()
    with OpenVINOEngine(model, constants={"x": 1}) as engine:
        assert engine.outputs["y"].shape == (2, 4)
        assert engine({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[0] * 4, [0, 1, 2, 3]]
        with pytest.raises(EngineError, match=r"output 'y' changed its shape from \[2, 4\] to \[2, 1\]"):
            engine({"x": np.array([[0, 0, 1, 0]], np.float32)})


@pytest.mark.parametrize("raw", [b"", b"abc", line("float32")[:60], b"<?xml version='1.0'?><net></net>"])
def test_what_is_no_onnx_file_is_refused(raw: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        OpenVINOEngine(raw, name="net")
    assert caught.value.where == "net"
    assert caught.value.fix


def test_a_loop_is_refused_since_nothing_could_end_it() -> None:
    ends = [helper.make_tensor_value_info(n, k, s) for n, k, s in (("d", TensorProto.BOOL, []), ("w", FLOAT, [1, 2]))]
    starts = [
        helper.make_tensor_value_info(n, k, s)
        for n, k, s in (("i", INT64, []), ("c", TensorProto.BOOL, []), ("v", FLOAT, [1, 2]))
    ]
    body = helper.make_graph([NODE("Identity", ["c"], ["d"]), NODE("Tanh", ["v"], ["w"])], "body", starts, ends)
    nodes = [NODE("Loop", ["n", "", "x"], ["y"], body=body)]
    model = network(nodes, {"x": [1, 2], "n": (INT64, [])}, {"y": [1, 2]})
    with pytest.raises(EngineError, match="has a loop"):
        OpenVINOEngine(model.SerializeToString())


def test_a_run_that_takes_too_long_is_ended_and_the_next_is_not() -> None:
    with OpenVINOEngine(chain(600, 384), name="net") as engine:
        engine.inputs["x"][...] = np.eye(384)
        engine.limit(100)
        before = time.monotonic()
        with pytest.raises(EngineError, match="did not finish within 100 ms and was ended"):
            engine.run()
        ended_s = time.monotonic() - before
        engine.limit(1e6)
        before = time.monotonic()
        engine.run()
        assert time.monotonic() - before > ended_s
        assert np.isfinite(engine.outputs["h600"]).all()


def test_every_stage_of_a_bundle_passes_its_self_test_on_it() -> None:
    with mmedge.load(DIGITS) as bundle:
        graph = load_graph(bundle, backend="openvino")
        assert {what.split()[0] for what in graph.served.values()} == {"openvino"}
        graph.close()


def test_a_network_of_a_stranger_is_tried_in_a_child_first(tmp_path: Path, own_cache: Path) -> None:
    """One that asks for more memory than a trial has ends the trial alone."""
    nodes = [
        NODE("ReduceMax", ["x"], ["m"], keepdims=0),
        NODE("Add", ["m", "one"], ["o"]),
        NODE("Expand", ["o", "huge"], ["h"]),
        NODE("CumSum", ["h", "axis"], ["c"]),
        NODE("ReduceMax", ["c"], ["r"], keepdims=0),
        NODE("Mul", ["x", "r"], ["y"]),
    ]
    sizes = {"huge": np.array([1 << 32], np.int64), "axis": np.array(0, np.int64), "one": np.array(1, np.float32)}
    raw = network(nodes, {"x": [1, 2]}, {"y": [1, 2]}, **sizes).SerializeToString()
    with (
        mmedge.load(with_network(tmp_path / "big.mmedge", raw)) as bundle,
        pytest.raises(EngineError, match="memory") as e,
    ):
        load_graph(bundle, backend="openvino")
    assert e.value.fix == "use backend 'onnxruntime'"
    assert threading.active_count() < 20


def test_importing_it_reports_nothing(tmp_path: Path) -> None:
    code = "import sys, mmedge.engine.openvino_library as m; m.core(); print(sys.modules['openvino_telemetry'])"
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
    assert not list(tmp_path.iterdir())
