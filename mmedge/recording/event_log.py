"""The event log of a recording: every call the synchroniser got, in order, and what came of it.

``recording.json`` says what was recorded, ``events.jsonl`` holds one event a line. The log is only ever
appended to, in whole lines, so whatever cuts it off leaves a log that is right up to there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from mmedge.bundle.manifest import Input, Missing, Sync
from mmedge.errors import ConfigError, SourceError
from mmedge.files import private_file
from mmedge.ipc.limits import MAX_TEXT
from mmedge.learn import learn
from mmedge.types import ClockQuality, Description, PixelFormat, TaskResult, Video

HEADER = "recording.json"
EVENTS = "events.jsonl"
MAX_HEADER = 1 << 20  # bytes
MAX_LINE = 1 << 20  # bytes

Outcome: TypeAlias = Literal["answered", "overrun", "after_end", "failed", "skipped"]
Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Small: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
Side: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=16_384)]


class RecordedInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of a recording.

    Attributes:
        uri: Where it came from, as it may be shown.
        live: Whether its source was live.
        files: How the names of its media files begin.
        spec: Its seat in the bundle; without a bundle, what was asked of the source.
    """

    uri: str
    live: bool
    files: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
    spec: Input


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what the synchroniser cuts."""

    sync: Sync
    missing: dict[str, Missing]


class RecordedBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bundle of the recorded run.

    Attributes:
        name: Its name.
        manifest_sha256: Covers the hashes of all its members.
        seats: Its inputs.
        own: Its rules.
        used: The rules of the run: its own, changed by the options of the run.
        served: Stage -> backend and file that served it.
    """

    name: str
    manifest_sha256: str
    seats: dict[str, Input]
    own: Rules
    used: Rules
    served: dict[str, str] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was recorded, on which clock.

    Attributes:
        mmedge: Version that wrote it.
        bundle: What ran; None when only the inputs were recorded.
        inputs: Input name -> what fed it.
        lossless: Whether the run waited for everything (latency ``offline``).
        video: Whether pictures come back bit by bit (``lossless``) or only look the same (``visual``).
        started_ns: When the run began, on CLOCK_MONOTONIC.
        unix_ns: The same instant on the wall clock, for people.
    """

    schema: Literal["mmedge.recording/1"] = "mmedge.recording/1"
    mmedge: str
    bundle: RecordedBundle | None
    inputs: dict[str, RecordedInput]
    lossless: bool
    video: Video
    started_ns: Time
    unix_ns: Time


class _Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="event"):
    pass


class _PacketEvent(_Event, kw_only=True):
    # Those with data have a ``crc``: the CRC-32 of their bytes, where these come back bit by bit.
    stream: str
    seq: Count
    epoch: Count = 0
    capture_ns: Time
    arrive_ns: Time
    uncertainty_ns: Count = 0
    quality: ClockQuality = "B"


class FrameEvent(_PacketEvent, kw_only=True, tag="frame"):
    """A picture; ``at_ms`` is its time in media file number ``file``, None when it was not recorded: a damaged one.

    ``description`` is written where there is more to say of it than its range.
    """

    format: PixelFormat
    width: Side
    height: Side
    full_range: bool = True
    description: Description | None = None
    unchanged_ns: Time = 0
    damaged: bool = False
    file: Small = 0
    at_ms: Count | None = None
    crc: Count | None = None

    @property
    def described(self) -> Description:
        """What the stream said about the picture."""
        return Description(full_range=self.full_range) if self.description is None else self.description


class BlockEvent(_PacketEvent, kw_only=True, tag="block"):
    """A piece of sound; ``at_ms`` is its time in the media file, None when it is empty or was not recorded."""

    samples: Small
    lost: Count = 0
    at_ms: Count | None = None
    crc: Count | None = None


class TextEvent(_PacketEvent, kw_only=True, tag="text"):
    """A text."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class TensorEvent(_PacketEvent, kw_only=True, tag="tensor"):
    """An array; ``at`` is its place in the stream's ``.bin`` file, None when it was not recorded."""

    dtype: Literal["float32", "float16", "int32", "int64", "uint8"]
    shape: Annotated[tuple[Small, ...], msgspec.Meta(max_length=8)]
    at: Count | None = None
    crc: Count | None = None


class ArrivalEvent(_PacketEvent, kw_only=True, tag="arrival"):
    """A picture that made room for a newer one before the synchroniser saw it; its arrival is known."""


class EosEvent(_PacketEvent, kw_only=True, tag="eos"):
    """The end of a stream."""

    reason: str | None = None


class DropEvent(_Event, kw_only=True, tag="drop"):
    """A packet that was let go before the synchroniser saw it, in recordings of mmedge 0.1."""

    stream: str
    seq: Count
    epoch: Count
    capture_ns: Time
    cause: str


class PollEvent(_Event, kw_only=True, tag="poll"):
    """``advance(now_ns)`` and ``poll()``."""

    now_ns: Time


