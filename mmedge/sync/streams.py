"""What the synchroniser knows of each input: newest data, watermark, presence at a time."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, Missing
from mmedge.types import Block, EndOfStream, FloatArray, Frame, Snapshot, Tensor, Text

FOREVER_NS = 1 << 62
# A live source that has been silent for this long, and for three of its periods, no longer holds triggers back.
IDLE_NS = 250_000_000
# Before their first packet devices take longer than that.
STARTUP_NS = 2_000_000_000
# A camera picture that is bit-identical for this long is frozen: sensors are never noiseless.
FROZEN_NS = 1_000_000_000


class Stream:
    """One input: its watermark (capture time up to which it is complete) and its life."""

    waits: ClassVar[bool] = True
    idle_ns: int = IDLE_NS

    def __init__(self, name: str, missing: Missing | None, *, live: bool) -> None:
        self.name = name
        self.live = live
        self.policy = missing.policy if missing else "zero"
        self.max_age_ns = round(missing.max_age_ms * 1e6) if missing and missing.max_age_ms else None
        self.watermark_ns = -FOREVER_NS
        self.epoch = 0
        self.ended: EndOfStream | None = None
        self.last_arrive_ns: int | None = None
        self.uncertainty_ns = 0

    def seen(self, packet: Frame | Block | Text | Tensor) -> None:
        """Note a packet's arrival."""
        if packet.epoch != self.epoch:
            self.epoch = packet.epoch
            self.watermark_ns = -FOREVER_NS
        self.ended = None
        self.last_arrive_ns = packet.arrive_ns
        self.uncertainty_ns = packet.uncertainty_ns
        self.watermark_ns = max(self.watermark_ns, packet.capture_ns)

    def alive(self, now_ns: int, started_ns: int) -> bool:
        """Tell whether new data may still come soon."""
        if self.ended is not None:
            return False
        if not self.live:
            return True
        if self.last_arrive_ns is None:
            return now_ns - started_ns <= STARTUP_NS
        return now_ns - self.last_arrive_ns <= self.idle_ns

    def complete(self, t_ns: int) -> bool:
        """Tell whether everything up to ``t_ns`` has arrived."""
        return self.watermark_ns >= t_ns

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Put what is valid at ``t_ns`` into ``snapshot``; return the reason when nothing is."""
        raise TypeError(f"{type(self).__name__} does not implement cut")

    def _gone(self) -> str:
        if self.ended is not None:
            return f"{self.name}: {self.ended.reason or 'ended'}"
        return f"{self.name}: nothing has come yet" if self.last_arrive_ns is None else f"{self.name}: late"

    def close(self) -> None:
        """Release what is held."""


class ImageStream(Stream):
    """The newest frames; the one nearest to the trigger is cut."""

    def __init__(self, name: str, missing: Missing | None, *, live: bool) -> None:
        super().__init__(name, missing, live=live)
        self.frames: deque[Frame] = deque()
        self.period_ns = 40_000_000
        self._measured = False

    def push(self, frame: Frame) -> None:
        """Take a frame."""
        if self.frames and frame.epoch == self.frames[-1].epoch:
            step = frame.capture_ns - self.frames[-1].capture_ns
            if 0 < step < 5_000_000_000:
                self.period_ns += (step - self.period_ns) // (8 if self._measured else 1)
                self.idle_ns, self._measured = max(IDLE_NS, 3 * self.period_ns), True
        self.seen(frame)
        self.frames.append(frame)

    def trim(self, keep_from_ns: int) -> None:
        """Release the frames that no trigger from ``keep_from_ns`` on can want: all older ones but the last."""
        while len(self.frames) > 1 and self.frames[1].capture_ns <= keep_from_ns:
            old = self.frames.popleft()
            if old.release is not None:
                old.release()

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Choose the frame nearest to ``t_ns`` (the newest when ``latest``)."""
        candidates = [f for f in self.frames if f.epoch == self.epoch]
        if not candidates:
            return self._gone()
        frame = candidates[-1] if latest else min(candidates, key=lambda f: abs(f.capture_ns - t_ns))
        return admit(self, snapshot, frame, t_ns)

    def close(self) -> None:
        """Release every frame."""
        while self.frames:
            frame = self.frames.popleft()
            if frame.release is not None:
                frame.release()


