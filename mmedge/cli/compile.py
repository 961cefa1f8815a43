"""``mmedge compile``: build the engines of a bundle for this device into the cache."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.table import Table

from mmedge.bundle import Bundle, load
from mmedge.cli.output import Bar, Json, Places, add_names, bar, next_step, out, parse_places, print_json
from mmedge.engine.build_messages import BuildLimits
from mmedge.engine.compile import compile_network
from mmedge.engine.cpu_backends import CPU_BACKENDS
from mmedge.engine.cuda import gpu_problem
from mmedge.engine.network import read_network
from mmedge.engine.reach import PLAIN, EngineOptions, Gpus
from mmedge.engine.shapes import Given, parse_shapes
from mmedge.engine.tensorrt_loader import tensorrt_choice
from mmedge.errors import CheckError, ConfigError
from mmedge.extras import is_installed
from mmedge.fusion.compile import compile_bundle, engine_row
from mmedge.fusion.measure import measure_cpu
from mmedge.fusion.placement import placements
from mmedge.types import Precision

_LISTED = {
    "float_nodes": "asked for int8, run in float",
    "boundaries": "between int8 and float",
    "gpu_layers": "asked for the DLA, run on the GPU",
}
_SHOWN = 8  # nodes and boundaries of an engine that are printed; --json has all of them


def command(
    file: Annotated[Path, typer.Argument(help="A bundle, or one ONNX file.")],
    precision: Annotated[Precision | None, typer.Option(help="Only this precision; default: all.")] = None,
    shape: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=SHAPE",
            help="Of an ONNX file: shape of an input with open dimensions, x=1x3x320x320, or least, usual and most, "
            "x=1x3x160x160:1x3x320x320:1x3x640x640; may be repeated. A batch is 1 by default.",
        ),
    ] = [],
    timeout: Annotated[
        float, typer.Option(min=0.1, max=1e6, help="Seconds that one build may take.")
    ] = BuildLimits().timeout_s,
    memory_mb: Annotated[
        float | None,
        typer.Option(
            min=1, max=1e7, help="Megabytes that a build may hold; default: three quarters of what is available."
        ),
    ] = None,
    place: Places = [],
    newer_versions: Annotated[
        bool, typer.Option("--newer-versions", help="Let newer versions of TensorRT run the engines, too.")
    ] = False,
    gpus: Annotated[
        Gpus,
        typer.Option(help="Where they run besides: on GPUs of the same compute capability, or on all from Ampere on."),
    ] = "same",
    json: Json = False,
) -> None:
    """Build TensorRT engines and choose the fastest forms for this CPU; all that runs here is self-tested and timed.

    Engines are built in a child process and kept in a cache. Exit code 1 if an engine fails its self-test.
    """
    limits = BuildLimits(
        timeout_s=timeout, anew=True, memory_bytes=None if memory_mb is None else round(memory_mb * 1e6)
    )
    shapes = parse_shapes(shape)
    options, places = EngineOptions(newer_versions=newer_versions, gpus=gpus), parse_places(place)
    cpu: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    choices: list[dict[str, Any]] = []
    lacks: str | None = None
    with bar("compile") as progress:
        if file.suffix.lower() == ".onnx":
            if places:
                raise ConfigError("an ONNX file has no stages", where="--place", fix="leave it out, or name a bundle")
            rows = [compile_onnx(file, progress, shapes, limits, options)]
        elif shapes:
            raise ConfigError(
                "a bundle says itself which shapes it has", where="--shape", fix="leave it out, or name an ONNX file"
            )
        else:
            with load(file) as bundle:
                placements(bundle.manifest, places)  # what is wrong is said before anything is measured
                if any(map(is_installed, CPU_BACKENDS)):
                    cpu = measure_cpu(bundle, progress, anew=True)
                lacks = no_engines(bundle)
                if not (cpu and lacks) or places or options != PLAIN:  # what only an engine can be is not passed over
                    rows, choices = compile_bundle(bundle, precision, progress, limits, options, places)
    if json:
        print_json({"schema": "mmedge.compile/1", "engines": rows, "choices": choices, "cpu": cpu})
    else:
        if cpu:
            out.print(cpu_table(cpu))
        out.print(engines_table(rows) if rows else f"no engines are built: {lacks}", highlight=False)
        for line in [*coverage(rows), *chosen(choices)]:
            out.print(line, highlight=False, markup=False)
    failed = [(choice["stage"], form) for choice in choices for form in choice["forms"] if form["failed"]]
    if failed:
        raise (
            typer.Exit(1)
            if json
            else CheckError(
                f"{len(failed)} of {sum(len(choice['forms']) for choice in choices)} engines fail: "
                f"{failed[0][1]['error']}",
                where=", ".join(f"{stage} {form['precision']}" for stage, form in failed),
                fix="the others serve; export the bundle again, and report it with the build's log",
            )
        )
    if not json and file.suffix.lower() != ".onnx":
        next_step(f"mmedge bench {quote(str(file))}")


def no_engines(bundle: Bundle) -> str | None:
    """Say why no engines can be built of a bundle here; None where they can."""
    if not any(variant.target == "tensorrt" for variant in bundle.manifest.variants):
        return "the bundle has no TensorRT variants"
    return "TensorRT is not installed" if tensorrt_choice() is None else None


def compile_onnx(
    file: Path, progress: Bar, shapes: Given, limits: BuildLimits, options: EngineOptions
) -> dict[str, Any]:
    """Build one ONNX file; unsupported operators are named with their source lines where the file has them."""
    network = read_network(file)
    sources: dict[str, str] = {}
    if find_spec("onnx") is not None:
        sources = import_module("mmedge.export.bounded").lines_of_network(file)
    compiled = compile_network(
        network, file.stem, progress=progress, sources=sources, shapes=shapes, limits=limits, options=options
    )
    row = engine_row(file.stem, "as in the file", compiled.build, compiled.plan_bytes)
    row |= {"cached": compiled.cached, "evidence": compiled.evidence}
    if not compiled.runnable:
        row["not_run"] = gpu_problem() or f"it is for {compiled.key.compute_capability}"
    return row


def engines_table(rows: list[dict[str, Any]]) -> Table:
    """Return the engines as a table."""
    first = rows[0]
    title = f"engines by {first['module']} {first['version']} for {first['compute_capability']}: {first['evidence']}"
    table = Table(title=title)
    ran = any(row["run_ms"] is not None or row["error"] for row in rows)
    add_names(table, "stage", [row["stage"] for row in rows])
    table.add_column("precision", overflow="fold")
    for heading in ("kB", "layers", "in int8", "built in", *(("ms", "serves") if ran else ())):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        asked = row["int8_layers"] + len(row["float_nodes"])
        cells = [
            row["stage"],
            row["precision"],
            f"{row['bytes'] / 1000:.0f}",
            str(row["layers"]),
            f"{row['int8_layers']} of {asked}" if asked else "-",
            "cache" if row["cached"] else f"{row['seconds']:.1f} s",
        ]
        if ran:
            cells += ["-" if row["run_ms"] is None else f"{row['run_ms']:.3f}", "yes" if row.get("serves") else "no"]
        table.add_row(*cells)
    return table


def cpu_table(rows: list[dict[str, Any]]) -> Table:
    """Return the forms for this CPU as a table."""
    first = rows[0]
    table = Table(title=f"on {first['cpu']} ({', '.join(first['instructions'])}), 1 thread: {first['evidence']}")
    add_names(table, "stage", [row["stage"] for row in rows])
    for heading in ("backend", "precision"):
        table.add_column(heading, overflow="fold")
    for heading in ("ms", "serves"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        for form in row["forms"]:
            taken = form["error"] if form["run_ms"] is None else f"{form['run_ms']:.3f}"
            table.add_row(row["stage"], form["backend"], form["precision"], taken, "yes" if form["serves"] else "no")
    return table


def coverage(rows: list[dict[str, Any]]) -> list[str]:
    """Return what is to be said of engines beside the table: why they were not run, and where INT8 is left."""
    lines = [f"not run here: {reason}" for reason in dict.fromkeys(row.get("not_run") for row in rows) if reason]
    for row in rows:
        name = f"{row['stage']} {row['precision']}"
        if row["optimization_level"] is not None:
            lines.append(f"{name}: memory ran out, built at optimisation level {row['optimization_level']}")
        if row["reach"]:
            lines.append(f"{name}: may also run where {' and '.join(row['reach'])}")
        for key, what in _LISTED.items():
            found = row[key]
            if found:
                more = f", and {len(found) - _SHOWN} more (--json)" if len(found) > _SHOWN else ""
                lines.append(f"{name}: {len(found)} {what}: {'; '.join(map(_short, found[:_SHOWN]))}{more}")
    return lines


def chosen(choices: list[dict[str, Any]]) -> list[str]:
    """Return why each stage is served as it is, where that was measured or a form could not be had."""
    told = [choice for choice in choices if choice["serves"] or any(form["error"] for form in choice["forms"])]
    return [f"{choice['stage']}: {choice['why']}" for choice in told]


def _short(text: str) -> str:
    """Return the nodes of a layer without the quantisers among them, two at most."""
    nodes, colon, types = text.partition(": ")
    own = [node for node in nodes.split(" + ") if not re.search(r"(?:De)?[Qq]uantize", node)] or nodes.split(" + ")
    return f"{' + '.join(own[-2:])}{colon}{types}"
