"""``test://`` sources: a simulated device, played in real time and received like any other."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
from msgspec.structs import replace

from mmedge.capture.base import Emit, ThreadSource
from mmedge.capture.kinds import KINDS
from mmedge.capture.pattern import Picture, Sound
from mmedge.capture.picture import PictureTrack
from mmedge.capture.simulator import Ending, Settings, Shot, Simulator, Take
from mmedge.capture.sound import MonoTrack
from mmedge.capture.uri import Uri
from mmedge.clock import ClockReport, StreamClock, now_ns
from mmedge.errors import SourceError
from mmedge.types import NS_PER_S

_FLOOR_NS = KINDS["test"].constant_ns["B"]
_LEAP_NS = 1_000_000_000
_SHORT_NS = 50_000_000  # in which whoever stops a device can wait for it


class _Line:
    """One track's own time and where it lies on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.clock = StreamClock(floor_ns=_FLOOR_NS)
        self.stamp_ns: int | None = None
        self.seen_ns = 0
        self.capture_ns = 0

    def restart(self) -> None:
        """Begin a new timeline."""
        self.clock.restart()
        self.stamp_ns, self.capture_ns = None, 0

    def leaps(self, stamp_ns: int, seen_ns: int) -> bool:
        """Tell whether the stamp cannot be of the same timeline: it went back, or ran ahead of the arrivals."""
        if self.stamp_ns is None:
            return False
        step_ns = stamp_ns - self.stamp_ns
        return step_ns < 0 or step_ns > seen_ns - self.seen_ns + _LEAP_NS

    def capture(self, stream_ns: int) -> int:
        """Return the capture time of stream time ``stream_ns``; never earlier than the one before."""
        self.capture_ns = max(self.capture_ns, self.clock.to_monotonic(stream_ns))
        return self.capture_ns


