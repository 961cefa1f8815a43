"""From facts to verdicts: each check says ok, warn or fail, and how to fix it."""

from __future__ import annotations

import ctypes.util
from importlib import metadata

import msgspec

from mmedge.doctor.machine_checks import cameras_check, machine_checks, python_check, tensorrt_check
from mmedge.doctor.report import Check, DoctorReport

_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_ORT = ("onnxruntime", "onnxruntime-gpu")
_MIN_MEMORY_BYTES = 2 << 30


def run_checks(report: DoctorReport) -> DoctorReport:
    """Return the report with its checks filled in."""
    checks = [
        python_check(report.python, report.machine.board),
        _native(report),
        _gpu(report),
        tensorrt_check(report.machine, report.tensorrt, report.gpu),
        _backend(report),
        _opencv(report),
        _media(report),
        _microphone(report),
        cameras_check(report.machine),
        _export(report),
        _cache(report),
        _resources(report),
        *machine_checks(report.machine, gpu=report.gpu, cache_writable=report.cache.writable),
    ]
    return msgspec.structs.replace(report, checks=tuple(checks))


def _native(report: DoctorReport) -> Check:
    if report.native_problem is not None:
        return Check(
            name="native core", status="fail", detail=report.native_problem, fix="pip install -e . (in a checkout)"
        )
    return Check(name="native core", status="ok", detail=f"mmedge {report.mmedge}")


def _gpu(report: DoctorReport) -> Check:
    gpu = report.gpu
    if gpu.usable:
        memory = f"{(gpu.memory_bytes or 0) / 2**30:.0f} GiB{' shared' if gpu.integrated else ''}"
        return Check(name="gpu", status="ok", detail=f"{gpu.name}, {gpu.compute_capability}, {memory}, CUDA {gpu.cuda}")
    if gpu.driver is None and report.platform.l4t is None:
        return Check(name="gpu", status="warn", detail=f"{gpu.problem}: networks run on the CPU")
    # The driver is there, so the way to it is broken.
    fix = "reboot after an update of the driver; let this user open /dev/nvidia* (Jetson: the group `video`)"
    return Check(name="gpu", status="fail", detail=gpu.problem or "not usable", fix=fix)


def _backend(report: DoctorReport) -> Check:
    ort = report.packages["onnxruntime"]
    other = report.packages["openvino"]
    owners = _owners(_ORT)
    if len(owners) > 1:  # both write the same folder `onnxruntime`: whichever came last wins
        fix = f"pip uninstall -y {' '.join(_ORT)} && {ort.install} (or 'mmedge[ort-cuda]' for an NVIDIA GPU)"
        detail = f"several packages own `onnxruntime`: {', '.join(owners)}"
        return Check(name="cpu backend", status="warn", detail=detail, fix=fix)
    if ort.installed:
        found = f"onnxruntime {ort.version or '(version unknown)'}"
        found += f", openvino {other.version or '(version unknown)'}" if other.installed else ""
        return Check(name="cpu backend", status="ok", detail=found)
    if report.gpu.usable and report.tensorrt.module is not None:
        return Check(name="cpu backend", status="warn", detail="onnxruntime is missing: no fallback", fix=ort.install)
    return Check(name="cpu backend", status="fail", detail="nothing here can run a network", fix=ort.install)


def _owners(names: tuple[str, ...]) -> list[str]:
    """Return those of some distributions that are installed, with their versions."""
    owners = []
    for name in names:
        try:
            owners.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue  # not installed
    return owners


def _opencv(report: DoctorReport) -> Check:
    owners = _owners(_OPENCV)
    if len(owners) > 1:
        # Both write the same folder `cv2`: whichever came last wins, and removing one breaks the other.
        return Check(
            name="opencv",
            status="warn",
            detail=f"several packages own `cv2`: {', '.join(owners)}",
            fix=f"pip uninstall -y {' '.join(_OPENCV)} && pip install 'mmedge[capture]'",
        )
    package = report.packages["cv2"]
    if not package.installed:
        return Check(name="opencv", status="warn", detail="missing: no V4L2 cameras", fix=package.install)
    return Check(name="opencv", status="ok", detail=owners[0] if owners else "installed by the system")


def _media(report: DoctorReport) -> Check:
    av, gst, jetson = report.packages["av"], report.commands["gst-launch-1.0"], report.platform.l4t is not None
    if not av.installed:
        return Check(name="media", status="warn", detail="PyAV is missing: no files or streams", fix=av.install)
    if jetson and gst is None:
        fix = "apt-get install gstreamer1.0-tools nvidia-l4t-gstreamer"
        return Check(name="media", status="warn", detail="gst-launch-1.0 is missing: no csi:// cameras", fix=fix)
    gst_text = "not installed (only csi:// and gst: need it)" if gst is None else gst or "version unknown"
    return Check(name="media", status="ok", detail=f"PyAV {av.version}; GStreamer {gst_text}")


def _microphone(report: DoctorReport) -> Check:
    package = report.packages["sounddevice"]
    if not package.installed:
        return Check(name="microphone", status="warn", detail="sounddevice is missing", fix=package.install)
    if ctypes.util.find_library("portaudio") is None:
        fix = "apt-get install libportaudio2"
        return Check(name="microphone", status="warn", detail="the PortAudio library is missing", fix=fix)
    return Check(name="microphone", status="ok", detail=f"sounddevice {package.version}, PortAudio")


def _export(report: DoctorReport) -> Check:
    tools = ("torch", "onnx", "onnxscript", "safetensors", "lightning", "matplotlib")
    missing = [name for name in tools if not report.packages[name].installed]
    if not missing:
        return Check(name="export tools", status="ok", detail=f"torch {report.packages['torch'].version}")
    detail = f"not installed: {', '.join(missing)}; bundles run without them"
    return Check(name="export tools", status="ok", detail=detail, fix=report.packages[missing[0]].install)


def _cache(report: DoctorReport) -> Check:
    cache = report.cache
    if cache.problem is not None:
        fix = "make the folder writable, or set MMEDGE_CACHE to one that is"
        return Check(name="engine cache", status="fail", detail=f"{cache.folder}: {cache.problem}", fix=fix)
    detail = f"{cache.folder}: {cache.engines} engines, {cache.bytes / 1e6:.1f} MB"
    return Check(name="engine cache", status="ok", detail=detail)


def _resources(report: DoctorReport) -> Check:
    host = report.platform
    detail = f"{host.cores} cores, {host.memory_bytes / 2**30:.1f} GiB"
    if host.cores < 2 or host.memory_bytes < _MIN_MEMORY_BYTES:
        fix = "close other programs; capture and inference need 2 cores and 2 GiB"
        return Check(name="resources", status="warn", detail=detail, fix=fix)
    return Check(name="resources", status="ok", detail=detail)
