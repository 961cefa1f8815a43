"""ONNX Runtime's providers for GPUs: one that cannot run is refused before anything is loaded, never replaced."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnxruntime as ort
import pytest

import mmedge
from mmedge.cli import run
from mmedge.engine import ort_providers
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.ort_providers import PROVIDERS, provider_problem
from mmedge.errors import DeviceError, EngineError, MissingDependencyError, MmedgeError
from mmedge.extras import is_installed
from mmedge.fusion import load_graph
from mmedge.fusion.choice import candidates, measured_forms
from mmedge.fusion.evidence import evidence_of
from tests.networks import NODE, network

DIGITS = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"
CUDA, RTX = PROVIDERS
without_gpu = pytest.mark.skipif(ort_providers.gpu_problem() is None, reason="a GPU is here")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_an_onnx_runtime_without_the_provider_says_what_to_install() -> None:
    error = provider_problem(CUDA)
    assert isinstance(error, MissingDependencyError)
    assert "has no CUDAExecutionProvider, only" in error.message
    assert "mmedge[ort-cuda]" in str(error.fix)


@pytest.mark.skipif(is_installed("onnxruntime_ep_nv_tensorrt_rtx"), reason="the plugin is installed")
def test_a_plugin_that_is_missing_says_what_to_install() -> None:
    error = provider_problem(RTX)
    assert isinstance(error, MissingDependencyError)
    assert error.fix == "pip install 'mmedge[ort-rtx]'"


@without_gpu
@pytest.mark.parametrize("backend", PROVIDERS)
def test_who_asks_for_one_is_refused_and_gets_no_cpu_instead(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = network([NODE("Relu", ["x"], ["y"])], {"x": [1, 2]}, {"y": [1, 2]}).SerializeToString()
    with pytest.raises(MmedgeError) as caught:
        mmedge.load_engine(model, backend=backend)
    assert caught.value.where == backend
    with mmedge.load(DIGITS) as bundle, pytest.raises(MmedgeError) as other:
        load_graph(bundle, backend=backend)
    assert other.value.where == backend
    assert run(["bench", str(DIGITS), "--backend", backend, "--duration", "1"]) == 3
    assert "fix:" in capfd.readouterr().err


@without_gpu
def test_a_provider_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    error = provider_problem(CUDA)
    assert isinstance(error, DeviceError)
    assert error.fix == "use backend 'onnxruntime'"


@without_gpu
def test_a_provider_that_fails_to_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself would compute on the CPU, with a line on stderr."""
    monkeypatch.setattr(ort_providers, "provider_problem", lambda backend: None)
    model = network([NODE("Relu", ["x"], ["y"])], {"x": [1, 2]}, {"y": [1, 2]}).SerializeToString()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(EngineError, match="fallback to CPU EP has been explicitly disabled"):
            OnnxRuntimeEngine(model, backend=CUDA)


def test_which_files_run_on_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmedge.fusion.choice.provider_problem", lambda backend: None)
    monkeypatch.setattr("mmedge.fusion.choice.usable_providers", lambda: (CUDA, RTX))
    monkeypatch.setattr("mmedge.fusion.choice.installed_backends", lambda: ("onnxruntime",))
    with mmedge.load(DIGITS) as bundle:
        cuda, rtx = (candidates(bundle, "image_encoder", backend, None) for backend in (CUDA, RTX))
        assert [(b, v.target, v.precision) for b, v in cuda] == [(CUDA, "tensorrt", "fp32")]
        assert [(b, v.precision) for b, v in rtx] == [(RTX, "int8"), (RTX, "fp32")]
        # A stage without files for TensorRT has one for CPUs; what ONNX Runtime takes on the CPU comes first.
        monkeypatch.setattr(bundle, "variants", lambda s, t, all=bundle.variants: all(s, t) if t == "cpu" else ())
        forms = [(b, v.target, v.precision) for b, v in measured_forms(bundle, "image_encoder")]
    cpu = [("onnxruntime", "cpu", "fp32"), ("onnxruntime", "cpu", "int8")]
    assert forms == [*cpu, (CUDA, "cpu", "fp32"), (RTX, "cpu", "fp32")]


def test_what_ran_on_a_gpu_is_called_so() -> None:
    assert evidence_of(["onnxruntime-cuda", "callable"]) in ("gpu", "jetson")
    assert evidence_of(["onnxruntime-cuda", "onnxruntime"]) == "cpu"