def admit(stream: ImageStream, snapshot: Snapshot, frame: Frame, t_ns: int) -> str | None:
    """Put ``frame`` into ``snapshot`` unless it is too old or its camera is frozen."""
    limit_ns = stream.max_age_ns if stream.policy == "hold" and stream.max_age_ns else stream.period_ns
    age_ns = t_ns - frame.capture_ns
    if abs(age_ns) > limit_ns:
        return f"{stream.name}: {age_ns / 1e6:.0f} ms old"
    if frame.unchanged_ns > FROZEN_NS:
        return f"{stream.name}: STALE, the picture has not changed for {frame.unchanged_ns / 1e9:.1f} s"
    snapshot.frames[stream.name] = frame
    snapshot.age_ms[stream.name] = max(age_ns, 0) / 1e6
    snapshot.skew_ms = max(snapshot.skew_ms, abs(age_ns) / 1e6)
    return None


class AudioStream(Stream):
    """A time-indexed ring of samples, cut exactly at the trigger's capture time."""

    def __init__(self, name: str, spec: AudioInput, missing: Missing | None, *, live: bool, reserve_ns: int) -> None:
        super().__init__(name, missing, live=live)
        self.rate_hz = spec.sample_rate_hz
        self.window = spec.samples
        self.lost = 0
        # Every pending trigger's window must still be there when it is read.
        self.ring = core.SampleRing(self.window + round(reserve_ns * self.rate_hz / 1e9))

    def push(self, block: Block) -> None:
        """Take a block; samples that were lost before it become silence of the same length."""
        if block.epoch != self.epoch and self.last_arrive_ns is not None:
            self.ring.write_silence(self.window)  # no window spans two epochs
        if block.lost:
            self.lost += block.lost
            self.ring.write_silence(block.lost)
        self.ring.write(block.samples)
        self.seen(block)

    def index_at(self, t_ns: int) -> int:
        """Return the sample index at capture time ``t_ns``, anchored at the newest block."""
        return int(self.ring.end) + round((t_ns - self.watermark_ns) * self.rate_hz / 1e9)

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Cut the window that ends at ``t_ns``, or at the newest sample when that is older."""
        if self.last_arrive_ns is None:
            return self._gone()
        end_ns = self.watermark_ns if latest else min(t_ns, self.watermark_ns)
        lag_ns = t_ns - end_ns
        limit_ns = self.max_age_ns if self.policy == "hold" and self.max_age_ns else IDLE_NS
        if lag_ns > limit_ns:
            return f"{self.name}: {lag_ns / 1e6:.0f} ms behind"
        snapshot.audio_end[self.name] = self.index_at(end_ns)
        snapshot.age_ms[self.name] = max(lag_ns, 0) / 1e6
        snapshot.skew_ms = max(snapshot.skew_ms, abs(lag_ns) / 1e6)
        return None

    def read(self, end: int, out: FloatArray) -> int:
        """Copy the samples before index ``end`` into ``out``; return how many are real."""
        return self.ring.read(end, out)


class ValueStream(Stream):
    """A step function: the newest text or tensor whose time has come."""

    waits = False

    def __init__(self, name: str, missing: Missing | None, *, live: bool, ttl_ns: int | None) -> None:
        super().__init__(name, missing, live=live)
        self.values: deque[Text | Tensor] = deque(maxlen=64)
        self.ttl_ns = ttl_ns if ttl_ns is not None else self.max_age_ns

    def push(self, value: Text | Tensor) -> None:
        """Take a value."""
        self.seen(value)
        self.values.append(value)

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Choose the value that is valid at ``t_ns``."""
        valid = [v for v in self.values if latest or v.capture_ns <= t_ns]
        if not valid:
            return self._gone()
        age_ns = t_ns - valid[-1].capture_ns
        if self.ttl_ns is not None and age_ns > self.ttl_ns:
            return f"{self.name}: {age_ns / 1e6:.0f} ms old"
        snapshot.values[self.name] = valid[-1]
        snapshot.age_ms[self.name] = max(age_ns, 0) / 1e6
        return None
