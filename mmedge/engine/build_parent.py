"""Build a TensorRT engine in a child process: progress, timeout, log kept, a crash is an error."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from mmedge.engine.cuda import gpu_info, gpu_problem
from mmedge.engine.tensorrt_loader import TensorRT, load_tensorrt
from mmedge.errors import ConfigError, DeviceError, EngineError

Progress: TypeAlias = Callable[[str, float], None]
Typing: TypeAlias = Literal["strong", "weak"]
_log = logging.getLogger(__name__)

_HINTS = {
    "DFT": 'compute the spectrum as a convolution (`features.kind = "log_mel"` does)',
    "MelWeightMatrix": 'store the mel filters as a constant (`features.kind = "log_mel"` does)',
    "Resize": "use antialias=False, and Cast uint8 to float before it",
    "Transpose": "Cast uint8 to float before it",
    "QuantizeLinear": "quantise symmetrically to int8 with zero point 0",
    "DequantizeLinear": "quantise symmetrically to int8 with zero point 0 and leave the bias float",
    "QLinearConv": "export Q/DQ pairs, not QOperator nodes",
    "QLinearMatMul": "export Q/DQ pairs, not QOperator nodes",
}


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the child process is asked to build."""

    module: str
    precision: str
    typing: Typing
    workspace_bytes: int | None = None
    compute_capability: str | None = None
    shapes: dict[str, tuple[int, ...]] = {}


class ProgressMessage(msgspec.Struct, frozen=True, tag="progress"):
    """How far the child is."""

    phase: str
    fraction: float


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX node that TensorRT refuses."""

    index: int
    name: str
    op: str
    reason: str


class FailedMessage(msgspec.Struct, frozen=True, tag="failed"):
    """Why the child built nothing; ``nodes`` when operators are not supported."""

    message: str
    fix: str | None = None
    nodes: list[Node] = []


class DoneMessage(msgspec.Struct, frozen=True, tag="done"):
    """What the child built; the plan is a file beside the model."""

    layers: int
    int8_layers: int
    quantized_layers: int


Message: TypeAlias = ProgressMessage | FailedMessage | DoneMessage


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
        int8_layers: Those of them that do.
        int8_coverage: Their share, 0.0 where the file asks for none.
        log_path: The builder's verbose log.
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


class BuildResult(BuildReport, frozen=True, kw_only=True):
    """A built engine: the plan and how it came to be."""

    plan: bytes

    def report(self) -> BuildReport:
        """The same without the plan."""
        return msgspec.convert(self, BuildReport, from_attributes=True)


class UnsupportedNodesError(EngineError):
    """Every operator of a network that TensorRT cannot take; ``nodes`` lists them."""

    nodes: tuple[Node, ...] = ()


def target_capability(trt: TensorRT, wanted: str | None = None) -> str:
    """Choose the compute capability to build for: as asked, the GPU's, else ``SM86`` ahead of time.

    Args:
        trt: The module that builds.
        wanted: ``"SM89"``, or None.

    Returns:
        Its name.

    Raises:
        DeviceError: If the module needs a GPU and there is none.
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
    target = wanted or here or ("SM86" if "SM86" in offered else offered[0])
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
    workspace_bytes: int | None = None,
    timeout_s: float = 1800.0,
    progress: Progress | None = None,
    sources: Mapping[str, str] | None = None,
    module: str | None = None,
    compute_capability: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    typing: Literal["auto", "strong", "weak"] = "auto",
) -> BuildResult:
    """Build a TensorRT engine from an ONNX file in a child process.

    Args:
        onnx: The serialised model, without external data.
        name: What to call it in messages.
        precision: ``fp32``, ``fp16`` or ``int8``; says how the file was made, the types are in the file.
        log_path: Where the builder's verbose log goes; kept.
        workspace_bytes: Scratch memory the builder may use; None leaves TensorRT's default, and on an
            integrated GPU takes a quarter of the memory that is free.
        timeout_s: The child is killed after this time.
        progress: Called with the phase and the share done, 0..1.
        sources: Node name -> source line, for the list of unsupported operators.
        module: ``tensorrt`` or ``tensorrt_rtx``; None takes what is installed.
        compute_capability: What to build for; None is the GPU at hand, else SM86 ahead of time.
        shapes: Input name -> shape, for inputs with dynamic dimensions (1 where not given).
        typing: ``auto`` builds strongly typed; on TensorRT 10.3 weakly typed if that fails.

    Returns:
        The plan and how it was built.

    Raises:
        UnsupportedNodesError: Lists every operator TensorRT cannot take.
        EngineError: If the build fails, crashes or takes too long; says the last log lines.
        DeviceError: If the module needs a GPU and there is none.

    Example:
        >>> from pathlib import Path
        >>> onnx = Path("encoder.onnx").read_bytes()  # doctest: +SKIP
        >>> build_engine(onnx, name="encoder", precision="int8", log_path=Path("b.log"))  # doctest: +SKIP
    """
    trt = load_tensorrt(module)
    target = target_capability(trt, compute_capability)
    if typing == "weak" and "weak_typing" not in trt.caps:
        raise ConfigError(f"{trt.name} {trt.version} does not support weakly typed networks", fix='use typing="strong"')
    modes: list[Typing] = ["strong" if typing == "auto" else typing]
    if typing == "auto" and trt.weak_fallback:
        modes.append("weak")
    log_path.unlink(missing_ok=True)
    started = time.monotonic()
    for mode in modes:
        options = BuildOptions(
            module=trt.name,
            precision=precision,
            typing=mode,
            workspace_bytes=workspace_bytes,
            compute_capability=target if trt.ahead_of_time else None,
            shapes=dict(shapes or {}),
        )
        try:
            done, plan = _in_child(onnx, options, name, log_path, timeout_s, progress, sources, trt)
        except UnsupportedNodesError:
            raise
        except EngineError as error:
            if mode == modes[-1]:
                raise
            _log.warning("%s: strongly typed build failed, trying weakly typed: %s", name, error.message)
            continue
        break
    if progress is not None:
        progress("built", 1.0)
    return BuildResult(
        plan=plan,
        module=trt.name,
        version=trt.version,
        compute_capability=target,
        typing=mode,
        seconds=time.monotonic() - started,
        layers=done.layers,
        quantized_layers=done.quantized_layers,
        int8_layers=done.int8_layers,
        int8_coverage=done.int8_layers / done.quantized_layers if done.quantized_layers else 0.0,
        log_path=str(log_path),
    )


