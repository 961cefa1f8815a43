"""Figures of a run for Prometheus, on a port of this machine."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from mmedge.errors import ConfigError
from mmedge.extras import require
from mmedge.sinks.base import Event, Run
from mmedge.types import Result
from mmedge.version import __version__

_BOUNDS_S = tuple(n * 10.0**power for power in range(-4, 2) for n in (1, 2, 5))  # 0.1 ms .. 50 s
_MOST_LABELS = 500  # answers that are counted by name; what a detector may say is not bounded here
_PATIENCE_S = 5.0  # for a client to ask, and to read
_STATES = ("OK", "LATE", "STALE", "MISSING", "RECONNECTING")
_RUN_STATES = ("LOADING", "WARMING", "READY", "DEGRADED", "FAILED", "STOPPED")


class MetricsSink:
    """Serves ``/metrics``; every scrape reads the run's own statistics.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Attributes:
        port: The port.

    Raises:
        ConfigError: If the port cannot be had.
        MissingDependencyError: If prometheus-client is not installed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._prometheus = prometheus = require("prometheus_client", "the sink 'metrics'")
        self._run: Run | None = None
        self._answers: Counter[tuple[str, str]] = Counter()
        self._newest: Result | Event | None = None
        self._lock = threading.Lock()
        registry = prometheus.CollectorRegistry()
        registry.register(self)
        prometheus.ProcessCollector(registry=registry)
        try:
            self._server, self._thread = prometheus.start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"metrics cannot be served: {reason}", where=f"{host}:{port}", fix="choose another port"
            ) from error
        self._server.RequestHandlerClass = _patient(self._server.RequestHandlerClass)
        self.port: int = self._server.server_address[1]

    def begin(self, run: Run) -> None:
        """Take the run whose figures are served."""
        self._run = run

    def write(self, result: Result | Event) -> None:
        """Count the answers."""
        with self._lock:
            self._newest = result
            for name, task in result.tasks.items():
                for label in {box.label for box in task.boxes} or ({task.label} if task.label is not None else set()):
                    key = (name, label)
                    crowded = key not in self._answers and len(self._answers) >= _MOST_LABELS
                    self._answers[(name, "(other)") if crowded else key] += 1

    def collect(self) -> Iterator[Any]:
        """Yield the figures as they are now; called at every scrape."""
        core = self._prometheus.metrics_core
        run = self._run
        info = {"version": __version__}
        if run is not None:
            info |= {"bundle": run.bundle.name, "evidence": run.statistics.evidence}
        yield core.InfoMetricFamily("mmedge_build", "What runs.", value=info)
        yield from self._answered(core)
        if run is None:
            return
        statistics, health = run.statistics, run.health()
        yield _states(core, "mmedge_state", "State of the run.", {"": statistics.state}, _RUN_STATES)
        sources = {name: str(report["state"]) for name, report in health.items() if not name.startswith("@")}
        yield _states(core, "mmedge_input_state", "State of each input.", sources, _STATES, "input")
        for name, told, counts, label in _counters(statistics, health):
            family = core.CounterMetricFamily(f"mmedge_{name}", told, labels=[label] if label else [])
            for cause, count in counts.items():
                family.add_metric([cause] if label else [], count)
            yield family
        latencies = {"end_to_end": statistics.end_to_end, "overhead": statistics.overhead}
        latencies |= {"received": statistics.received, **statistics.steps}
        yield _histograms(core, "latency", "Latency by step, from the capture or of the step alone.", "step", latencies)
        yield _histograms(core, "skew", "Time between the inputs of one result.", "", {"": statistics.skew})
        yield _histograms(core, "skew_uncertainty", "Bound on the error of skew.", "", {"": statistics.uncertainty})

    def _answered(self, core: Any) -> Iterator[Any]:
        with self._lock:
            answers, newest = dict(self._answers), self._newest
        family = core.CounterMetricFamily(
            "mmedge_answers", "Results in which a task said so.", labels=["task", "label"]
        )
        for key, count in answers.items():
            family.add_metric(key, count)
        yield family
        if newest is None:
            return
        yield core.GaugeMetricFamily(
            "mmedge_newest_result_timestamp_seconds", "Capture time of the newest result.", value=newest.unix_ns / 1e9
        )
        scores = core.GaugeMetricFamily("mmedge_score_ratio", "Score of each task's newest answer.", labels=["task"])
        values = core.GaugeMetricFamily("mmedge_value", "Newest number of each task.", labels=["task", "unit"])
        for name, task in newest.tasks.items():
            if task.score is not None:
                scores.add_metric([name], task.score)
            if task.value is not None:
                values.add_metric([name, task.unit], task.value)
        yield from (scores, values)

    def report(self) -> dict[str, object]:
        """Return where it listens."""
        return {"state": "OK", "reason": None, "counters": {}, "port": self.port}

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._server.shutdown()
        self._server.server_close()


