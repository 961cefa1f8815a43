"""A recording's folder, read turn by turn, as far as it is whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from mmedge.bundle.manifest import AudioInput, Input, TensorInput
from mmedge.capture.sound import MonoTrack
from mmedge.errors import SourceError
from mmedge.recording.event_log import (
    ArrivalEvent,
    BlockEvent,
    DropEvent,
    FrameEvent,
    Header,
    HealthEvent,
    LogReader,
    PacketEvent,
    PollEvent,
    TensorEvent,
    TextEvent,
    TriggerEvent,
    read_header,
)
from mmedge.recording.media_files import MediaReader
from mmedge.types import Arrival, Block, EndOfStream, Frame, Packet, Tensor, Text

# A log that was made up must not fill the memory: one turn has far less than this,
# which is beyond what an inbox holds, and one block less than the longest window.
_MOST_PACKETS, _MOST_VALUES, _LONGEST_BLOCK_S = 65_536, 1 << 27, 60
NO_PICTURE = np.empty((0, 0), np.uint8)


@dataclass(slots=True)
class Turn:
    """One turn of the recorded run: what was pushed, when it was polled, what became of the triggers by number."""

    events: list[PacketEvent] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    now_ns: int = 0
    triggers: dict[int, TriggerEvent] = field(default_factory=dict)
    notes: list[DropEvent | HealthEvent] = field(default_factory=list)
    last: bool = False


class Recording:
    """A recording's folder, open for reading.

    Args:
        folder: As ``mmedge record`` or ``mmedge run --record`` made it, whole or cut off anywhere.

    Attributes:
        header: What was recorded.
        cut: After ``turns``: why they end before the recorded run did; None when they do not.

    Raises:
        ConfigError: If the folder holds no recording.
        SourceError: If its header is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        odd = [path for path in self.folder.glob("*") if not path.is_file()]
        if odd:  # a named pipe would be waited for
            raise SourceError(f"'{odd[0].name}' is not a file", where=str(folder), fix="name a folder of mmedge record")
        self.header: Header = read_header(self.folder)
        self.cut: str | None = None

    def turns(
        self, *, media: bool = True, rates_hz: Mapping[str, int] | None = None, reuse: bool = False
    ) -> Generator[Turn, None, None]:
        """Yield every turn that is whole, up to the first one whose media are cut off or damaged.

        Args:
            media: Decode pictures and sound; otherwise sound is silent and every picture empty, as one is that was
                not written in time.
            rates_hz: Input name -> rate to give its sound in; as it was recorded by default.
            reuse: Read later pictures into the memory of those that were released.
        """
        tracks = _Tracks(self.header, rates_hz or {})
        log_reader = LogReader(self.folder, tuple(self.header.inputs))
        readers = {n: MediaReader(self.folder, entry.files) for n, entry in self.header.inputs.items()} if media else {}
        turn, polled, values = Turn(), False, 0
        self.cut = None
        try:
            for event in log_reader:
                if polled and isinstance(event, (PacketEvent, PollEvent)):
                    yield turn
                    turn, polled = Turn(), False
                if isinstance(event, PollEvent):
                    turn.now_ns, polled = event.now_ns, True
                elif isinstance(event, TriggerEvent):
                    turn.triggers[event.seq] = event
                elif isinstance(event, (DropEvent, HealthEvent)):
                    turn.notes.append(event)
                elif isinstance(event, PacketEvent):
                    values = 0 if not turn.events else values
                    values += _size(event, self.header.inputs[event.stream].spec, self.folder)
                    if len(turn.events) == _MOST_PACKETS or values > _MOST_VALUES:
                        raise _made_up("a turn has more packets than any inbox holds", self.folder)
                    turn.events.append(event)
                    turn.packets += tracks.resampled(_packet(event, readers.get(event.stream), reuse=reuse))
            if polled:
                turn.last = True
                yield turn
            self.cut = log_reader.cut
        except SourceError as error:
            self.cut = error.message
        finally:
            for reader in readers.values():
                reader.close()


def _made_up(what: str, folder: Path) -> SourceError:
    return SourceError(f"the log is damaged: {what}", where=str(folder), fix="replay the part that is there")


def _size(event: PacketEvent, spec: Input, folder: Path) -> int:
    """Return how many values of an array or of sound a packet holds; raise SourceError if its input gives fewer."""
    if isinstance(event, TensorEvent):
        size, most = prod(event.shape), prod(spec.shape) if isinstance(spec, TensorInput) else 0
    elif isinstance(event, BlockEvent):
        size, most = event.samples, _LONGEST_BLOCK_S * spec.sample_rate_hz if isinstance(spec, AudioInput) else 0
    else:
        return 0
    if size > most:
        raise _made_up(f"packet {event.seq} of '{event.stream}' has {size} values, its input at most {most}", folder)
    return size


def _packet(event: PacketEvent, reader: MediaReader | None, *, reuse: bool) -> Packet:
    stamp: dict[str, Any] = {name: getattr(event, name) for name in Packet.__struct_fields__}
    if isinstance(event, FrameEvent):
        data, release = (NO_PICTURE, None) if reader is None or event.at_ms is None else reader.picture(event)
        return Frame(
            **stamp,
            data=data,
            release=release if reuse else None,
            format=event.format,
            width=event.width,
            height=event.height,
            description=event.described,
            unchanged_ns=event.unchanged_ns,
            damaged=event.damaged,
        )
    if isinstance(event, BlockEvent):
        samples = np.zeros(event.samples, np.float32) if reader is None else reader.sound(event)
        return Block(**stamp, samples=samples, lost=event.lost)
    if isinstance(event, TensorEvent):
        return Tensor(**stamp, data=np.empty(0, event.dtype) if reader is None else reader.tensor(event))
    if isinstance(event, TextEvent):
        return Text(**stamp, text=event.text)
    if isinstance(event, ArrivalEvent):
        return Arrival(**stamp)
    return EndOfStream(**stamp, reason=event.reason)


class _Tracks:
    """Resamples sound as a live device that refuses the rate is: one track for each input and epoch."""

    def __init__(self, header: Header, rates_hz: Mapping[str, int]) -> None:
        recorded = {n: e.spec.sample_rate_hz for n, e in header.inputs.items() if isinstance(e.spec, AudioInput)}
        self._rates_hz = {n: (hz, rates_hz.get(n, hz)) for n, hz in recorded.items() if rates_hz.get(n, hz) != hz}
        self._tracks: dict[tuple[str, int], MonoTrack] = {}

    def resampled(self, packet: Packet) -> Iterator[Packet]:
        if not isinstance(packet, Block) or packet.stream not in self._rates_hz:
            yield packet
            return
        in_hz, out_hz = self._rates_hz[packet.stream]
        key = (packet.stream, packet.epoch)
        if key not in self._tracks:
            self._tracks[key] = MonoTrack(in_hz, out_hz, low_delay=True)
        track = self._tracks[key]
        start_ns = packet.capture_ns - len(packet.samples) * 1_000_000_000 // in_hz
        pieces = list(track.hole(start_ns)) if packet.lost else []
        for piece in (*pieces, *track.feed(packet.samples, start_ns)):
            yield replace(packet, samples=piece.samples, lost=piece.lost, capture_ns=piece.end_ns)
