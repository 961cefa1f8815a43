"""Build a TensorRT engine in a child process: progress, timeout, log kept, a crash is an error."""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from mmedge.engine.build_errors import BuildStoppedError, OutOfMemoryError, UnsupportedNodesError, crash, failure, tail
from mmedge.engine.build_messages import (
    BuildLimits,
    BuildOptions,
    DoneMessage,
    FailedMessage,
    Message,
    ProgressMessage,
    Typing,
)
from mmedge.engine.builder_timings import keep_timings, read_timings
from mmedge.engine.cuda import gpu_info, gpu_problem
from mmedge.engine.low_precision import refuse_unused
from mmedge.engine.memory import available_bytes, resident_bytes
from mmedge.engine.reach import PLAIN, EngineOptions
from mmedge.engine.shapes import Given, check_ranges
from mmedge.engine.tensorrt_loader import PrecisionError, TensorRT, load_tensorrt
from mmedge.errors import ConfigError, DeviceError, EngineError, shortage
from mmedge.files import scratch
from mmedge.learn import learn

Progress: TypeAlias = Callable[[str, float], None]
_log = logging.getLogger(__name__)
_LEVELS = (None, 1, 0)  # of the builder's search, one after the other when memory runs out; None is its default
_SHARE = 0.75  # of the memory that is available, which a build may take
_LEAST_BYTES = 64 << 20  # that the machine keeps: below it the kernel ends programs of its own choice
_LEAST_SM = {"fp8": 89}  # Ada; TensorRT-RTX refuses what is older by name, too. INT4 weights run everywhere
_LOOK_S = 0.1  # between two looks at the memory of a build


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine was built.

    Attributes:
        module: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: Its full version.
        compute_capability: What it was built for: ``"SM87"``.
        typing: ``"weak"`` only where TensorRT 10.3 could not build the strongly typed network.
        seconds: Wall-clock time of the build.
        layers: Layers of the engine.
        quantized_layers: Convolutions and matrix products that the file asks to run in INT8.
        int8_layers: Those of them that do (FP8 and INT4 count as INT8 does, each in its own file).
        int8_coverage: Their share, 0.0 where the file asks for none.
        log_path: The builder's verbose log.
        int8_nodes: Names of those that run in INT8.
        float_nodes: Names of those that do not, though the file asks for it.
        boundaries: Layers between INT8 and float: each moves a tensor once more.
        optimization_level: How hard the builder searched, where memory ran out at its default.
        half_asked: Convolutions and matrix products that the file has on FP16 data.
        half_layers: Those of them that run so.
        options: Where it may run.
        dla_layers: What runs on the DLA, as the builder calls it.
        gpu_layers: What fell back to the GPU where a DLA was asked for.
    """

    module: str
    version: str
    compute_capability: str
    typing: Typing
    seconds: float
    layers: int
    quantized_layers: int
    int8_layers: int
    int8_coverage: float
    log_path: str
    int8_nodes: tuple[str, ...] = ()
    float_nodes: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    optimization_level: int | None = None
    half_asked: int = 0
    half_layers: int = 0
    options: EngineOptions = EngineOptions()
    dla_layers: tuple[str, ...] = ()
    gpu_layers: tuple[str, ...] = ()


class BuildResult(BuildReport, frozen=True, kw_only=True):
    """A built engine: the plan and how it came to be."""

    plan: bytes

    def report(self) -> BuildReport:
        """The same without the plan."""
        return msgspec.convert(self, learn(BuildReport), from_attributes=True)


def target_capability(trt: TensorRT, wanted: str | None = None, precision: str = "fp32") -> str:
    """Choose the compute capability to build for: as asked, the GPU's, else ahead of time.

    That is ``SM86``, or the first that has the precision.

    Args:
        trt: The module that builds.
        wanted: ``"SM89"``, or None.
        precision: What is to be built.

    Returns:
        Its name.

    Raises:
        DeviceError: If the module needs a GPU and there is none.
        PrecisionError: If the GPU does not have the precision.
        ConfigError: If the module cannot build for what was asked.
    """
    offered = trt.compute_capabilities()
    problem = gpu_problem()
    if not trt.ahead_of_time and problem is not None:
        raise DeviceError(
            f"{trt.name} {trt.version} needs a GPU to build engines: {problem}",
            fix="build on the device, or ahead of time with tensorrt_rtx: pip install 'mmedge[tensorrt-rtx]' "
            "and set MMEDGE_TENSORRT=tensorrt_rtx",
        )
    here = gpu_info().compute_capability if problem is None else None
    least = _LEAST_SM.get(precision, 0)
    able = [name for name in offered if int(name.removeprefix("SM")) >= least]
    target = wanted or here or ("SM86" if "SM86" in able else [*able, *offered][0])
    if int(target.removeprefix("SM")) < least:
        raise PrecisionError(
            f"{target} has no {precision.upper()}, which GPUs have from SM{least} on",
            where="compute_capability",
            fix="use another precision",
        )
    if target != here and target not in offered:
        raise ConfigError(
            f"{trt.name} {trt.version} cannot build for {target} here",
            where="compute_capability",
            fix=f"use one of {', '.join(offered)}" if offered else f"build on a device with {target}",
        )
    return target


def build_engine(
    onnx: bytes,
    *,
    name: str,
    precision: str,
    log_path: Path,
    path: Path | None = None,
    workspace_bytes: int | None = None,
    limits: BuildLimits | None = None,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
    module: str | None = None,
    compute_capability: str | None = None,
    shapes: Given | None = None,
    typing: Literal["auto", "strong", "weak"] = "auto",
    timing_path: Path | None = None,
    engine: EngineOptions = PLAIN,
) -> BuildResult:
    """Build a TensorRT engine from an ONNX file in a child process.

    Args:
        onnx: The serialised model.
        name: What to call it in messages.
        precision: As in ``mmedge.types.Precision``; says how the file was made, the types are in the file.
        log_path: Where the builder's verbose log goes; kept.
        path: The model's file, if its weights lie in others beside it.
        workspace_bytes: Scratch memory the builder may use; None leaves TensorRT's default, and on an
            integrated GPU takes a quarter of the memory that is available.
        limits: Time and memory that the child may take; a build that runs out of memory is tried again at a lower
            optimisation level.
        progress: Called with the phase and the share done, 0..1.
        sources: Node name -> source line, for the list of unsupported operators.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        compute_capability: What to build for; None is the GPU at hand, else SM86 ahead of time.
        shapes: Input name -> shape, or least, usual and most, for inputs with open dimensions
            (``mmedge.engine.shapes`` has the rule for those that are not given).
        typing: ``auto`` builds strongly typed; on TensorRT 10.3 weakly typed if that fails.
        timing_path: Where the builder's measurements are kept between builds; None keeps none.
        engine: Where it may run besides the GPU and the version that build it.

    Returns:
        The plan and how it was built.

    Raises:
        UnsupportedNodesError: Lists every operator TensorRT cannot take.
        EngineError: If the build fails, crashes or takes too long or too much; says the last log lines. Also if the
            engine computes nothing in the precision that was asked for, or does not say whether it does.
        ConfigError: If an open dimension was not given, or a shape does not fit.
        DeviceError: If the module needs a GPU and there is none.

    Example:
        >>> from pathlib import Path
        >>> onnx = Path("encoder.onnx").read_bytes()  # doctest: +SKIP
        >>> build_engine(onnx, name="encoder", precision="int8", log_path=Path("b.log"))  # doctest: +SKIP
    """
    trt = load_tensorrt(module)
    target = target_capability(trt, compute_capability, precision)
    if typing == "weak" and "weak_typing" not in trt.caps:
        raise ConfigError(f"{trt.name} {trt.version} does not support weakly typed networks", fix='use typing="strong"')
    modes: list[Typing] = ["strong" if typing == "auto" else typing]
    if typing == "auto" and trt.weak_fallback:
        modes.append("weak")
    limits = limits or BuildLimits()
    ranges = check_ranges(shapes)
    engine.check(trt, precision, ranges, integrated=gpu_problem() is None and gpu_info().integrated)
    options = BuildOptions(
        module=trt.name,
        precision=precision,
        typing=modes[0],
        path=None if path is None else str(path.absolute()),
        workspace_bytes=workspace_bytes,
        compute_capability=target if trt.ahead_of_time else None,
        shapes=ranges,
        timing_cache=timing_path is not None,
        nice=limits.nice,
        engine=engine,
    )
    where = f"{name} ({precision}), log: {log_path}"
    started = time.monotonic()
    try:
        log_path.unlink(missing_ok=True)
        for mode in modes:
            options = msgspec.structs.replace(options, typing=mode)
            deadline_s = started + limits.timeout_s
            child = _Child(onnx, name, where, log_path, limits, deadline_s, progress, sources or {}, trt, timing_path)
            try:
                done, plan, level = child.build_within_memory(options)
            except (UnsupportedNodesError, BuildStoppedError):
                raise
            except EngineError as error:
                if mode == modes[-1]:
                    raise
                _log.warning("%s: strongly typed build failed, trying weakly typed: %s", name, error.message)
                continue
            break
    except OSError as error:
        what, fix = shortage(error) or (str(error.strerror), "check the folder's permissions")
        raise EngineError(f"the build cannot write its files: {what}", where=where, fix=fix) from error
    if progress is not None:
        progress("built", 1.0)
    asked = len(done.int8_nodes) + len(done.float_nodes)
    result = BuildResult(
        plan=plan,
        module=trt.name,
        version=trt.version,
        compute_capability=target,
        typing=mode,
        seconds=time.monotonic() - started,
        layers=done.layers,
        quantized_layers=asked,
        int8_layers=len(done.int8_nodes),
        int8_coverage=len(done.int8_nodes) / asked if asked else 0.0,
        log_path=str(log_path),
        int8_nodes=tuple(done.int8_nodes),
        float_nodes=tuple(done.float_nodes),
        boundaries=tuple(done.boundaries),
        optimization_level=level,
        half_asked=done.half_asked,
        half_layers=done.half_layers,
        options=engine,
        dla_layers=tuple(done.dla_layers),
        gpu_layers=tuple(done.gpu_layers),
    )
    refuse_unused(result, precision, where)
    return result


@dataclass(frozen=True, slots=True)
class _Child:
    """The process that builds."""

    onnx: bytes
    name: str
    where: str
    log_path: Path
    limits: BuildLimits
    deadline_s: float  # of all attempts, on the monotonic clock
    progress: Progress | None
    sources: Mapping[str, str]
    trt: TensorRT
    timing_path: Path | None

    def build_within_memory(self, options: BuildOptions) -> tuple[DoneMessage, bytes, int | None]:
        """Build, with less effort each time that memory runs out; also return the optimisation level."""
        for level, lower in zip(_LEVELS, (*_LEVELS[1:], None), strict=True):
            try:
                return *self._build(msgspec.structs.replace(options, optimization_level=level)), level
            except OutOfMemoryError as error:
                if level == _LEVELS[-1]:
                    raise
                _log.warning("%s: %s; trying optimisation level %s", self.name, error.message.splitlines()[0], lower)
        raise AssertionError("unreachable")

    def _build(self, options: BuildOptions) -> tuple[DoneMessage, bytes]:
        with scratch() as folder, self.log_path.open("ab") as log:
            (folder / "model.onnx").write_bytes(self.onnx)
            (folder / "options.json").write_bytes(msgspec.json.encode(options))
            if self.timing_path is not None and (timings := read_timings(self.timing_path)) is not None:
                (folder / "timing.old").write_bytes(timings)
            receive, send = os.pipe()
            try:
                # The working folder is the child's own: a `tensorrt.py` beside the user's script must not
                # be imported. A session of its own keeps Ctrl-C for the parent, which then kills it.
                process = subprocess.Popen(
                    [sys.executable, "-m", "mmedge.engine.build_child", str(folder), str(send), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(send,),
                    cwd=folder,
                    start_new_session=True,
                )
            except BaseException:
                os.close(receive)
                raise
            finally:
                os.close(send)
            try:
                last = self._listen(receive, process.pid)
                code = process.wait(timeout=10)
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                raise BuildStoppedError(
                    f"the build took longer than {self.limits.timeout_s:g} s and was stopped; "
                    f"last log lines:\n{tail(self.log_path)}",
                    where=self.where,
                    fix="raise the timeout (--timeout); close other programs",
                ) from error
            finally:
                os.close(receive)
                process.kill()
                process.wait()
            if isinstance(last, FailedMessage):
                raise failure(last, self.name, self.where, self.sources, self.trt)
            if code != 0 or last is None:
                raise crash(code, self.where, self.log_path)
            if self.timing_path is not None and (folder / "timing.new").exists():
                keep_timings(self.timing_path, (folder / "timing.new").read_bytes())
            return last, (folder / "engine.plan").read_bytes()

    def _listen(self, receive: int, pid: int) -> FailedMessage | DoneMessage | None:
        last: FailedMessage | DoneMessage | None = None
        pending = b""
        available = available_bytes()
        most = self.limits.memory_bytes or (None if available is None else round(available * _SHARE))
        with selectors.DefaultSelector() as selector:
            selector.register(receive, selectors.EVENT_READ)
            while True:
                left_s = self.deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                if self.limits.stop is not None and self.limits.stop.is_set():
                    fix = "run `mmedge compile` to build it"
                    raise BuildStoppedError("the build was stopped", where=self.where, fix=fix)
                self._check_memory(pid, most)
                if not selector.select(min(_LOOK_S, left_s)):
                    continue
                chunk = os.read(receive, 65536)
                if not chunk:
                    return last
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    message = msgspec.json.decode(line, type=learn(Message))
                    if not isinstance(message, ProgressMessage):
                        last = message
                    elif self.progress is not None:
                        self.progress(message.phase, message.fraction)

    def _check_memory(self, pid: int, most: int | None) -> None:
        """Raise where the build holds more than it may, or the machine is about to run out of memory."""
        held, left = resident_bytes(pid), available_bytes()
        if most is not None and held > most:
            what = f"the build holds {held >> 20} MiB of memory, more than the {most >> 20} MiB that it may"
        elif left is not None and left < _LEAST_BYTES:  # on an integrated GPU much of it is not counted as the build's
            what = f"the machine has only {left >> 20} MiB of memory left"
        else:
            return
        raise OutOfMemoryError(
            f"{what}; it was stopped",
            where=self.where,
            fix="close other programs and running pipelines, or allow it more (--memory-mb)",
        )