def _patient(handler: Any) -> Any:
    """Return a handler that waits for a while; each connection has a thread, which would wait for ever."""

    class Patient(handler):  # type: ignore[misc]
        timeout = _PATIENCE_S

        def handle(self) -> None:
            with suppress(OSError):  # it asked for nothing, or left
                super().handle()

    return Patient


def _counters(statistics: Any, health: Any) -> Iterator[tuple[str, str, dict[str, int], str]]:
    """Yield name, help, counts by label value, and the label's name of every counter."""
    yield "triggers", "Capture times at which an inference was due.", {"": statistics.triggers}, ""
    yield "results", "Results that were made.", {"": statistics.results}, ""
    yield (
        "unvalidated_results",
        "Results on inputs that were never measured together.",
        {"": statistics.unvalidated},
        "",
    )
    yield "unread_results", "Results that the reader did not take in time.", {"": statistics.undelivered}, ""
    yield "dropped_triggers", "Triggers without a result.", statistics.drops, "cause"
    yield "lost_samples", "Samples of sound that are missing.", statistics.lost_samples, "input"
    yield "absent_inputs", "Results without this input.", statistics.absent, "input"
    yield "refused_packets", "Packets that were not taken.", statistics.refused, "cause"
    yield "stage_errors", "Failures of a stage.", statistics.stage_errors, "stage"
    sinks = {name.removeprefix("@sink "): report["counters"] for name, report in health.items() if name[:6] == "@sink "}
    for what in ("written", "skipped", "lost"):
        counts = {name: counters.get(what, 0) for name, counters in sinks.items()}
        yield f"sink_{what}_results", f"Results that a sink has {what}.", counts, "sink"


def _states(core: Any, name: str, told: str, states: dict[str, str], known: tuple[str, ...], label: str = "") -> Any:
    family = core.GaugeMetricFamily(name, told, labels=[label, "state"] if label else ["state"])
    for value, state in states.items():
        for each in known:
            family.add_metric([value, each] if label else [each], float(state == each))
    return family


def _histograms(core: Any, name: str, told: str, label: str, histograms: dict[str, Any]) -> Any:
    family = core.HistogramMetricFamily(f"mmedge_{name}_seconds", told, labels=[label] if label else [])
    for value, histogram in histograms.items():
        counts = histogram.below(_BOUNDS_S)
        buckets = [("+Inf" if math.isinf(edge) else f"{edge:.6g}", count) for edge, count in counts]
        family.add_metric([value] if label else [], buckets, histogram.sum_ms / 1e3)
    return family


def make(target: str) -> MetricsSink:
    """Return the sink of ``metrics:[HOST:]PORT``; without a host it can be read from this machine alone.

    Raises:
        ConfigError: If there is no port, or it cannot be had.
        MissingDependencyError: If prometheus-client is not installed.
    """
    fix = "metrics:9464, or metrics:HOST:9464 for others to read"
    try:
        parts = urlsplit(f"//127.0.0.1:{target}" if target.isdecimal() else f"//{target}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise ConfigError("the sink 'metrics' needs a port from 0 to 65535", where=f"metrics:{target}", fix=fix)
    return MetricsSink(host, port)
