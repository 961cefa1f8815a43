"""``mmedge bench``: latency report of a bundle."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer
from rich.markup import escape

from mmedge.bench import bench
from mmedge.bench.report import check_report_path
from mmedge.bundle import load
from mmedge.cli.output import Json, bar, err, next_step, print_json
from mmedge.cli.run import parse_inputs, print_summary
from mmedge.errors import ConfigError


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    duration: Annotated[float, typer.Option(help="Seconds to measure.")] = 10.0,
    input: Annotated[list[str], typer.Option("--input", metavar="NAME=URI", help="Real sources.")] = [],
    backend: Annotated[Literal["auto", "onnxruntime", "tensorrt"], typer.Option()] = "auto",
    precision: Annotated[Literal["fp32", "fp16", "int8"] | None, typer.Option()] = None,
    fps: Annotated[float, typer.Option(help="Rate of generated frames.")] = 30.0,
    save: Annotated[Path | None, typer.Option(help="Write the report to FILE.html or FILE.json.")] = None,
    json: Json = False,
) -> None:
    """Latency per trigger: generated frames and sound at their real rates, or your own sources."""
    if save is not None:
        check_report_path(save)
        if not save.parent.is_dir():
            raise ConfigError("there is no such folder", where=str(save.parent), fix="choose another path")
    with load(bundle) as opened, bar(f"measuring {opened.name} for {duration:g} s") as progress:
        inputs = parse_inputs(opened, input, {}) if input else None
        report = bench(
            opened,
            duration,
            inputs=inputs,
            backend=backend,
            precision=precision,
            fps=fps,
            progress=lambda share: progress(f"measuring {opened.name} for {duration:g} s", share),
        )
    if save is not None:
        report.save(save)
        err.print(f"wrote {save}", highlight=False)
    if json:
        print_json(report.to_dict())
    else:
        print_summary(report.statistics)
        next_step(f"mmedge bench {escape(quote(str(bundle)))} --save bench.html")
