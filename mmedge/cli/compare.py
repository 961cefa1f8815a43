"""``mmedge compare``: two bundles, networks, engines, recipes or manifests."""

from __future__ import annotations

import json as json_module
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from mmedge.bundle import load
from mmedge.bundle.diff import Differing, diff
from mmedge.cli.output import Allow, Json, add_names, bar, next_step, out, print_json
from mmedge.engine.arrays import has_arrays
from mmedge.engine.base import Engine
from mmedge.engine.difference import compare_networks_on
from mmedge.engine.network import read_network
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.engine.plan_file import SUFFIXES
from mmedge.engine.shapes import as_range, parse_shapes
from mmedge.errors import ConfigError
from mmedge.files import read_plain
from mmedge.fusion.evidence import evidence_of
from mmedge.replay.compare import check_judged, check_thresholds, compare_on_golden, compare_on_recordings, thresholds
from mmedge.types import Precision

_MAX_DOCUMENT = 1 << 24  # bytes of a recipe or manifest


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help="What is right: bundle, ONNX file, engine, recipe, manifest.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    on: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Recordings or media (bundles), or .npz and .npy files (networks)."),
    ] = None,
    manifest: Annotated[bool, typer.Option("--manifest", help="Of bundles: where their manifests differ.")] = False,
    bisect: Annotated[bool, typer.Option("--bisect", help="Of ONNX files: the first layers that differ.")] = False,
    shape: Annotated[
        list[str], typer.Option(metavar="NAME=SHAPE", help="Of ONNX files: shape of an input with open dimensions.")
    ] = [],
    samples: Annotated[int, typer.Option(min=1, max=100_000, help="Of networks: at most this many.")] = 8,
    precision: Annotated[Precision | None, typer.Option(help="Of bundle B, only this precision.")] = None,
    max_abs: Annotated[float | None, typer.Option(help="Exit 1 if an output is off by more.")] = None,
    max_rel: Annotated[
        float | None, typer.Option(help="Exit 1 if an output is off by more, in parts of its largest value.")
    ] = None,
    min_cosine: Annotated[float | None, typer.Option(help="Exit 1 below it.")] = None,
    min_sqnr_db: Annotated[float | None, typer.Option(help="Exit 1 below it.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Of bundles: exit 1 if a task agrees less, 0..1.")] = None,
    allow: Allow = [],
    json: Json = False,
) -> None:
    """How far outputs are apart (max abs, max rel, cosine, SQNR), and how often tasks answer alike.

    Recipes (.toml), manifests (.json) and bundles with --manifest are compared by key path. Exit code 1 if a limit
    was given and is broken, or if an output has another shape in B.
    """
    limits = {
        "max_abs": max_abs,
        "max_rel": max_rel,
        "min_cosine": min_cosine,
        "min_sqnr_db": min_sqnr_db,
        "min_agreement": min_agreement,
    }
    kinds = (_kind(a), _kind(b))
    if manifest or "document" in kinds:
        check_judged({}, limits)
        _print_diff(a, b, diff(_document(a), _document(b)), as_json=json)
        return
    if bisect and kinds != ("onnx", "onnx"):
        raise ConfigError("only ONNX files have layers to look at", where="--bisect", fix="compare two ONNX files")
    with bar("compare") as progress:
        if kinds == ("bundle", "bundle"):
            with load(a) as left, load(b) as right:
                if on is None:
                    found = compare_on_golden(left, right, precision)
                else:
                    found = compare_on_recordings(left, right, on, allow=allow, precision=precision, progress=progress)
        elif "bundle" in kinds:
            raise ConfigError(
                "a bundle can be compared with a bundle", where=f"{a} and {b}", fix="name two files of one kind"
            )
        else:
            shapes = {name: as_range(given)[1] for name, given in parse_shapes(shape).items()}
            if on is not None and not has_arrays(on):
                raise ConfigError(
                    "a network alone does not know what to make of recordings",
                    where=f"--on {on}",
                    fix="give .npz or .npy files of its inputs, or compare bundles",
                )
            if kinds == ("onnx", "onnx"):
                compare = import_module("mmedge.export.compare_files").compare_networks
                limit = (1e-3 if max_rel is None else max_rel) if bisect else None
                found = compare(a, b, on, shapes=shapes, samples=samples, bisect=limit)
            else:
                found = _engines(a, b, on, shapes, samples)
    document = {"schema": "mmedge.compare/1", "a": str(a), "b": str(b), **found}
    check_judged(document, limits)
    if json:
        over = thresholds(document, limits)
        print_json({**document, "over": over, "ok": not over})
        raise typer.Exit(1 if over else 0)
    _print(document)
    check_thresholds(document, limits, f"{a} and {b}")
    if not bisect and kinds == ("onnx", "onnx"):
        next_step(f"mmedge compare {quote(str(a))} {quote(str(b))} --bisect")


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if suffix in SUFFIXES:
        return "plan"
    return "document" if suffix in (".toml", ".json") else "bundle"