def _in_child(
    onnx: bytes,
    options: BuildOptions,
    name: str,
    log_path: Path,
    timeout_s: float,
    progress: Progress | None,
    sources: Mapping[str, str] | None,
    trt: TensorRT,
) -> tuple[DoneMessage, bytes]:
    where = f"{name} ({options.precision}), log: {log_path}"
    with tempfile.TemporaryDirectory(prefix="mmedge-build-") as temporary, log_path.open("ab") as log:
        folder = Path(temporary)
        (folder / "model.onnx").write_bytes(onnx)
        (folder / "options.json").write_bytes(msgspec.json.encode(options))
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
            last = _listen(receive, time.monotonic() + timeout_s, progress)
            code = process.wait(timeout=10)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise EngineError(
                f"the build took longer than {timeout_s:g} s and was stopped; last log lines:\n{_tail(log_path)}",
                where=where,
                fix="raise the timeout; close other programs",
            ) from error
        finally:
            os.close(receive)
            process.kill()
            process.wait()
        if isinstance(last, FailedMessage):
            raise _failure(last, name, where, sources or {}, trt)
        if code != 0 or last is None:
            raise _crash(code, where, log_path)
        return last, (folder / "engine.plan").read_bytes()


def _listen(receive: int, deadline: float, progress: Progress | None) -> FailedMessage | DoneMessage | None:
    last: FailedMessage | DoneMessage | None = None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(receive, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(receive, 65536)
            if not chunk:
                return last
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                message = msgspec.json.decode(line, type=Message)
                if not isinstance(message, ProgressMessage):
                    last = message
                elif progress is not None:
                    progress(message.phase, message.fraction)


def _tail(log_path: Path, lines: int = 6) -> str:
    text = log_path.read_text(errors="replace").splitlines()
    errors = [line for line in text if line.startswith("[E]")]
    return "\n".join(f"    {line[:240]}" for line in (errors or text)[-lines:])


def _crash(code: int, where: str, log_path: Path) -> EngineError:
    if code == -signal.SIGKILL:
        return EngineError(
            f"the TensorRT builder was killed, probably because memory ran out; last log lines:\n{_tail(log_path)}",
            where=where,
            fix="close other programs and running pipelines, or pass a smaller workspace_bytes",
        )
    how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return EngineError(
        f"the TensorRT builder {how}; last log lines:\n{_tail(log_path)}",
        where=where,
        fix="export with opset 20, try another precision, or run this stage on a CPU backend; please report the log",
    )


def _failure(failed: FailedMessage, name: str, where: str, sources: Mapping[str, str], trt: TensorRT) -> EngineError:
    if not failed.nodes:
        return EngineError(failed.message, where=where, fix=failed.fix)
    lines = [f"{trt.name} {trt.version} cannot take {len(failed.nodes)} operator(s) of '{name}':"]
    for node in failed.nodes:
        source = f" at {sources[node.name]}" if node.name in sources else ""
        lines.append(f"    #{node.index} {node.op} '{node.name}'{source}: {node.reason}")
    hints = sorted({f"{node.op}: {_HINTS[node.op]}" for node in failed.nodes if node.op in _HINTS})
    fix = "; ".join([*hints, "replace the operators in the model, or run this stage on a CPU backend"])
    error = UnsupportedNodesError("\n".join(lines), where=where, fix=fix)
    error.nodes = tuple(failed.nodes)
    return error
