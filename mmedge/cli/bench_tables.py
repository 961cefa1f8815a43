"""What ``mmedge bench`` prints for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from mmedge.bench.compare import Comparison
from mmedge.bench.report import NOTE, Report
from mmedge.bench.samples import Figures, Interval
from mmedge.bench.sweep import Sweep, knee_line
from mmedge.cli.output import add_names, err
from mmedge.cli.run import print_facts
from mmedge.pipeline.statistics import told


def print_report(report: Report) -> None:
    """Print a report on stderr: figures with their intervals, stages, start, processes, conditions."""
    rate, conditions = report.rate, report.conditions
    title = f"{rate.answered} of {rate.due} triggers answered ({report.statistics.evidence})"
    err.print(_figures(title, [*report.latency_ms.items(), ("skew", report.tally.skew.summary())]))
    stages = report.stages_ms.items()
    if stages:
        parts = [(f"{stage} {part}", found) for stage, each in stages for part, found in each.items()]
        err.print(_figures("stages", parts))
    asked = "as the sources give them" if rate.asked_hz is None else f"asked {rate.asked_hz:g} a second"
    settled = "" if conditions["settled"] else ", at whose end latencies were not steady yet"
    lines = [f"{asked}, achieved {rate.achieved_hz:.1f}; {conditions['warm_up_s']:.1f} s left out as warm-up{settled}"]
    if rate.lateness is not None:
        lines += [NOTE, f"generator late by at most {rate.lateness.max_ns / 1e6:.1f} ms"]
    share = report.runtime_share
    if share is not None:
        between = _between(share.intervals_ms.get("p50"))
        lines.append(f"runtime share: end to end without waiting is {told(share.p50)} {between} of the engines' time")
    lines.append(f"isolation: {conditions['isolation']}")
    lines.append("start: " + ", ".join(f"{name} {took_ms:.0f} ms" for name, took_ms in report.startup_ms.items()))
    for each in report.processes:
        memory = "" if each["pss_mib"] is None else f", {each['pss_mib']} MiB"
        memory += f", {each['gpu_mib']} MiB of the GPU" if "gpu_mib" in each else ""
        lines.append(f"process {each['name']}: {100 * float(str(each['cpu_share'])):.1f} % of a core{memory}")
    power = conditions.get("power", {})
    if "whole_w" in power:
        lines.append(f"power: {power['whole_w']} W ({power['whole']}), {power['mj_per_result']} mJ a result")
    for line in lines:
        err.print(line, highlight=False, markup=False)
    print_facts(report.statistics)


def print_sweep(found: Sweep) -> None:
    """Print a sweep on stderr: a line for each rate, and the knee."""
    table = Table(title=f"{found.points[0].report.bundle}: end to end by rate")
    for heading in ("asked a second", "achieved", "p50 ms", "p99 ms", "max ms", "n", "kept"):
        table.add_column(heading, justify="right")
    for point in found.points:
        p = point.report.latency_ms["end_to_end"]
        cells = (f"{point.asked_hz:.1f}", f"{point.report.rate.achieved_hz:.1f}", told(p.p50), told(p.p99), told(p.max))
        table.add_row(*cells, str(p.n), "yes" if point.kept else "no")
    err.print(table)
    err.print(knee_line(found), highlight=False, markup=False)


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison on stderr: each figure, its ratio and between what that lies."""
    table = Table(title="beside the baseline")
    add_names(table, "figure", [change.what for change in comparison.changes])
    for heading in ("now ms", "baseline ms", "ratio", "between", "decides"):
        table.add_column(heading, justify="right")
    gated = not comparison.differences
    for change in comparison.changes:
        decides = "yes" if change.gated and gated else ""
        cells = (told(change.ours_ms, 3), told(change.theirs_ms, 3), told(change.ratio, 3))
        table.add_row(change.what, *cells, _between(change.interval, 3), decides)
    err.print(table)
    for difference in comparison.differences:
        err.print(f"not comparable, so shown only: {difference}", highlight=False, markup=False)


def _figures(title: str, named: Iterable[tuple[str, Figures]]) -> Table:
    rows = [(name, p) for name, p in named if p.n]
    table = Table(title=title)
    add_names(table, "ms", [name for name, _ in rows])
    for heading in ("p50", "p90", "p99", "p99.9", "max", "n"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, p in rows:
        cells = [
            f"{told(value)}\n{_between(p.intervals_ms.get(percent))}".rstrip()
            for percent, value in (("p50", p.p50), ("p90", p.p90), ("p99", p.p99), ("p99.9", p.p999))
        ]
        table.add_row(name, *cells, told(p.max), str(p.n))
    return table


def _between(interval: Interval | None, digits: int = 2) -> str:
    # No square brackets: rich would take them for markup.
    return "" if interval is None else f"({told(interval[0], digits)}..{told(interval[1], digits)})"
