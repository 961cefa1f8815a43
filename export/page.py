"""The report of an export as one HTML file: tables and pictures inside of it, nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mmedge.extras import require
from mmedge.plain import printable

from .smoke import QUANTISED_KINDS

if TYPE_CHECKING:
    from .run_report import RunReport

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1c2733}"
    "h1{margin-bottom:0}h2{margin-top:2em;border-bottom:2px solid #76b900}"
    "table{border-collapse:collapse;width:100%;margin:1em 0}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}caption{caption-side:bottom;"
    "text-align:left;color:#66727f}img{max-width:100%}ul.warnings li{background:#fff4d6;margin:.3em 0;"
    "padding:.3em .8em;list-style:none;overflow-wrap:anywhere}ul{padding:0}.quiet{color:#66727f}"
    "td{overflow-wrap:anywhere}"
)
_GREEN, _GREY, _RED = "#76b900", "#9aa5b1", "#c0392b"
_Bars = Sequence[tuple[str, float, str]]  # label, value, colour


def page(report: RunReport, document: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        report: What was measured.
        document: Its JSON document, as it is written beside the page.
    """
    parts = [f"<h1>{_text(report.name)}</h1><p class=quiet>{_text(_said(document))}</p>"]
    if document["warnings"]:
        items = "".join(f"<li>{_text(text)}</li>" for text in dict.fromkeys(document["warnings"]))
        parts.append(f"<h2>Warnings</h2><ul class=warnings>{items}</ul>")
    parts.append("<h2>Steps</h2>" + _steps(report))
    for title, rows, unit in _charts(report):
        parts.append(f"<h2>{_text(title)}</h2>" + _chart(rows, unit))
    parts += [_table(table) for table in report.tables()]
    if (smoke := document["smoke"]) is not None:
        refused = [f"{row['stage']}, {row['precision']}: {row['problem']}" for row in smoke["rows"] if row["problem"]]
        refused += [f"not built: {smoke['skipped']}"] if smoke["skipped"] else []
        parts.append("".join(f"<pre>{_text(text)}</pre>" for text in refused))
    origin = {"licence": document["licence"], **document["provenance"]}
    listed = "".join(f"<tr><td>{_text(key)}<td>{_text(value)}" for key, value in origin.items())
    parts.append(f"<h2>Provenance</h2><table>{listed}</table>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>mmedge export: {_text(report.name)}</title>"
    return f"{head}<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _said(document: Mapping[str, Any]) -> str:
    made = document["bundle"] or "no bundle was made"
    return f"{made}; accuracy is of ONNX Runtime on a CPU; engines were built, not run"


def _steps(report: RunReport) -> str:
    rows = "".join(
        f"<tr><td>{_text(step)}<td>{'done before' if step in report.cached else f'{seconds:.1f} s'}"
        for step, seconds in report.seconds.items()
    )
    return f"<table><tr><th>step<th>took</tr>{rows}</table>"


def _charts(report: RunReport) -> list[tuple[str, _Bars, str]]:
    charts: list[tuple[str, _Bars, str]] = []
    if report.quantization is not None:
        sizes = []
        for place, stage in enumerate(report.quantization.stages):
            sizes.append((f"{stage.stage} fp32", stage.fp32_bytes / 1000, _GREY))
            own = [(part.precision, part.stages[place]) for part in report.quantizations]
            sizes += [(f"{s.stage} {kind}", s.int8_bytes / 1000, _GREEN) for kind, s in own]
        charts.append(("Size of the networks", sizes, "kB"))
    for part in report.quantizations:
        noise = [(s.stage, s.sqnr_db, _GREEN) for s in part.stages if s.sqnr_db is not None]
        if noise:
            charts.append((f"{part.precision.upper()}: signal to quantisation noise", noise, "dB"))
    for comparison in report.comparisons:
        rows = [
            (f"{row.task}: {' + '.join(row.present)}", row.lost, _RED if row.lost > 1 else _GREEN)
            for row in comparison.rows
        ]
        charts.append((f"Answers on which {comparison.b} differs from {comparison.a}", rows, "%"))
    built = [] if report.smoke is None else [row for row in report.smoke.rows if not row.problem]
    for kind in QUANTISED_KINDS:
        shares = [(row.stage, 100 * row.int8_coverage, _GREEN) for row in built if row.precision == kind]
        if shares:
            charts.append((f"Quantised operations that TensorRT computes in {kind.upper()}", shares, "%"))
    return charts


def _chart(rows: _Bars, unit: str) -> str:
    """Return bars as a picture inside of the page."""
    matplotlib = require("matplotlib", "drawing the report")
    figure_class = import_module("matplotlib.figure").Figure
    with matplotlib.rc_context({"svg.hashsalt": "mmedge", "svg.fonttype": "path", "font.size": 9}):
        figure = figure_class(figsize=(8, 0.55 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        values = [value for _, value, _ in rows]
        places = range(len(rows))
        bars = axes.barh(places, values, color=[colour for _, _, colour in rows], height=0.7)
        axes.bar_label(bars, labels=[f"{value:.3g} {unit}" for value in values], padding=3)
        axes.set_yticks(places, [label for label, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(min([0.0, *values]), max([*values, 0.0]) * 1.15 or 1.0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(unit)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    picture = base64.b64encode(buffer.getvalue()).decode()
    told = "; ".join(f"{name}: {value:.3g} {unit}" for name, value, _ in rows)
    return f'<img alt="{_text(told)}" src="data:image/svg+xml;base64,{picture}">'


def _table(table: Table) -> str:
    """Return a table of the terminal as one of HTML."""
    head = "".join(f"<th>{_text(column.header)}" for column in table.columns)
    cells = zip(*(list(column.cells) for column in table.columns), strict=True)
    rows = "".join("<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in cells)
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return f"<h2>{_text(table.title)}</h2><table>{caption}<tr>{head}</tr>{rows}</table>"


def _text(text: object) -> str:
    return html.escape(printable(str(text)))
