"""The errors of a build: what the child said, or how it ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from mmedge.engine.build_messages import FailedMessage, Node
from mmedge.engine.tensorrt_loader import TensorRT
from mmedge.errors import ConfigError, EngineError

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


class UnsupportedNodesError(EngineError):
    """Every operator of a network that TensorRT cannot take; ``nodes`` lists them."""

    nodes: tuple[Node, ...] = ()


class OutOfMemoryError(EngineError):
    """A build held more memory than it may, or there was no more."""


class BuildStoppedError(EngineError):
    """A build took too long, or is no longer wanted: no other attempt is made."""


def tail(log_path: Path, lines: int = 6) -> str:
    """Return the last lines of a build's log, errors if there are any."""
    text = log_path.read_text(errors="replace").splitlines()
    errors = [line for line in text if line.startswith("[E]")]
    return "\n".join(f"    {line[:240]}" for line in (errors or text)[-lines:])


def crash(code: int, where: str, log_path: Path) -> EngineError:
    """Return the error of a child that ended without a word."""
    if code == -signal.SIGKILL:
        return OutOfMemoryError(
            f"the TensorRT builder was killed, probably because memory ran out; last log lines:\n{tail(log_path)}",
            where=where,
            fix="close other programs and running pipelines, or pass a smaller workspace_bytes",
        )
    how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return EngineError(
        f"the TensorRT builder {how}; last log lines:\n{tail(log_path)}",
        where=where,
        fix="export with opset 20, try another precision, or run this stage on a CPU backend; please report the log",
    )


def failure(
    failed: FailedMessage, name: str, where: str, sources: Mapping[str, str], trt: TensorRT
) -> EngineError | ConfigError:
    """Return the error of what a child said."""
    if failed.kind == "config":
        return ConfigError(failed.message, where=name, fix=failed.fix)
    if not failed.nodes:
        kind = OutOfMemoryError if failed.kind == "memory" else EngineError
        return kind(failed.message, where=where, fix=failed.fix)
    lines = [f"{trt.name} {trt.version} cannot take {len(failed.nodes)} operator(s) of '{name}':"]
    for node in failed.nodes:
        source = f" at {sources[node.name]}" if node.name in sources else ""
        lines.append(f"    #{node.index} {node.op} '{node.name}'{source}: {node.reason}")
    hints = sorted({f"{node.op}: {_HINTS[node.op]}" for node in failed.nodes if node.op in _HINTS})
    fix = "; ".join([*hints, "replace the operators in the model, or run this stage on a CPU backend"])
    error = UnsupportedNodesError("\n".join(lines), where=where, fix=fix)
    error.nodes = tuple(failed.nodes)
    return error
