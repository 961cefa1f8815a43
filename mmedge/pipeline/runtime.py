"""The runtime: sources in, results out. One thread runs the synchroniser, the stages and the interpreters.

It is started from a ``RunSpec`` and talks through mailboxes only, so that it can live in another process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from mmedge.bundle import Bundle
from mmedge.calibration.offsets import alignment
from mmedge.capture import Source, SourceHealth, open_sources
from mmedge.clock import read_anchor
from mmedge.errors import EngineError, InternalError, MmedgeError, internal
from mmedge.fusion import StageGraph, Upgrades, load_graph
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.check import check_live, check_run
from mmedge.pipeline.inbox import Inbox, release
from mmedge.pipeline.inference import Inference, SkippedTrigger
from mmedge.pipeline.outlet import Outlet, Pictures
from mmedge.pipeline.shed import shed
from mmedge.pipeline.spec import PUSH, RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.recording.decision import Decision
from mmedge.recording.event_log import Rules
from mmedge.recording.writer import Recorder, make_header
from mmedge.sync import Synchronizer, apply_preset, hold_ns
from mmedge.types import Packet, Result, Snapshot

log = logging.getLogger("mmedge.runtime")
RESULTS = 64  # results that wait to be read: two seconds at 30 a second
FEW = 8  # the same, where each holds its pictures and nothing is lost
MAX_AHEAD_NS = 5_000_000_000  # by how far one file may run ahead of the others
STARTUP_NS = 2_000_000_000  # in which an input may be missing without a reason
LOOK_NS = 100_000_000  # between two looks at the health of the sources
LONG_NS = 50_000_000  # a run after which it is looked whether the sources' threads were held up, too
END_S = 0.5  # what was begun in time may end


class Runtime:
    """Runs one bundle on its sources, in a thread of its own.

    Args:
        spec: What to run.
        bundle: The bundle ``spec.bundle`` names, already open; the caller closes it after ``stop``.
        results: Where results go; closed at the end of the run, with its error if there was one. None keeps
            them for ``get``.

    Attributes:
        statistics: Counts and latencies so far.
        keeps_pictures: Whether results bring copies of their pictures.
        pushed_unread: Says how many pushed packets of each input were overwritten before they came here.

    Raises:
        ConfigError: If the sources do not fit the bundle or its validated masks.
        DeviceError: If a device is not there.
    """

    def __init__(self, spec: RunSpec, bundle: Bundle, results: Outlet | None = None) -> None:
        self.spec = spec
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._lossless = spec.latency == "offline"
        check_run(spec, bundle.manifest)
        self.statistics = Statistics()
        waiting = FEW if self._lossless else 1 if spec.results == "latest" else RESULTS
        self._mailbox: Mailbox[Result] = Mailbox(waiting, lossless=self._lossless)
        self._results: Outlet = self._mailbox if results is None else results
        self.get = self._mailbox.get
        self.keeps_pictures, self._pictures = self._lossless and results is None, Pictures()
        self.inbox = Inbox(lossless=self._lossless)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="mmedge-runtime", daemon=True)
        self._sources: list[Source] = []
        self._graph: StageGraph | None = None
        self._upgrades: Upgrades | None = None
        self._overruns: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._looked_ns = 0
        self._run_ns = 0  # how long the last answer took
        self._steady: dict[str, int] = {}  # streams that may have been held up by it
        self._unwanted = 0  # results that came after the reader had stopped
        self._recorder: Recorder | None = None
        self._timer: threading.Timer | None = None
        self.pushed_unread: Callable[[], dict[str, int]] = dict

    def start(self) -> None:
        """Load the engines, open the sources, start. Blocks until ready.

        Raises:
            MmedgeError: If an engine or a source cannot be opened; nothing is left running.
        """
        statistics, manifest = self.statistics, self._manifest
        self._graph = load_graph(
            self._bundle,
            backend=self.spec.backend,
            precision=self.spec.precision,
            allow=self.spec.allow,
            wait=self.spec.engines == "wait",
        )
        try:
            statistics.backends = dict(self._graph.describe())
            statistics.evidence = self._graph.evidence
            statistics.state = "WARMING"
            # Of inputs that one device feeds the trigger's own comes last: what it is cut with is there then.
            ordered = sorted(self.spec.inputs.items(), key=lambda item: item[0] == manifest.sync.trigger)
            uris = {name: uri for name, uri in ordered if uri != PUSH}
            specs = {name: manifest.inputs[name] for name in uris}
            self._shifts, statistics.notes = alignment(manifest.inputs, uris)
            speed = None if self.spec.speed == 1.0 else self.spec.speed
            rules, missing = apply_preset(self.spec.latency, manifest.sync, manifest.missing, manifest.inputs)
            self._sources = open_sources(
                specs,
                uris,
                speed=speed,
                realtime=not self._lossless,
                workers=self.spec.isolation == "process",
                hold_ns=hold_ns(rules, manifest.inputs, lossless=self._lossless),
            )
            strict = {name for name, rule in missing.items() if rule.policy == "fail"}
            self._strict = [(source, name) for source in self._sources for name in strict & set(source.streams)]
            live = {name: source.live for source in self._sources for name in source.streams}
            self._attached = attached = {name: live.get(name, True) for name in self.spec.inputs}
            check_live(self.spec, attached)
            self._started_ns, unix_ns = statistics.started_ns, statistics.started_unix_ns = read_anchor()
            self._sync = Synchronizer(
                manifest.inputs,
                attached,
                missing,
                rules,
                started_ns=self._started_ns,
                lossless=self._lossless,
            )
            self._inference = Inference(
                self._bundle,
                self._graph,
                statistics,
                attached,
                origin="delivery" if self._lossless or self.spec.speed != 1.0 else "capture",
                wall_ns=unix_ns - self._started_ns,
            )
            if self.spec.record is not None:
                header = make_header(
                    self.spec.inputs,
                    attached,
                    manifest.inputs,
                    started_ns=self._started_ns,
                    unix_ns=unix_ns,
                    bundle=self._bundle,
                    used=Rules(sync=rules, missing=missing),
                    served=self._graph.served,
                    lossless=self._lossless,
                    video=self.spec.video,
                )
                self._recorder = Recorder(Path(self.spec.record), header, self.spec.record_privacy)
        except BaseException:
            self._close()
            raise
        self._live = any(attached.values())
        if self._graph.pending:
            self._upgrades = Upgrades(self._bundle, self._graph, self._graph.pending)
        self._thread.start()
        if self._live and self.spec.duration_s is not None:
            # A rule that blocks must not hold the end.
            self._timer = threading.Timer(self.spec.duration_s + END_S, self._cancel)
            self._timer.daemon = True
            self._timer.start()

    def _cancel(self) -> None:
        self._stop.set()
        if self._graph is not None:
            self._graph.cancel()

    def _main(self) -> None:
        error: MmedgeError | None = None
        try:
            for source in self._sources:
                source.start(partial(self._emit, tuple(set(self._attached) - set(source.streams))))
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
                self._close()
            except MmedgeError as problem:
                error = error or problem
            except Exception as problem:  # nor must who waits for results wait for ever
                log.exception("ending the run failed")
                error = error or internal(problem)
            self._results.close(error)

    def _emit(self, others: tuple[str, ...], packet: Packet) -> None:
        shift = self._shifts.get(packet.stream)
        if shift is not None:
            packet = shift(packet)
        # Played as fast as possible, one file must not run away from another: its sound would be overwritten.
        while self._lossless and self._sync.ahead_ns(packet, others) > MAX_AHEAD_NS and not self._stop.wait(0.01):
            if self.inbox.closed:
                break
        if not self.inbox.put(packet):  # the run is over
            release(packet)

    def _loop(self) -> None:
        sync = self._sync
        end_ns = None if self.spec.duration_s is None else self._started_ns + round(self.spec.duration_s * 1e9)
        while not self._stop.is_set():
            deadline_ns = sync.next_deadline_ns()
            wait_s = 0.1 if deadline_ns is None else min(0.1, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
            if self._steady:
                self.inbox.settle(self._steady)
                self._steady = {}
            packets = self.inbox.take_all(wait_s)
            for packet in packets:
                sync.push(packet)
            now_ns = time.monotonic_ns()
            sync.advance(now_ns)
            if self._upgrades is not None and self._upgrades.swap():
                self.statistics.tell_swaps(self._upgrades.swaps, self._inference.graph.describe())
            decisions: list[Decision] = []
            try:
                for source, name in self._strict:
                    if source.refused is not None and name in source.refused_streams:
                        raise source.refused
                self._answer(sync.poll(), end_ns, decisions)
            finally:
                self._overruns.update(d.outcome for d in decisions if d.outcome != "answered")
                if self._recorder is not None:
                    self._recorder.turn(packets, now_ns, decisions)
                    if now_ns - self._looked_ns > LOOK_NS:
                        self._recorder.health(self.health(), now_ns)
            sync.trim()
            self._count()
            if sync.finished or (end_ns is not None and self._live and time.monotonic_ns() >= end_ns):
                break

    def _answer(self, snapshots: list[Snapshot], end_ns: int | None, decisions: list[Decision]) -> None:
        if not self._lossless:
            snapshots, late = shed(snapshots, period_ns=self._sync.period_ns, run_ns=self._run_ns)
            decisions += [Decision(snapshot, "overrun") for snapshot in late]
        graph = self._inference.graph
        for done, snapshot in enumerate(snapshots):
            if end_ns is not None and snapshot.t_ns >= end_ns:
                self._stop.set()
            if self._stop.is_set():
                decisions.append(Decision(snapshot, "after_end"))
                continue
            began_ns = time.monotonic_ns()
            try:
                try:
                    result = self._inference(snapshot, self._sync)
                finally:
                    self._run_ns = time.monotonic_ns() - began_ns
                    if self._live and self._run_ns > LONG_NS:
                        self._steady = self._sync.steady(began_ns)
            except SkippedTrigger:
                decisions.append(Decision(snapshot, "skipped", None, graph.used_ns, graph.busy, graph.failed))
                continue
            except BaseException as error:
                if isinstance(error, EngineError) and self._stop.is_set():  # it was cancelled
                    decisions.append(Decision(snapshot, "after_end"))
                    continue
                waiting = [Decision(snapshot, "failed") for snapshot in snapshots[done:]]
                if isinstance(error, EngineError):
                    waiting[0] = Decision(snapshot, "failed", busy=graph.busy, failed=graph.failed)
                decisions += waiting
                raise
            decisions.append(Decision(snapshot, "answered", result, graph.used_ns, graph.busy, graph.failed))
            if self.keeps_pictures:
                self._pictures.keep(result)
            try:
                self._unwanted += not self._results.put(result)
            except BaseException:
                decisions += [Decision(waiting, "failed") for waiting in snapshots[done + 1 :]]
                raise

    def _count(self, *, final: bool = False) -> None:
        now_ns = time.monotonic_ns()
        if final or now_ns - self._looked_ns > LOOK_NS:  # not at every packet: it makes dictionaries
            self._looked_ns = now_ns
            self._look(now_ns)
        sync, statistics = self._sync, self.statistics
        drops = Counter(sync.drops) + self._overruns + self._lost
        statistics.drops = dict(drops)
        statistics.triggers = sync.triggers + self._lost.total()
        statistics.unwanted = self._results.dropped + self._unwanted
        statistics.lost_samples = sync.lost_samples()

    def _look(self, now_ns: int) -> None:
        """See how the sources are, and what of the trigger's input they lost."""
        statistics, trigger = self.statistics, self._manifest.sync.trigger
        healths = self._healths()
        starting = now_ns - self._started_ns < STARTUP_NS
        well = all(
            h.state == "OK" or (h.state == "MISSING" and starting) for n, h in healths.items() if self._attached[n]
        )
        if statistics.state in ("READY", "DEGRADED"):
            statistics.state = "READY" if well else "DEGRADED"
        counters = healths[trigger].counters if trigger in healths else {}
        named = ("dropped_frames", f"dropped_unread_{trigger}", f"dropped_unsent_{trigger}")
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
        if self._recorder is not None:
            statistics.recording = self._recorder.report()

    def _healths(self) -> dict[str, SourceHealth]:
        healths = {name: health for s in self._sources for health in [s.health()] for name in s.streams}
        now_ns, unread = time.monotonic_ns(), self.pushed_unread()
        for name in (n for n, uri in self.spec.inputs.items() if uri == PUSH):
            counters = {k: n for k, n in self._sync.refused.items() if k.startswith(f"{name}_")}
            if name in unread:
                counters[f"dropped_unread_{name}"] = unread[name]
            silence_ns = self._sync.silence_ns(name, now_ns)
            if silence_ns is None:
                healths[name] = SourceHealth(state="OK", reason="fed by push", counters=counters)
            else:
                reason = f"{name}: nothing was pushed for {silence_ns / 1e9:.0f} s"
                healths[name] = SourceHealth(state="STALE", reason=reason, counters=counters)
        return healths

    def push(self, packet: Packet) -> bool:
        """Feed a packet of an input that has no source; False when the run has ended."""
        return self.inbox.put(packet)

    def health(self) -> dict[str, dict[str, object]]:
        """Return each source's state, reason, counters and clock by input name, and ``@recording``, ``@engines``."""
        report: dict[str, dict[str, object]] = {}
        for name, health in self._healths().items():
            report[name] = {"state": health.state, "reason": health.reason, "counters": dict(health.counters)}
            if name in health.clocks:
                report[name]["clock"] = msgspec.to_builtins(health.clocks[name])
        if self._recorder is not None:
            report["@recording"] = self._recorder.report()
        if self._upgrades is not None:
            report["@engines"] = self._upgrades.report()
        return report

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

    def _close(self) -> None:
        self.inbox.close()
        owned = (self._recorder, self._upgrades, self._graph)
        recorder, upgrades, graph = ([] if it is None else [it.close] for it in owned)
        sources = [source.stop for source in self._sources]
        first: BaseException | None = None
        for close in (*sources, *recorder, self._settle, *upgrades, *graph):
            try:
                close()
            except BaseException as error:  # what comes after it is closed all the same
                first = first or error
        if first is not None:
            raise first

    def _settle(self) -> None:
        if hasattr(self, "_sync"):
            # What still waits was captured but will not be answered: counted, so that in = out + dropped.
            for packet in self.inbox.take_all(0):
                self._sync.push(packet)
            self._overruns["after_end"] += self._sync.pending
            self._sync.close()
            self._count(final=True)
            statistics = self.statistics
            statistics.unaccounted = statistics.triggers - statistics.results - statistics.dropped
            if statistics.unaccounted:
                log.error("%d triggers are neither answered nor counted as dropped", statistics.unaccounted)