class TriggerEvent(_Event, kw_only=True, tag="trigger"):
    """What became of one trigger of the poll before.

    Attributes:
        used: Input -> [epoch, number] of the frame or value, or [epoch, index after the last sample] of the sound.
        used_ns: Stage -> capture time of the output that was used, for stages with a rule of their own.
        busy: Background stages that were still running.
        failed: Of each attempt at this trigger, stage -> why it failed; the next attempt lacks its inputs.
        tasks: The answer, where one was given.
        latency_ms: As in the result line.
    """

    seq: Count
    t_ns: Time
    outcome: Outcome
    present: dict[str, bool]
    used: dict[str, tuple[int, int]] = {}
    age_ms: dict[str, float] = {}
    skew_ms: float = 0.0
    uncertainty_ms: float = 0.0
    wait_ns: Count = 0
    deliver_ns: Time = 0
    epoch: dict[str, int] = {}
    reason: str | None = None
    used_ns: dict[str, Time] = {}
    busy: tuple[str, ...] = ()
    failed: tuple[dict[str, str], ...] = ()
    status: Literal["ok", "unvalidated"] | None = None
    tasks: dict[str, TaskResult] = {}
    latency_ms: dict[str, float] = {}


class HealthEvent(_Event, kw_only=True, tag="health"):
    """The state of a source changed."""

    stream: str
    now_ns: Time
    state: str
    reason: str | None = None


class EndEvent(_Event, kw_only=True, tag="end"):
    """The recording was closed; ``error`` is what ended it before the run did."""

    error: str | None = None


PacketEvent: TypeAlias = FrameEvent | BlockEvent | TextEvent | TensorEvent | ArrivalEvent | EosEvent
Event: TypeAlias = PacketEvent | DropEvent | PollEvent | TriggerEvent | HealthEvent | EndEvent

_decoder = msgspec.json.Decoder(learn(Event))
_encoder = msgspec.json.Encoder()


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless ``folder`` is empty or can be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "the recording folder must be new or empty", where=str(folder), fix="name another folder, or empty it"
        )
    if not folder.resolve().parent.is_dir():
        raise ConfigError("the parent folder does not exist", where=str(folder.parent), fix="create it first")


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return input name -> how its files are named: distinct, and safe in any folder.

    Example:
        >>> file_stems(["image", "../x"])
        {'image': 'image', '../x': 'input.1'}
    """
    plain = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
    return {name: name if plain.fullmatch(name) else f"input.{index}" for index, name in enumerate(names)}


class LogWriter:
    """Appends whole lines to the log of a folder; every error is the operating system's.

    Args:
        folder: An empty folder.
        header: Written first.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        with private_file(folder / HEADER) as file:
            write_all(file, msgspec.json.format(msgspec.json.encode(header), indent=1) + b"\n")
        self._file = private_file(folder / EVENTS)
        self._bytes = 0

    def write(self, events: Sequence[Event]) -> None:
        """Append events; they are in the operating system's hands on return."""
        lines = _encoder.encode_lines(events)
        try:
            write_all(self._file, lines)
        except OSError:
            self._file.truncate(self._bytes)  # a full disk takes half a line
            self._file.seek(self._bytes)
            raise
        self._bytes += len(lines)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of ``data``: one call may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def read_header(folder: Path) -> Header:
    """Read what a recording holds.

    Raises:
        ConfigError: If the folder holds no recording.
        SourceError: If its header is damaged or needs a newer mmedge.
    """
    path = folder / HEADER
    where, fix = str(path), "record again: mmedge record DIR"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_HEADER)
    except OSError as error:
        raise ConfigError(f"not a recording: {error.strerror}", where=where, fix="name its folder") from error
    try:
        schema = msgspec.json.decode(raw, type=learn(dict[str, msgspec.Raw])).get("schema", b"")
        match = re.fullmatch(rb'"mmedge\.recording/(\d{1,9})"', bytes(schema))
        if match and int(match[1]) > 1:
            raise SourceError("this recording needs a newer mmedge", where=where, fix="pip install -U mmedge")
        header = msgspec.json.decode(raw, type=learn(Header))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"the recording's header is damaged: {error}", where=where, fix=fix) from error
    stems = [entry.files for entry in header.inputs.values()]
    seats = header.bundle.seats if header.bundle else {n: entry.spec for n, entry in header.inputs.items()}
    if not stems or len(set(stems)) < len(stems) or not set(header.inputs) <= set(seats):
        raise SourceError("the recording's inputs contradict each other", where=f"{where}: $.inputs", fix=fix)
    return header


class LogReader:
    """Reads the events of a recording, as far as they are whole.

    Attributes:
        cut: Why the log ends before the run did; None when it was closed in order.
        lines: How many events were read.
    """

    def __init__(self, folder: Path, inputs: Sequence[str]) -> None:
        self._path = folder / EVENTS
        self._inputs = frozenset(inputs)
        self.cut: str | None = None
        self.lines = 0

    def __iter__(self) -> Iterator[Event]:
        """Yield one event after the other; ends at the first one that is damaged."""
        self.cut, self.lines = "the recording was cut off", 0
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise SourceError(
                f"the log cannot be read: {error.strerror}", where=str(self._path), fix="check the folder"
            ) from error
        with file:
            while (line := file.readline(MAX_LINE)).endswith(b"\n"):
                try:
                    event = _decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self.cut = f"line {self.lines + 1} of the log is damaged: {error}"
                    return
                stream = getattr(event, "stream", None)
                if stream is not None and stream not in self._inputs:
                    self.cut = f"line {self.lines + 1} of the log is damaged: no input has this name"
                    return
                self.lines += 1
                if isinstance(event, EndEvent):
                    self.cut = event.error
                    return
                yield event
        if len(line) == MAX_LINE:
            self.cut = f"line {self.lines + 1} of the log is longer than {MAX_LINE} bytes"
