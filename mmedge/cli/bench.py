"""``mmedge bench``: latency report of a bundle."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from mmedge.bench import bench
from mmedge.bench.report import NOTE, check_report_path
from mmedge.bench.run import WARM_UP_S
from mmedge.bench.schedule import BLOCK_MS
from mmedge.bundle import load
from mmedge.cli.output import Allow, Json, bar, err, next_step, print_json
from mmedge.cli.run import latency_table, parse_inputs, print_facts
from mmedge.errors import ConfigError
from mmedge.types import Backend, Precision


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    duration: Annotated[float, typer.Option(help="Seconds to measure.")] = 10.0,
    input: Annotated[
        list[str],
        typer.Option("--input", metavar="NAME=URI", help="Real source of an input, instead of generated data."),
    ] = [],
    backend: Annotated[Backend, typer.Option()] = "auto",
    precision: Annotated[Precision | None, typer.Option()] = None,
    isolation: Annotated[
        Literal["auto", "process", "thread"],
        typer.Option(help="Where the runtime runs; auto: in its own process, as `mmedge run` does with live devices."),
    ] = "auto",
    fps: Annotated[float, typer.Option(help="Rate of generated frames.")] = 30.0,
    block_ms: Annotated[float, typer.Option(help="Longest block of generated sound.")] = BLOCK_MS,
    save: Annotated[Path | None, typer.Option(help="Write the report to FILE.html or FILE.json.")] = None,
    allow: Allow = [],
    json: Json = False,
) -> None:
    """Latency per trigger: generated frames and sound at their real rates, or your own sources.

    Exit code 1 if the rate was missed: then the figures are not those of what was asked for.
    """
    if save is not None:
        check_report_path(save)
        if not save.parent.is_dir():
            raise ConfigError("the folder does not exist", where=str(save.parent), fix="choose another path")
    with load(bundle) as opened, bar(f"measuring {opened.name} for {duration:g} s") as progress:
        inputs = parse_inputs(opened, input, {}) if input else None
        report = bench(
            opened,
            duration,
            inputs=inputs,
            backend=backend,
            precision=precision,
            isolation=isolation,
            fps=fps,
            block_ms=block_ms,
            allow=allow,
            progress=lambda share: progress(f"measuring {opened.name} for {duration:g} s", share),
        )
    if save is not None:
        report.save(save)
        err.print(f"wrote {save}", highlight=False)
    if json:
        print_json(report.to_dict())
        raise typer.Exit(0 if report.valid else 1)
    rate = report.rate
    asked = "as the sources give them" if rate.asked_hz is None else f"asked {rate.asked_hz:g} a second"
    title = f"{rate.answered} of {rate.due} triggers answered ({report.statistics.evidence})"
    err.print(latency_table(title, {**report.latency_ms, "skew": report.tally.skew.summary()}))
    lines = [f"{asked}, achieved {rate.achieved_hz:.1f}; first {WARM_UP_S:g} s left out as warm-up"]
    if rate.lateness is not None:
        lines += [NOTE, f"generator late by at most {rate.lateness.max_ns / 1e6:.1f} ms"]
    for line in [*lines, f"isolation: {report.conditions['isolation']}"]:
        err.print(line, highlight=False, markup=False)
    print_facts(report.statistics)
    report.raise_for_status()
    next_step(f"mmedge bench {quote(str(bundle))} --save bench.html")
