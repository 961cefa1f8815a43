"""Which TensorRT is taken, and what is said when there is none."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from mmedge.engine.cuda import Gpu, gpu_available, gpu_info, gpu_problem
from mmedge.engine.tensorrt import TensorRTEngine
from mmedge.engine.tensorrt_loader import MODULES, TensorRT, load_tensorrt, tensorrt_choice
from mmedge.errors import ConfigError, DeviceError, MissingDependencyError

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="pip install 'mmedge[tensorrt-rtx]'")
no_gpu = pytest.mark.skipif(gpu_available(), reason="this machine has a GPU")


def test_choice_prefers_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_TENSORRT", "tensorrt")
    assert tensorrt_choice() == "tensorrt"
    assert tensorrt_choice("tensorrt_rtx") == "tensorrt_rtx"
    monkeypatch.setenv("MMEDGE_TENSORRT", "")
    assert tensorrt_choice() in {*MODULES, None}


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDGE_TENSORRT", "tensorflow")
    with pytest.raises(ConfigError, match="tensorflow") as caught:
        load_tensorrt()
    assert caught.value.where == "MMEDGE_TENSORRT"
    assert "tensorrt_rtx" in str(caught.value.fix)


def test_a_forced_module_that_is_missing() -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed here")
    with pytest.raises(MissingDependencyError) as caught:
        load_tensorrt("tensorrt")
    assert caught.value.fix == "pip install 'mmedge[tensorrt]'"


@needs_rtx
def test_capabilities_of_rtx() -> None:
    rtx = load_tensorrt("tensorrt_rtx")
    assert rtx.ahead_of_time
    assert not rtx.weak_fallback
    assert {"strongly_typed_flag", "runtime_config", "cuda_graph_strategy"} <= rtx.caps
    assert "weak_typing" not in rtx.caps
    assert "SM86" in rtx.compute_capabilities()
    assert load_tensorrt("tensorrt_rtx") is rtx


@pytest.mark.parametrize(
    ("caps", "weak"),
    [
        ({"strongly_typed_flag", "weak_typing"}, True),  # 10.3
        ({"strongly_typed_flag", "weak_typing", "runtime_config"}, False),  # 10.13, 10.16
        ({"strongly_typed_flag", "runtime_config"}, False),  # 11
    ],
)
def test_weak_typing_is_a_fallback_of_old_versions_only(caps: set[str], weak: bool) -> None:
    trt = TensorRT(module=None, name="tensorrt", version="?", caps=frozenset(caps))
    assert trt.weak_fallback is weak
    assert trt.compute_capabilities() == ()


@no_gpu
def test_without_a_gpu_the_reason_is_given() -> None:
    assert gpu_problem()
    with pytest.raises(DeviceError, match="no usable GPU"):
        gpu_info()
    with pytest.raises(DeviceError, match="no usable GPU"):
        TensorRTEngine(b"plan")


def test_what_identifies_a_gpu_has_no_serial() -> None:
    assert set(Gpu.__slots__) == {"name", "compute_capability", "memory_bytes", "integrated", "cuda"}
