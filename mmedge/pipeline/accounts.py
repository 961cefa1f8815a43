"""A run's figures: what became of each trigger, and how its sources are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from mmedge.capture import Source, SourceHealth
from mmedge.pipeline.statistics import Statistics
from mmedge.recording.decision import Decision
from mmedge.sync import Synchronizer

STARTUP_NS = 2_000_000_000  # in which an input may be missing without a reason
LOOK_NS = 100_000_000  # between two looks at the health of the sources, and at sound that nothing waits for


class Accounts:
    """Counts what becomes of triggers, and looks at the sources now and then.

    Args:
        statistics: Where the figures go.
        sync: What makes the triggers.
        sources: What is read.
        attached: The inputs that have a source or are pushed, and whether that is live.
        pushed: Those that are pushed.
        trigger: The input that makes the triggers.
        started_ns: When the run began.

    Attributes:
        unwanted: Results that came after their reader had stopped.
    """

    def __init__(
        self,
        statistics: Statistics,
        sync: Synchronizer,
        sources: Sequence[Source],
        *,
        attached: Mapping[str, bool],
        pushed: Collection[str],
        trigger: str,
        started_ns: int,
    ) -> None:
        self._statistics, self._sync, self._sources = statistics, sync, sources
        self._attached, self._pushed, self._trigger = attached, tuple(pushed), trigger
        self._started_ns = started_ns
        self._overruns: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._told: tuple[Counter[str], Counter[str], int] | None = None  # what the drops that are told are made of
        self._looked_ns = 0
        self.unwanted = 0

    def decide(self, decisions: Iterable[Decision]) -> int:
        """Count the triggers that were made and not answered; return how many of these are."""
        lost = 0
        for decision in decisions:
            if decision.outcome != "answered":
                self._overruns[decision.outcome] += 1
                lost += 1
        return lost

    def due(self, now_ns: int) -> bool:
        """Tell whether it is time to look at the sources."""
        return now_ns - self._looked_ns > LOOK_NS

    def count(self, dropped: int, *, final: bool = False) -> None:
        """Tell what has become of the triggers so far; ``dropped`` results were not read in time."""
        now_ns = time.monotonic_ns()
        if final or self.due(now_ns):  # not at every packet: it makes dictionaries
            self._looked_ns = now_ns
            self._look(now_ns)
        sync, statistics = self._sync, self._statistics
        drops = sync.drops
        told, overruns = self._told, self._overruns.total()
        if told is None or told[0] is not drops or told[1] is not self._lost or told[2] != overruns:
            self._told = drops, self._lost, overruns
            statistics.drops = dict(drops + self._overruns + self._lost)
        statistics.triggers = sync.triggers + self._lost.total()
        statistics.unwanted = dropped + self.unwanted
        statistics.lost_samples = sync.lost_samples()

    def end(self, dropped: int) -> None:
        """Count what was captured and will not be answered, so that in = out + dropped."""
        self._overruns["after_end"] += self._sync.pending
        self._sync.close()
        self.count(dropped, final=True)

    def _look(self, now_ns: int) -> None:
        """See how the sources are, and what of the trigger's input they lost."""
        statistics, trigger = self._statistics, self._trigger
        healths = self.healths()
        starting = now_ns - self._started_ns < STARTUP_NS
        well = all(
            h.state == "OK" or (h.state == "MISSING" and starting) for n, h in healths.items() if self._attached[n]
        )
        if statistics.state in ("READY", "DEGRADED"):
            statistics.state = "READY" if well else "DEGRADED"
        counters = healths[trigger].counters if trigger in healths else {}
        named = ("dropped_frames", f"dropped_unsent_{trigger}")
        self._lost = Counter({cause.removesuffix(f"_{trigger}"): counters.get(cause, 0) for cause in named})
        sources = {
            f"{name}_{cause}": count
            for source in self._sources
            if source.refused is not None
            for name in source.refused_streams
            for cause in ("lines", "not_finite", "no_channel", "no_track")
            if (count := healths[name].counters.get(f"refused_{cause}"))
        }
        statistics.refused = {**self._sync.refused, **sources}

    def healths(self) -> dict[str, SourceHealth]:
        """Return the health of each input that has a source or is pushed."""
        healths = {name: health for s in self._sources for health in [s.health()] for name in s.streams}
        now_ns = time.monotonic_ns()
        for name in self._pushed:
            counters = {k: n for k, n in self._sync.refused.items() if k.startswith(f"{name}_")}
            silence_ns = self._sync.silence_ns(name, now_ns)
            if silence_ns is None:
                healths[name] = SourceHealth(state="OK", reason="fed by push", counters=counters)
            else:
                reason = f"{name}: nothing was pushed for {silence_ns / 1e9:.0f} s"
                healths[name] = SourceHealth(state="STALE", reason=reason, counters=counters)
        return healths
