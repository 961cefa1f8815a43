"""The report as one HTML file to send around: it asks for nothing, and runs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmedge.bench.charts import Bar, escaped, histogram, time_line, waterfall
from mmedge.bench.report import NOTE, Report
from mmedge.bench.samples import Figures, Interval
from mmedge.bench.sweep import Sweep, knee_line
from mmedge.bench.sweep_chart import by_rate
from mmedge.bench.tally import Answer, OpenLoop
from mmedge.pipeline.statistics import told

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HOW = (
    "In brackets: between what a percentile lies with 95 % confidence, whatever the distribution. "
    "What n values cannot show is -."
)
_COLOURS = {"p50": "rest", "p90": "engine", "p99": "feed"}
_OF_PROCESSES = ("process", "share of a core", "memory (PSS), MiB", "of the GPU, MiB")
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--dim:#66727f;--line:#dde3ea;--paper:#fff;--engine:#3b7a3a;--feed:#d08a1d;
--wait:#b9c3ce;--rest:#5b7fb5;--bad:#c2362b}
@media(prefers-color-scheme:dark){:root{--ink:#e3e9ef;--dim:#93a0ad;--line:#36414c;--paper:#14191f;--engine:#6fbf5f;
--feed:#e2a640;--wait:#5a6672;--rest:#7fa3da;--bad:#ff7468}}
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:var(--ink);
background:var(--paper)}
h2{margin:1.6em 0 .3em;font-size:1.15em}table{border-collapse:collapse;width:100%;margin:.6em 0}
td,th{padding:.25em .6em;text-align:right;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}td.wide{text-align:left;overflow-wrap:anywhere}
small,.dim{color:var(--dim)}.verdict{padding:.5em .8em;border-left:4px solid var(--engine);background:color-mix(in srgb,
var(--engine) 10%,transparent)}.verdict.no{border-color:var(--bad);background:color-mix(in srgb,var(--bad) 12%,
transparent)}svg{display:block;width:100%;margin:.3em 0}text{font-size:12px;fill:var(--dim)}
.engine{fill:var(--engine)}.feed{fill:var(--feed)}.wait{fill:var(--wait)}.rest{fill:var(--rest)}
.point{fill:var(--rest);fill-opacity:.7}.grid{stroke:var(--line)}.mark{stroke:var(--dim);stroke-dasharray:3 3}
.lost{stroke:var(--bad);stroke-opacity:.55}line.event{stroke:var(--bad);stroke-dasharray:2 3}
circle.event{fill:var(--bad)}.p50,.p90,.p99{fill:none;stroke-width:2}.p50{stroke:var(--rest)}.p90{stroke:var(--engine)}
.p99{stroke:var(--feed)}circle.kept{stroke:none}circle.p50.kept{fill:var(--rest)}circle.p90.kept{fill:var(--engine)}
circle.p99.kept{fill:var(--feed)}circle.missed{fill:var(--paper)}
.key b{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 1em;border-radius:2px}
"""
_KEY = "".join(
    f'<b style="background:var(--{kind})"></b>{words}'
    for kind, words in (
        ("wait", "waiting for data"),
        ("feed", "writing tensors"),
        ("engine", "engine"),
        ("rest", "the runtime's own"),
    )
)


def page(report: Report) -> str:
    """Return the page of a report."""
    name = escaped(report.bundle)
    verdict = (
        '<p class="verdict">Valid: the rate was kept, and nothing else slowed the machine down.</p>'
        if report.valid
        else f'<p class="verdict no">NOT VALID: {escaped(report.problem or "")}</p>'
    )
    sections = [
        f"<h1>{name}</h1>{verdict}",
        _facts(report),
        f"<h2>Latency</h2><p>{escaped(NOTE)} <small>{_HOW}</small></p>",
        _figures(report.latency_ms.items()),
        _spread(report),
        _stages(report),
        _line_of_time(report),
        _triggers(report),
        _start(report),
        "<h2>Processes</h2>" + _table(_OF_PROCESSES, _processes(report)),
        "<h2>Conditions</h2>" + _listed(report.conditions),
    ]
    return whole(f"mmedge bench: {name}", sections)


