"""``mmedge export``: all steps of a recipe."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from mmedge.cli.output import Json, bar, next_step, out, print_json
from mmedge.fusion.consent import PROJECT_FILE, read_project, remember


def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    output: Annotated[Path | None, typer.Option(help="The bundle; default: NAME.mmedge here.")] = None,
    only: Annotated[
        Literal["train", "onnx", "quantize", "compare", "measure", "pack"] | None,
        typer.Option(help="Stop after this step."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the exported networks on the validation data.")
    ] = True,
    json: Json = False,
) -> None:
    """Weights, ONNX with parity, INT8, comparison, accuracy by mask, bundle. Finished steps are not done again."""
    export = import_module("mmedge.export")
    loaded = export.Recipe.load(recipe)
    with bar(f"export {loaded.name}") as progress:
        report = export.run_steps(loaded, output=output, only=only, measure=measure, progress=progress)
    project = loaded.folder / PROJECT_FILE
    # What has run just now, since the user said so, may run again; what merely lies there may not.
    if project.is_file() and set(read_project(project)) <= loaded.modules():
        remember(loaded.folder)
    if json:
        print_json(report.to_dict())
    else:
        report.print(out)
        if report.path is not None:
            next_step(f"mmedge verify {quote(str(report.path))}")
