"""``mmedge new``: a starter project, or a bundle made from existing ONNX files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.table import Table

from mmedge.cli.network_options import Classes, Color, Layout, Scale, Size, Tokenizer, given
from mmedge.cli.output import Json, add_names, bar, err, out, print_json
from mmedge.errors import ConfigError


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder.")],
    networks: Annotated[
        list[Path], typer.Option("--from", metavar="A.onnx [B.onnx ...]", help="Your own networks (ONNX files).")
    ] = [],
    more: Annotated[list[Path], typer.Argument(metavar="", hidden=True)] = [],
    tokenizer: Tokenizer = None,
    size: Size = [],
    classes: Classes = [],
    scale: Scale = [],
    layout: Layout = [],
    color: Color = [],
    json: Json = False,
) -> None:
    """A project to train from a folder of data; with --from a runnable bundle in minutes, without training."""
    with bar(f"new {folder.name}"):
        files = [*networks, *more]
        options = given(size=size, classes=classes, scale=scale, layout=layout, color=color)
        said = given(tokenizer=None if tokenizer is None else [str(tokenizer)]) | options
        if said and not files:
            name, (text, *_) = next(iter(said.items()))
            raise ConfigError(
                f"--{name} works only together with --from",
                where=f"--{name} {text}",
                fix="name them: --from NETWORK.onnx",
            )
        if files:
            report = import_module("mmedge.export.bounded").new_from_networks(folder, files, tokenizer, options)
        else:
            report = import_module("mmedge.export.brought.new").starter(folder)
    if json:
        print_json(report.to_dict())
        return
    if report.guesses:
        table = Table(title=f"what was read off the networks, in {folder / 'recipe.toml'}")
        add_names(table, "network", [guess.network for guess in report.guesses])
        add_names(table, "tensor", [guess.tensor for guess in report.guesses])
        table.add_column("is", overflow="fold")
        table.add_column("because", overflow="fold")
        for guess in report.guesses:
            table.add_row(guess.network, guess.tensor, guess.meaning, guess.why)
        out.print(table)
    for output in report.left:
        out.print(f"left as it is: {output}", highlight=False, markup=False)
    for ask in report.asks:
        out.print(f"please check: {ask}", highlight=False, markup=False)
    for hint in report.hints:
        out.print(f"hint: {hint}", highlight=False, markup=False)
    for line in report.commands:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if report.unit is not None:
        line = f"to run it as a service: sudo cp {quote(str(report.unit))} /etc/systemd/system/"
        err.print(line, highlight=False, markup=False, soft_wrap=True)
