"""What passes through the pipeline: frames, blocks, snapshots, results. Times are int ns on CLOCK_MONOTONIC."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from mmedge.errors import ConfigError
from mmedge.packets import PLAIN as PLAIN
from mmedge.packets import AnyArray as AnyArray
from mmedge.packets import Arrival as Arrival
from mmedge.packets import AspectPart as AspectPart
from mmedge.packets import Block as Block
from mmedge.packets import ByteArray as ByteArray
from mmedge.packets import ClockQuality as ClockQuality
from mmedge.packets import Description as Description
from mmedge.packets import EndOfStream as EndOfStream
from mmedge.packets import FloatArray as FloatArray
from mmedge.packets import Frame as Frame
from mmedge.packets import Matrix as Matrix
from mmedge.packets import Packet as Packet
from mmedge.packets import PixelFormat as PixelFormat
from mmedge.packets import Slot as Slot
from mmedge.packets import Tensor as Tensor
from mmedge.packets import Text as Text

if TYPE_CHECKING:
    from mmedge.sound_cut import Sound

Backend: TypeAlias = Literal["auto", "onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-rtx", "tensorrt"]
Precision: TypeAlias = Literal["fp32", "fp16", "int8", "fp8", "int4"]
TENSORRT_ORDER: Final[tuple[Precision, ...]] = ("int8", "fp8", "int4", "fp16", "fp32")
"""Until they were timed: first what moves and multiplies the fewest bits."""
Latency: TypeAlias = Literal["low", "balanced", "offline"]
Video: TypeAlias = Literal["lossless", "visual"]
Engines: TypeAlias = Literal["auto", "now", "wait"]
NS_PER_S = 1_000_000_000
# A camera picture that is bit-identical for this long is frozen: sensors are never noiseless.
FROZEN_NS = NS_PER_S
Health = Literal["OK", "LATE", "STALE", "MISSING", "RECONNECTING"]
Evidence = Literal["simulated", "cpu", "built-not-run", "gpu", "jetson"]


class Snapshot(msgspec.Struct, kw_only=True, eq=False):
    """What was cut for one trigger.

    Attributes:
        t_ns: Capture time of the trigger.
        seq: Running number of the trigger.
        present: Presence of every input of the bundle, in its order.
        frames: The frame of each image input that is present.
        audio_end: Index after the last sample of each audio input that is present.
        audio_end_ns: When the instant after that sample was sensed.
        audio_span: Index of the first sample of its epoch, and of the oldest that can still be read, of each of these.
        values: The value of each text or tensor input that is present.
        age_ms: Age of each present input's newest data at ``t_ns``.
        epoch: Epoch of each present input.
        skew_ms: Largest difference between ``t_ns`` and where an input was really cut.
        uncertainty_ms: Bound on the error of ``skew_ms``: the two largest uncertainties together.
        stamp_uncertainty_ns: Bound on the error of ``t_ns``, so of everything that is counted from the capture.
        deliver_ns: When the trigger's packet reached this process.
        wait_ns: How long the trigger waited for data of other inputs.
        on_frame: Whether a frame made the trigger; of several that are ready, only the newest matters.
        reason: Why an input is absent, or None.
    """

    t_ns: int
    seq: int
    present: dict[str, bool]
    frames: dict[str, Frame] = {}
    audio_end: dict[str, int] = {}
    audio_end_ns: dict[str, int] = {}
    audio_span: dict[str, tuple[int, int]] = {}
    values: dict[str, Text | Tensor] = {}
    age_ms: dict[str, float] = {}
    epoch: dict[str, int] = {}
    skew_ms: float = 0.0
    uncertainty_ms: float = 0.0
    stamp_uncertainty_ns: int = 0
    deliver_ns: int = 0
    wait_ns: int = 0
    on_frame: bool = False
    reason: str | None = None


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a detector saw; its corners in 0..1 of the camera's picture as it is shown, from its upright top left.

    Whatever the seat's ``fit``, the camera's size and the shape of its pixels: x in shares of the picture's width, y of
    its height, after the turning and mirroring that the stream asks for (``Frame.description``).
    """

    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f} ({self.place})"

    @property
    def place(self) -> str:
        """Where it is, in percent of the picture's width and height."""
        x1, y1, x2, y2 = (f"{100 * share:.0f}" for share in (self.x1, self.y1, self.x2, self.y2))
        return f"x {x1}..{x2} %, y {y1}..{y2} %"


class TaskResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One interpreted task.

    Attributes:
        label: What it says; None when it abstains or is undefined. Of a detection: its best box's.
        score: Of the reported label, or of the best one where none is reported; None when it is undefined.
        top: The best labels and their scores, as many as the task wants.
        boxes: What a detection saw, the best first.
        value: The number that a task reports instead of a label.
        unit: Of ``value``.
    """

    label: str | None
    score: float | None
    top: tuple[tuple[str, float], ...] = ()
    boxes: tuple[Box, ...] = ()
    value: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        if self.boxes:
            more = f" and {len(self.boxes) - 3} more" if len(self.boxes) > 3 else ""
            return ", ".join(map(str, self.boxes[:3])) + more
        score = "" if self.score is None else f" {self.score:.2f}"
        return f"{self._answer}{score}"

    @property
    def _answer(self) -> str:
        if self.value is not None:
            return f"{self.value:.4g} {self.unit}".rstrip()
        return "-" if self.label is None else self.label

    @property
    def gist(self) -> tuple[str, ...]:
        """What makes a result a change: labels and values, not scores and places."""
        return tuple(sorted(box.label for box in self.boxes)) or (self._answer,)

    @property
    def rows(self) -> list[tuple[str, float | None]]:
        """Lines of a table: the answer, its score."""
        return [(f"{box.label}  {box.place}", box.score) for box in self.boxes] or [(self._answer, self.score)]


_FEW = 64  # values of an output that a line tells


def told_array(array: AnyArray) -> dict[str, object]:
    """Return how a line tells an array [...] of any dtype; NaN and infinite values become null."""
    told: dict[str, object] = {"shape": list(array.shape), "dtype": array.dtype.name}
    return told | {"values": array.tolist()} if array.size <= _FEW else told


class Origin(Protocol):
    """What a result was made from."""

    @property
    def from_ns(self) -> int:
        """From when its latency counts, on CLOCK_MONOTONIC."""

    @property
    def frames(self) -> Mapping[str, Callable[[], Frame]]:
        """Input -> what copies the picture that was seen."""

    @property
    def sounds(self) -> Mapping[str, Callable[[int | None], Sound]]:
        """Input -> what copies the sound that was heard, or all of it from an index on."""

    @property
    def outputs(self) -> Mapping[str, AnyArray]:
        """As those of a ``Result``, [...] in the network's dtype; its own."""

    @property
    def spans(self) -> bytes:
        """As those of a ``Result``."""


class KnownOrigin(msgspec.Struct, kw_only=True, eq=False):
    """An ``Origin`` that has it all at hand."""

    from_ns: int = 0
    frames: Mapping[str, Callable[[], Frame]] = {}
    sounds: Mapping[str, Callable[[int | None], Sound]] = {}
    outputs: Mapping[str, AnyArray] = {}
    spans: bytes = b""


_NOWHERE = KnownOrigin()


