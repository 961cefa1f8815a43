"""ONNX Runtime's providers for NVIDIA GPUs: whether one can run is asked before a network is given to it.

ONNX Runtime itself computes on the CPU, with a line on stderr, where a provider cannot be loaded or does not take an
operator. Here both are errors.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from functools import cache
from typing import Any, NamedTuple

from mmedge.engine.cuda import gpu_info, gpu_problem
from mmedge.errors import DeviceError, MissingDependencyError, MmedgeError
from mmedge.extras import is_installed, require
from mmedge.types import Precision


class Provider(NamedTuple):
    """One provider.

    Attributes:
        name: As ONNX Runtime calls it.
        options: For it.
        plugin: Module that brings its library; None where ONNX Runtime itself does.
        install: The line that installs it.
        precisions: Those of TensorRT's files that it computes as they are written, best first.
    """

    name: str
    options: dict[str, str]
    plugin: str | None
    install: str
    precisions: tuple[Precision, ...]


PROVIDERS = {
    "onnxruntime-cuda": Provider(
        *("CUDAExecutionProvider", {"use_tf32": "0"}, None),  # float32 is float32
        "pip uninstall -y onnxruntime && pip install 'mmedge[ort-cuda]'",
        ("fp16", "fp32"),  # INT8 it would compute in float, with conversions in between
    ),
    "onnxruntime-rtx": Provider(
        *("NvTensorRTRTXExecutionProvider", {}, "onnxruntime_ep_nv_tensorrt_rtx"),
        "pip install 'mmedge[ort-rtx]'",
        ("int8", "fp16", "fp32"),
    ),
}
_PURPOSE = "running networks on a GPU"


def provider_problem(backend: str) -> MmedgeError | None:
    """Return the error of a provider that cannot run here, None where it can.

    Args:
        backend: A key of ``PROVIDERS``.

    Example:
        >>> provider_problem("onnxruntime-rtx") is None or len(provider_problem("onnxruntime-rtx").fix) > 0
        True
    """
    provider = PROVIDERS[backend]
    missing = next((m for m in ("onnxruntime", provider.plugin) if m is not None and not is_installed(m)), None)
    if missing is not None:
        return MissingDependencyError(
            f"{_PURPOSE} needs '{missing}', which is not installed", where=backend, fix=provider.install
        )
    ort = require("onnxruntime", _PURPOSE)
    if provider.plugin is None and provider.name not in ort.get_available_providers():
        return MissingDependencyError(
            f"this ONNX Runtime has no {provider.name}, only {', '.join(ort.get_available_providers())}",
            where=backend,
            fix=provider.install,
        )
    if (problem := gpu_problem()) is not None:
        return DeviceError(
            f"{provider.name} cannot run here: {problem}", where=backend, fix="use backend 'onnxruntime'"
        )
    if provider.plugin is None:
        return None
    if (text := _register(provider.name, provider.plugin)) is not None:
        return DeviceError(
            f"{provider.name} cannot be loaded: {text}", where=backend, fix=f"reinstall it: {provider.install}"
        )
    if not _devices(provider):
        return DeviceError(
            f"{provider.name} takes none of the devices here: {_reasons(provider)}",
            where=backend,
            fix="use backend 'onnxruntime', or update the driver",
        )
    return None


@cache
def _register(name: str, plugin: str) -> str | None:
    """Give ONNX Runtime the library of a provider, once in a process; return why that fails, None if it does not."""
    try:
        library = require(plugin, _PURPOSE).get_library_path()
        require("onnxruntime", _PURPOSE).register_execution_provider_library(name, library)
    except Exception as error:  # onnxruntime raises one private class per status code
        return str(error)
    return None


def give_provider(backend: str, options: Any) -> list[Any]:
    """Give a session's options what a provider needs, and return the providers of the session.

    Raises:
        MmedgeError: If it cannot run here.
    """
    if (problem := provider_problem(backend)) is not None:
        raise problem
    provider = PROVIDERS[backend]
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider.plugin is not None:
        options.add_provider_for_devices(_devices(provider)[:1], provider.options)
        return []
    ort = require("onnxruntime", _PURPOSE)
    if is_installed("nvidia") and hasattr(ort, "preload_dlls"):  # CUDA's libraries out of packages of Python
        with redirect_stdout(sys.stderr):
            ort.preload_dlls(directory="")
    return [(provider.name, provider.options)]


def provider_version(backend: str) -> str:
    """Return the versions of ONNX Runtime and the provider, and the GPU: whatever the time of a run depends on."""
    ort, provider, gpu = require("onnxruntime", _PURPOSE), PROVIDERS[backend], gpu_info()
    plugin = "" if provider.plugin is None else getattr(require(provider.plugin, _PURPOSE), "__version__", "")
    return " ".join(filter(None, (ort.__version__, plugin, f"on {gpu.name}, CUDA {gpu.cuda}")))


def usable_providers() -> tuple[str, ...]:
    """Return the backends of ``PROVIDERS`` that can run here."""
    if gpu_problem() is not None:  # nothing is imported to find out more
        return ()
    return tuple(backend for backend in PROVIDERS if provider_problem(backend) is None)


def _devices(provider: Provider) -> list[Any]:
    devices = require("onnxruntime", _PURPOSE).get_ep_devices()
    return [device for device in devices if device.ep_name == provider.name]


def _reasons(provider: Provider) -> str:
    """Say what the provider has against each GPU, where this ONNX Runtime can ask it (from 1.24 on)."""
    state = require("onnxruntime.capi._pybind_state", _PURPOSE)
    ask = getattr(state, "get_hardware_device_ep_incompatibility_details", None)
    if ask is None:
        return "it does not say why"
    found = [
        f"{device.vendor}: {details['notes'] or hex(details['reasons_bitmask'])}"
        for device in state.get_hardware_devices()
        if device.type.name == "GPU" and (details := ask(provider.name, device))["reasons_bitmask"]
    ]
    return "; ".join(found) or "it does not say why"
