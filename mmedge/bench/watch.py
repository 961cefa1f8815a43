"""What goes on around a benchmark: conditions and events, looked at by a thread beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmedge.bench.conditions import Conditions
from mmedge.bench.processes import family, gpu_mib, pss_mib
from mmedge.pipeline import Statistics

LOOK_S = 0.2


class Event(NamedTuple):
    """Something that happened: when it was seen, in ns on CLOCK_MONOTONIC, and what."""

    t_ns: int
    what: str


class Watch:
    """Looks at a machine and a run five times a second.

    Args:
        statistics: Returns the figures of the run.
        health: Returns how its sources are.

    Attributes:
        events: Triggers that were dropped, by cause; sources that failed and came back; engines that were changed.
    """

    def __init__(
        self, statistics: Callable[[], Statistics], health: Callable[[], Mapping[str, Mapping[str, Any]]]
    ) -> None:
        self.events: list[Event] = []
        self.conditions = Conditions()
        self._statistics, self._health = statistics, health
        self._drops: dict[str, int] = {}
        self._states: dict[str, object] = {}
        self._changes = 0
        self._held_mib: dict[int, float] = {}
        self._wanted, self._begun, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="mmedge-watch", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Note the conditions from now on; returns at once."""
        self._wanted.set()

    def end(self, results: int) -> tuple[dict[str, object], list[dict[str, object]]]:
        """Stop looking; return the conditions and what each process took, since ``begin``.

        Args:
            results: Answers since then.
        """
        self._stop.set()
        self._wanted.set()
        self._thread.join()
        if not self._begun.is_set():
            return {}, []
        seconds = self.conditions.seconds
        seen = self.conditions.end(results)
        on_gpu = gpu_mib()
        processes: list[dict[str, object]] = [
            {
                "name": used.name,
                "cpu_share": round(used.cpu_s / seconds, 4),
                "pss_mib": _rounded(held := pss_mib(pid)),
                **({"grown_mib": round(held - self._held_mib[pid], 1)} if held and pid in self._held_mib else {}),
                **({"gpu_mib": on_gpu[pid]} if pid in on_gpu else {}),
            }
            for pid, used in self.conditions.usage.items()
        ]
        return seen, processes

    def close(self) -> None:
        """Stop looking; idempotent."""
        self._stop.set()
        self._wanted.set()

    def _run(self) -> None:
        self._wanted.wait()
        if self._stop.is_set():
            return
        self._look(silent=True)
        self.conditions.begin()
        self._held_mib = {pid: mib for pid in family() if (mib := pss_mib(pid)) is not None}
        self._begun.set()
        while not self._stop.wait(LOOK_S):
            self.conditions.sample()
            self._look()

    def _look(self, *, silent: bool = False) -> None:
        now_ns, statistics = time.monotonic_ns(), self._statistics()
        found = [
            f"{count - self._drops.get(cause, 0)} {cause}"
            for cause, count in statistics.drops.items()
            if count > self._drops.get(cause, 0)
        ]
        events = [f"dropped: {', '.join(found)}"] if found else []
        self._drops = dict(statistics.drops)
        states = {name: report["state"] for name, report in self._health().items() if name[:1] != "@"}
        events += [f"{name}: {state}" for name, state in states.items() if self._states.get(name, state) != state]
        self._states = states
        changes = len(statistics.swaps) + len(statistics.bundles)
        if changes > self._changes:
            events.append("an engine or the bundle was changed")
        self._changes = changes
        if not silent:
            self.events += [Event(now_ns, what) for what in events]


def _rounded(mib: float | None) -> float | None:
    return None if mib is None else round(mib, 1)