class Result(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The interpreted tasks of one trigger, with its times, mask, age and skew.

    ``unix_ns`` is ``t_ns`` on the wall clock, by the run's one pair of times (docs/time.md). ``status`` is ``"ok"`` or
    ``"unvalidated"`` (a mask that the exporter never measured: no label).
    """

    schema: str = "mmedge.result/1"
    t_ns: int
    unix_ns: int
    status: Literal["ok", "unvalidated"]
    tasks: dict[str, TaskResult]
    present: dict[str, bool]
    age_ms: dict[str, float]
    skew_ms: float
    uncertainty_ms: float
    latency_ms: dict[str, float]
    epoch: dict[str, int]
    reason: str | None = None

    def attach(
        self,
        frames: Mapping[str, Callable[[], Frame]],
        *,
        from_ns: int,
        outputs: Mapping[str, AnyArray] | None = None,
        sounds: Mapping[str, Callable[[int | None], Sound]] | None = None,
        spans: bytes = b"",
    ) -> Result:
        """Remember how to copy what it was made from, what is told as it is, and from when its latency counts.

        ``outputs`` are [...] as the manifest declares them, in the network's dtype; they are the result's own. Returns
        itself.
        """
        return self.made_from(
            KnownOrigin(from_ns=from_ns, frames=frames, sounds=sounds or {}, outputs=outputs or {}, spans=spans)
        )

    def made_from(self, origin: Origin) -> Result:
        """Remember what it was made from; returns itself."""
        self.__dict__["origin"] = origin
        return self

    @property
    def origin(self) -> Origin:
        """What it was made from."""
        origin: Origin = self.__dict__.get("origin", _NOWHERE)
        return origin

    @property
    def outputs(self) -> Mapping[str, AnyArray]:
        """``STAGE.OUTPUT`` -> its array, of the outputs that the bundle tells as they are; those that are there.

        [...] as the manifest declares, in the network's dtype. They are not recorded: a replay computes them again.
        """
        return self.origin.outputs

    @property
    def spans(self) -> bytes:
        """When it was made: int64 in ns on CLOCK_MONOTONIC; empty unless the ``Pipeline`` was asked for ``spans``.

        When the trigger's data came, how long it waited for the other inputs, when the graph began and had ended, when
        the tasks were interpreted; then five numbers of each stage whose run has ended since the last result: its place
        in the order of the stages, from when to when it was fed, from when to when its engine ran.
        """
        return self.origin.spans

    def age_ns(self, now_ns: int) -> int:
        """Return its age at ``now_ns`` on CLOCK_MONOTONIC: ``end_to_end``, and the wait for its reader."""
        return max(now_ns - self.origin.from_ns, 0)

    def received(self, age_ns: int) -> Result:
        """Return it as its reader has it, with ``latency_ms["received"]``; the runtime keeps its own."""
        told = msgspec.structs.replace(self, latency_ms={**self.latency_ms, "received": round(age_ns / 1e6, 3)})
        told.__dict__.update(self.__dict__)
        return told

    def frame(self, name: str) -> Frame:
        """Return a copy of the picture that was seen, in its source's own format.

        Args:
            name: An image input that was present.

        Raises:
            ConfigError: If there is none.
            FrameExpiredError: If it has been overwritten: pictures live for a moment, results for as long as you like.
        """
        frames = self.origin.frames
        if name not in frames:
            fix = f"it has those of {list(frames)}"
            raise ConfigError(f"this result has no picture of '{name}'", where="frame", fix=fix)
        return frames[name]()

    def draw(self, picture: Frame | ByteArray, *, tasks: Collection[str] | None = None) -> ByteArray:
        """Return a copy of a picture, uint8 [height, width, 3] in RGB, with what this result says drawn on it.

        Args:
            picture: A frame, or uint8 [height, width, 3] in RGB as it is shown (``Frame.to_rgb``).
            tasks: Names of the tasks to draw; all of them by default. With several cameras, name those of this one.

        Raises:
            ConfigError: If the picture has another shape or dtype, or there is no such task.
            MissingDependencyError: If OpenCV is not installed.

        Example:
            >>> cv2.imwrite("seen.png", result.draw(result.frame("image"))[..., ::-1])  # doctest: +SKIP
        """
        shown = picture.to_rgb() if isinstance(picture, Frame) else picture
        drawn: ByteArray = import_module("mmedge.drawing").draw(shown, self, tasks=tasks)
        return drawn

    def sound(self, name: str, since: int | None = None) -> Sound:
        """Return a copy of the window that was heard, or of all from index ``since`` on; raises as ``frame`` does.

        The ``end`` of one result's sound is the ``since`` of the next: so a stream has no gaps.
        """
        sounds = self.origin.sounds
        if name not in sounds:
            fix = f"it has that of {list(sounds)}"
            raise ConfigError(f"this result has no sound of '{name}'", where="sound", fix=fix)
        return sounds[name](since)

    def to_supervision(
        self, picture: Frame | ByteArray, *, task: str | None = None, labels: Sequence[str] | None = None
    ) -> Any:
        """Return the boxes of a detection as ``supervision.Detections``, for its trackers, zones and annotators.

        Args:
            picture: The frame, or its pixels as they are shown, [height, width, ...] of any dtype: boxes are in pixels.
            task: The detection, where the result has more than one.
            labels: The task's labels (``bundle.labels(task)``), whose numbers become ``class_id``; otherwise numbers
                are made of the labels' text. The labels themselves are ``data["class_name"]``.

        Raises:
            ConfigError: If there is no such task, or a label is not among ``labels``.
            MissingDependencyError: If supervision is not installed.

        Example:
            >>> tracker.update_with_detections(result.to_supervision(frame))  # doctest: +SKIP
        """
        return import_module("mmedge.detections").to_supervision(self, picture, task=task, labels=labels)

    def to_json(self) -> bytes:
        """Return the result line: one JSON object, no line break.

        Outputs of up to 64 values are told with them, larger ones by shape and dtype.
        """
        line = msgspec.json.encode(self)
        if not self.outputs:
            return line
        told = msgspec.json.encode({name: told_array(array) for name, array in self.outputs.items()})
        return line[:-1] + b',"outputs":' + told + b"}"


Tensors = Mapping[str, AnyArray]
