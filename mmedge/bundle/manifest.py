"""The manifest of a bundle: strict types, strict decoding.

Decoding checks the schema version first, then refuses an unknown key, a wrong type or a dangling
reference and names the key path.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mmedge.bundle.seats import (
    AudioInput,
    ImageInput,
    Input,
    LogMel,
    Milliseconds,
    Positive,
    Strict,
    TensorInput,
    TextInput,
    Tolerance,
)
from mmedge.bundle.source import Output, Source, State, parse_source
from mmedge.bundle.tasks import Debounce, Detection, Ema, Hysteresis, Smoothing, Task
from mmedge.types import Precision

__all__ = [
    "SCHEMA",
    "AudioInput",
    "Debounce",
    "Detection",
    "Ema",
    "File",
    "Hysteresis",
    "ImageInput",
    "Input",
    "LogMel",
    "Manifest",
    "Mask",
    "Milliseconds",
    "Missing",
    "Quantization",
    "Smoothing",
    "Stage",
    "Sync",
    "Task",
    "TensorInput",
    "TextInput",
    "Variant",
]
SCHEMA = "mmedge.bundle/1"


class Stage(Strict, frozen=True, kw_only=True):
    """One network (or rule) of the fused graph.

    ``inputs`` maps the network's input names to a seat, ``STAGE.OUTPUT``, ``@present``, ``@age_ms``,
    ``@state:OUTPUT`` or ``@const:NUMBER``; ``outputs`` gives each output's shape.

    A stage with a state that is fed by sound and has ``every_ms`` is a stream: it hears every sample once, in
    steps of ``every_ms``, as often at a trigger as steps have come.

    Attributes:
        inputs: Tensor of the network -> where it comes from.
        outputs: Output of the network -> shape; a string is a dimension of size 1 (``batch``).
        on: Run when this input is new, or ``change``: only when a fed value differs.
        every_ms: Run at most this often.
        mode: Whether triggers wait for it.
        callable: ``"pkg.mod:func"`` instead of a network.
        timeout_ms: A callable that takes longer has failed. So has a network on ONNX Runtime, unless its self-test took
            a tenth of that or more here: then it has ten times as long as that took.
    """

    inputs: dict[str, str]
    outputs: dict[str, tuple[str | Positive, ...]]
    on: str | None = None
    every_ms: Milliseconds | None = None
    mode: Literal["sync", "async"] = "sync"
    callable: str | None = None
    timeout_ms: Milliseconds = 1000.0

    @property
    def sources(self) -> dict[str, Source]:
        """Tensor of the network -> where it comes from, parsed; ValueError if a text of ``inputs`` has no such form."""
        return {tensor: parse_source(text) for tensor, text in self.inputs.items()}

    @property
    def states(self) -> dict[str, str]:
        """Tensor of the network -> the stage's own output that is fed back to it."""
        return {tensor: source.output for tensor, source in self.sources.items() if isinstance(source, State)}

    @property
    def links(self) -> dict[str, Output]:
        """Tensor of the network -> the output of another stage that feeds it."""
        return {tensor: source for tensor, source in self.sources.items() if isinstance(source, Output)}


class Quantization(Strict, frozen=True, kw_only=True):
    """How a variant in another precision than FP32 came about.

    Attributes:
        rule: By which ranges were cut off; ``ranges`` of an FP16 variant; ``blocks of 64, max`` of an INT4 one, whose
            weights alone are cut off.
        frames: How many samples gave the ranges.
        float_nodes: Nodes with weights that could run in it and do not, or are kept in float32.
        sqnr_db: Signal to noise of its worst output on samples held out.
        dropped: Samples that were left out as glitches.
        reasons: Node of ``float_nodes`` -> why.
        equalized: How many pairs of layers were equalised.
        worst: The layers that cost most, where that was measured.
        rest: In what the rest of a quantised network computes.
    """

    rule: str
    frames: int
    float_nodes: tuple[str, ...] = ()
    sqnr_db: float | None = None
    dropped: tuple[str, ...] = ()
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    equalized: int = 0
    worst: tuple[str, ...] = ()
    rest: Literal["fp32", "fp16"] = "fp32"


class Variant(Strict, frozen=True, kw_only=True):
    """One ONNX file of a stage. ``tensorrt`` files take raw frames and PCM, ``cpu`` files tensors.

    Attributes:
        tolerance: Output -> largest allowed ``max|got - want| / max|want|``.
        row_tolerance: Output whose rows may be of different units -> the same of each row, by the row's own range over
            all golden samples (``mmedge.engine.rows``); one number where it is the same for all rows.
    """

    stage: str
    target: Literal["tensorrt", "cpu"]
    precision: Precision
    file: str
    golden: str
    tolerance: dict[str, Tolerance]
    row_tolerance: dict[str, tuple[Tolerance, ...]] = msgspec.field(default_factory=dict)
    quantization: Quantization | None = None


class Missing(Strict, frozen=True, kw_only=True):
    """What happens when an input is absent at a trigger."""

    policy: Literal["hold", "zero", "skip", "fail"]
    max_age_ms: Milliseconds | None = None


class Mask(Strict, frozen=True, kw_only=True):
    """A presence mask the exporter measured, with the value it reached.

    Attributes:
        present: The inputs that are there.
        metric: What ``value`` is: ``top1``, ``accuracy``.
        value: What was reached.
        samples: On how many samples, all of which have these inputs; None: the exporter did not say.
        low: Lower end of the value's 95 % interval.
        high: Its upper end.
    """

    present: tuple[str, ...]
    metric: str
    value: float
    samples: Annotated[int, msgspec.Meta(ge=1)] | None = None
    low: float | None = None
    high: float | None = None


class Sync(Strict, frozen=True, kw_only=True):
    """When a fused inference is made, and how its inputs are cut.

    ``trigger`` names an input or ``timer``; ``every_ms`` is the hop of audio and timer triggers.
    """

    trigger: str
    policy: Literal["sliced", "latest"] = "sliced"
    align: Literal["end", "centre", "start"] = "end"
    deadline_ms: Milliseconds = 50.0
    every_ms: Milliseconds = 40.0


class File(Strict, frozen=True, kw_only=True):
    """Hash and size of one member of the bundle."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class Manifest(Strict, frozen=True, kw_only=True):
    """The normative description of a bundle. Order of ``inputs`` is the order of ``@present``.

    ``outputs`` are told as they are, beside the tasks: each ``STAGE.OUTPUT``.
    """

    schema: Literal["mmedge.bundle/1"]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    licence: str
    inputs: dict[str, Input]
    stages: dict[str, Stage]
    variants: tuple[Variant, ...]
    tasks: dict[str, Task]
    outputs: tuple[str, ...] = ()
    missing: dict[str, Missing] = msgspec.field(default_factory=dict)
    validated_masks: tuple[Mask, ...] = ()
    sync: Sync
    provenance: dict[str, str | int | float | None] = msgspec.field(default_factory=dict)
    files: dict[str, File]
