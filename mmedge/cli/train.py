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
    seeds: Annotated[
        int | None, typer.Option(min=1, max=100, help="How many seeds to train; the best on validation is kept.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last epoch of an interrupted run.")] = False,
    json: Json = False,
) -> None:
    """Prepare the data, train, evaluate on validation, print one test table, save the weights.

    The state is kept after each epoch, beside the weights, until the run has ended well: --resume goes on with it.
    """
    export = import_module("mmedge.export")
    training = import_module("mmedge.export.training")
    loaded = export.Recipe.load(recipe)
    report = training.train_and_save(loaded, output=output, seed=seed, seeds=seeds, resume=resume)
    if json:
        print_json(report.to_dict())
    else:
        report.print()
        next_step(f"mmedge export {quote(str(recipe))}")
