"""What a build and the process that asked for it say to each other, as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event
from typing import Literal, TypeAlias

import msgspec

from mmedge.engine.reach import EngineOptions
from mmedge.engine.shapes import Range

Typing: TypeAlias = Literal["strong", "weak"]


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the child process is asked to build.

    Attributes:
        path: The network's file, where its weights lie in others beside it.
        shapes: Input -> least, usual and most.
        optimization_level: How hard the builder searches; None is TensorRT's default.
        timing_cache: Whether ``timing.old`` is to be read and ``timing.new`` written.
        nice: By how much it lowers its priority.
        engine: Where what is built may run.
    """

    module: str
    precision: str
    typing: Typing
    path: str | None = None
    workspace_bytes: int | None = None
    compute_capability: str | None = None
    shapes: dict[str, Range] = {}
    optimization_level: int | None = None
    timing_cache: bool = False
    nice: int = 0
    engine: EngineOptions = EngineOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildLimits:
    """What a build may take.

    Attributes:
        timeout_s: A build that takes longer, all its attempts together, is stopped.
        memory_bytes: A build that holds more is stopped and tried again with less effort; None is three quarters of
            what is available.
        nice: By how much its priority is below that of the process that asks for it.
        stop: Set by whoever no longer wants it.
        anew: Whether an engine in the cache that was built with less effort, since memory ran out, is built again.
    """

    timeout_s: float = 1800.0
    memory_bytes: int | None = None
    nice: int = 0
    stop: Event | None = None
    anew: bool = False


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
    """Why the child built nothing.

    Attributes:
        nodes: Operators that are not supported, if that is why.
        kind: ``config``: the user can give what is missing; ``memory``: memory ran out.
    """

    message: str
    fix: str | None = None
    nodes: list[Node] = []
    kind: Literal["engine", "config", "memory"] = "engine"


class DoneMessage(msgspec.Struct, frozen=True, tag="done"):
    """What the child built; the plan is a file beside the model.

    Attributes:
        int8_nodes: Convolutions and matrix products that the file asks to run in INT8, and that do.
        float_nodes: Those that do not.
        boundaries: Layers that do nothing but go between INT8 and float, or end in it.
        half_asked: How many convolutions and matrix products the file has on FP16 data.
        half_layers: How many of them run so.
        dla_layers: What the builder has put on the DLA.
        gpu_layers: What fell back to the GPU where a DLA was asked for.
    """

    layers: int
    int8_nodes: list[str]
    float_nodes: list[str]
    boundaries: list[str]
    half_asked: int = 0
    half_layers: int = 0
    dla_layers: list[str] = []
    gpu_layers: list[str] = []


Message: TypeAlias = ProgressMessage | FailedMessage | DoneMessage
