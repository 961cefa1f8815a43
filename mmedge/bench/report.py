"""The latency report: figures, conditions, and one HTML file to send around."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedge.errors import ConfigError
from mmedge.pipeline import Percentiles, Statistics

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#1c2733}"
    "table{border-collapse:collapse;width:100%;margin:1em 0}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}"
    ".bar{background:#76b900;height:.8em;border-radius:2px}small{color:#66727f}"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark run measured.

    Attributes:
        bundle: Name of the bundle.
        conditions: How it was measured: duration, inputs, backends, machine.
        statistics: Counts and histograms of the run.
    """

    bundle: str
    conditions: dict[str, Any]
    statistics: Statistics

    @property
    def latency_ms(self) -> dict[str, Percentiles]:
        """Percentiles by name: ``end_to_end``, ``overhead`` and each step."""
        s = self.statistics
        figures = {"end_to_end": s.end_to_end.summary(), "overhead": s.overhead.summary()}
        return figures | {name: h.summary() for name, h in s.steps.items() if h.n}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the ``--json`` document."""
        document = {"schema": "mmedge.bench/1", "bundle": self.bundle, "evidence": self.statistics.evidence}
        return document | {"conditions": self.conditions} | self.statistics.to_dict()

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
        longest = max((p.p99 for p in figures.values() if p.n), default=1.0) or 1.0
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{p.p50:.2f}</td><td>{p.p90:.2f}</td><td>{p.p99:.2f}</td>"
            f"<td>{p.p999:.2f}</td><td>{p.max:.2f}</td>"
            f'<td style="width:30%"><div class="bar" style="width:{100 * p.p50 / longest:.1f}%"></div></td></tr>'
            for name, p in figures.items()
        )
        s = self.statistics
        facts = {
            "evidence": s.evidence,
            "results": s.results,
            "drops": s.drops or "none",
            "lost audio samples": s.lost_samples or "none",
            "skew p50 / p99": f"{s.skew.summary().p50:.3f} / {s.skew.summary().p99:.3f} ms",
            **self.conditions,
        }
        listed = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>mmedge bench: {html.escape(self.bundle)}</title>"
            f"<style>{_STYLE}</style><h1>{html.escape(self.bundle)}</h1>"
            f"<p>Latency per trigger in ms, n = {s.end_to_end.n}. <small>Bars: p50.</small></p>"
            "<table><tr><th>step</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th></th></tr>"
            f"{rows}</table><h2>Conditions</h2><table>{listed}</table></html>"
        )


def check_report_path(path: Path) -> None:
    """Raise ConfigError unless a report can be written as what the path's name says."""
    if path.suffix not in (".html", ".json"):
        raise ConfigError(
            f"a report cannot be written as '{path.suffix or path.name}'",
            where=str(path),
            fix="end the name in .html or .json",
        )
