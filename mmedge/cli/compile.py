"""``mmedge compile``: build the engines of a bundle for this device into the cache."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from mmedge.bundle import load
from mmedge.cli.output import Bar, Json, bar, next_step, out, print_json
from mmedge.engine.compile import compile_variant
from mmedge.errors import ConfigError
from mmedge.fusion.compile import compile_bundle, engine_row
from mmedge.types import Precision


def command(
    file: Annotated[Path, typer.Argument(help="A bundle, or one ONNX file.")],
    precision: Annotated[Precision | None, typer.Option(help="Only this precision; default: all.")] = None,
    json: Json = False,
) -> None:
    """Build TensorRT engines in a child process and publish them in the cache."""
    with bar("compile") as progress:
        if file.suffix == ".onnx":
            rows = [compile_onnx(file, progress)]
        else:
            with load(file) as bundle:
                rows = compile_bundle(bundle, precision, progress)
    if json:
        print_json({"schema": "mmedge.compile/1", "engines": rows})
        return
    out.print(engines_table(rows))
    next_step(f"mmedge bench {quote(str(file))}")


def compile_onnx(file: Path, progress: Bar) -> dict[str, Any]:
    """Build one ONNX file; unsupported operators are named with their source lines where the file has them."""
    if file.exists() and not file.is_file():
        raise ConfigError("not a file", where=str(file), fix="name an ONNX file")
    try:
        model = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the network: {error.strerror}", where=str(file), fix="check the path"
        ) from error
    sources: dict[str, str] = {}
    if find_spec("onnx") is not None:
        sources = import_module("mmedge.export.bounded").lines_of_network(file)
    compiled = compile_variant(
        model, hashlib.sha256(model).hexdigest(), file.stem, "fp32", progress=progress, sources=sources
    )
    return engine_row(file.stem, "as in the file", compiled)


def engines_table(rows: list[dict[str, Any]]) -> Table:
    """Return the engines as a table."""
    first = rows[0]
    title = f"engines by {first['module']} {first['version']} for {first['compute_capability']}: {first['evidence']}"
    table = Table(title=title)
    for heading in ("stage", "precision", "kB", "layers", "int8 layers", "built in"):
        table.add_column(heading, justify="left" if heading in ("stage", "precision") else "right", overflow="fold")
    for row in rows:
        table.add_row(
            row["stage"],
            row["precision"],
            f"{row['bytes'] / 1000:.0f}",
            str(row["layers"]),
            str(row["int8_layers"]),
            "cache" if row["cached"] else f"{row['seconds']:.1f} s",
        )
    return table
