"""Latency by rate, with the knee, as SVG in the colours of a report page."""

from __future__ import annotations

import math

from mmedge.bench.charts import HEIGHT, LEFT, RIGHT, WIDTH, axis, circle, line, scale, svg, text, ticks
from mmedge.bench.sweep import Sweep

_PERCENTS = ("p50", "p90", "p99")
_BOTTOM, _TOP = 32, 22


def by_rate(found: Sweep) -> str:
    """Return percentiles of end to end at each rate, on a logarithmic scale: beyond the knee they run away.

    Args:
        found: A sweep of at least one rate.
    """
    rates = [point.asked_hz for point in found.points]
    series = {
        p: [float(getattr(point.report.latency_ms["end_to_end"], p)) for point in found.points] for p in _PERCENTS
    }
    known = [math.log10(max(ms, 1e-3)) for values in series.values() for ms in values if math.isfinite(ms)]
    low, high = math.floor(min(known, default=0.0)), math.ceil(max(known, default=1.0))
    across = scale(0, max(rates), LEFT, WIDTH - RIGHT - 20)
    up = scale(low, high if high > low else low + 1, HEIGHT - _BOTTOM, _TOP)
    parts = []
    for power in range(low, high + 1):
        parts.append(line(LEFT, up(power), WIDTH - RIGHT, up(power), "grid"))
        parts.append(text(LEFT - 8, up(power) + 4, f"{10.0**power:g}", "end"))
    parts.append(text(8, _TOP - 8, "ms", "start"))
    if found.knee_hz is not None:
        at = across(found.knee_hz)
        parts.append(line(at, _TOP, at, HEIGHT - _BOTTOM, "mark", f"the knee: {found.knee_hz:.4g} a second"))
        parts.append(text(at, _TOP - 6, f"{found.knee_hz:.4g}", "middle"))
    for name, values in series.items():
        places = [
            (across(rate), up(math.log10(max(ms, 1e-3))), point.kept, f"{rate:.4g} a second: {name} {ms:.3g} ms")
            for rate, ms, point in zip(rates, values, found.points, strict=True)
            if math.isfinite(ms)
        ]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        parts.append(f'<polyline class="{name}" points="{way}"/>')
        parts += [circle(x, y, 4, f"{name} {'kept' if kept else 'missed'}", tip) for x, y, kept, tip in places]
    parts += axis(ticks(0, max(rates)), across, HEIGHT - _BOTTOM, "Hz")
    return svg(HEIGHT, parts, "latency by rate")
