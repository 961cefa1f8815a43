"""A run starts on the engines that are there; what is still to be built is built beside it and takes their place."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from mmedge.bundle import Bundle, Variant
from mmedge.engine.build_messages import BuildLimits
from mmedge.errors import DeviceError, MmedgeError
from mmedge.fusion.built import load_built
from mmedge.fusion.graph import StageGraph
from mmedge.fusion.stage import StageRunner

if TYPE_CHECKING:
    from mmedge.engine.reach import EngineOptions

log = logging.getLogger("mmedge.fusion")
_NICE = 10  # a build takes what the run leaves


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A stage that could be served better.

    Attributes:
        stage: Its name.
        choices: What is to be built for it, best first: backend and variant.
        options: Where its engine is to run.
    """

    stage: str
    choices: Sequence[tuple[str, Variant]]
    options: EngineOptions | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """An engine that took the place of another one between two triggers.

    Attributes:
        stage: Whose.
        before: Backend and file that served it until then.
        after: Those that serve it since.
        after_s: Seconds since the builds began.
    """

    stage: str
    before: str
    after: str
    after_s: float


class Upgrades:
    """Builds, loads and self-tests engines in a thread; whoever runs the graph puts them in between two triggers.

    Args:
        bundle: An open bundle, which stays so until ``close``.
        graph: What runs meanwhile.
        pending: What is to be built.

    Attributes:
        swaps: What was put in so far.
        waiting: Stages whose engines are still being built.
        given_up: Stage -> why it stays as it is.

    Example:
        >>> upgrades = Upgrades(bundle, graph, graph.pending)  # doctest: +SKIP
        >>> upgrades.swap()  # between two triggers
        []
    """

    def __init__(self, bundle: Bundle, graph: StageGraph, pending: Sequence[Pending]) -> None:
        self._bundle, self._graph, self._pending = bundle, graph, pending
        self._stop = threading.Event()
        self._ready: SimpleQueue[StageRunner] = SimpleQueue()
        self._held: list[StageRunner] = []
        self._started_s = time.monotonic()
        self.swaps: list[Swap] = []
        self.waiting = [item.stage for item in pending]
        self.given_up: dict[str, str] = {}
        self._thread = threading.Thread(target=self._main, name="mmedge-build", daemon=True)
        if pending:
            log.info(
                "the run starts on %s; better engines of %s are being built",
                ", ".join(f"{stage}: {what}" for stage, what in graph.served.items()),
                ", ".join(self.waiting),
            )
            self._thread.start()

    def _main(self) -> None:
        upstream = {stage.name: stage for stage in self._graph.stages}
        limits = BuildLimits(nice=_NICE, stop=self._stop)
        for place, item in enumerate(self._pending):
            reasons = []
            for backend, variant in item.choices:
                if self._stop.is_set():
                    return
                try:
                    stage = load_built(
                        *(self._bundle, item.stage, upstream, backend, variant), limits=limits, options=item.options
                    )
                except DeviceError as error:  # so it is with all others
                    why = f"{backend} {variant.precision} was built, but cannot run here: {error.message}"
                    self._give_up([left.stage for left in self._pending[place:]], why)
                    return
                except Exception as error:  # the run goes on as it is, whatever it was
                    if not isinstance(error, MmedgeError):
                        log.exception("building %s failed", variant.file)
                    message = error.message if isinstance(error, MmedgeError) else f"{type(error).__name__}: {error}"
                    reasons.append(f"{backend} {variant.precision}: {message}")
                    continue
                self._ready.put(stage)
                self.waiting = self.waiting[1:]
                break
            else:
                if not self._stop.is_set():
                    self._give_up([item.stage], "; ".join(reasons))

    def _give_up(self, stages: Sequence[str], why: str) -> None:
        self.given_up.update(dict.fromkeys(stages, why))
        self.waiting = [stage for stage in self.waiting if stage not in stages]
        served = ", ".join(f"'{stage}' stays on {self._graph.served[stage]}" for stage in stages)
        log.warning("stage %s: %s", served, why)

    def swap(self) -> list[Swap]:
        """Put in what is ready, in the thread that runs the graph and between two triggers; return what that was.

        A stage that runs in the background at this moment waits for the next time.
        """
        if not self._held and self._ready.empty():
            return []
        self._take()
        done = []
        for stage in list(self._held):
            before = self._graph.served[stage.name]
            if not self._graph.swap(stage):
                continue
            self._held.remove(stage)
            after = self._graph.served[stage.name]
            took_s = round(time.monotonic() - self._started_s, 1)
            done.append(Swap(stage=stage.name, before=before, after=after, after_s=took_s))
            log.warning("stage '%s' runs on %s from now on, on %s until now", stage.name, after, before)
        self.swaps += done
        return done

    @property
    def busy(self) -> bool:
        """Whether engines are still being built, or wait for a stage that runs in the background."""
        return bool(self.waiting or self._held) or not self._ready.empty()

    def report(self) -> dict[str, object]:
        """Return how the builds are, as a source's health has it: state, reason and counters."""
        building = f"better engines of {', '.join(self.waiting)} are being built" if self.waiting else None
        reason = building or "; ".join(dict.fromkeys(self.given_up.values())) or None
        counters = {"swaps": len(self.swaps), "building": len(self.waiting), "given_up": len(self.given_up)}
        return {"state": "BUILDING" if building else "OK", "reason": reason, "counters": counters}

    def close(self) -> None:
        """End a build that is going on, and free what was not put in; idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._take()
        for stage in self._held:
            stage.close()
        self._held = []

    def _take(self) -> None:
        while not self._ready.empty():  # one thread takes them
            self._held.append(self._ready.get_nowait())
