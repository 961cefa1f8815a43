"""The latency report: figures, conditions, and one HTML file to send around."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mmedge.bench.tally import Tally
from mmedge.errors import CheckError, ConfigError
from mmedge.pipeline import Histogram, Percentiles, Statistics
from mmedge.pipeline.statistics import STEPS, told
from mmedge.plain import printable

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#1c2733}"
    "table{border-collapse:collapse;width:100%;margin:1em 0}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}"
    ".bar{background:#76b900;height:.8em;border-radius:2px}small{color:#66727f}"
)


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
        due: Triggers that were due in it.
        answered: How many of them had an answer of their own.
        lateness: How late the generator pushed its packets; None without one.
        late_ns: From where on a packet is late.
        block_ms: Longest block of generated sound.
    """

    asked_hz: float | None
    measured_s: float
    due: int
    answered: int
    lateness: Histogram | None = None
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
        known = {"asked_hz": asked, "achieved_hz": round(self.achieved_hz, 3), "due": self.due}
        return {**known, "answered": self.answered, "generator_late_ms": late}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark run measured.

    Attributes:
        bundle: Name of the bundle.
        conditions: How it was measured: duration, warm-up, inputs, isolation, backends, machine.
        statistics: Counts of the whole run, its warm-up included.
        tally: Latencies of the measured time.
        rate: What was asked, and what was achieved.
    """

    bundle: str
    conditions: dict[str, Any]
    statistics: Statistics
    tally: Tally
    rate: Rate

    @property
    def latency_ms(self) -> dict[str, Percentiles]:
        """Percentiles by name: ``end_to_end``, ``overhead`` and each step.

        With generated data ``end_to_end`` is of every trigger that was due, from then to an answer as new as it, and
        ``answered`` of those that had an answer of their own.
        """
        return {name: h.summary() for name, h in self.tally.latencies.items() if h.n}

    @property
    def problem(self) -> str | None:
        """Why the figures are not those of what was asked for; None if they are."""
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
    def valid(self) -> bool:
        """Whether the rate was kept: 98 % of the triggers were answered, and the generator was in time."""
        return self.problem is None

    def raise_for_status(self) -> None:
        """Refuse a run that missed its rate.

        Raises:
            CheckError: Says by how much.
        """
        if self.problem is not None:
            rate, alone = self.rate, "measure on a machine that does nothing else"
            fix = f"ask for a lower --fps, or {alone}"
            if rate.asked_hz is None:
                fix = f"use sources of a lower rate, or {alone}"
            elif rate.block_ms is not None and rate.block_ms > 1000 / rate.asked_hz:
                fix += (
                    f"; triggers come faster than blocks of sound ({rate.block_ms:.3g} ms), so that several become "
                    f"ready at once and some may be let go: ask for at most --fps {int(1000 / rate.block_ms)}, or "
                    f"shorter blocks (--block-ms {500 / rate.asked_hz:.1f})"
                )
            raise CheckError(f"the figures are not valid: {self.problem}", where=f"bench {self.bundle}", fix=fix)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the ``--json`` document."""
        figures = {name: percentiles.to_dict() for name, percentiles in self.latency_ms.items()}
        steps = {name: figures.pop(name) for name in STEPS if name in figures}
        counts = self.statistics.to_dict()
        whole = cast("dict[str, object]", counts["latency_ms"])  # what only the whole run knows stays
        return {
            "schema": "mmedge.bench/1",
            "bundle": self.bundle,
            "evidence": self.statistics.evidence,
            "valid": self.valid,
            "problem": self.problem,
            "rate": self.rate.to_dict(),
            "conditions": self.conditions,
            **counts,
            "latency_ms": {**whole, **figures, "steps": steps},
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
        text = json.dumps(self.to_dict(), indent=1) if path.suffix == ".json" else self._html()
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            message = f"cannot write the report: {error.strerror}"
            raise ConfigError(message, where=str(path), fix="choose another path") from error
        return path

    def _html(self) -> str:
        figures = self.latency_ms
        longest = max((p.max for p in figures.values()), default=1.0) or 1.0
        rows = "".join(
            f"<tr><td>{_text(name)}</td>"
            + "".join(f"<td>{told(value)}</td>" for value in (p.p50, p.p90, p.p99, p.p999, p.max))
            + f'<td>{p.n}</td><td style="width:25%"><div class="bar" style="width:{_share(p.p50, longest):.1f}%">'
            "</div></td></tr>"
            for name, p in figures.items()
        )
        s, skew, rate = self.statistics, self.tally.skew.summary(), self.rate
        facts = {
            "valid": "yes" if self.valid else f"NO: {self.problem}",
            "triggers a second, asked / achieved": f"{self.rate.asked_hz or 'as they come'} / {rate.achieved_hz:.2f}",
            "triggers due / answered": f"{rate.due} / {rate.answered}",
            "evidence": s.evidence,
            "results, warm-up included": s.results,
            "drops": s.drops or "none",
            "lost audio samples": s.lost_samples or "none",
            "skew p50 / p99": f"{told(skew.p50, 3)} / {told(skew.p99, 3)} ms",
            **self.conditions,
        }
        listed = "".join(f"<tr><td>{_text(k)}</td><td>{_text(str(v))}</td></tr>" for k, v in facts.items())
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>mmedge bench: {_text(self.bundle)}</title>"
            f"<style>{_STYLE}</style><h1>{_text(self.bundle)}</h1>"
            f"<p>{NOTE} <small>Bars: p50. A percentile that n values cannot show is -.</small></p>"
            "<table><tr><th>ms</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>n</th><th></th></tr>"
            f"{rows}</table><h2>Conditions</h2><table>{listed}</table></html>"
        )


def _share(value: float, whole: float) -> float:
    return 0.0 if math.isnan(value) else 100 * value / whole


def check_report_path(path: Path) -> None:
    """Raise ConfigError unless a report can be written as what the path's name says."""
    if path.suffix not in (".html", ".json"):
        raise ConfigError(
            f"the report cannot be written as '{path.suffix or path.name}'",
            where=str(path),
            fix="use the suffix .html or .json",
        )


def _text(text: str) -> str:
    """Return text for a page: neither markup nor a character that turns or hides the rest."""
    return html.escape(printable(text))
