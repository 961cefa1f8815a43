"""Engines that really run: build for this GPU, load, compare with ONNX Runtime, free."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from mmedge.engine.build_parent import build_engine
from mmedge.engine.cache import EngineCache
from mmedge.engine.compile import compile_variant
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.tensorrt import TensorRTEngine
from mmedge.engine.tensorrt_loader import tensorrt_choice
from mmedge.errors import EngineError

PROBLEM = gpu_problem() or ("TensorRT is not installed" if tensorrt_choice() is None else None)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]


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
    from cuda.bindings import runtime as cuda

    free = []
    for _ in range(12):
        TensorRTEngine(plan).close()
        gc.collect()
        free.append(cuda.cudaMemGetInfo()[1])
    assert free[3] - free[-1] < 8 << 20


def test_a_plan_that_is_none(plan: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        TensorRTEngine(plan[: len(plan) // 2], name="half")
    assert caught.value.where == "half"
    assert "mmedge compile" in str(caught.value.fix)


def test_compiled_once_for_this_gpu(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    first = compile_variant(network(), "0" * 64, "net", "int8", cache=cache)
    assert (first.cached, first.runnable) == (False, True)
    assert compile_variant(network(), "0" * 64, "net", "int8", cache=cache).cached
    TensorRTEngine(first.plan_path.read_bytes()).close()
