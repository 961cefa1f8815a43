"""The knee: the highest rate that a system keeps, and what latency does on the way there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmedge.bench.report import Report, check_report_path, write
from mmedge.errors import CheckError, ConfigError

SCHEMA = "mmedge.bench.sweep/1"
_STEPS = 6  # from the lowest rate to the highest, each by the same factor
_HALVINGS = 3  # between the last rate that was kept and the first that was missed


@dataclass(frozen=True, slots=True)
class Point:
    """One rate.

    Attributes:
        asked_hz: Triggers a second.
        report: What was measured.
    """

    asked_hz: float
    report: Report

    @property
    def kept(self) -> bool:
        """Whether the rate was kept."""
        return self.report.rate_problem is None


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Attributes:
        points: In order of their rates.
    """

    points: tuple[Point, ...]

    @property
    def missed_hz(self) -> float | None:
        """The lowest rate that was missed; None if none was."""
        return next((point.asked_hz for point in self.points if not point.kept), None)

    @property
    def knee_hz(self) -> float | None:
        """The highest rate below the first one that was missed; None if the lowest was."""
        missed_hz = self.missed_hz
        kept = [p.asked_hz for p in self.points if missed_hz is None or p.asked_hz < missed_hz]
        return max(kept, default=None)

    @property
    def problems(self) -> list[str]:
        """What was wrong with the conditions at any rate."""
        return [f"at {p.asked_hz:.4g} a second: {problem}" for p in self.points for problem in p.report.problems]

    def raise_for_status(self) -> None:
        """Refuse a sweep whose lowest rate was missed, or during which something else slowed the machine down.

        Raises:
            CheckError: Says why.
        """
        where = f"bench {self.points[0].report.bundle}"
        if self.problems:
            fix = "measure on a machine that does nothing else, is cool and has a power supply that suffices"
            raise CheckError(f"the figures are not valid: {'; '.join(self.problems)}", where=where, fix=fix)
        if self.knee_hz is None:
            message = f"the lowest rate, {self.points[0].asked_hz:g} a second, was missed"
            raise CheckError(message, where=where, fix="begin with a lower rate")

    def save(self, path: Path) -> Path:
        """Write the sweep as one HTML file or as JSON, as the name ends; returns the path.

        Raises:
            ConfigError: If the name ends otherwise, or it cannot be written.
        """
        check_report_path(path)
        return self.save_page(path) if path.suffix == ".html" else write(path, self._json)

    def save_page(self, path: Path) -> Path:
        """Write the sweep as one HTML file, whatever its name; returns the path. Raises ConfigError if it cannot."""
        from mmedge.bench.page import sweep_page

        return write(path, lambda: sweep_page(self))

    def _json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, object]:
        """Return the sweep as the ``--json`` document, schema ``mmedge.bench.sweep/1`` (docs/bench.md)."""
        return {
            "schema": SCHEMA,
            "bundle": self.points[0].report.bundle,
            "knee_hz": None if self.knee_hz is None else round(self.knee_hz, 3),
            "missed_hz": None if self.missed_hz is None else round(self.missed_hz, 3),
            "valid": not self.problems and self.knee_hz is not None,
            "problems": self.problems,
            "points": [{"kept": point.kept, **point.report.to_dict()} for point in self.points],
        }


def knee_line(found: Sweep) -> str:
    """Return in a line where the knee is."""
    if found.missed_hz is None:
        return f"every rate was kept; the knee is above {found.knee_hz:.4g} a second"
    if found.knee_hz is None:
        return f"the lowest rate was missed; the knee is below {found.missed_hz:.4g} a second"
    return f"knee: {found.knee_hz:.4g} a second are kept, {found.missed_hz:.4g} are not"


def sweep(low_hz: float, high_hz: float, measure: Callable[[float], Report]) -> Sweep:
    """Find the knee: rising rates until one is missed, then halfway between it and the last that was kept.

    Args:
        low_hz: Where to begin.
        high_hz: Where to end.
        measure: Measures a rate.

    Raises:
        ConfigError: If the rates are not in order.
    """
    if not 0.001 <= low_hz < high_hz <= 1000:
        raise ConfigError(
            f"a sweep from {low_hz:g} to {high_hz:g} a second", where="sweep", fix="use LOW:HIGH, e.g. 10:240"
        )
    found: list[Point] = []
    for step in range(_STEPS + 1):
        rate_hz = min(low_hz * (high_hz / low_hz) ** (step / _STEPS), high_hz)  # not 1000.0000000000002
        found.append(Point(rate_hz, measure(rate_hz)))
        if not found[-1].kept:
            break
    if len(found) > 1 and not found[-1].kept:
        kept_hz, missed_hz = found[-2].asked_hz, found[-1].asked_hz
        for _ in range(_HALVINGS):
            rate_hz = math.sqrt(kept_hz * missed_hz)
            found.append(Point(rate_hz, measure(rate_hz)))
            kept_hz, missed_hz = (rate_hz, missed_hz) if found[-1].kept else (kept_hz, rate_hz)
    return Sweep(tuple(sorted(found, key=lambda point: point.asked_hz)))
