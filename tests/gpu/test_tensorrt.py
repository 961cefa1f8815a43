"""Engines that really run: build for this GPU, load, compare with ONNX Runtime, free."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge._native import core
from mmedge.cli import run
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import build_engine
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_variant
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.network import read_network
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.reach import EngineOptions, check_dla, plan_origin
from mmedge.engine.tensorrt import TensorRTEngine
from mmedge.engine.tensorrt_loader import PlanError, load_tensorrt, tensorrt_choice
from mmedge.errors import EngineError

PROBLEM = gpu_problem() or ("TensorRT is not installed" if tensorrt_choice() is None else None)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]


Record = Callable[[str, object], None]  # figures that stand in the report: pytest -m gpu --junit-xml=gpu.xml


def network() -> bytes:
    """Raw uint8 frame -> INT8 convolution -> mean per channel; a second input is added."""
    onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 20]>
        g (uint8[1, 32, 32, 4] x, float[1, 16] offset) => (float[1, 16] y)
        <float s = {0.02}, int8 z = {0}, float k = {0.00392156}> {
            f = Cast<to = 1>(x)
            p = Transpose<perm = [0, 3, 1, 2]>(f)
            a = Mul(p, k)
            aq = QuantizeLinear(a, s, z)
            ad = DequantizeLinear(aq, s, z)
            wq = QuantizeLinear(w, s, z)
            wd = DequantizeLinear(wq, s, z)
            c = Conv<pads = [1, 1, 1, 1]>(ad, wd)
            r = Relu(c)
            m = GlobalAveragePool(r)
            h = Flatten(m)
            y = Add(h, offset)
        }"""
    )
    weights = (np.random.default_rng(0).standard_normal((16, 4, 3, 3)) * 0.3).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    log = tmp_path_factory.mktemp("build") / "log"
    built = build_engine(network(), name="net", precision="int8", log_path=log)
    assert built.int8_coverage == 1.0
    return built.plan


def sample(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "x": random.integers(0, 256, (1, 32, 32, 4), np.uint8),
        "offset": random.standard_normal((1, 16)).astype(np.float32),
    }


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_it_computes_what_onnxruntime_computes(plan: bytes, cuda_graph: bool) -> None:
    with OnnxRuntimeEngine(network()) as reference, TensorRTEngine(plan, cuda_graph=cuda_graph) as engine:
        assert engine.graph in (("captured", "by TensorRT") if cuda_graph else ("not asked for",))
        for seed in range(5):
            want, got = reference(sample(seed))["y"], engine(sample(seed))["y"]
            np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())


def test_inputs_and_outputs_are_written_in_place(plan: bytes) -> None:
    with TensorRTEngine(plan) as engine:
        seen = []
        where = {name: value.ctypes.data for name, value in {**engine.inputs, **engine.outputs}.items()}
        for seed in range(3):
            for name, value in sample(seed).items():
                engine.inputs[name][...] = value
            engine.run()
            seen.append(engine.outputs["y"].copy())
        assert not np.array_equal(seen[0], seen[1])
        assert where == {name: value.ctypes.data for name, value in {**engine.inputs, **engine.outputs}.items()}


def test_a_view_outlives_the_engine(plan: bytes) -> None:
    engine = TensorRTEngine(plan)
    engine(sample(0))
    view, want = engine.outputs["y"], engine.outputs["y"].copy()
    engine.close()
    engine.close()
    gc.collect()
    np.testing.assert_array_equal(view, want)
    with pytest.raises(EngineError, match="closed"):
        engine.run()


def test_memory_comes_back(plan: bytes) -> None:
    device, free = core.CudaDevice(), []
    for _ in range(12):
        TensorRTEngine(plan).close()
        gc.collect()
        free.append(device.free_bytes)
    assert free[3] - free[-1] < 8 << 20  # bytes


