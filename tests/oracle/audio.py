"""Sound in the synchroniser, in Python: a time-indexed ring of samples, cut exactly at the trigger's capture time."""

from __future__ import annotations

from collections import deque

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, Missing
from mmedge.sound_cut import SoundCut
from mmedge.types import NS_PER_S, Block, FloatArray, Packet, Snapshot
from tests.oracle.streams import FOREVER_NS, IDLE_NS, JUMP_NS, Stream

# Sources say what they lost. Time stamps that disagree with the count of samples by more than this, more than
# any clock wavers, show a gap that was not said.
GAP_NS = 100_000_000


class AudioStream(Stream):
    """Samples by index; the newest block's capture time places them all, within one epoch.

    Args:
        name: The input.
        spec: Its rate and window.
        missing: Its policy.
        live: Whether its source is live.
        started_ns: When the run began.
        ahead_ns: By how much its window ends after the trigger.
        reserve_ns: For how long a window must stay readable.
    """

    accepts = (Block,)
    rank = 0
    _min_step_ns = -FOREVER_NS  # sound is never refused for its time

    def __init__(
        self,
        name: str,
        spec: AudioInput,
        missing: Missing | None,
        *,
        live: bool,
        started_ns: int,
        ahead_ns: int,
        reserve_ns: int,
    ) -> None:
        super().__init__(name, missing, live=live, started_ns=started_ns)
        self.rate_hz = spec.sample_rate_hz
        self.window = spec.samples
        self.ahead_ns = ahead_ns
        self.lost = 0
        self._capacity = self.window + reserve_ns * self.rate_hz // NS_PER_S
        # Its memory is shared: who reads results in another process may copy what they were made from.
        self._ring = core.SampleRing.shared(self._capacity)
        self._end = self._begin = 0  # of the samples of this epoch
        self._off_ns = 0
        self._holes: deque[tuple[int, int]] = deque()  # no shorter than a window, but for the newest

    def _jumped(self, packet: Packet, step_ns: int, early_ns: int) -> bool:
        assert isinstance(packet, Block)
        self._off_ns = step_ns - (len(packet.samples) + packet.lost) * NS_PER_S // self.rate_hz
        # Sound that would overlap cannot be placed. What lies ahead of the clock is no gap.
        return self._off_ns < -GAP_NS or (self.live and self._off_ns > GAP_NS and early_ns > JUMP_NS)

    def push(self, block: Block) -> str | None:
        """Take a block; samples that are missing before it become silence of the same length."""
        if self.seen(block) is not None:
            return "old_epoch"
        lost = block.lost
        if self.fresh and self._end:
            self._end = self._ring.write_silence(self.window)  # no window spans two epochs
            self._holes.clear()
        elif not self.fresh and self._off_ns > GAP_NS:
            lost += self._off_ns * self.rate_hz // NS_PER_S
        if lost:
            self._lose(lost)
        if self.fresh:
            self._begin = self._end
        self._end = self._ring.write(block.samples)
        return None

    def passed(self, packet: Packet) -> str | None:
        """Take no notice of a block that was let go: the next one says what is missing before it."""
        return None

    def _lose(self, lost: int) -> None:
        self.lost += lost
        holes, first = self._holes, self._end
        self._end = self._ring.write_silence(lost)
        if holes and (holes[-1][1] == first or holes[-1][1] - holes[-1][0] < self.window):
            hole = holes.pop()
            first = hole[0] if hole[1] == first else first
        holes.append((first, self._end))
        while holes[0][1] < self._end - self._capacity:
            holes.popleft()

    def complete(self, t_ns: int) -> bool:
        """Tell whether the window of a trigger at ``t_ns`` has arrived."""
        return self.watermark_ns >= t_ns + self.ahead_ns

    def cut(self, snapshot: Snapshot, t_ns: int, *, latest: bool) -> str | None:
        """Cut the window of a trigger at ``t_ns``; it ends at the newest sample when that is older."""
        if self.last_arrive_ns is None:
            return self._gone()
        needed_ns, newest_ns = t_ns + self.ahead_ns, self._capture_ns
        end, cut_ns = self._end, newest_ns
        if needed_ns < newest_ns and not latest:
            # Rounded to the nearest sample; the cut's own time says where that is.
            end -= ((newest_ns - needed_ns) * self.rate_hz + NS_PER_S // 2) // NS_PER_S
            cut_ns -= (self._end - end) * NS_PER_S // self.rate_hz
        off_ns = needed_ns - cut_ns
        limit_ns = self.max_age_ns if self.policy == "hold" and self.max_age_ns is not None else IDLE_NS
        if abs(off_ns) > limit_ns:
            return f"{self.name}: {abs(off_ns) / 1e6:.0f} ms {'behind' if off_ns > 0 else 'ahead'}"
        begin = max(end - self.window, self._begin)
        if end <= begin or any(first <= begin and end <= last for first, last in self._holes):
            return f"{self.name}: no sound of that time"
        if begin < self._end - self._capacity:
            return f"{self.name}: overwritten before it was wanted"
        snapshot.audio_end[self.name] = end
        snapshot.audio_end_ns[self.name] = cut_ns
        snapshot.audio_span[self.name] = self._begin, max(self._begin, self._end - self._capacity)
        snapshot.age_ms[self.name] = max(t_ns - cut_ns, 0) / 1e6
        snapshot.skew_ms = max(snapshot.skew_ms, abs(off_ns) / 1e6)
        return None

    def read(self, end: int, out: FloatArray) -> int:
        """Copy the samples before index ``end`` into ``out``; return how many are real.

        ``out`` is float32 [n], -1..1, at the input's sample rate.
        """
        return self._ring.read(end, out)

    def sound(self, snapshot: Snapshot) -> SoundCut:
        """Return where the window of ``snapshot`` lies, for whoever wants to copy it."""
        end, end_ns = snapshot.audio_end[self.name], snapshot.audio_end_ns[self.name]
        return SoundCut(self._ring, end, end_ns, self.window, self.rate_hz, snapshot.epoch.get(self.name, 0))
