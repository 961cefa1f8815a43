"""The charts of a report page, as SVG in the page's own colours; no script, no request."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmedge.bench.samples import PERCENTS, Samples
from mmedge.pipeline.statistics import FloatArray64, values_needed
from mmedge.plain import printable

WIDTH, HEIGHT, LEFT, RIGHT = 900, 260, 60, 16
_BARS, _POINTS = 60, 1200
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a waterfall.

    Attributes:
        name: What it says beside it.
        from_ms: Where it begins.
        until_ms: Where it ends.
        kind: Its colour: ``wait``, ``feed``, ``engine`` or ``rest``.
    """

    name: str
    from_ms: float
    until_ms: float
    kind: str


def escaped(text: str) -> str:
    """Return text for a page: neither markup nor a character that turns or hides the rest."""
    return html.escape(printable(text))


_LEAST = 1e-300  # below it, a power of ten is no number


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Return round numbers from low to high.

    Example:
        >>> ticks(0, 23)
        [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    if not high - low > _LEAST:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def histogram(samples: Samples, label: str) -> str:
    """Return how durations are spread, up to their p99.9; what is longer stands in the last bar.

    Args:
        samples: At least one.
        label: What they are, for whoever cannot see the chart.
    """
    values = samples.values_ms()
    low, high = float(values.min()), float(np.quantile(values, 0.999))
    low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
    edges = np.linspace(low, high, _BARS + 1)
    counts, _ = np.histogram(np.minimum(values, high), edges)
    height, top, bottom = 190, 18, 28
    across, up = scale(low, high, LEFT, WIDTH - RIGHT), scale(0, float(counts.max()), height - bottom, top)
    parts = []
    for count, from_ms, until_ms in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            tip = f"{from_ms:.3g} to {until_ms:.3g} ms: {count}"
            width = max(across(until_ms) - across(from_ms) - 1, 0.5)
            parts.append(_rect(across(from_ms), up(count), width, height - bottom - up(count), "engine", tip))
    taken = -math.inf
    for name, percent in PERCENTS.items():
        if samples.n >= values_needed(percent):
            at = min(across(samples.percentile_ms(percent)), float(WIDTH - RIGHT))
            parts.append(line(at, top, at, height - bottom, "mark"))
            if at - taken > 34:
                parts.append(text(at, top - 5, name, "middle"))
                taken = at
    parts += axis(ticks(low, high), across, height - bottom, "ms")
    return svg(height, parts, label)


def time_line(
    t_s: FloatArray64, latency_ms: FloatArray64, missed_s: Sequence[float], events: Sequence[tuple[float, str]]
) -> str:
    """Return the latency of each trigger over time, with those that were dropped and what happened.

    Args:
        t_s: When each trigger that was answered was due, float64 [n], in order.
        latency_ms: Its end to end, float64 [n].
        missed_s: When those were due that had no answer of their own.
        events: When something happened, and what.
    """
    height, top, bottom = 230, 24, 30
    times = [*t_s.tolist(), *missed_s, *(at for at, _ in events)]
    across = scale(0, max(times, default=1.0) or 1.0, LEFT, WIDTH - RIGHT)
    highest = float(latency_ms.max()) if len(latency_ms) else 1.0
    up = scale(0, highest or 1.0, height - bottom, top)
    parts = [line(across(at), top, across(at), height - bottom, "lost", f"{at:.2f} s: dropped") for at in missed_s]
    for at, what in events:
        parts.append(line(across(at), top - 8, across(at), height - bottom, "event", f"{at:.2f} s: {what}"))
        parts.append(f'<circle class="event" cx="{across(at):.1f}" cy="{top - 10}" r="3"/>')
    step = -(-len(t_s) // _POINTS) or 1
    for begin in range(0, len(t_s), step):  # of each step the longest: a page must not grow with the run
        worst = begin + int(np.argmax(latency_ms[begin : begin + step]))
        at, value = float(t_s[worst]), float(latency_ms[worst])
        parts.append(circle(across(at), up(value), 1.8, "point", f"{at:.2f} s: {value:.2f} ms"))
    for value in ticks(0, highest, 4):
        parts.append(line(LEFT, up(value), WIDTH - RIGHT, up(value), "grid"))
        parts.append(text(LEFT - 8, up(value) + 4, f"{value:g}", "end"))
    parts.append(text(8, top - 8, "ms", "start"))
    parts += axis(ticks(0, max(times, default=1.0)), across, height - bottom, "s")
    return svg(height, parts, "latency of each trigger over time")


def waterfall(bars: Sequence[Bar], label: str) -> str:
    """Return bars under each other on one axis of time.

    Args:
        bars: In order; at least one.
        label: What they are.
    """
    row, top, bottom, left = 22, 6, 28, 230
    height = top + row * len(bars) + bottom
    low = min(0.0, min(bar.from_ms for bar in bars))
    high = max(bar.until_ms for bar in bars)
    across = scale(low, high if high > low else low + 1, left, WIDTH - RIGHT - 70)
    parts = []
    for number, bar in enumerate(bars):
        y, long_ms = top + row * number, bar.until_ms - bar.from_ms
        width = max(across(bar.until_ms) - across(bar.from_ms), 1.0)
        parts.append(text(left - 8, y + 15, bar.name, "end"))
        parts.append(_rect(across(bar.from_ms), y + 3, width, row - 6, bar.kind, f"{bar.name}: {long_ms:.3f} ms"))
        parts.append(text(across(bar.from_ms) + width + 5, y + 15, f"{long_ms:.2f}", "start"))
    parts += axis(ticks(low, high), across, height - bottom, "ms")
    return svg(height, parts, label)


def scale(low: float, high: float, first: float, last: float) -> Scale:
    """Return a function from values to places."""
    return lambda value: first + (value - low) / ((high - low) or 1.0) * (last - first)


def svg(height: int, parts: Sequence[str], label: str) -> str:
    """Return a chart; the label is for whoever cannot see it."""
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escaped(label)}">{inside}</svg>'


def axis(values: Sequence[float], across: Scale, y: float, unit: str) -> list[str]:
    """Return the ticks of an axis, and its unit at the end."""
    parts = [line(across(value), y, across(value), y + 4, "grid") for value in values]
    parts += [text(at, y + 17, f"{value:.6g}", "middle") for value in values if (at := across(value)) < WIDTH - 50]
    return [*parts, text(WIDTH - 4, y + 17, unit, "end")]


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Return words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(words)}</text>'


def circle(x: float, y: float, radius: float, kind: str, tip: str) -> str:
    """Return a circle that says what it is under the pointer."""
    inside = f"<title>{escaped(tip)}</title>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{inside}</circle>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, tip: str = "") -> str:
    """Return a line, which may say what it is under the pointer."""
    inside = f"<title>{escaped(tip)}</title>" if tip else ""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}">{inside}</line>'


def _rect(x: float, y: float, width: float, height: float, kind: str, tip: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {size} rx="1.5"><title>{escaped(tip)}</title></rect>'
