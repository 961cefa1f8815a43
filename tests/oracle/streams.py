"""In Python, what the synchroniser knows of each input: newest data, watermark, presence at a time."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from mmedge.bundle.manifest import Missing
from mmedge.types import FROZEN_NS, EndOfStream, Frame, Packet, Snapshot, Tensor, Text

FOREVER_NS = 1 << 62  # 146 years: beyond any time, and sums of two stay in int64
# A live source that has been silent for this long, and for three of its periods and of its usual worst
# gaps, no longer holds triggers back.
IDLE_NS = 250_000_000
MAX_GAP_IDLE_NS = 2_000_000_000
# Before their first packet devices take longer than that.
STARTUP_NS = 2_000_000_000
# Time stamps that run back, or ahead of the clock, by more than this have another origin: a new epoch.
JUMP_NS = 2_000_000_000
MIN_PERIOD_NS, MAX_PERIOD_NS = 1_000_000, 5_000_000_000  # 1,000 Hz to 0.2 Hz
_AVERAGE = 8  # steps
_MAX_VALUES = 4096  # texts or arrays that wait for their trigger


class Stream:
    """One input: its watermark (capture time up to which it is complete) and its life.

    Attributes:
        epoch: Of the newest packet: what its source says, and one more for each jump of its time stamps.
        watermark_ns: Highest capture time of this epoch.
        period_ns: Mean step of its capture time; a guess until ``measured``.
        idle_ns: A live source that is silent for longer is not waited for.
        silent_ns: From when on it is not waited for if nothing more arrives.
        last_cut: Epoch and time of the trigger it was last cut for.
        kept: What ``trim`` can release.
        ended: Why nothing more is expected; a later packet takes it back.
    """

    accepts: ClassVar[tuple[type[Packet], ...]]
    rank: int | None = None  # which stream is the clock of hops: the lowest that is alive; None: never
    waits = True
    paced = True  # whether its steps are worth learning: lines of text come when they like
    _min_step_ns = 0

    def __init__(self, name: str, missing: Missing | None, *, live: bool, started_ns: int) -> None:
        self.name = name
        self.live = live
        self.silent_ns = started_ns + STARTUP_NS + 1 if live else FOREVER_NS
        self.policy = missing.policy if missing else "zero"
        self.max_age_ns = round(missing.max_age_ms * 1e6) if missing and missing.max_age_ms else None
        self.epoch = 0
        self.fresh = True  # whether the newest packet began an epoch
        self.ended: EndOfStream | None = None
        self.watermark_ns = -FOREVER_NS
        self.last_arrive_ns: int | None = None
        self.uncertainty_ns = 0
        self.period_ns = 40_000_000
        self.idle_ns = IDLE_NS
        self.last_cut = (0, -FOREVER_NS)
        self.kept: deque[Any] = deque()
        self._source_epoch = 0
        self._capture_ns = 0
        self._steps = 0
        self._gap_ns = IDLE_NS // 3

    @property
    def measured(self) -> bool:
        """Whether ``period_ns`` was measured."""
        return self._steps > 0

    def push(self, packet: Any) -> str | None:
        """Take a packet; return why it was refused, or None."""
        raise TypeError(f"{type(self).__name__} does not implement push")

    def passed(self, packet: Packet) -> str | None:
        """Take the times of a packet that was let go before it came here; return why it is refused, or None."""
        return self.seen(packet)

    def let_go_near(self, t_ns: int) -> bool:
        """Tell whether what would have been cut at ``t_ns`` had come, and was let go before it came here."""
        return False

    def seen(self, packet: Packet) -> str | None:
        """Note a packet's times; return why it must be refused, or None."""
        last_ns = self.last_arrive_ns
        if last_ns is None or packet.epoch > self._source_epoch:
            self.fresh = True
            self.epoch = max(packet.epoch, self.epoch + (last_ns is not None))
        elif packet.epoch < self._source_epoch:
            return "old_epoch"
        else:
            step_ns = packet.capture_ns - self._capture_ns
            gap_ns = max(packet.arrive_ns - last_ns, 0)
            self.fresh = self._jumped(packet, step_ns, step_ns - gap_ns)
            if self.fresh:
                self.epoch += 1
            elif step_ns < self._min_step_ns:
                return "time_backwards"
            elif self.paced:
                self._learn(step_ns, gap_ns)
        if self.fresh:
            self._source_epoch, self.watermark_ns = packet.epoch, -FOREVER_NS
        self.ended = None
        self.last_arrive_ns, self._capture_ns = packet.arrive_ns, packet.capture_ns
        self.uncertainty_ns = packet.uncertainty_ns
        self.silent_ns = packet.arrive_ns + self.idle_ns + 1 if self.live else FOREVER_NS
        if packet.capture_ns > self.watermark_ns:
            self.watermark_ns = packet.capture_ns
        return None

    def _jumped(self, packet: Packet, step_ns: int, early_ns: int) -> bool:
        return step_ns < -JUMP_NS or (self.live and early_ns > JUMP_NS)

    def _learn(self, step_ns: int, gap_ns: int) -> None:
        period_ns = self.period_ns
        if step_ns > 0 and (gap_ns <= self.idle_ns or self._steps < _AVERAGE):  # a death is no period
            if self._steps < _AVERAGE:
                self._steps += 1
            elif step_ns > 4 * period_ns:  # a stall says little
                step_ns = 4 * period_ns
            period_ns += (step_ns - period_ns) // self._steps
            if not MIN_PERIOD_NS <= period_ns <= MAX_PERIOD_NS:
                period_ns = MIN_PERIOD_NS if period_ns < MIN_PERIOD_NS else MAX_PERIOD_NS
            self.period_ns = period_ns
        # Follows the 99th percentile of the gaps between arrivals: up by 99 parts if above, down by one if below.
        worst_ns = self._gap_ns
        if gap_ns > worst_ns:
            self._gap_ns = worst_ns = min(worst_ns + worst_ns * 99 // 1600, MAX_GAP_IDLE_NS // 3)
        elif worst_ns > IDLE_NS // 3:
            self._gap_ns = worst_ns = max(worst_ns - worst_ns // 1600, IDLE_NS // 3)
        self.idle_ns = 3 * (period_ns if period_ns > worst_ns else worst_ns)

    def end(self, packet: EndOfStream) -> None:
        """Note that nothing more is expected, unless this is the end of what was replaced long ago."""
        if packet.epoch >= self._source_epoch:
            self.ended, self.silent_ns = packet, -FOREVER_NS

    @property
    def ended_well(self) -> bool:
        """Whether everything has come, as from a file."""
        return self.ended is not None and self.ended.reason is None and self.last_arrive_ns is not None

    def alive(self, now_ns: int) -> bool:
        """Tell whether new data may still come soon."""
        return now_ns < self.silent_ns

    def starting(self, t_ns: int, now_ns: int) -> bool:
        """Tell whether nothing can be there at ``t_ns`` yet."""
        return self.last_arrive_ns is None and self.alive(now_ns)

    def complete(self, t_ns: int) -> bool:
        """Tell whether nothing that is still to come can change what is cut at ``t_ns``."""
        # The next packet of a steady stream is then the farther one.
        return self.watermark_ns >= t_ns - (self.period_ns // 2 if self.live else 0)

    def runs_back(self, epoch: int, t_ns: int) -> bool:
        """Tell whether a trigger at ``t_ns`` would be followed backwards within the epoch; a text knows no order."""
        return self.rank is not None and self.last_cut[0] == epoch and t_ns <= self.last_cut[1]

    @property
    def passed_ns(self) -> int:
        """Up to when this epoch is done with: whatever were cut there or before would run back."""
        return self.last_cut[1] if self.runs_back(self.epoch, self.last_cut[1]) else -FOREVER_NS

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Put what is valid at ``t_ns`` into ``snapshot``; return the reason when nothing is."""
        raise TypeError(f"{type(self).__name__} does not implement cut")

    def admit(self, snapshot: Snapshot, packet: Any, t_ns: int) -> str | None:
        """Put ``packet`` into ``snapshot`` unless it may not be used at ``t_ns``; return why."""
        raise TypeError(f"{type(self).__name__} does not implement admit")

    def _gone(self) -> str:
        if self.ended is not None:
            return f"{self.name}: {self.ended.reason or 'ended'}"
        return f"{self.name}: nothing has come yet" if self.last_arrive_ns is None else f"{self.name}: late"

    def trim(self, keep_from_ns: int, wanted: Packet | None) -> None:
        """Release what no trigger from ``keep_from_ns`` on can want, up to ``wanted``."""

    def close(self) -> None:
        """Release what is held."""


class ImageStream(Stream):
    """The newest frames; the one nearest to the trigger is cut.

    A damaged picture makes its trigger and shows that its camera is alive, but counts as absent. Where the policy is
    ``hold``, the last good one stands for it.
    """

    accepts = (Frame,)
    rank = 1
    _min_step_ns = 1

    def __init__(self, name: str, missing: Missing | None, *, live: bool, started_ns: int) -> None:
        super().__init__(name, missing, live=live, started_ns=started_ns)
        self.frames: deque[Frame] = deque()
        self.kept = self.frames
        self._let_go: deque[int] = deque(maxlen=_MAX_VALUES)  # capture times, of this epoch
        self._old = 0  # this many of them are of earlier epochs: only the triggers they made may want them
        self._damaged_ns = -FOREVER_NS  # capture time of the newest damaged one of this epoch

    def push(self, frame: Frame) -> str | None:
        """Take a frame; one that is refused is released."""
        cause = self.seen(frame)
        if cause is not None:
            _release(frame)
            return cause
        if self.fresh:
            self._begin()
        if frame.damaged:
            self._damaged_ns = frame.capture_ns
        if frame.damaged and self.policy == "hold":
            _release(frame)  # its trigger wants its time alone
        else:
            self.frames.append(frame)
        return None

    def passed(self, packet: Packet) -> str | None:
        """Take the times of a frame that was let go; it may be the first of an epoch."""
        cause = self.seen(packet)
        if cause is None:
            if self.fresh:
                self._begin()
            self._let_go.append(packet.capture_ns)
        return cause

    def _begin(self) -> None:
        self._old = len(self.frames)
        self._damaged_ns = -FOREVER_NS
        self._let_go.clear()

    def let_go_near(self, t_ns: int) -> bool:
        """Tell whether a frame that could have been used at ``t_ns`` had come, and made room for newer ones."""
        return any(-self.period_ns <= t_ns - capture_ns <= self._limit_ns for capture_ns in self._let_go)

    def trim(self, keep_from_ns: int, wanted: Packet | None) -> None:
        """Release the frames that no trigger from ``keep_from_ns`` on can want: all older ones but the last."""
        frames = self.frames
        while len(frames) > 1 and frames[0] is not wanted and (self._old > 0 or frames[1].capture_ns <= keep_from_ns):
            _release(frames.popleft())
            self._old = max(self._old - 1, 0)

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Choose the frame nearest to ``t_ns`` (the newest when ``latest``)."""
        frames = self.frames
        if len(frames) <= self._old:  # nothing of this epoch
            return self._damaged_near(t_ns) or self._gone()
        best = frames[-1]
        if not latest:
            for index in range(len(frames) - 2, self._old - 1, -1):
                frame = frames[index]
                if abs(frame.capture_ns - t_ns) > abs(best.capture_ns - t_ns):
                    break
                best = frame
        return self.admit(snapshot, best, t_ns)

    def admit(self, snapshot: Snapshot, frame: Frame, t_ns: int) -> str | None:
        """Put ``frame`` into ``snapshot`` unless it is too old, damaged, or its camera is frozen."""
        if frame.damaged:
            return self._hold(snapshot, t_ns)
        age_ns = t_ns - frame.capture_ns
        if not -self.period_ns <= age_ns <= self._limit_ns:
            return self._damaged_near(t_ns) or f"{self.name}: {age_ns / 1e6:.0f} ms old"
        if frame.unchanged_ns > FROZEN_NS:
            return f"{self.name}: STALE, the picture has not changed for {frame.unchanged_ns / 1e9:.1f} s"
        snapshot.frames[self.name] = frame
        snapshot.age_ms[self.name] = max(age_ns, 0) / 1e6
        snapshot.skew_ms = max(snapshot.skew_ms, abs(age_ns) / 1e6)
        return None

    def _hold(self, snapshot: Snapshot, t_ns: int) -> str | None:
        """Put the last good frame before ``t_ns`` in place of a damaged one, where the policy wants that."""
        for index in range(len(self.frames) - 1, self._old - 1, -1) if self.policy == "hold" else ():
            if self.frames[index].capture_ns <= t_ns:
                if self.admit(snapshot, self.frames[index], t_ns) is None:
                    return None
                break  # it is too old: the damage is why
        return f"{self.name}: damaged"

    def _damaged_near(self, t_ns: int) -> str | None:
        near = -self.period_ns <= t_ns - self._damaged_ns <= self._limit_ns
        return f"{self.name}: damaged" if near else None

    @property
    def _limit_ns(self) -> int:
        """How old a frame may be."""
        return self.max_age_ns if self.policy == "hold" and self.max_age_ns is not None else self.period_ns

    def close(self) -> None:
        """Release every frame."""
        while self.frames:
            _release(self.frames.popleft())


class ValueStream(Stream):
    """A step function: the newest text or tensor whose time has come.

    With a rate it is waited for, and silence ends it; without one a value is valid until the next. A blank text takes
    the one before back.
    """

    accepts = (Text, Tensor)

    def __init__(
        self,
        name: str,
        missing: Missing | None,
        *,
        live: bool,
        started_ns: int,
        ttl_ns: int | None = None,
        rate_hz: float | None = None,
        paced: bool = False,
    ) -> None:
        super().__init__(name, missing, live=live and rate_hz is not None, started_ns=started_ns)
        # The bound is for callers that never trim.
        self.values: deque[Text | Tensor] = deque(maxlen=_MAX_VALUES)
        self.kept = self.values
        self.ttl_ns = ttl_ns if ttl_ns is not None else self.max_age_ns
        self._first_ns = -FOREVER_NS
        self.waits = rate_hz is not None
        self.paced = paced
        if rate_hz is not None:
            self.rank = 2
            self.period_ns = min(max(round(1e9 / rate_hz), MIN_PERIOD_NS), MAX_PERIOD_NS)
            self.idle_ns = max(IDLE_NS, 3 * self.period_ns)

    def push(self, value: Text | Tensor) -> str | None:
        """Take a value."""
        if self.last_arrive_ns is None:
            self._first_ns = value.capture_ns
        cause = self.passed(value)
        if cause is None:
            self.values.append(value)
        return cause

    def passed(self, packet: Packet) -> str | None:
        """Take the times of a value, which may be the first of an epoch."""
        cause = self.seen(packet)
        if cause is None and self.fresh:
            self.values.clear()
        return cause

    def starting(self, t_ns: int, now_ns: int) -> bool:
        """Tell whether nothing can be there at ``t_ns`` yet; the first text may come after a picture that waits."""
        return super().starting(t_ns, now_ns) or (self.rank is None and t_ns < self._first_ns)

    def trim(self, keep_from_ns: int, wanted: Packet | None) -> None:
        """Forget the values that no trigger from ``keep_from_ns`` on can want."""
        values = self.values
        while len(values) > 1 and values[1].capture_ns <= keep_from_ns:
            values.popleft()

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Choose the value that is valid at ``t_ns``."""
        for value in reversed(self.values):
            if latest or value.capture_ns <= t_ns:
                return self.admit(snapshot, value, t_ns)
        return self._gone()

    def admit(self, snapshot: Snapshot, value: Text | Tensor, t_ns: int) -> str | None:
        """Put ``value`` into ``snapshot`` unless its time is over."""
        if isinstance(value, Text) and not value.text.strip():
            return f"{self.name}: taken back"
        age_ns = t_ns - value.capture_ns
        limit_ns = self.idle_ns if self.ttl_ns is None and self.rank is not None else self.ttl_ns
        if limit_ns is not None and age_ns > limit_ns:
            return f"{self.name}: {age_ns / 1e6:.0f} ms old"
        snapshot.values[self.name] = value
        snapshot.age_ms[self.name] = max(age_ns, 0) / 1e6
        return None


def _release(frame: Frame) -> None:
    if frame.release is not None:
        frame.release()
