"""``mmedge train``: train the model of a recipe."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mmedge.cli.output import Json, next_step, print_json


def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    output: Annotated[Path | None, typer.Option(help="Weights file; default: where the recipe says.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; default: the recipe's.")] = None,
    json: Json = False,
) -> None:
    """Prepare the data, train, evaluate on validation, print one test table, save the weights."""
    export = import_module("mmedge.export")
    training = import_module("mmedge.export.training")
    loaded = export.Recipe.load(recipe)
    report = training.train_and_save(loaded, output=output, seed=seed, progress=not json)
    if json:
        print_json(report.to_dict())
    else:
        report.print()
        next_step(f"mmedge export {quote(str(recipe))}")
