"""The recorder: writes what a run saw and decided, from a thread of its own, so that the run never waits for it."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from mmedge.address import Address
from mmedge.bundle import Bundle
from mmedge.bundle.manifest import AudioInput, Input
from mmedge.errors import MissingDependencyError, MmedgeError, SourceError, internal
from mmedge.extras import require
from mmedge.files import private_folder
from mmedge.privacy import Privacy
from mmedge.recording.conceal import conceal
from mmedge.recording.decision import Decision, trigger_event
from mmedge.recording.event_log import (
    ArrivalEvent,
    BlockEvent,
    EndEvent,
    EosEvent,
    Event,
    FrameEvent,
    Header,
    HealthEvent,
    LogWriter,
    PollEvent,
    RecordedBundle,
    RecordedInput,
    Rules,
    TensorEvent,
    TextEvent,
    check_folder,
    file_stems,
)
from mmedge.recording.media_files import PictureWriter, SoundWriter, TensorWriter
from mmedge.types import AnyArray, Arrival, Block, Description, EndOfStream, Frame, Packet, Tensor, Text, Video
from mmedge.version import __version__

log = logging.getLogger("mmedge.recorder")
# What may wait to be written; a disk that stalls for longer leaves holes, which the log names.
BUDGET_BYTES = 64 << 20
MAX_TURNS = 20_000  # packets that wait to be logged
CLOSE_S = 10.0  # for the disk to take the rest
_NICE = 5  # the recorder yields to inference
_Item: TypeAlias = tuple[Event, AnyArray | None]


def make_header(
    uris: Mapping[str, str] | Mapping[str, Address],
    live: Mapping[str, bool],
    seats: Mapping[str, Input],
    *,
    started_ns: int,
    unix_ns: int | None = None,
    bundle: Bundle | None = None,
    used: Rules | None = None,
    served: Mapping[str, str] | None = None,
    lossless: bool = False,
    video: Video = "lossless",
) -> Header:
    """Return what a recording says about itself.

    Args:
        uris: Input name -> where it comes from; what is secret in it is not written.
        live: Input name -> whether its source is live.
        seats: Specification of every input.
        started_ns: When the run began.
        unix_ns: The same instant on the wall clock; by default it is asked now.
        bundle: What runs; None when only inputs are recorded.
        used: The rules of the run; those of the bundle by default.
        served: What serves every stage.
        lossless: Whether the run waits for everything.
        video: How pictures are kept.
    """
    stems = file_stems(list(uris))
    ran = None
    if bundle is not None:
        own = bundle_rules(bundle)
        ran = RecordedBundle(
            name=bundle.name,
            manifest_sha256=manifest_digest(bundle),
            seats=bundle.inputs,
            own=own,
            used=used or own,
            served=dict(served or {}),
        )
    return Header(
        mmedge=__version__,
        bundle=ran,
        inputs={
            name: RecordedInput(
                uri=str(Address(uri)),
                live=live[name],
                files=stems[name],
                spec=seats[name],
            )
            for name, uri in uris.items()
        },
        lossless=lossless,
        video=video,
        started_ns=started_ns,
        unix_ns=time.time_ns() - (time.monotonic_ns() - started_ns) if unix_ns is None else unix_ns,
    )


def bundle_rules(bundle: Bundle) -> Rules:
    """Return a bundle's own rules."""
    return Rules(sync=bundle.manifest.sync, missing=bundle.manifest.missing)


def manifest_digest(bundle: Bundle) -> str:
    """Return a hash that changes with anything in the bundle."""
    return hashlib.sha256(msgspec.json.encode(bundle.manifest)).hexdigest()