def sweep_page(found: Sweep) -> str:
    """Return the page of a sweep: latency by rate with the knee, a line for each rate."""
    name = escaped(found.points[0].report.bundle)
    problem = "; ".join(found.problems) or (None if found.knee_hz is not None else "the lowest rate was missed")
    verdict = f"{knee_line(found)}." if problem is None else f"{knee_line(found)}. NOT VALID: {problem}"
    rows = []
    for point in found.points:
        report = point.report
        figures, rate, share = report.latency_ms["end_to_end"], report.rate, report.runtime_share
        counted = (f"{rate.achieved_hz:.1f}", f"{rate.answered} of {rate.due}")
        times = (told(figures.p50), told(figures.p90), told(figures.p99), told(figures.max))
        own = "-" if share is None else told(share.p50)
        rows.append((f"{point.asked_hz:.4g}", *counted, *times, own, "yes" if point.kept else "no"))
    heads = ("asked a second", "achieved", "answered", "p50 ms", "p90 ms", "p99 ms", "max ms", "runtime share", "kept")
    first = found.points[0].report
    named = ("machine", "cores", "isolation", "backends", "mmedge")
    alike = {key: first.conditions[key] for key in named if key in first.conditions}
    key = "".join(f"<b style='background:var(--{kind})'></b>{p}" for p, kind in _COLOURS.items())
    sections = [
        f'<h1>{name}</h1><p class="verdict{"" if problem is None else " no"}">{escaped(verdict)}</p>',
        f"<h2>End to end by rate</h2><p class='dim key'>{key}; hollow: the rate was missed; dashed: the knee</p>",
        by_rate(found),
        _table(heads, rows),
        "<h2>Conditions</h2>" + _listed({"evidence": first.statistics.evidence, **alike}),
    ]
    return whole(f"mmedge bench: {name}, by rate", sections)


def whole(title: str, sections: Iterable[str]) -> str:
    """Return a page; the title is text of a page already."""
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv="Content-Security-Policy" '
        f'content="{_POLICY}"><meta name=viewport content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style>{''.join(sections)}</html>"
    )


def _facts(report: Report) -> str:
    rate, statistics, skew = report.rate, report.statistics, report.tally.skew.summary()
    share = report.runtime_share
    return _listed(
        {
            "triggers a second, asked / achieved": f"{rate.asked_hz or 'as they come'} / {rate.achieved_hz:.2f}",
            "triggers due / answered": f"{rate.due} / {rate.answered}",
            "runtime share: end to end without waiting, over engine time": "-"
            if share is None
            else f"p50 {told(share.p50)} {_between(share.intervals_ms.get('p50'))}",
            "evidence": statistics.evidence,
            "results, warm-up included": statistics.results,
            "drops": ", ".join(f"{cause} {n}" for cause, n in statistics.drops.items()) or "none",
            "lost audio samples": sum(statistics.lost_samples.values()) or "none",
            "skew p50 / p99": f"{told(skew.p50, 3)} / {told(skew.p99, 3)} ms",
            **{
                f"age of {n} p50 / max": f"{told(s.summary().p50, 1)} / {told(s.summary().max, 1)} ms"
                for n, s in report.tally.ages.items()
            },
        }
    )


def _figures(named: Iterable[tuple[str, Figures]]) -> str:
    rows = [
        (
            name,
            *(
                f"{told(value)} <small>{_between(p.intervals_ms.get(percent))}</small>"
                for percent, value in (("p50", p.p50), ("p90", p.p90), ("p99", p.p99), ("p99.9", p.p999))
            ),
            told(p.max),
            str(p.n),
        )
        for name, p in named
    ]
    return _table(("ms", "p50", "p90", "p99", "p99.9", "max", "n"), rows, plain=False)


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f"[{told(interval[0])}, {told(interval[1])}]"


def _spread(report: Report) -> str:
    whole = () if report.rate.answered == report.rate.due else ("answered",)  # else they are the same
    shown = ("end_to_end", *whole, "received", "overhead", "preprocessed", "inferred")
    found = [(name, report.tally.latencies[name]) for name in shown if name in report.tally.latencies]
    charts = "".join(f"<p class=dim>{name}</p>{histogram(samples, name)}" for name, samples in found if samples.n)
    return f"<h2>How it is spread</h2>{charts}"


