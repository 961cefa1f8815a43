"""Optional packages, imported on first use with the exact line that installs them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from mmedge.errors import MissingDependencyError
from mmedge.lazy import collector_paused

# Import name -> (distribution, extra of mmedge that brings it).
_EXTRA = {
    "av": ("av", "capture"),
    "cv2": ("opencv-python-headless", "capture"),
    "sounddevice": ("sounddevice", "capture"),
    "soxr": ("soxr", "capture"),
    "onnxruntime": ("onnxruntime", "cpu"),
    "openvino": ("openvino", "openvino"),
    "onnxruntime_ep_nv_tensorrt_rtx": ("onnxruntime-ep-nv-tensorrt-rtx", "ort-rtx"),
    "tokenizers": ("tokenizers", "text"),
    "paho.mqtt.client": ("paho-mqtt", "mqtt"),
    "prometheus_client": ("prometheus-client", "metrics"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx"),
    "torch": ("torch", "export"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "safetensors": ("safetensors", "export"),
    "lightning": ("lightning", "export"),
    "matplotlib": ("matplotlib", "export"),
    "starlette": ("starlette", "web"),
    "uvicorn": ("uvicorn", "web"),
    "websockets": ("websockets", "web"),
    "mlxtend": ("mlxtend", "recipes"),
    "supervision": ("supervision", "supervision"),
    "skimage": ("scikit-image", "recipes"),
}


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module or say how to install it.

    Args:
        module: Import name, for example ``"av"``.
        purpose: What needs it, for the message: ``"reading media files"``.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If the module is not installed.

    Example:
        >>> require("json", "an example").__name__
        'json'
    """
    try:
        with collector_paused():
            return import_module(module)
    except ModuleNotFoundError as error:
        # A dependency missing inside an installed package is that package's error, not ours.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise _missing(module, purpose) from error
    except OSError as error:
        # sounddevice raises OSError when the PortAudio library itself is missing.
        fix = "apt-get install libportaudio2" if module == "sounddevice" else f"reinstall '{module}'"
        raise MissingDependencyError(
            f"{purpose} needs '{module}', whose shared library cannot be loaded: {error}",
            where=f"import {module}",
            fix=fix,
        ) from error


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # this process has ruled it out
        return False


def missing_package(error: ModuleNotFoundError) -> MissingDependencyError | None:
    """Return the error that ``require`` would have raised, None if the module is none of the optional ones."""
    module = next((m for m in _EXTRA if m.partition(".")[0] == (error.name or "").partition(".")[0]), None)
    return None if module is None else _missing(module, "this command")


def _missing(module: str, purpose: str) -> MissingDependencyError:
    distribution, extra = _EXTRA.get(module, (module, "all"))
    return MissingDependencyError(
        f"{purpose} needs the package '{distribution}', which is not installed",
        where=f"import {module}",
        fix=f"pip install 'mmedge[{extra}]'",
    )


def demo_data(name: str) -> Path:
    """Return a folder or file of the demos' data, which the distribution ``mmedge-demo`` brings.

    Args:
        name: Below ``mmedge/assets``: ``"digits"``.

    Raises:
        MissingDependencyError: If it is not installed.

    Example:
        >>> demo_data("digits").name
        'digits'
    """
    path = Path(__file__).parent / "assets" / name
    if not path.exists():
        raise MissingDependencyError(
            "the demo's data are not installed", where=f"mmedge/assets/{name}", fix="pip install 'mmedge[demo]'"
        )
    return path
