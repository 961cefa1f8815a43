"""A backend whose engines are built on the device and run anywhere: files that ONNX Runtime has optimised.

It stands behind the same door as TensorRT does, with the same cache, so that what a run does with builds that take
their time can be seen on a machine without a GPU.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from mmedge.bundle import Bundle, Variant, write_archive
from mmedge.bundle.manifest import Manifest
from mmedge.engine.base import Engine
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.build_parent import BuildResult
from mmedge.engine.cache import CacheEntry, EngineCache, EngineKey, Verdict
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.reach import EngineOptions
from mmedge.errors import EngineError
from mmedge.fusion.doors import Found, Progress
from tests import tiny
from tests.networks import network


class BuiltFile:
    def __init__(self, door: OrtDoor, key: EngineKey, entry: CacheEntry | None, made: BuildResult, name: str) -> None:
        self._door, self._key, self._made, self._name = door, key, made, name
        self.cached, self._there = entry is not None, entry is not None
        self.build, self.plan_bytes = made.report(), len(made.plan)

    def open(self) -> Engine:
        return OnnxRuntimeEngine(self._made.plan, name=self._name, as_written=True)

    def publish(self, verdict: Verdict | None) -> None:
        if not self._there:
            self._there = True
            self._door.cache.put(self._key, self._made, verdict)
        elif verdict is not None:
            self._door.cache.note(self._key, verdict)

    def refuse(self, verdict: Verdict) -> None:
        self._door.cache.refuse(self._key, self._made, verdict)

    def discard(self) -> None:
        self._door.cache.discard(self._key)


class OrtDoor:
    """Builds by letting ONNX Runtime optimise and save the network; ``build_s`` seconds long at least."""

    def __init__(self, folder: Path, build_s: float = 0.0, fails: str | None = None) -> None:
        self.cache, self.build_s, self.fails = EngineCache(folder), build_s, fails
        self.held = False  # each build waits while it is, for a minute at most
        self.builds: list[str] = []
        self.corrupt: bytes | None = None  # what its builder makes of every network

    def problem(self) -> str | None:
        return None

    def key(self, bundle: Bundle, variant: Variant) -> EngineKey:
        sha256 = bundle.manifest.files[variant.file].sha256
        return EngineKey(
            variant_sha256=sha256, module="onnxruntime", version=ort.__version__, compute_capability="CPU",
            device="none", memory_gib=0, cuda="none",
        )  # fmt: skip

    def find(self, bundle: Bundle, variant: Variant, options: EngineOptions | None = None) -> Found:
        sidecar = self.cache.peek(self.key(bundle, variant))
        if sidecar is None:
            return Found(built=False)
        return Found(built=not sidecar.is_refused, verdict=sidecar.verdict)

    def build(
        self,
        bundle: Bundle,
        variant: Variant,
        progress: Progress | None = None,
        limits: BuildLimits | None = None,
        options: EngineOptions | None = None,
    ) -> BuiltFile:
        key = self.key(bundle, variant)
        entry = self.cache.get(key)
        if entry is not None:
            return BuiltFile(self, key, entry, built(entry.plan_path.read_bytes()), variant.stage)
        self.builds.append(variant.file)
        stop = limits.stop if limits is not None and limits.stop is not None else threading.Event()
        give_up = time.monotonic() + 60
        while self.held and time.monotonic() < give_up and not stop.wait(0.01):
            pass
        if stop.wait(self.build_s):
            raise EngineError("the build was stopped", where=variant.file, fix="build it again")
        if self.fails is not None:
            raise EngineError(self.fails, where=variant.file, fix="none")
        return BuiltFile(self, key, None, built(optimised(self.corrupt or bundle.read(variant.file))), variant.stage)


def optimised(onnx: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/out.onnx"
        options.log_severity_level = 4
        ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        return Path(f"{folder}/out.onnx").read_bytes()


def built(plan: bytes) -> BuildResult:
    return BuildResult(
        plan=plan, module="onnxruntime", version=ort.__version__, compute_capability="CPU", typing="strong",
        seconds=0.1, layers=1, quantized_layers=0, int8_layers=0, int8_coverage=0.0, log_path="none",
    )  # fmt: skip


def raw_eye(scale: float = 255.0, frame: tuple[Any, ...] = (1, 8, 8, 1)) -> bytes:
    """The eye of the tiny bundle as TensorRT takes it: a raw frame, preprocessed inside."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "scale"], ["d"]),
        helper.make_node("Reshape", ["d", "flat"], ["r"]),
        helper.make_node("ReduceMean", ["r", "one"], ["y"]),
    ]
    model = network(
        nodes, {"x": (TensorProto.UINT8, list(frame))}, {"y": (TensorProto.FLOAT, [1, 1])},
        scale=np.float32(scale), flat=np.array([1, -1]), one=np.array([1]),
    )  # fmt: skip
    return bytes(model.SerializeToString())


def twin_bundle(
    path: Path,
    eye: bytes | None = None,
    cpu_eye: bytes | None = None,
    precisions: tuple[str, ...] = ("int8",),
    **changes: Any,
) -> Path:
    """Write the tiny bundle with TensorRT variants beside those of the CPU."""
    files = tiny.members()
    files["eye.onnx"] = cpu_eye or files["eye.onnx"]
    files["eye.trt.onnx"] = raw_eye() if eye is None else eye
    files["ear.trt.onnx"], files["join.trt.onnx"] = files["ear.onnx"] + b"", files["join.onnx"]
    for precision in precisions[1:]:  # as another file
        files[f"eye.{precision}.onnx"] = raw_eye(255.0 + 1e-5 * len(files))
    document = tiny.manifest(files, **changes)
    more = [
        {
            "stage": stage,
            "target": "tensorrt",
            "precision": precision,
            "file": f"{stage}.trt.onnx" if precision == precisions[0] else f"{stage}.{precision}.onnx",
            "golden": f"golden/{stage}.npz",
            "tolerance": {},
        }
        for stage in ("eye", "ear", "join")
        for precision in (precisions if stage == "eye" else precisions[:1])
    ]
    document["variants"] = [*document["variants"], *more]
    document["files"] = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in files.items()}
    return write_archive(path, msgspec.convert(document, Manifest), files)


def wait_for(what: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