def _document(path: Path) -> Any:
    """Return a recipe or manifest as plain data."""
    if _kind(path) == "bundle":
        with load(path) as bundle:
            return msgspec.to_builtins(bundle.manifest)
    try:
        raw = read_plain(path, _MAX_DOCUMENT)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path), fix="check the path") from error
    try:
        return msgspec.toml.decode(raw) if path.suffix.lower() == ".toml" else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"it cannot be read: {error}", where=str(path), fix="correct the file") from error


def _engines(a: Path, b: Path, on: Path | None, shapes: dict[str, tuple[int, ...]], samples: int) -> dict[str, Any]:
    """Compare where at least one is an engine of TensorRT: that needs its GPU."""
    with _open(a, shapes) as left, _open(b, shapes) as right:
        found = compare_networks_on(left, right, on, samples, f"{a} and {b}")
    backends = {"a": left.backend, "b": right.backend}
    return {**found, "served": backends, "evidence": evidence_of(backends.values())}


def _open(path: Path, shapes: dict[str, tuple[int, ...]]) -> Any:
    if _kind(path) == "plan":
        from mmedge.engine.tensorrt import TensorRTEngine

        try:
            return TensorRTEngine(path.read_bytes(), name=str(path))
        except OSError as error:
            raise ConfigError(f"cannot read it: {error.strerror}", where=str(path), fix="check the path") from error
    network = read_network(path)
    source = path if network.weights else network.model
    engine: Engine = OnnxRuntimeEngine(source, name=str(path), shapes=shapes, exact=True, as_written=True)
    return engine


def _print(document: dict[str, Any]) -> None:
    table = Table(title=f"{document['b']} against {document['a']}")
    add_names(table, "output", document["outputs"])
    odd = any(figures["unequal"] for figures in document["outputs"].values())
    for heading in ("max abs", "max rel", "cosine", "SQNR dB", "n", *(("unlike",) if odd else ())):
        table.add_column(heading, justify="right", overflow="fold")
    for name, figures in document["outputs"].items():
        equal = figures["max_abs"] == 0 and not figures["unequal"]
        sqnr = "equal" if equal else "-" if figures["sqnr_db"] is None else f"{figures['sqnr_db']:.1f}"
        cosine = "-" if figures["cosine"] is None else f"{figures['cosine']:.6f}"
        relative = "inf" if figures["max_rel"] is None else f"{figures['max_rel']:.3g}"
        cells = [name, f"{figures['max_abs']:.3g}", relative, cosine, sqnr, str(figures["samples"])]
        table.add_row(*cells, *([str(figures["unequal"])] if odd else []))
    out.print(table)
    out.print(f"inputs: {document['inputs']}", highlight=False, markup=False)
    if document.get("fallback"):
        out.print(f"not of this precision: {', '.join(document['fallback'])}", highlight=False, markup=False)
    for name, figures in document["tasks"].items():
        values = ", ".join(f"{key} {value}" for key, value in figures.items() if key != "metric")
        out.print(f"task {name}: {figures['metric']}: {values}", highlight=False, markup=False)
    if "layers" in document:
        _print_layers(document)


def _print_layers(document: dict[str, Any]) -> None:
    limit = document["bisect_max_rel"]
    if not document["layers"]:
        out.print(f"no layer that can be matched differs by more than {limit:g}", highlight=False)
        return
    table = Table(title=f"where differences of more than {limit:g} begin, in order")
    add_names(table, "layer", [layer["node"] for layer in document["layers"]])
    for heading in ("op", "tensor", "in B", "max rel", "SQNR dB"):
        table.add_column(heading, overflow="fold")
    for layer in document["layers"]:
        other = f"{layer['tensor_b']} (by {layer['matched_by']})"
        relative = "inf" if layer["max_rel"] is None else f"{layer['max_rel']:.3g}"
        sqnr = "-" if layer["sqnr_db"] is None else f"{layer['sqnr_db']:.1f}"
        table.add_row(layer["node"], layer["op"], layer["tensor"], other, relative, sqnr)
    out.print(table)


def _print_diff(a: Path, b: Path, found: list[Differing], *, as_json: bool) -> None:
    if as_json:
        document = {"schema": "mmedge.compare/1", "a": str(a), "b": str(b), "keys": [item.to_dict() for item in found]}
        print_json(json_module.loads(json_module.dumps(document, default=str)))
        return
    if not found:
        out.print("no key differs", highlight=False)
        return
    table = Table(title=f"{len(found)} keys differ")
    for heading in ("key", str(a), str(b)):
        table.add_column(heading, overflow="fold")
    for item in found:
        table.add_row(item.path, _short(item.a) if item.has_a else "-", _short(item.b) if item.has_b else "-")
    out.print(table)


def _short(value: Any) -> str:
    text = json_module.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
