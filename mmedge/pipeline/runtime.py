"""The runtime: sources in, results out. One thread runs the synchroniser, the stages and the interpreters.

It is started from a ``RunSpec`` and talks through mailboxes only, so that it can live in another process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import Sync
from mmedge.capture import Source, open_sources
from mmedge.errors import ConfigError, InternalError, MmedgeError, SourceError
from mmedge.fusion import StageGraph, load_graph
from mmedge.interpret import UNDEFINED, Interpreter, make_interpreter
from mmedge.ipc.mailbox import Mailbox
from mmedge.pipeline.spec import RunSpec
from mmedge.pipeline.statistics import Statistics
from mmedge.sync import Synchronizer
from mmedge.types import EndOfStream, Frame, Packet, Result, Snapshot, TaskResult

log = logging.getLogger("mmedge.runtime")
PUSH = "push://"
INBOX = 1024
RESULTS = 64
LOW_DEADLINE_MS = 15.0
MAX_AHEAD_NS = 5_000_000_000


def drop_packet(packet: Packet) -> None:
    """Release what a packet holds that nobody will read."""
    if isinstance(packet, Frame) and packet.release is not None:
        packet.release()


class Runtime:
    """Runs one bundle on its sources, in a thread of its own.

    Args:
        spec: What to run.
        bundle: The bundle ``spec.bundle`` names, already open; the caller closes it after ``stop``.

    Attributes:
        results: Where results come out; closed at the end of the run, with its error if there was one.
        statistics: Counts and latencies so far.

    Raises:
        ConfigError: If the sources do not fit the bundle or its validated masks.
        DeviceError: If a device is not there.
    """

    def __init__(self, spec: RunSpec, bundle: Bundle) -> None:
        self.spec = spec
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._lossless = spec.latency == "offline"
        self._validated = {frozenset(mask.present) for mask in self._manifest.validated_masks}
        self._validated.add(frozenset(self._manifest.inputs))
        self._check_inputs()
        self.statistics = Statistics()
        self.results: Mailbox[Result] = Mailbox(RESULTS, lossless=self._lossless)
        self.inbox: Mailbox[Packet] = Mailbox(
            INBOX, lossless=self._lossless, on_drop=self._drop, droppable=lambda packet: isinstance(packet, Frame)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="mmedge-runtime", daemon=True)
        self._sources: list[Source] = []
        self._graph: StageGraph | None = None
        self._overruns: Counter[str] = Counter()
        self._epoch: dict[str, int] = {}

    def _check_inputs(self) -> None:
        names, inputs = set(self.spec.inputs), self._manifest.inputs
        if not names or not names <= set(inputs):
            raise ConfigError(
                f"the bundle's inputs are {list(inputs)}, sources were given for {sorted(names)}",
                where="inputs",
                fix="give a source to at least one of its inputs, and to no other name",
            )
        if frozenset(names) not in self._validated:
            known = [sorted(mask) for mask in self._validated]
            raise ConfigError(
                f"the mask {sorted(names)} was never validated for this bundle",
                where="inputs",
                fix=f"give sources for one of {known}",
            )

    def start(self) -> None:
        """Load the engines, open the sources, start. Blocks until ready.

        Raises:
            MmedgeError: If an engine or a source cannot be opened; nothing is left running.
        """
        statistics, manifest = self.statistics, self._manifest
        self._graph = load_graph(self._bundle, backend=self.spec.backend, precision=self.spec.precision)
        try:
            statistics.backends = dict(self._graph.describe())
            statistics.evidence = self._graph.evidence
            statistics.state = "WARMING"
            self._interpreters = self._make_interpreters()
            uris = {name: uri for name, uri in self.spec.inputs.items() if uri != PUSH}
            specs = {name: manifest.inputs[name] for name in uris}
            speed = None if self.spec.speed == 1.0 else self.spec.speed
            self._sources = open_sources(specs, uris, speed=speed, realtime=not self._lossless)
            live = {name: source.live for source in self._sources for name in source.streams}
            attached = {name: live.get(name, True) for name in self.spec.inputs}
            if self._lossless and any(attached.values()):
                raise ConfigError(
                    "latency 'offline' waits for everything, so it needs files, not live sources",
                    where=f"inputs {sorted(n for n, on in attached.items() if on)}",
                    fix="use latency 'low' or 'balanced'",
                )
            self._started_ns = statistics.started_ns = time.monotonic_ns()
            self._sync = Synchronizer(
                manifest.inputs,
                attached,
                manifest.missing,
                self._sync_spec(),
                started_ns=self._started_ns,
                lossless=self._lossless,
            )
        except BaseException:
            self._close()
            raise
        self._attached = attached
        self._live = any(attached.values())
        self._thread.start()

    def _make_interpreters(self) -> Mapping[str, Interpreter]:
        return {n: make_interpreter(n, task, self._bundle.labels(n)) for n, task in self._manifest.tasks.items()}

    def _sync_spec(self) -> Sync:
        sync = self._manifest.sync
        if self.spec.latency != "low":
            return sync
        return Sync(
            trigger=sync.trigger,
            policy=sync.policy,
            align=sync.align,
            deadline_ms=min(sync.deadline_ms, LOW_DEADLINE_MS),
            every_ms=sync.every_ms,
        )

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
            log.exception("the runtime failed")
            error = InternalError(f"internal error: {type(problem).__name__}: {problem}", fix="please report it")
            error.__cause__ = problem
        finally:
            self.statistics.state = "FAILED" if error else "STOPPED"
            try:
                self._close()
            except MmedgeError as problem:
                error = error or problem
            self.results.close(error)

    def _emit(self, others: tuple[str, ...], packet: Packet) -> None:
        # Played as fast as possible, one file must not run away from another: its sound would be overwritten.
        while self._lossless and self._sync.ahead_ns(packet, others) > MAX_AHEAD_NS and not self._stop.wait(0.01):
            if self.inbox.closed:
                break
        if not self.inbox.put(packet):
            self._drop(packet)

    def _drop(self, packet: Packet) -> None:
        drop_packet(packet)
        if packet.stream == self._manifest.sync.trigger and not isinstance(packet, EndOfStream):
            self._overruns["inbox"] += 1

    def _loop(self) -> None:
        sync = self._sync
        end_ns = None if self.spec.duration_s is None else self._started_ns + round(self.spec.duration_s * 1e9)
        while not self._stop.is_set():
            deadline_ns = sync.next_deadline_ns()
            wait_s = 0.1 if deadline_ns is None else min(0.1, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
            for packet in self.inbox.take_all(wait_s):
                sync.push(packet)
            sync.advance(time.monotonic_ns())
            snapshots = sync.poll()
            if not self._lossless:
                # Behind: the newest picture matters, older ones are counted and let go. Hops of sound are kept.
                late = [snapshot for snapshot in snapshots if snapshot.on_frame][:-1]
                self._overruns["overrun"] += len(late)
                snapshots = [snapshot for snapshot in snapshots if snapshot not in late]
            for done, snapshot in enumerate(snapshots):
                if end_ns is not None and snapshot.t_ns >= end_ns:
                    self._overruns["after_end"] += 1
                    self._stop.set()
                elif not self._stop.is_set():
                    try:
                        result = self._infer(snapshot)
                    except BaseException:
                        self._overruns["failed"] += len(snapshots) - done
                        raise
                    self.results.put(result)
                else:
                    self._overruns["after_end"] += 1
            sync.trim()
            self._count()
            if sync.finished or (end_ns is not None and self._live and time.monotonic_ns() >= end_ns):
                break

    def _infer(self, snapshot: Snapshot) -> Result:
        graph, statistics = self._graph, self.statistics
        assert graph is not None
        start_ns = time.monotonic_ns()
        failed = self._sync.failed(snapshot)
        if failed is not None:
            raise SourceError(
                f"input '{failed}' is missing and its policy is 'fail'",
                where=snapshot.reason,
                fix="check the device, or use another policy in the bundle's 'missing'",
            )
        if any(self._epoch.get(name, epoch) != epoch for name, epoch in snapshot.epoch.items()):
            for interpreter in self._interpreters.values():
                interpreter.reset()
        self._epoch.update(snapshot.epoch)
        mask = frozenset(name for name, on in snapshot.present.items() if on)
        valid = mask in self._validated
        tasks: dict[str, TaskResult]
        if valid:
            graph.run(snapshot, self._sync.read_audio)
            inferred_ns = time.monotonic_ns()
            tasks = {
                name: self._interpreters[name](graph.output(task.output), snapshot.t_ns, snapshot.present)
                for name, task in self._manifest.tasks.items()
            }
            preprocess_ns, infer_ns = graph.timing.preprocess_ns, graph.timing.infer_ns
        else:
            # Never measured by the exporter: no label, and it is counted.
            inferred_ns, preprocess_ns, infer_ns = start_ns, 0, 0
            tasks = dict.fromkeys(self._manifest.tasks, UNDEFINED)
            for interpreter in self._interpreters.values():
                interpreter.reset()
            statistics.unvalidated += 1
        end_ns = time.monotonic_ns()
        # Played as fast as possible, capture times say nothing about now: count from delivery.
        from_ns = snapshot.deliver_ns if self._lossless or self.spec.speed != 1.0 else snapshot.t_ns
        end_to_end_ns = max(end_ns - from_ns, 0)
        delivered_ns = max(snapshot.deliver_ns - from_ns, 0)
        overhead_ns = max(end_to_end_ns - infer_ns - delivered_ns - snapshot.wait_ns, 0)
        statistics.results += 1
        statistics.end_to_end.add(end_to_end_ns)
        statistics.overhead.add(overhead_ns)
        for step, value in (
            ("deliver", delivered_ns),
            ("ready", snapshot.wait_ns),
            ("preprocessed", preprocess_ns),
            ("inferred", infer_ns),
            ("interpreted", end_ns - inferred_ns),
        ):
            statistics.steps[step].add(value)
        statistics.skew.add(round(snapshot.skew_ms * 1e6))
        statistics.uncertainty.add(round(snapshot.uncertainty_ms * 1e6))
        for name in self._attached:
            if not snapshot.present[name]:
                statistics.absent[name] = statistics.absent.get(name, 0) + 1
        return Result(
            t_ns=snapshot.t_ns,
            status="ok" if valid else "unvalidated",
            tasks=tasks,
            present=snapshot.present,
            age_ms={name: round(age, 3) for name, age in snapshot.age_ms.items()},
            skew_ms=round(snapshot.skew_ms, 3),
            uncertainty_ms=round(snapshot.uncertainty_ms, 3),
            latency_ms={
                "end_to_end": round(end_to_end_ns / 1e6, 3),
                "overhead": round(overhead_ns / 1e6, 3),
                "deliver": round(delivered_ns / 1e6, 3),
                "ready": round(snapshot.wait_ns / 1e6, 3),
                "preprocessed": round(preprocess_ns / 1e6, 3),
                "inferred": round(infer_ns / 1e6, 3),
                "interpreted": round((end_ns - inferred_ns) / 1e6, 3),
            },
            epoch=dict(snapshot.epoch),
            reason=snapshot.reason,
        )

    def _count(self) -> None:
        sync, statistics = self._sync, self.statistics
        drops = Counter(sync.drops) + self._overruns
        frames_in = sync.triggers + self._overruns["inbox"]
        for source in self._sources:
            lost = {k: n for k, n in source.health().counters.items() if k.startswith("dropped") and n}
            if self._manifest.sync.trigger in source.streams:
                frames_in += sum(lost.values())
                drops.update(lost)
        statistics.drops = {cause: count for cause, count in drops.items() if count}
        statistics.triggers = frames_in
        statistics.undelivered = self.results.dropped
        statistics.lost_samples = sync.lost_samples()

    def health(self) -> dict[str, dict[str, object]]:
        """Return each source's state, reason and counters by input name."""
        report: dict[str, dict[str, object]] = {}
        for source in self._sources:
            health = source.health()
            for name in source.streams:
                report[name] = {"state": health.state, "reason": health.reason, "counters": dict(health.counters)}
        for name in (n for n, uri in self.spec.inputs.items() if uri == PUSH):
            report[name] = {"state": "OK", "reason": "fed by push", "counters": {}}
        return report

    def stop(self) -> None:
        """End the run and wait for it; idempotent."""
        self._stop.set()
        self.inbox.close()
        self.results.close()
        if self._thread.is_alive():
            self._thread.join()
        elif self._thread.ident is None:
            self._close()

    def _close(self) -> None:
        self.inbox.close()
        for source in self._sources:
            source.stop()
        if hasattr(self, "_sync"):
            # What still waits was captured but will not be answered: counted, so that in = out + dropped.
            for packet in self.inbox.take_all(0):
                self._sync.push(packet)
            self._overruns["after_end"] += self._sync.pending
            self._sync.close()
            self._count()
        if self._graph is not None:
            self._graph.close()