class Recorder:
    """Writes one recording.

    A full disk, or anything else that goes wrong, ends the recording and not the run: see ``error``.

    Args:
        folder: New or empty; the owner alone may read it and what is in it.
        header: What is recorded.
        privacy: What is kept of pictures and sound; anything but ``picture`` gives other answers in a replay.

    Attributes:
        error: What ended the recording before the run.
        lost: Packets by stream that were logged without their data, because the disk was too slow.

    Raises:
        ConfigError: If the folder is not empty or cannot be written.
        MissingDependencyError: If PyAV is not installed.
    """

    def __init__(self, folder: Path, header: Header, privacy: Privacy = "picture") -> None:
        check_folder(folder)
        if "libx264" not in require("av", "recording").codecs_available:
            raise MissingDependencyError(
                "recording needs an H.264 encoder, which this PyAV does not have",
                where="libx264",
                fix="pip install --force-reinstall --only-binary av av",
            )
        self._header, self._privacy = header, privacy
        self._folder = folder
        self.error: MmedgeError | None = None
        self.lost: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        try:
            private_folder(folder)
            self._log = LogWriter(folder, header)
        except OSError as error:
            raise self._os_error(error) from error
        stems = {name: entry.files for name, entry in header.inputs.items()}
        self._pictures = {n: PictureWriter(folder, stem, header.video) for n, stem in stems.items()}
        rates = {n: e.spec.sample_rate_hz for n, e in header.inputs.items() if isinstance(e.spec, AudioInput)}
        self._sounds = {n: SoundWriter(folder, stems[n], rate) for n, rate in rates.items()}
        self._tensors = {n: TensorWriter(folder, stem) for n, stem in stems.items()}
        self._states: dict[str, tuple[Any, Any]] = {}
        self._spare: dict[tuple[int, ...], list[AnyArray]] = {}
        self._held_bytes = 0
        self._turns: deque[list[_Item]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="mmedge-recorder", daemon=True)
        self._thread.start()

    def turn(self, packets: Sequence[Packet], now_ns: int, decisions: Sequence[Decision]) -> None:
        """Take one turn of the run: what was pushed, when it was polled, what became of the triggers.

        Pictures are copied before it returns, after the results have left, so that these are not later for it. It
        waits only when the run is lossless, and never raises.
        """
        if self._closed:
            return
        items = [self._item(packet) for packet in packets]
        items.append((PollEvent(now_ns=now_ns), None))
        items += [(trigger_event(decision), None) for decision in decisions]
        self._put(items)

    def health(self, report: Mapping[str, Mapping[str, Any]], now_ns: int) -> None:
        """Note the sources whose state or reason has changed."""
        items: list[_Item] = []
        for name in self._header.inputs:
            state = (report[name]["state"], report[name]["reason"])
            if self._states.get(name) != state:
                self._states[name] = state
                items.append((HealthEvent(stream=name, now_ns=now_ns, state=state[0], reason=state[1]), None))
        if items:
            self._put(items)

    def report(self) -> dict[str, object]:
        """Return the state of the recording: OK, LATE (with holes) or MISSING (it ended), the reason, counters."""
        counters = dict(self.written) | {f"lost_{name}": count for name, count in self.lost.items()}
        if self.error is not None:
            return {"state": "MISSING", "reason": f"the recording ended: {self.error.message}", "counters": counters}
        if self.lost:
            reason = f"the recording has holes, {sum(self.lost.values())} packets were not written in time"
            return {"state": "LATE", "reason": reason, "counters": counters}
        return {"state": "OK", "reason": None, "counters": counters}

    def _item(self, packet: Packet) -> _Item:
        stamp = packet.stamp()
        if isinstance(packet, Frame):
            said = packet.description
            event = FrameEvent(
                **stamp,
                format=packet.format,
                width=packet.width,
                height=packet.height,
                full_range=said.full_range,
                description=None if said == Description(full_range=said.full_range) else said,
                unchanged_ns=packet.unchanged_ns,
                damaged=packet.damaged,
            )
            return event, None if packet.damaged else self._hold(packet, packet.data)
        if isinstance(packet, Block):
            samples = self._hold(packet, packet.samples) if len(packet.samples) else None
            return BlockEvent(**stamp, samples=len(packet.samples), lost=packet.lost), samples
        if isinstance(packet, Tensor):
            kind: Any = packet.data.dtype.name
            return TensorEvent(**stamp, dtype=kind, shape=packet.data.shape), self._hold(packet, packet.data)
        if isinstance(packet, Text):
            return TextEvent(**stamp, text=packet.text), None
        if isinstance(packet, Arrival):
            return ArrivalEvent(**stamp), None
        assert isinstance(packet, EndOfStream)
        return EosEvent(**stamp, reason=packet.reason), None

    def _hold(self, packet: Packet, data: AnyArray) -> AnyArray | None:
        with self._change:
            while (full := self._held_bytes > max(0, BUDGET_BYTES - data.nbytes)) and self._header.lossless:
                if self._closed:
                    break
                self._change.wait()
            if full:
                self.lost[packet.stream] += 1
                if self.lost.total() == 1:
                    log.warning("the disk is too slow, the recording has holes")
                return None
            self._held_bytes += data.nbytes
            spare = self._spare.get(data.shape) if data.dtype == np.uint8 else None
            held = spare.pop() if spare else np.empty(data.shape, data.dtype)
        slot = packet.release if isinstance(packet, Frame) else None
        if slot is None:
            np.copyto(held, data)
        elif not slot.copy(data, held):  # the synchroniser refused the frame, and its slot has another one by now
            self._give_back(held)
            return None
        return held

    def _put(self, items: list[_Item]) -> None:
        with self._change:
            if self._closed:
                return
            while self._header.lossless and len(self._turns) >= MAX_TURNS and not self._closed:
                self._change.wait()
            if len(self._turns) >= MAX_TURNS:
                self._fail(SourceError("the disk is too slow", where=str(self._folder), fix="use a faster disk"))
                return
            self._turns.append(items)
            self._change.notify_all()

    def _main(self) -> None:
        # The thread's own niceness: encoders must not take the cores from the stages.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            while (items := self._next()) is not None:
                for event, data in items:
                    if data is not None:
                        self._store(event, data)
                    self.written[type(event).__name__.removesuffix("Event").lower() + "s"] += 1
                self._log.write([event for event, _ in items])
            self._close_media()
            if self.error is None:
                self._log.write([EndEvent()])
        except OSError as error:
            self._fail(self._os_error(error))
        except MmedgeError as error:
            self._fail(error)
        except Exception as error:  # an encoder may raise anything; the run goes on
            log.exception("the recorder failed")
            self._fail(internal(error))
        finally:
            self._end()

    def _next(self) -> list[_Item] | None:
        with self._change:
            while not self._turns and not self._closed:
                self._change.wait()
            return self._turns.popleft() if self._turns else None

    def _store(self, event: Event, data: AnyArray) -> None:
        if isinstance(event, (FrameEvent, BlockEvent)):
            conceal(data, event, self._privacy)
        if isinstance(event, FrameEvent):
            self._pictures[event.stream].write(data, event)
        elif isinstance(event, BlockEvent):
            self._sounds[event.stream].write(data, event)
        elif isinstance(event, TensorEvent):
            self._tensors[event.stream].write(data, event)
        self._give_back(data)

    def _give_back(self, data: AnyArray) -> None:
        with self._change:
            self._held_bytes -= data.nbytes
            if data.dtype == np.uint8:
                self._spare.setdefault(data.shape, []).append(data)
            self._change.notify_all()

    def _fail(self, error: MmedgeError) -> None:
        with self._change:
            self.error = self.error or error
            self._closed = True
            self._turns.clear()
            self._change.notify_all()
        log.error("the recording has ended: %s", error)

    def _os_error(self, error: OSError) -> MmedgeError:
        return SourceError(
            f"cannot write the recording: {error.strerror}",
            where=str(self._folder),
            fix="free space or choose another folder",
        )

    def _close_media(self) -> None:
        for writers in (self._pictures, self._sounds, self._tensors):
            for writer in writers.values():
                writer.close()

    def _end(self) -> None:
        with suppress(OSError):  # on a disk that is full the files simply end
            self._close_media()
        if self.error is not None:
            with suppress(OSError):
                self._log.write([EndEvent(error=self.error.message)])
        self._log.close()

    def close(self) -> None:
        """Write what waits and finish the files; waits at most ten seconds. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._fail(SourceError("the disk does not respond", where=str(self._folder), fix="use another disk"))
