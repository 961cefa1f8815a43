"""``mmedge export``: all steps of a recipe, or of one network."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from mmedge.cli.network_options import Classes, Color, Layout, Scale, Size, Tokenizer, given
from mmedge.cli.output import Json, bar, next_step, out, print_json
from mmedge.errors import ConfigError
from mmedge.fusion.consent import PROJECT_FILE, read_project, remember


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE|MODEL.onnx", help="The recipe, or a network.")],
    output: Annotated[Path | None, typer.Option(help="The bundle; default: NAME.mmedge here.")] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Stop after this step: train, onnx (clean), parity, parser, fp16, quantize (normal-form, ranges, "
            "int8), fp8, int4, compare, measure, golden, smoke, pack.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the exported networks on the validation data.")
    ] = True,
    smoke: Annotated[
        bool, typer.Option("--smoke/--no-smoke", help="Build every TensorRT variant, where TensorRT is installed.")
    ] = True,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of a network: recordings to find its INT8 ranges; without, fp32 alone."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of a network whose file does not name its licence.")] = None,
    tokenizer: Tokenizer = None,
    size: Size = [],
    classes: Classes = [],
    scale: Scale = [],
    layout: Layout = [],
    color: Color = [],
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The report; default: NAME.html beside the bundle.")
    ] = None,
    json: Json = False,
) -> None:
    """Weights, ONNX with parity, INT8, comparison, accuracy by mask, bundle. Finished steps are not done again."""
    export, early = import_module("mmedge.export"), list[str]()
    if report is not None and report.suffix != ".html":
        raise ConfigError("the report is an HTML file", where=f"--report {report}", fix="let its name end in .html")
    options = given(size=size, classes=classes, scale=scale, layout=layout, color=color)
    if recipe.suffix.lower() == ".onnx" and recipe.is_file():
        with import_module("mmedge.export.run").collected() as early:
            direct = import_module("mmedge.export.brought.direct")
            loaded: Any = direct.recipe_of(recipe, calibrate, licence, options, tokenizer)
    elif named := [*given(calibrate=calibrate, licence=licence, tokenizer=tokenizer), *options]:
        raise ConfigError(
            "a recipe says this of its networks itself",
            where=f"--{named[0]}",
            fix="set it in the recipe: calibration.recordings, licence, [inputs.NAME] or [tasks.NAME]",
        )
    else:
        loaded = export.Recipe.load(recipe)
    with bar(f"export {loaded.name}") as progress:
        done = export.run_steps(loaded, output=output, only=only, measure=measure, smoke=smoke, progress=progress)
    done.warnings[:0] = early
    project = loaded.folder / PROJECT_FILE
    # What has run just now, since the user said so, may run again; what merely lies there may not.
    if project.is_file() and set(read_project(project)) <= loaded.modules():
        remember(loaded.folder)
    if done.path is not None:
        page, _ = done.save(done.path.with_suffix(".html") if report is None else report)
    if json:
        print_json(done.to_dict())
    else:
        done.print(out)
        if done.path is not None:
            out.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
            next_step(f"mmedge verify {quote(str(done.path))}")
