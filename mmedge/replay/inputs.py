"""Recording inputs without running anything on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.calibration.offsets import Shift, alignment
from mmedge.capture import KINDS, open_sources, parse
from mmedge.clock import now_ns
from mmedge.errors import ConfigError
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.inbox import INBOX, release
from mmedge.pipeline.unanswered import PACKETS, unanswered
from mmedge.recording.event_log import check_folder
from mmedge.recording.writer import Recorder, make_header
from mmedge.types import EndOfStream, Frame, Packet, Video

RATE_HZ = 48_000

log = logging.getLogger("mmedge.record")


def plain_seats(uris: Mapping[str, str] | Mapping[str, Address], rate_hz: int = RATE_HZ) -> dict[str, Input]:
    """Return what to record where no bundle says it: pictures as they come, mono sound of one rate, text.

    Args:
        uris: Input name -> source address; a name ``image``, ``audio`` or ``text`` says what to take of a source
            that can give several.
        rate_hz: Rate of the sound; a replay resamples it to what its bundle takes.

    Raises:
        ConfigError: If it is not clear what to take.

    Example:
        >>> sorted(plain_seats({"front": "csi://0", "audio": "clip.mp4"}))
        ['audio', 'front']
    """
    seats: dict[str, Input] = {}
    for name, uri in uris.items():
        feeds = KINDS[parse(uri).kind].feeds
        kind = feeds[0] if len(feeds) == 1 else name
        if kind == "image":
            seats[name] = ImageInput(size=(480, 640), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        elif kind == "audio":
            seats[name] = AudioInput(sample_rate_hz=rate_hz, window_ms=1000)
        elif kind == "text":
            seats[name] = TextInput(max_tokens=1)
        else:
            raise ConfigError(
                "this source may carry both pictures and sound",
                where=f"{Address(name)}={Address(uri)}",
                fix="name the input 'image' or 'audio', or give --bundle",
            )
    return seats


def record(
    folder: str | Path,
    uris: Mapping[str, str] | Mapping[str, Address],
    seats: Mapping[str, Input],
    *,
    video: Video = "lossless",
    duration_s: float | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Record inputs until their sources end, for ``duration_s`` seconds, or until interrupted.

    Args:
        folder: New or empty.
        uris: Input name -> source address.
        seats: What each input takes.
        video: Keep pictures bit by bit, or so that they look the same.
        duration_s: None records on.
        progress: Called at least ten times a second with what is returned in the end.

    Returns:
        State, reason and counters of the recording.

    Raises:
        ConfigError: If the folder is not empty or a source does not fit.
        DeviceError: If a device is not there, or nothing came of any.
        SourceError: If the recording cannot be written, or every source broke.
    """
    folder = Path(folder)
    check_folder(folder)
    inbox: Mailbox[Packet] = Mailbox(INBOX, on_drop=release, droppable=lambda packet: isinstance(packet, Frame))
    shifts, notes = alignment(seats, uris)
    for note in notes:
        log.warning("%s", note)
    sources = open_sources({n: seats[n] for n in uris}, uris, workers=True)
    recorder: Recorder | None = None
    try:
        live = {name: source.live for source in sources for name in source.streams}
        started_ns = now_ns()
        recorder = Recorder(folder, make_header(uris, live, seats, started_ns=started_ns, video=video))
        for source in sources:
            source.start(partial(_emit, inbox, shifts))
        open_streams = set(uris)
        # A text that is followed never ends: it goes along with what does.
        waited = {n for n in uris if not isinstance(seats[n], TextInput)} or open_streams.copy()
        while open_streams & waited and recorder.error is None:
            packets = inbox.take_all(0.1)
            at_ns = now_ns()
            recorder.turn(packets, at_ns, [])
            for packet in packets:
                release(packet)
                if isinstance(packet, EndOfStream):
                    open_streams.discard(packet.stream)
                else:
                    open_streams.add(packet.stream)
            health = {n: s.health() for s in sources for n in s.streams}
            recorder.health({n: {"state": h.state, "reason": h.reason} for n, h in health.items()}, at_ns)
            if progress is not None:
                progress(recorder.report())
            if duration_s is not None and at_ns - started_ns >= duration_s * 1e9:
                break
        broken = [source.error for source in sources if source.error is not None]
        reports: dict[str, dict[str, Any]] = {
            n: {"reason": h.reason, "counters": h.counters} for s in sources for h in [s.health()] for n in s.streams
        }
    finally:
        inbox.close()
        for source in sources:
            source.stop()
        for packet in inbox.take_all(0):
            release(packet)
        if recorder is not None:
            recorder.close()
    if recorder.error is not None:
        raise recorder.error
    if broken and len(broken) == len(sources):
        raise broken[0]
    report: dict[str, Any] = recorder.report()
    if not any(report["counters"].get(kind) for kind in PACKETS):
        raise unanswered(reports, {})
    return report


def _emit(inbox: Mailbox[Packet], shifts: Mapping[str, Shift], packet: Packet) -> None:
    shift = shifts.get(packet.stream)
    if shift is not None:
        packet = shift(packet)
    if not inbox.put(packet):
        release(packet)