class SyntheticSource(ThreadSource):
    """Plays a simulated device with faults; its capture times are estimated as a real device's are.

    Pictures are yuv420p with the true time burnt in (``mmedge.capture.pattern``), sound is mono float32.
    The device is opened when reading starts; opened again, it works and fails as before.

    Args:
        uri: Parsed address of kind ``test``.
        images: Names of the inputs that take its pictures.
        sounds: Names and sample rates of the inputs that take its sound.

    Raises:
        ConfigError: If a parameter is unknown or out of range.
    """

    def __init__(self, uri: Uri, *, images: tuple[str, ...] = (), sounds: Mapping[str, int] | None = None) -> None:
        self._sounds = dict(sounds or {})
        super().__init__((*images, *self._sounds), name=str(uri), live=True)
        self._settings = Settings.read(uri.params)
        self._rate_hz = self._settings.rate_hz or next(iter(self._sounds.values()), 0)
        self.nominal_hz = {
            **dict.fromkeys(images, float(self._settings.fps)),
            **dict.fromkeys(self._sounds, float(self._rate_hz)),
        }
        self._painter = Picture(self._settings.width, self._settings.height)
        self._pictures = {name: PictureTrack(live=True, slots=lambda: self.slots) for name in images}
        self._noise = np.random.default_rng(self._settings.seed)
        self._world = self._heard_world()
        self._image, self._sound = _Line(), _Line()
        self._monos = {name: MonoTrack(self._rate_hz, rate, low_delay=True) for name, rate in self._sounds.items()}
        self._missing = dict.fromkeys(self._sounds, 0)
        self._heard = 0  # samples

    def _heard_world(self) -> Sound:
        return Sound(self._rate_hz * self._settings.pace, self._noise)

    def _clock_reports(self) -> dict[str, ClockReport]:
        lines = {**dict.fromkeys(self._pictures, self._image), **dict.fromkeys(self._sounds, self._sound)}
        return {name: line.clock.report("B") for name, line in lines.items()}

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        simulator = Simulator(
            self._settings, rate_hz=self._rate_hz if self._sounds else None, pictures=bool(self._pictures)
        )
        self._world = self._heard_world()
        for event in simulator.events(now_ns()):
            early_ns = event.due_ns - now_ns()
            if early_ns > _SHORT_NS:
                stop.wait(early_ns / NS_PER_S)
            elif early_ns > 0:
                time.sleep(early_ns / NS_PER_S)  # to wait for an event costs as much as the block that comes then
            if stop.is_set():
                return
            if isinstance(event, Ending):
                if event.hangs:
                    stop.wait()
                    return
                raise SourceError("the device was unplugged", where=self.name, fix="open it again")
            self.receive(event, emit, stop, arrive_ns=now_ns())

    def receive(self, event: Shot | Take, emit: Emit, stop: threading.Event, *, arrive_ns: int) -> None:
        """Turn what the device delivered at ``arrive_ns`` into packets."""
        seen_ns = arrive_ns - round(self._settings.latency_ms * 1e6)
        if isinstance(event, Shot):
            self._follow(self._image, event, seen_ns)
            self._receive_picture(event, emit, stop, arrive_ns)
        else:
            self.counters["overflows"] += event.overflow
            gap_ns = self._follow(self._sound, event, seen_ns, gap=event.overflow)
            self._receive_sound(event, emit, gap_ns)

    def _follow(self, line: _Line, event: Shot | Take, seen_ns: int, *, gap: bool = False) -> int:
        """Learn from a stamp; return how much is missing before it, in ns."""
        if event.stamp_ns == line.stamp_ns:  # it says nothing, and must not pass for a delay
            self.counters["stale_stamps"] += 1
            return 0
        if line.leaps(event.stamp_ns, seen_ns):
            self._new_epoch("clock_jumps")
            for each in (self._image, self._sound):  # they share the device's clock: one new epoch for both
                each.restart()
        line.stamp_ns, line.seen_ns = event.stamp_ns, seen_ns
        jump_ns = line.clock.observe(event.stamp_ns, seen_ns, gap=gap)
        if jump_ns < 0 or (jump_ns and not gap):
            self._new_epoch("clock_jumps")
            line.capture_ns = 0
        return max(0, jump_ns)

    def _new_epoch(self, cause: str) -> None:
        self.counters[cause] += 1
        self.new_epoch()

    def _receive_picture(self, shot: Shot, emit: Emit, stop: threading.Event, arrive_ns: int) -> None:
        line = self._image
        capture_ns = line.capture(shot.stamp_ns)
        if (shot.width, shot.height) != (self._painter.width, self._painter.height):
            self._painter = Picture(shot.width, shot.height)
        for name, track in self._pictures.items():
            lent = track.slot((shot.height * 3 // 2, shot.width), stop)
            if lent is None:
                self.counters["dropped_frames"] += 1
                continue
            slot, release = lent
            self._painter.paint(slot, shot.shown_ns)
            emit(
                self.frame(
                    name,
                    slot,
                    release,
                    format="yuv420p",
                    size=(shot.width, shot.height),
                    capture_ns=capture_ns,
                    arrive_ns=arrive_ns,
                    uncertainty_ns=line.clock.uncertainty_ns,
                    unchanged_ns=track.unchanged_ns(slot, capture_ns),
                )
            )

    def _receive_sound(self, take: Take, emit: Emit, gap_ns: int) -> None:
        line, size_ns = self._sound, take.samples * NS_PER_S // self._rate_hz
        samples = self._world.take(take.first, take.samples, take.start_ns)
        # What arrives is one run of samples, whatever its stamps say of it.
        self._heard += take.samples
        end_ns = self._heard * NS_PER_S // self._rate_hz
        for name, mono in self._monos.items():
            self._missing[name] += round(gap_ns * self._sounds[name] / NS_PER_S)
            for piece in mono.feed(samples, end_ns - size_ns):
                lost, self._missing[name] = self._missing[name], 0
                self.counters["lost_samples"] += lost
                emit(
                    self.block(
                        name,
                        piece if lost == piece.lost else replace(piece, lost=lost),
                        capture_ns=line.capture(take.stamp_ns + piece.end_ns - end_ns),
                        uncertainty_ns=line.clock.uncertainty_ns,
                        quality="B",
                    )
                )