def test_a_plan_that_is_none(plan: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        TensorRTEngine(plan[: len(plan) // 2], name="half")
    assert caught.value.where == "half"
    assert "mmedge compile" in str(caught.value.fix)


def test_compiled_once_for_this_gpu(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    first = compile_variant(network(), "0" * 64, "net", "int8", cache=cache, limits=BuildLimits(timeout_s=600))
    assert (first.cached, first.runnable) == (False, True)
    assert compile_variant(network(), "0" * 64, "net", "int8", cache=cache).cached
    TensorRTEngine(first.plan_path.read_bytes()).close()


def digits() -> Path:
    return Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"


def compiled(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert run(["compile", str(digits()), "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["engines"]
    return found


def test_every_engine_of_a_bundle_passes_its_golden_test_and_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], record_property: Record
) -> None:
    """The figures that a device gives: latency by precision, with its evidence."""
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path))
    rows = compiled(capfd)
    for row in rows:
        assert row["error"] is None
        assert row["run_ms"] > 0
        assert row["evidence"] in ("gpu", "jetson")
        record_property(f"{row['stage']} {row['precision']} ms", row["run_ms"])
    for stage in {row["stage"] for row in rows}:
        own = [row for row in rows if row["stage"] == stage]
        assert [row["serves"] for row in own].count(True) == 1
        assert min(own, key=lambda row: row["run_ms"])["serves"]  # int8 against the others, timed
    assert all(row["cached"] for row in compiled(capfd))


def test_a_run_starts_on_the_cpu_and_goes_over_to_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path))
    clip = str(digits().parent / "clips" / "clean.mp4")
    labels: dict[str, list[str | None]] = {}
    for engines in ("now", "wait"):
        with mmedge.Pipeline(digits(), {"image": clip, "audio": clip}, isolation="thread", engines=engines) as pipe:  # type: ignore[arg-type]
            labels[engines] = [result.tasks["digit"].label for result in pipe]
            swaps = list(pipe.statistics.swaps)
        assert bool(swaps) == (engines == "now")
        assert all(str(backend).startswith("tensorrt") for backend in pipe.statistics.backends.values())
    same = sum(a == b for a, b in zip(labels["now"], labels["wait"], strict=False))
    assert same >= 0.98 * min(map(len, labels.values()))  # the CPU's answers and the GPU's


def test_a_plan_in_the_cache_that_cannot_be_loaded_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its hash is the one that is written beside it: only loading it tells."""
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path))
    mmedge.load_engine(network(), "tensorrt").close()
    (sidecar,) = tmp_path.glob("*.json")
    junk = b"no plan" * 100
    sidecar.with_suffix(".plan").write_bytes(junk)
    told = json.loads(sidecar.read_bytes())
    told |= {"plan_sha256": hashlib.sha256(junk).hexdigest(), "plan_bytes": len(junk)}
    sidecar.write_text(json.dumps(told))
    mmedge.load_engine(network(), "tensorrt").close()
    assert "in the cache is wrong, building it again" in caplog.text


def test_open_dimensions_and_ranges_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path))
    onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> '
        "g (float[batch, 3, h, w] x) => (float[batch, 3, h, w] y) { y = Relu(x) }"
    ).SerializeToString()
    sizes = (1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32)
    given = np.random.default_rng(0).standard_normal(sizes[1]).astype(np.float32)
    for shape in (sizes[1], sizes):
        with mmedge.load_engine(model, backend="tensorrt", shapes={"x": shape}) as engine:
            assert engine.inputs["x"].shape == sizes[1]
            np.testing.assert_array_equal(engine({"x": given})["y"], np.maximum(given, 0))


def test_weights_beside_the_network_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "cache"))
    onnx = pytest.importorskip("onnx", reason="pip install 'mmedge[export]'")
    path = tmp_path / "net.onnx"
    onnx.save_model(
        onnx.load_from_string(network()),
        str(path),
        save_as_external_data=True,
        location="net.onnx.data",
        size_threshold=0,
    )
    assert read_network(path).weights
    with mmedge.load_engine(path, backend="tensorrt") as engine, OnnxRuntimeEngine(network()) as reference:
        want = reference(sample(0))["y"]
        np.testing.assert_allclose(engine(sample(0))["y"], want, atol=0.02 * np.abs(want).max())


def test_a_second_build_starts_from_what_the_first_has_timed(tmp_path: Path) -> None:
    if "timing_cache" not in load_tensorrt().caps:
        pytest.skip("tensorrt_rtx has no timing cache")
    timings = tmp_path / "timings"
    for _ in range(2):
        build_engine(network(), name="net", precision="int8", log_path=tmp_path / "log", timing_path=timings)
        assert timings.stat().st_size > 0
    timings.write_bytes(b"damaged")
    build_engine(network(), name="net", precision="int8", log_path=tmp_path / "log", timing_path=timings)


def test_latency_with_and_without_a_cuda_graph(plan: bytes, record_property: Record) -> None:
    for cuda_graph in (True, False):
        with TensorRTEngine(plan, cuda_graph=cuda_graph) as engine:
            times = []
            for _ in range(200):
                before = time.perf_counter_ns()
                engine.run()
                times.append(time.perf_counter_ns() - before)
            record_property(f"cuda graph {engine.graph}, us", sorted(times)[100] / 1000)
            assert engine.outputs["y"].any()


def test_an_engine_is_compared_with_its_network(plan: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes(network())
    (tmp_path / "net.plan").write_bytes(plan)
    assert run(["compare", str(tmp_path / "net.onnx"), str(tmp_path / "net.plan"), "--max-rel", "0.02", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["outputs"]["y"]["samples"] == 8


def test_what_a_plan_says_of_its_version_is_what_built_it(plan: bytes) -> None:
    trt = load_tensorrt()
    module, version = plan_origin(plan) or ("", "")
    assert (module, version.startswith(trt.version)) == (trt.name, True)
    with pytest.raises(PlanError, match="was built by"):
        TensorRTEngine(plan, version="8.0.0")


def test_an_engine_for_newer_versions_is_built_and_runs(tmp_path: Path) -> None:
    if load_tensorrt().name == "tensorrt_rtx":
        pytest.skip("TensorRT-RTX has none")
    options = EngineOptions(newer_versions=True)
    log = tmp_path / "log"
    built = build_engine(network(), name="net", precision="int8", log_path=log, engine=options)
    with OnnxRuntimeEngine(network()) as reference, TensorRTEngine(built.plan, options=options) as engine:
        want = reference(sample(0))["y"]
        np.testing.assert_allclose(engine(sample(0))["y"], want, atol=0.02 * np.abs(want).max())


def test_a_stage_on_multiprocessors_of_its_own_answers_the_same(plan: bytes, record_property: Record) -> None:
    with TensorRTEngine(plan) as alone:
        want = alone(sample(0))["y"]
    own, rest = EngineOptions(sms=8), EngineOptions(sms=8, reserved=False)
    with TensorRTEngine(plan, options=own) as first, TensorRTEngine(plan, options=rest) as second:
        record_property("reserved", first.share)
        record_property("the rest", second.share)
        for engine in (first, second, first):
            np.testing.assert_array_equal(engine(sample(0))["y"], want)


def test_a_dla_takes_a_stage_where_there_is_one(tmp_path: Path, record_property: Record) -> None:
    options = EngineOptions(dla_core=0)
    try:
        built = build_engine(network(), name="net", precision="int8", log_path=tmp_path / "log", engine=options)
    except EngineError as error:
        if "no DLA here" not in error.message:
            raise
        with pytest.raises(EngineError, match="AGX Orin"):
            check_dla(0, 0, "tensorrt")
        pytest.skip("this machine has no DLA")
    record_property("on the DLA", list(built.dla_layers))
    record_property("on the GPU", list(built.gpu_layers))
    assert built.dla_layers
