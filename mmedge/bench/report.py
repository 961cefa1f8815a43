"""The latency report: figures, conditions, and why they are not valid if they are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mmedge.bench.samples import Figures, Samples
from mmedge.bench.tally import Tally
from mmedge.bench.watch import Event
from mmedge.errors import CheckError, ConfigError
from mmedge.pipeline import Statistics
from mmedge.pipeline.statistics import STEPS

SCHEMA = "mmedge.bench/2"
REQUIRED = 0.98  # share of due triggers that must be answered for valid figures
NOTE = (
    "end_to_end is of every trigger that was due, from when it was due to an answer as new as it; "
    "answered is of those that had an answer of their own."
)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What was asked of the system, and what it did.

    Attributes:
        asked_hz: Triggers a second; None: the sources' own.
        measured_s: The time that counts.
        from_ns: Where it begins, on CLOCK_MONOTONIC.
        due: Triggers that were due in it.
        answered: How many of them had an answer of their own.
        lateness: How late the generator pushed its packets; None without one.
        late_ns: From where on a packet is late.
        block_ms: Longest block of generated sound.
    """

    asked_hz: float | None
    measured_s: float
    from_ns: int = 0
    due: int
    answered: int
    lateness: Samples | None = None
    late_ns: int = 0
    block_ms: float | None = None

    @property
    def achieved_hz(self) -> float:
        """Answers a second."""
        return self.answered / self.measured_s

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data."""
        late = None if self.lateness is None else self.lateness.summary().to_dict()
        asked = None if self.asked_hz is None else round(self.asked_hz, 3)
        known = {"asked_hz": asked, "achieved_hz": round(self.achieved_hz, 3), "from_ns": self.from_ns}
        return {**known, "due": self.due, "answered": self.answered, "generator_late_ms": late}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark run measured.

    Attributes:
        bundle: Name of the bundle, or of the network's file.
        conditions: How it was measured: duration, warm-up, inputs, isolation, backends, machine, and what else went on.
        statistics: Counts of the whole run, its warm-up included.
        tally: Latencies of the measured time.
        rate: What was asked, and what was achieved.
        startup_ms: What the start took, by part, in order.
        processes: Of each process its name, the share of a core that it took, its memory (PSS).
        problems: What was wrong with the conditions.
        events: What happened in the measured time.
    """

    bundle: str
    conditions: dict[str, Any]
    statistics: Statistics
    tally: Tally
    rate: Rate
    startup_ms: dict[str, float] = field(default_factory=dict)
    processes: Sequence[dict[str, object]] = ()
    problems: Sequence[str] = ()
    events: Sequence[Event] = ()

    @property
    def latency_ms(self) -> dict[str, Figures]:
        """Percentiles by name: ``end_to_end``, ``overhead`` and each step.

        With generated data ``end_to_end`` is of every trigger that was due, from then to an answer as new as it, and
        ``answered`` of those that had an answer of their own.
        """
        return {name: samples.summary() for name, samples in self.tally.latencies.items() if samples.n}

    @property
    def stages_ms(self) -> dict[str, dict[str, Figures]]:
        """Of each stage that ran: writing its tensors (``preprocess``) and running its ``engine``."""
        return {
            name: {"preprocess": found.preprocess.summary(), "engine": found.engine.summary()}
            for name, found in self.tally.stages.items()
            if found.engine.n
        }

    @property
    def runtime_share(self) -> Figures | None:
        """End to end without waiting for data over the time of the engines, trigger by trigger: 1 is the engines alone.

        With sources of your own, what they take to deliver is waiting as well. None where no engine ran.
        """
        return self.tally.share.summary() if self.tally.share.n else None

    @property
    def rate_problem(self) -> str | None:
        """How the rate was missed; None if it was kept."""
        rate, late = self.rate, self.rate.lateness
        if rate.answered < REQUIRED * rate.due:
            asked = "" if rate.asked_hz is None else f" of {rate.asked_hz:g} asked"
            drops = ", ".join(f"{cause} {count}" for cause, count in self.statistics.drops.items())
            return (
                f"{rate.answered} of {rate.due} triggers were answered, {rate.achieved_hz:.1f} a second{asked} "
                f"(dropped in the whole run: {drops or 'none'})"
            )
        if late is not None and late.n and late.percentile_ms(100 * REQUIRED) > rate.late_ns / 1e6:
            return (
                f"the generator itself was late: more than {100 - 100 * REQUIRED:.0f} % of its packets by over "
                f"{rate.late_ns / 1e6:.3g} ms"
            )
        return None

    @property
    def problem(self) -> str | None:
        """Why the figures are not those of what was asked for; None if they are."""
        return "; ".join(filter(None, (self.rate_problem, *self.problems))) or None

    @property
    def valid(self) -> bool:
        """Whether the rate was kept, and nothing but the run itself slowed the machine down.

        Kept is a rate at which 98 % of the triggers were answered, and the generator was in time.
        """
        return self.problem is None

    def raise_for_status(self) -> None:
        """Refuse a run that missed its rate, or that something else slowed down.

        Raises:
            CheckError: Says by how much.
        """
        if self.problem is not None:
            rate, alone = self.rate, "measure on a machine that does nothing else"
            fix = f"ask for a lower --fps, or {alone}"
            if self.rate_problem is None:
                fix = f"{alone}, is cool and has a power supply that suffices"
            elif rate.asked_hz is None:
                fix = f"use sources of a lower rate, or {alone}"
            elif rate.block_ms is not None and rate.block_ms > 1000 / rate.asked_hz:
                fix += (
                    f"; triggers come faster than blocks of sound ({rate.block_ms:.3g} ms), so that several become "
                    f"ready at once and some may be let go: ask for at most --fps {int(1000 / rate.block_ms)}, or "
                    f"shorter blocks (--block-ms {500 / rate.asked_hz:.1f})"
                )
            raise CheckError(f"the figures are not valid: {self.problem}", where=f"bench {self.bundle}", fix=fix)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the ``--json`` document, schema ``mmedge.bench/2`` (docs/bench.md)."""
        figures = {name: percentiles.to_dict() for name, percentiles in self.latency_ms.items()}
        steps = {name: figures.pop(name) for name in STEPS if name in figures}
        counts = self.statistics.to_dict()
        whole = cast("dict[str, object]", counts["latency_ms"])  # what only the whole run knows stays
        share = self.runtime_share
        return {
            "schema": SCHEMA,
            "bundle": self.bundle,
            "evidence": self.statistics.evidence,
            "valid": self.valid,
            "problem": self.problem,
            "rate": self.rate.to_dict(),
            "conditions": self.conditions,
            "startup_ms": dict(self.startup_ms),
            "processes": list(self.processes),
            "events": [{"t_ns": event.t_ns, "what": event.what} for event in self.events],
            **counts,
            "latency_ms": {**whole, **figures, "steps": steps},
            "stages_ms": {
                name: {part: found.to_dict() for part, found in parts.items()} for name, parts in self.stages_ms.items()
            },
            "runtime_share": None if share is None else share.to_dict(),
            "age_ms": {name: samples.summary().to_dict() for name, samples in self.tally.ages.items()},
            "skew_ms": self.tally.skew.summary().to_dict(),
            "uncertainty_ms": self.tally.uncertainty.summary().to_dict(),
        }

    def save(self, path: str | Path) -> Path:
        """Write the report as one HTML file or as JSON, as the name ends.

        Args:
            path: Where to.

        Returns:
            The path written.

        Raises:
            ConfigError: If the name ends otherwise, or it cannot be written.
        """
        path = Path(path)
        check_report_path(path)
        return write(path, self._json if path.suffix == ".json" else self._html)

    def save_page(self, path: str | Path) -> Path:
        """Write the report as one HTML file, whatever its name; returns the path. Raises ConfigError if it cannot."""
        return write(Path(path), self._html)

    def save_trace(self, path: str | Path) -> Path:
        """Write what ran when, as a trace that ui.perfetto.dev and chrome://tracing open.

        Args:
            path: Where to; JSON, whatever its name.

        Returns:
            The path written.

        Raises:
            ConfigError: If it cannot be written.
        """
        from mmedge.bench.trace import trace

        return write(Path(path), lambda: json.dumps(trace(self)))

    def _json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def _html(self) -> str:
        from mmedge.bench.page import page

        return page(self)


def write(path: Path, text: Callable[[], str]) -> Path:
    """Write a file; return its path. Raises ConfigError if it cannot be written."""
    made = text()
    try:
        path.write_text(made + "\n", encoding="utf-8")
    except OSError as error:
        message = f"cannot write the report: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="choose another path") from error
    return path


def check_report_path(path: Path) -> None:
    """Raise ConfigError unless a report can be written as what the path's name says."""
    if path.suffix not in (".html", ".json"):
        raise ConfigError(
            f"the report cannot be written as '{path.suffix or path.name}'",
            where=str(path),
            fix="use the suffix .html or .json",
        )
