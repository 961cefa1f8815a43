"""The manifest of a bundle: strict types, strict decoding.

Decoding checks the schema version first, then refuses an unknown key, a wrong type or a dangling
reference and names the key path.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from mmedge.bundle.seats import (
    AudioInput,
    ImageInput,
    Input,
    LogMel,
    Milliseconds,
    Positive,
    PositiveFloat,
    Share,
    Strict,
    TensorInput,
    TextInput,
    Tolerance,
)
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
        timeout_ms: A callable that takes longer has failed.
    """

    inputs: dict[str, str]
    outputs: dict[str, tuple[str | Positive, ...]]
    on: str | None = None
    every_ms: Milliseconds | None = None
    mode: Literal["sync", "async"] = "sync"
    callable: str | None = None
    timeout_ms: Milliseconds = 1000.0


class Quantization(Strict, frozen=True, kw_only=True):
    """How an INT8 variant came to its ranges."""

    rule: str
    frames: int
    float_nodes: tuple[str, ...] = ()
    sqnr_db: float | None = None
    dropped: tuple[str, ...] = ()


class Variant(Strict, frozen=True, kw_only=True):
    """One ONNX file of a stage. ``tensorrt`` files take raw frames and PCM, ``cpu`` files tensors."""

    stage: str
    target: Literal["tensorrt", "cpu"]
    precision: Precision
    file: str
    golden: str
    tolerance: dict[str, Tolerance]
    quantization: Quantization | None = None


class Ema(Strict, frozen=True, kw_only=True, tag_field="kind", tag="ema"):
    """Exponential smoothing of a task's scores over time: an old score weighs exp(-dt / tau)."""

    tau_ms: Milliseconds


class Hysteresis(Strict, frozen=True, kw_only=True, tag_field="kind", tag="hysteresis"):
    """A label is taken up at a score of ``enter`` and kept until its score falls below ``leave``."""

    enter: Share
    leave: Share

    def __post_init__(self) -> None:
        if self.leave > self.enter:
            raise ValueError(f"hysteresis needs leave < enter, got leave {self.leave:g} and enter {self.enter:g}")


class Debounce(Strict, frozen=True, kw_only=True, tag_field="kind", tag="debounce"):
    """A label is reported only after it has been the same for ``hold_ms``; until then the one before it is."""

    hold_ms: Milliseconds


Smoothing: TypeAlias = Ema | Hysteresis | Debounce


class Detection(Strict, frozen=True, kw_only=True):
    """How boxes lie in a detector's output.

    Attributes:
        layout: ``yolo`` [1, 4 + classes, n]: centre, size, class scores (YOLOv8, 9, 11); ``yolo-objectness``
            [1, n, 5 + classes]: the same with objectness, n first (YOLOv5, 6, 7); ``boxes`` [1, n, 6]: corners,
            score, class (end-to-end networks). Coordinates are pixels of the network's input.
        input: The image input they refer to.
        iou: Boxes of one class that overlap more are one.
        max_boxes: At most this many boxes, the best ones.
    """

    layout: Literal["yolo", "yolo-objectness", "boxes"]
    input: str
    iou: Share = 0.45
    max_boxes: Annotated[int, msgspec.Meta(gt=0, le=1000)] = 100


class Task(Strict, frozen=True, kw_only=True):
    """What an output means.

    ``verification`` compares the inputs that are present, so it is undefined with fewer than two;
    its score is the sigmoid of one logit and use two labels: no, yes. ``classification`` is the softmax of logits;
    a task that says ``probabilities`` gives them itself. ``detection`` gives boxes, whose scores are probabilities.

    Attributes:
        kind: What is made of the output.
        output: ``STAGE.OUTPUT``.
        labels: Member of the bundle, one label a line, in the order of the output.
        temperature: By which logits are divided, calibrated on validation data.
        threshold: Score below which it abstains, says no, or sees no box; a hysteresis takes its place.
        smoothing: One, or several in this order: ema of the scores, hysteresis of the choice, debounce of the label.
        top_k: How many of the best labels are reported with their scores.
        scores: What the output gives.
        detection: How boxes lie in the output.
    """

    kind: Literal["classification", "verification", "detection"]
    output: str
    labels: str
    temperature: PositiveFloat = 1.0
    threshold: Share = 0.0
    smoothing: Smoothing | tuple[Smoothing, ...] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    scores: Literal["logits", "probabilities"] = "logits"
    detection: Detection | None = None


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
    """The normative description of a bundle. Order of ``inputs`` is the order of ``@present``."""

    schema: Literal["mmedge.bundle/1"]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    licence: str
    inputs: dict[str, Input]
    stages: dict[str, Stage]
    variants: tuple[Variant, ...]
    tasks: dict[str, Task]
    missing: dict[str, Missing] = msgspec.field(default_factory=dict)
    validated_masks: tuple[Mask, ...] = ()
    sync: Sync
    provenance: dict[str, str | int | float | None] = msgspec.field(default_factory=dict)
    files: dict[str, File]
