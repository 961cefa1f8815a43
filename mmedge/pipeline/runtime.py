"""The runtime: sources in, results out. One thread reads the rings and runs synchroniser, stages and interpreters.

It is started from a ``RunSpec`` and talks through mailboxes only, so that it can live in another process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mmedge._native import core
from mmedge.bundle import Bundle
from mmedge.capture import Source, open_sources
from mmedge.capture.uri import modules_of
from mmedge.clock import read_anchor
from mmedge.errors import EngineError, InternalError, MmedgeError, internal
from mmedge.ipc.mailbox import Mailbox
from mmedge.ipc.sound import packets_of
from mmedge.lazy import imported_beside
from mmedge.pipeline.accounts import LOOK_NS, Accounts
from mmedge.pipeline.answer import Answer
from mmedge.pipeline.arguments import has_device
from mmedge.pipeline.check import check_run
from mmedge.pipeline.inbox import Inbox
from mmedge.pipeline.inference import SkippedTrigger
from mmedge.pipeline.intake import Intake
from mmedge.pipeline.outlet import Outlet, Pictures
from mmedge.pipeline.serving import Serving
from mmedge.pipeline.shed import expected_run_ns, shed
from mmedge.pipeline.spec import FEW, PUSH, RESULTS, RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.pipeline.swap import BundleSwap, SwapOrder
from mmedge.plan import Plan, apply_preset, hold_ns, make_plan
from mmedge.recording.decision import Decision
from mmedge.sync import Synchronizer
from mmedge.types import Block, Packet, Result, Snapshot

if TYPE_CHECKING:  # not of every run
    from mmedge.calibration.offsets import Shift
    from mmedge.clients.server import Server
    from mmedge.ipc.channel import PacketReader
    from mmedge.recording.writer import Recorder

log = logging.getLogger("mmedge.runtime")
LONG_NS = 50_000_000  # a run after which it is looked whether the sources' threads were held up, too
_SOUND = (Block, core.SoundRun)
END_S = 0.5  # what was begun in time may end


class Runtime:
    """Runs one bundle on its sources, in a thread of its own.

    Args:
        spec: What to run.
        bundle: The bundle ``spec.bundle`` names, already open; the caller closes it after ``stop``.
        results: Where results go; closed at the end of the run, with its error if there was one. None keeps
            them for ``get``.
        pushed: Where another process puts what is pushed; None when it comes by ``push``.

    Attributes:
        statistics: Counts and latencies so far.
        keeps_pictures: Whether results bring copies of their pictures.
        plan: What it does; from ``start`` on.

    Raises:
        ConfigError: If the sources do not fit the bundle or its validated masks.
        DeviceError: If a device is not there.
    """

    def __init__(
        self, spec: RunSpec, bundle: Bundle, results: Outlet | None = None, pushed: PacketReader | None = None
    ) -> None:
        self.spec = spec
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._lossless = spec.latency == "offline"
        check_run(spec, bundle.manifest)
        self.statistics = Statistics()
        self.plan: Plan
        waiting = FEW if self._lossless else 1 if spec.results == "latest" else RESULTS
        self._mailbox: Mailbox[Answer] = Mailbox(waiting, lossless=self._lossless)
        self._results: Outlet = self._mailbox if results is None else results
        self.keeps_pictures, self._pictures = self._lossless and results is None, Pictures()
        self.inbox, self._pushed = Inbox(lossless=self._lossless), pushed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="mmedge-runtime", daemon=True)
        self._sources: list[Source] = []
        self._shifts: dict[str, Shift] = {}
        self._serving: Serving | None = None
        self._accounts: Accounts | None = None
        self._run_ns = 0  # how long an answer is expected to take
        self._steady: dict[str, int] = {}  # streams that may have been held up by it
        self._recorder: Recorder | None = None
        self._programs: Server | None = None
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Load the engines, open the sources, start. Blocks until ready.

        Raises:
            MmedgeError: If an engine or a source cannot be opened; nothing is left running.
        """
        statistics, manifest = self.statistics, self._manifest
        sources = [uri for uri in self.spec.inputs.values() if uri != PUSH]
        # Where a bundle calls code, nothing is imported before that is allowed: what is found may be its own.
        calls = any(stage.callable for stage in manifest.stages.values())
        with imported_beside(modules_of(sources) if self.spec.isolation == "thread" and not calls else ()):
            self._serving = serving = Serving(self.spec, self._bundle, statistics)
        try:
            statistics.state = "WARMING"
            # Of inputs that one device feeds the trigger's own comes last: what it is cut with is there then.
            ordered = sorted(self.spec.inputs.items(), key=lambda item: item[0] == manifest.sync.trigger)
            uris = {name: uri for name, uri in ordered if uri != PUSH}
            specs = {name: manifest.inputs[name] for name in uris}
            shifts: Mapping[str, Shift] = {}
            if has_device(uris):
                from mmedge.calibration.offsets import alignment

                shifts, statistics.notes = alignment(manifest.inputs, uris)
            speed = None if self.spec.speed == 1.0 else self.spec.speed
            preset = apply_preset(self.spec.latency, manifest.sync, manifest.missing, manifest.inputs)
            rules, missing = preset
            held_ns = hold_ns(rules, manifest.inputs, lossless=self._lossless)
            opening_ns = time.monotonic_ns()
            self._sources = open_sources(
                specs,
                uris,
                speed=speed,
                realtime=not self._lossless,
                workers=self.spec.isolation == "process",
                hold_ns=held_ns,
            )
            statistics.startup_ms["sources"] = round((time.monotonic_ns() - opening_ns) / 1e6, 1)
            strict = {name for name, rule in missing.items() if rule.policy == "fail"}
            self._strict = [(source, name) for source in self._sources for name in strict & set(source.streams)]
            live = {name: source.live for source in self._sources for name in source.streams}
            attached = {name: live.get(name, True) for name in self.spec.inputs}
            self.plan = make_plan(
                manifest,
                attached,
                latency=self.spec.latency,
                manifest_sha256=self._bundle.manifest_sha256,
                preset=preset,
            )
            self._started_ns, unix_ns = statistics.started_ns, statistics.started_unix_ns = read_anchor()
            self._sync = Synchronizer(self.plan.sync, started_ns=self._started_ns)
            self._accounts = Accounts(
                statistics,
                self._sync,
                self._sources,
                attached=attached,
                pushed=[name for name, uri in self.spec.inputs.items() if uri == PUSH],
                trigger=manifest.sync.trigger,
                started_ns=self._started_ns,
            )
            self._intake = Intake(
                self.inbox,
                self._sources,
                self._pushed,
                shifts,
                self._sync,
                manifest=manifest,
                attached=attached,
                lossless=self._lossless,
            )
            serving.begin(
                attached,
                origin="delivery" if self._lossless or self.spec.speed != 1.0 else "capture",
                wall_ns=unix_ns - self._started_ns,
            )
            if self.spec.record is not None:
                from mmedge.pipeline.record import Rules, make_recorder

                used, times_ns = Rules(sync=rules, missing=missing), (self._started_ns, unix_ns)
                self._recorder = make_recorder(self.spec, self._bundle, serving.graph, attached, used, times_ns)
            if self.spec.attach is not None:
                from mmedge.pipeline.programs import serve_programs

                self._programs = serve_programs(self.spec.attach, manifest.inputs, self, held_ns)
        except BaseException:
            self._close()
            raise
        self._live = any(attached.values())
        serving.build()
        self._thread.start()
        if self._live and self.spec.duration_s is not None:
            # A rule that blocks must not hold the end.
            self._timer = threading.Timer(self.spec.duration_s + END_S, self._cancel)
            self._timer.daemon = True
            self._timer.start()

    def _cancel(self) -> None:
        self._stop.set()
        if self._serving is not None:
            self._serving.cancel()

    def _main(self) -> None:
        error: MmedgeError | None = None
        try:
            self._intake.start(self._stop)
            self.statistics.state = "READY"
            self._loop()
            broken = [source.error for source in self._sources if source.error is not None]
            if broken and len(broken) == len(self._sources) and not self._stop.is_set():
                raise broken[0]
        except MmedgeError as problem:
            error = problem
        except BaseException as problem:  # a bug of ours must reach the user, not die with the thread
            error = internal(problem)
            log.log(
                logging.ERROR if isinstance(error, InternalError) else logging.INFO, "the runtime failed", exc_info=True
            )
        finally:
            self.statistics.state = "FAILED" if error else "STOPPED"
            try:
                self._close(error)
            except MmedgeError as problem:
                error = error or problem
            except Exception as problem:  # nor must who waits for results wait for ever
                log.exception("ending the run failed")
                error = error or internal(problem)
            self._results.close(error)

    def _loop(self) -> None:
        sync, serving, accounts = self._sync, self._serving, self._accounts
        assert serving is not None
        assert accounts is not None
        end_ns = None if self.spec.duration_s is None else self._started_ns + round(self.spec.duration_s * 1e9)
        while not self._stop.is_set():
            if self._steady:
                self._intake.settle(self._steady)
                self._steady = {}
            self._intake.wait(LOOK_NS, end_ns if self._live else None)
            packets = self._intake.take(runs=self._recorder is None)
            only_sound = True
            for packet in packets:
                sync.push(packet)
                only_sound = only_sound and isinstance(packet, _SOUND)
            now_ns = time.monotonic_ns()
            sync.advance(now_ns)
            serving.turn()
            decisions: list[Decision] = []
            try:
                for source, name in self._strict:
                    if source.refused is not None and name in source.refused_streams:
                        raise source.refused
                if snapshots := sync.poll():
                    self._answer(serving, snapshots, end_ns, decisions)
            finally:
                lost = accounts.decide(decisions) if decisions else 0
                if self._recorder is not None:
                    self._recorder.turn(packets_of(packets), now_ns, decisions)
                    if accounts.due(now_ns):
                        self._recorder.health(self.health(), now_ns)
                        self.statistics.recording = self._recorder.report()
            if decisions or not only_sound:  # sound alone releases nothing
                sync.trim()
            if lost or accounts.due(now_ns):
                accounts.count(self._results.dropped)
            if sync.finished or (end_ns is not None and self._live and time.monotonic_ns() >= end_ns):
                break

    def _answer(
        self, serving: Serving, snapshots: list[Snapshot], end_ns: int | None, decisions: list[Decision]
    ) -> None:
        accounts = self._accounts
        assert accounts is not None
        if not self._lossless and len(snapshots) > 1:
            snapshots, late = shed(snapshots, period_ns=self._sync.period_ns, run_ns=self._run_ns)
            decisions += [Decision(snapshot, "overrun") for snapshot in late]
        for done, snapshot in enumerate(snapshots):
            if end_ns is not None and snapshot.t_ns >= end_ns:
                self._stop.set()
            if self._stop.is_set():
                decisions.append(Decision(snapshot, "after_end"))
                continue
            began_ns = time.monotonic_ns()
            try:
                try:
                    answer = serving.answer(snapshot, self._sync)
                finally:
                    took_ns = time.monotonic_ns() - began_ns
                    self._run_ns = expected_run_ns(self._run_ns, took_ns)
                    if self._live and took_ns > LONG_NS:
                        self._steady = self._sync.steady(began_ns)
            except SkippedTrigger:
                graph = serving.graph
                decisions.append(Decision(snapshot, "skipped", None, graph.used_ns, graph.busy, graph.failed))
                continue
            except BaseException as error:
                if isinstance(error, EngineError) and self._stop.is_set():  # it was cancelled
                    decisions.append(Decision(snapshot, "after_end"))
                    continue
                waiting = [Decision(snapshot, "failed") for snapshot in snapshots[done:]]
                if isinstance(error, EngineError):
                    graph = serving.graph
                    waiting[0] = Decision(snapshot, "failed", busy=graph.busy, failed=graph.failed)
                decisions += waiting
                raise
            graph = serving.graph
            told = None if self._recorder is None else answer.result()
            decisions.append(Decision(snapshot, "answered", told, graph.used_ns, graph.busy, graph.failed))
            if self._programs is not None and self._programs.attached:
                self._programs.put(answer.result())
            if self.keeps_pictures:
                self._pictures.keep(answer)
            try:
                accounts.unwanted += not self._results.put(answer)
            except BaseException:
                decisions += [Decision(waiting, "failed") for waiting in snapshots[done + 1 :]]
                raise

    def get(self, deadline_s: float | None = None) -> Result | None:
        """Return the next result, waiting for it, see ``Mailbox.get``; None at the end of the run."""
        answer = self._mailbox.get(deadline_s)
        return None if answer is None else answer.result()

    def push(self, packet: Packet) -> bool:
        """Feed a packet of an input that has no source; False when the run has ended."""
        return self.inbox.put(packet)

    def health(self) -> dict[str, dict[str, object]]:
        """Return each source's state, reason, counters and clock by name, and that of ``@recording`` and the like."""
        report: dict[str, dict[str, object]] = {}
        for name, health in self._accounts.healths().items() if self._accounts is not None else ():
            report[name] = {"state": health.state, "reason": health.reason, "counters": dict(health.counters)}
            if name in health.clocks:
                report[name]["clock"] = msgspec.to_builtins(health.clocks[name])
        own = {"@recording": self._recorder, "@attach": self._programs}
        report |= {name: part.report() for name, part in own.items() if part is not None}
        return report if self._serving is None else report | self._serving.report()

    def swap(self, order: SwapOrder) -> Future[BundleSwap]:
        """Let another bundle take over, see ``Serving.swap``; what comes of it is in the future."""
        assert self._serving is not None, "start comes first"
        return self._serving.swap(order)

    def stop(self) -> None:
        """End the run and wait for it; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._cancel()
        self.inbox.close()
        self._results.close()
        if self._thread.is_alive():
            self._thread.join()
        elif self._thread.ident is None:
            self._close()

    def _close(self, error: MmedgeError | None = None) -> None:
        self.inbox.close()
        programs: list[Callable[[], None]] = [] if self._programs is None else [partial(self._programs.close, error)]
        recorder, serving = ([] if it is None else [it.close] for it in (self._recorder, self._serving))
        sources = [source.stop for source in self._sources]
        first: BaseException | None = None
        for close in (*programs, *sources, *recorder, self._settle, *serving):
            try:
                close()
            except BaseException as problem:  # what comes after it is closed all the same
                first = first or problem
        if first is not None:
            raise first

    def _settle(self) -> None:
        if hasattr(self, "_intake"):
            # What still waits was captured but will not be answered: counted, so that in = out + dropped.
            for packet in self._intake.take():
                self._sync.push(packet)
            self._intake.close()
            assert self._accounts is not None
            self._accounts.end(self._results.dropped)
            statistics = self.statistics
            if self._recorder is not None:
                statistics.recording = self._recorder.report()
            statistics.unaccounted = statistics.triggers - statistics.results - statistics.dropped
            if statistics.unaccounted:
                log.error("%d triggers are neither answered nor counted as dropped", statistics.unaccounted)
