"""What answers triggers. Better engines, and another bundle, take their places between two triggers.

Another bundle is loaded and self-tested in a thread beside the run. The run's loop puts it in, and back out if it fails
at one of its first results: that trigger is answered by the old one, which stays loaded until then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

import msgspec

from mmedge.bundle import Archive, Bundle
from mmedge.errors import BundleError, CheckError, ConfigError, MmedgeError, SourceError, internal
from mmedge.fusion import StageGraph, load_graph
from mmedge.pipeline.answer import Answer
from mmedge.pipeline.inference import Inference, SkippedTrigger
from mmedge.pipeline.spec import RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.pipeline.swap import BundleSwap, SwapOrder, check_run_can_swap, check_swap, run_ended
from mmedge.sync import Synchronizer
from mmedge.types import Snapshot

if TYPE_CHECKING:  # not of every run
    from mmedge.fusion import StageRunner, Upgrades

log = logging.getLogger("mmedge.swap")
_KEPT = 16  # of the swaps, and of the notes about them, so many are kept
_MESSAGE = 1000  # characters of an error
_NICE = 5  # of the thread that loads: no more, since it may hold the interpreter for moments


class _Candidate(msgspec.Struct, kw_only=True, eq=False):
    """A bundle that is loaded and waits for its place, or is on trial in it."""

    graph: StageGraph
    inference: Inference
    left: int
    told: BundleSwap
    before: Inference
    serves: bool = False
    triggers: int = 0  # that it alone has seen
    unwanted: MmedgeError | None = None  # why the loop is to put it back
    settled: threading.Event = msgspec.field(default_factory=threading.Event)
    error: MmedgeError | None = None


class Serving:
    """The stages and interpreters of the bundle that runs.

    Args:
        spec: What runs.
        bundle: The bundle it starts with; the caller closes it after ``close``.
        statistics: Where results, swaps and notes go.

    Attributes:
        graph: The stages that serve.
        inference: What answers with them; from ``begin`` on.

    Raises:
        MmedgeError: If an engine cannot be loaded.
    """

    def __init__(self, spec: RunSpec, bundle: Bundle, statistics: Statistics) -> None:
        self._spec, self._bundle, self._statistics = spec, bundle, statistics
        began_ns = time.monotonic_ns()
        self.graph = self._load(bundle, wait=spec.engines == "wait")
        golden_ms = sum(stage.tested_ms for stage in self.graph.stages)
        loaded_ms = (time.monotonic_ns() - began_ns) / 1e6 - golden_ms
        statistics.startup_ms = {"engines": round(loaded_ms, 1), "golden": round(golden_ms, 1)}
        self.inference: Inference
        self._upgrades: Upgrades | None = None
        self._candidate: _Candidate | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._doing: Literal["LOADING", "TRIAL"] | None = None
        self._counters: dict[str, int] = {}
        self._told: list[str] = []  # notes about swaps
        self._back: tuple[str, ...] = ()  # stages that began anew when their bundle was put back
        self._tell_graph()
        statistics.evidence = self.graph.evidence

    def _load(self, bundle: Bundle, *, wait: bool, kept: dict[str, StageRunner] | None = None) -> StageGraph:
        return load_graph(
            bundle,
            backend=self._spec.backend,
            precision=self._spec.precision,
            allow=self._spec.allow,
            wait=wait,
            kept=kept,
            fed=self._spec.inputs,
            place=self._spec.place,
            progress=None if kept is None else self._progress,
        )

    def _progress(self, message: str, share: float) -> None:
        if self._stop.is_set():
            raise run_ended()
        log.debug("%s (%.0f %%)", message, 100 * share)

    def _tell_graph(self) -> None:
        self._statistics.backends = dict(self.graph.describe())

    def begin(self, attached: Iterable[str], *, origin: Literal["capture", "delivery"], wall_ns: int) -> None:
        """Make ready to answer, and build better engines beside the run; arguments as those of ``Inference``."""
        self._attached, self._origin, self._wall_ns = tuple(attached), origin, wall_ns
        self.inference = self._infer_with(self._bundle, self.graph)

    def build(self) -> None:
        """Begin to build, beside the run, the engines that it does not wait for."""
        if self.graph.pending:
            from mmedge.fusion import Upgrades

            self._upgrades = Upgrades(self._bundle, self.graph, self.graph.pending)

    def _infer_with(self, bundle: Bundle, graph: StageGraph) -> Inference:
        spans, statistics = self._spec.spans, self._statistics
        return Inference(
            bundle, graph, statistics, self._attached, origin=self._origin, wall_ns=self._wall_ns, spans=spans
        )

    # From here on: in the thread of the run's loop.

    def turn(self) -> None:
        """Put in what is ready; between two triggers."""
        if self._upgrades is not None and self._upgrades.swap():
            self._statistics.tell_swaps(self._upgrades.swaps, self.graph.describe())
        candidate = self._candidate
        if candidate is None or candidate.settled.is_set():
            return
        if candidate.unwanted is not None:
            self._settle(candidate, candidate.unwanted)
        elif not candidate.serves:
            candidate.serves = True
            candidate.told = msgspec.structs.replace(candidate.told, t_ns=time.monotonic_ns())
            self._put(candidate.inference)
            self._doing = "TRIAL"
            log.info("bundle '%s' serves, on trial for %d results", candidate.told.name, candidate.left)
            if not candidate.left:
                self._settle(candidate, None)

    def _put(self, inference: Inference, *, anew: bool = True) -> None:
        inference.graph.follow(self.graph, anew=anew)
        self.graph, self.inference = inference.graph, inference
        if self._stop.is_set():  # whoever has cancelled has not seen it
            self.graph.cancel()
        self._tell_graph()

    def _settle(self, candidate: _Candidate, error: MmedgeError | None) -> None:
        candidate.error = error
        if error is not None and candidate.serves:
            if candidate.triggers:
                self._back = tuple(s.name for s in candidate.before.graph.stages if s not in self.graph.stages)
            self._put(candidate.before, anew=candidate.triggers > 0)
            candidate.serves = False
        candidate.inference.strict = frozenset()
        candidate.settled.set()

    def answer(self, snapshot: Snapshot, sync: Synchronizer) -> Answer:
        """Answer a trigger; raises what ``Inference.answer`` raises."""
        candidate = self._candidate
        if candidate is None or not candidate.serves or candidate.settled.is_set():
            return self.inference.answer(snapshot, sync)
        present, age_ms, reason = dict(snapshot.present), dict(snapshot.age_ms), snapshot.reason
        try:
            answer = candidate.inference.answer(snapshot, sync)
        except (SkippedTrigger, SourceError):
            candidate.triggers += 1
            raise
        except Exception as problem:  # whatever a bundle does on trial, the old one goes on
            if self._stop.is_set():
                raise
            error = problem if isinstance(problem, MmedgeError) else internal(problem)
            done = candidate.told.trial - candidate.left
            self._settle(
                candidate,
                CheckError(
                    f"the new bundle failed at result {done + 1} of its trial and was put back: {error.message}",
                    where=error.where or candidate.told.name,
                    fix="correct the new bundle; the old one runs on",
                ),
            )
            snapshot.present.update(present)
            snapshot.age_ms.clear()
            snapshot.age_ms.update(age_ms)
            snapshot.reason = reason
            return self.inference.answer(snapshot, sync)
        candidate.triggers += 1
        candidate.left -= 1
        if candidate.left <= 0:
            self._settle(candidate, None)
        return answer

    # From here on: in any thread.

    def swap(self, order: SwapOrder) -> Future[BundleSwap]:
        """Load another bundle beside the one that runs, and let it take over; what has come of it is in the future."""
        future: Future[BundleSwap] = Future()
        with self._lock:
            error = self._obstacle()
            if error is None:
                self._doing, self._back = "LOADING", ()
                self._counters = self._counters or {"swaps": 0, "put_back": 0}
                self._thread = threading.Thread(
                    target=self._main, args=(order, future), name="mmedge-swap", daemon=True
                )
                self._thread.start()
        if error is not None:
            future.set_exception(error)
        return future

    def _obstacle(self) -> MmedgeError | None:
        if self._stop.is_set():
            return run_ended()
        if self._doing is not None:
            return ConfigError("another bundle is being swapped in", where="swap", fix="wait until that is over")
        if self._upgrades is not None and self._upgrades.busy:
            return ConfigError(
                "better engines of the running bundle are being built",
                where="swap",
                fix="wait until health()['@engines'] says OK, or start the run with engines 'wait'",
            )
        try:
            check_run_can_swap(self._spec)
        except ConfigError as error:
            return error
        return None

    def _main(self, order: SwapOrder, future: Future[BundleSwap]) -> None:
        bundle: Bundle | None = None
        try:
            own = threading.get_native_id()  # the thread's own niceness, in proportion to that of the run
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + _NICE)
            bundle = Bundle(Archive(order.bundle))
            told = self._change(order, bundle)
        except BaseException as problem:
            error = problem if isinstance(problem, MmedgeError) else internal(problem)
            if not isinstance(problem, MmedgeError):
                log.exception("the swap failed")
            name = order.bundle if bundle is None else bundle.name
            message = error.message[:_MESSAGE]
            back = f"; stages {', '.join(self._back)} of '{self._bundle.name}' began anew" if self._back else ""
            self._note(False, {"name": name, "error": message}, f"bundle '{name}' was not put in: {message}{back}")
            log.warning("bundle '%s' is not put in, '%s' runs on: %s", name, self._bundle.name, error.message)
            self._doing = None
            future.set_exception(error)
        else:
            anew = f"; stages {', '.join(told.anew)} began anew" if told.anew else ""
            smoothing = f", the smoothing of {', '.join(told.smoothing_anew)} too" if told.smoothing_anew else ""
            self._note(
                True,
                msgspec.to_builtins(told),
                f"bundle '{told.name}' ({told.manifest_sha256[:12]}) runs since "
                f"{(told.t_ns - self._statistics.started_ns) / 1e9:.1f} s after the start, until then "
                f"'{told.before}' ({told.before_sha256[:12]}){anew}{smoothing}",
            )
            log.info("bundle '%s' has passed its trial", told.name)
            self._doing = None
            future.set_result(told)
        finally:
            if bundle is not None:
                bundle.close()  # what its stages need of it they have; its manifest stays

    def _note(self, done: bool, entry: dict[str, object], note: str) -> None:
        statistics = self._statistics
        self._counters = {name: n + (done == (name == "swaps")) for name, n in self._counters.items()}
        statistics.bundles = [*statistics.bundles, {"done": done, **entry}][-_KEPT:]
        others = [other for other in statistics.notes if other not in self._told]
        self._told = [*self._told, note][-_KEPT:]
        statistics.notes = [*others, *self._told]

    def _change(self, order: SwapOrder, bundle: Bundle) -> BundleSwap:
        from mmedge.fusion.kept import same_stages

        began_s, old = time.monotonic(), self._bundle
        if bundle.manifest_sha256 != order.manifest_sha256:
            raise BundleError("the bundle has changed just now", where=order.bundle, fix="swap it again")
        check_swap(self._spec, old.manifest, bundle.manifest)
        log.info("bundle '%s' is loaded and self-tested beside '%s'", bundle.name, old.name)
        same = same_stages(old, bundle)
        graph = self._load(bundle, wait=True, kept={s.name: s for s in self.graph.stages if s.name in same})
        anew = tuple(stage.name for stage in graph.stages if stage.name not in same)
        try:
            inference = self._infer_with(bundle, graph)
            inference.strict = frozenset(anew)
            told = BundleSwap(
                name=bundle.name,
                manifest_sha256=bundle.manifest_sha256,
                before=old.name,
                before_sha256=old.manifest_sha256,
                kept=tuple(sorted(same)),
                anew=anew,
                smoothing_anew=inference.follow(self.inference, same),
                t_ns=0,
                load_s=round(time.monotonic() - began_s, 3),
                trial=order.trial,
            )
            candidate = _Candidate(graph=graph, inference=inference, left=order.trial, told=told, before=self.inference)
            self._try(candidate, began_s + order.timeout_s, order.timeout_s)
        except BaseException:
            graph.close(but=self.graph.stages)
            raise
        candidate.before.graph.close(but=self.graph.stages)
        if candidate.error is not None:
            raise candidate.error
        self._bundle = bundle
        return candidate.told

    def _try(self, candidate: _Candidate, until_s: float, timeout_s: float) -> None:
        """Hand a candidate to the loop and wait until it has passed, or is out of use again: then raise why."""
        if time.monotonic() > until_s:
            raise MmedgeError(
                f"loading and self-test took longer than {timeout_s:g} s",
                where=candidate.told.name,
                fix="raise timeout_s; engines can be built before: mmedge compile",
            )
        with self._lock:
            if self._stop.is_set():
                raise run_ended()
            self._candidate = candidate
        if not candidate.settled.wait(max(0.0, until_s - time.monotonic())):
            candidate.unwanted = MmedgeError(
                f"the new bundle had not passed its trial after {timeout_s:g} s and was put back",
                where=f"{candidate.told.trial - candidate.left} of {candidate.told.trial} results",
                fix="raise timeout_s; with an input that makes few triggers, lower trial",
            )
            candidate.settled.wait()
        self._candidate = None
        if candidate.error is not None and not candidate.serves:
            raise candidate.error

    def report(self) -> dict[str, dict[str, object]]:
        """Return ``@engines`` and ``@bundle`` as ``health`` has them, of a run in which these were changed."""
        found: dict[str, dict[str, object]] = {}
        if self._upgrades is not None:
            found["@engines"] = self._upgrades.report()
        if self._counters:
            swaps = self._statistics.bundles
            last = str(swaps[-1]["error"]) if swaps and not swaps[-1]["done"] else None
            found["@bundle"] = {
                "state": self._doing or "OK",
                "reason": last,
                "counters": self._counters,
                "name": self._bundle.name,
                "manifest_sha256": self._bundle.manifest_sha256,
            }
        return found

    def cancel(self) -> None:
        """Let a run that waits for the user's own code fail at once, and every later one."""
        self._stop.set()
        self.graph.cancel()

    def close(self) -> None:
        """End what goes on beside the run and free everything; the loop has ended. Idempotent."""
        with self._lock:
            self._stop.set()
            candidate, thread = self._candidate, self._thread
        if candidate is not None and not candidate.settled.is_set():
            candidate.error = run_ended()
            candidate.settled.set()
        if thread is not None:
            thread.join()
        try:
            if self._upgrades is not None:
                self._upgrades.close()
        finally:
            self.graph.close()