def _stages(report: Report) -> str:
    figures = [
        (f"{escaped(stage)}: {part}", found)
        for stage, parts in report.stages_ms.items()
        for part, found in parts.items()
    ]
    return "<h2>Stages</h2>" + _figures(figures) if figures else ""


def _line_of_time(report: Report) -> str:
    answers, tally = report.tally.answers, report.tally
    if not answers:
        return ""
    begin_ns = tally.from_ns or answers[0].t_ns
    t_s = np.array([answer.t_ns - begin_ns for answer in answers], np.float64) / 1e9
    latency_ms = np.array([answer.took_ns for answer in answers], np.float64) / 1e6
    missed_s = [(t_ns - begin_ns) / 1e9 for t_ns in tally.missed] if isinstance(tally, OpenLoop) else []
    events = [*tally.marks, *report.events]
    chart = time_line(t_s, latency_ms, missed_s, [((t_ns - begin_ns) / 1e9, what) for t_ns, what in events])
    listed = "".join(
        f"<tr><td>{(t_ns - begin_ns) / 1e9:.2f} s</td><td class=wide>{escaped(what)}</td></tr>"
        for t_ns, what in events[:200]
    )
    return (
        "<h2>Time line</h2><p class=dim>Each point is a trigger that was answered; a red line is one that was dropped, "
        f"a dashed one an event.</p>{chart}{f'<table>{listed}</table>' if listed else ''}"
    )


def _triggers(report: Report) -> str:
    answers, worst = report.tally.answers, report.tally.worst
    if not answers or worst is None:
        return ""
    by_latency = sorted(answers, key=lambda answer: answer.took_ns)
    found = (("A typical trigger", by_latency[(len(answers) - 1) // 2]), ("The worst trigger", worst))
    return "".join(
        f"<h2>{title}: {answer.took_ns / 1e6:.2f} ms</h2><p class='dim key'>{_KEY}</p>"
        + waterfall(bars_of(answer, report.tally.names), title)
        for title, answer in found
    )


def bars_of(answer: Answer, names: Sequence[str]) -> list[Bar]:
    """Return the waterfall of a trigger, in ms since it was captured.

    Args:
        answer: To it.
        names: Those of the stages in order.
    """

    def bar(name: str, from_ns: int, until_ns: int, kind: str) -> Bar:
        return Bar(name, (from_ns - answer.t_ns) / 1e6, (until_ns - answer.t_ns) / 1e6, kind)

    bars = [
        bar("to the runtime", answer.t_ns, answer.delivered_ns, "wait"),
        bar("the other inputs", answer.delivered_ns, answer.complete_ns, "wait"),
        bar("into the runtime", answer.complete_ns, answer.ready_ns, "rest"),
        bar("until it begins", answer.ready_ns, answer.start_ns, "rest"),
    ]
    for run in answer.stages(names):
        bars.append(bar(f"{run.stage}: tensors", run.fed_from_ns, run.fed_until_ns, "feed"))
        bars.append(bar(f"{run.stage}: engine", run.ran_from_ns, run.ran_until_ns, "engine"))
    bars.append(bar("interpreting", answer.inferred_ns, answer.done_ns, "rest"))
    bars.append(bar("to the reader", answer.done_ns, answer.received_ns, "rest"))
    # What a background stage did long before belongs to the time line, not to this trigger's axis.
    return [each for each in bars if each.until_ms > each.from_ms and each.until_ms >= 0]


def _start(report: Report) -> str:
    bars, at_ms = [], 0.0
    for name, took_ms in report.startup_ms.items():
        bars.append(Bar(name, at_ms, at_ms + took_ms, "wait" if name == "until settled" else "rest"))
        at_ms += took_ms
    return "<h2>Start</h2>" + waterfall(bars, "what the start took") if bars else ""


def _processes(report: Report) -> list[tuple[str, ...]]:
    return [
        (str(each["name"]), *(str(each.get(key) or "-") for key in ("cpu_share", "pss_mib", "gpu_mib")))
        for each in report.processes
    ]


def _listed(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f"<tr><td>{escaped(key)}</td><td class=wide>{escaped(_said(value))}</td></tr>" for key, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_said(inside)}" for key, inside in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, plain: bool = True) -> str:
    first = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell) if plain else cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{lines}</table>"
