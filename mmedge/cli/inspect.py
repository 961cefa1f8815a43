"""``mmedge inspect``: a bundle or an ONNX file as a text graph."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from mmedge.bundle import AudioInput, Bundle, ImageInput, load, stage_order
from mmedge.cli.output import Json, next_step, out, print_json


def command(
    file: Annotated[Path, typer.Argument(help="A bundle (NAME.mmedge) or an ONNX file.")], json: Json = False
) -> None:
    """Show what a file is: inputs, stages, tasks and variants, or an ONNX file's signature and findings."""
    if file.suffix == ".onnx":
        document = import_module("mmedge.export.lint").inspect_onnx(file)
        print_json(document) if json else _print_onnx(document)
        return
    with load(file) as bundle:
        if json:
            print_json({"schema": "mmedge.inspect/1", "manifest": msgspec.to_builtins(bundle.manifest)})
            return
        out.print(bundle_tree(bundle))
        out.print(_variants(bundle))
    next_step(f"mmedge verify {file}")


def bundle_tree(bundle: Bundle) -> Tree:
    """Return the fused graph of a bundle as a tree: tasks at the root's side, what feeds them beneath."""
    manifest = bundle.manifest
    root = Tree(
        f"[bold]{manifest.name}[/]  {manifest.licence}  trigger: {manifest.sync.trigger}, {manifest.sync.policy}"
    )
    seats = root.add("inputs")
    for name, spec in manifest.inputs.items():
        policy = manifest.missing.get(name)
        rule = f", when missing: {policy.policy}" if policy else ""
        seats.add(f"[cyan]{name}[/]  {_seat(spec)}{rule}")
    stages = root.add("stages")
    for name in stage_order(manifest.stages):
        stage = manifest.stages[name]
        when = f"every {stage.every_ms:g} ms" if stage.every_ms else f"on {stage.on}" if stage.on else "when new"
        outputs = ", ".join(f"{n} {list(dims)}" for n, dims in stage.outputs.items())
        branch = stages.add(f"[green]{name}[/]  ({when}, {stage.mode}) -> {outputs}")
        for tensor, source in stage.inputs.items():
            branch.add(f"{tensor} <- [cyan]{source}[/]")
    tasks = root.add("tasks")
    for name, task in manifest.tasks.items():
        labels = bundle.labels(name)
        smoothing = f", {task.smoothing}" if task.smoothing else ""
        tasks.add(
            f"[magenta]{name}[/]  {task.kind} <- [green]{task.output}[/]  "
            f"{len(labels)} labels ({escape(labels[0])} .. {escape(labels[-1])}), "
            f"threshold {task.threshold:g}{smoothing}"
        )
    masks = root.add("validated masks")
    for mask in manifest.validated_masks:
        masks.add(f"{' + '.join(mask.present) or 'nothing'}: {mask.metric} {mask.value:.3f}")
    return root


def _seat(spec: Any) -> str:
    if isinstance(spec, ImageInput):
        reduce = f", area / {spec.reduce}" if spec.reduce > 1 else ""
        return f"image {spec.color} {spec.frame[1]}x{spec.frame[0]} -> {spec.fit}{reduce} {spec.size[1]}x{spec.size[0]}"
    if isinstance(spec, AudioInput):
        kind = "PCM" if spec.features is None else f"log-mel {spec.tensor_shape[1]}x{spec.tensor_shape[2]}"
        return f"audio {spec.sample_rate_hz} Hz, {spec.window_ms:g} ms -> {kind}"
    return type(spec).__name__.removesuffix("Input").lower()


def _variants(bundle: Bundle) -> Table:
    table = Table(title="variants")
    for heading in ("stage", "target", "precision", "kB", "quantization"):
        table.add_column(heading, justify="right" if heading == "kB" else "left")
    for variant in bundle.manifest.variants:
        quantization = variant.quantization
        how = "" if quantization is None else f"{quantization.rule}, {quantization.frames} frames"
        if quantization is not None and quantization.sqnr_db is not None:
            how += f", {quantization.sqnr_db:.1f} dB"
        size = bundle.manifest.files[variant.file].bytes / 1000
        table.add_row(variant.stage, variant.target, variant.precision, f"{size:.0f}", how)
    return table


def _print_onnx(document: dict[str, Any]) -> None:
    table = Table(title=f"{document['file']}: opset {document['opset']}, {document['nodes']} nodes")
    for heading in ("", "name", "dtype", "shape"):
        table.add_column(heading)
    for kind in ("inputs", "outputs"):
        for item in document[kind]:
            table.add_row(kind[:-1], item["name"], item["dtype"], str(item["shape"]))
    out.print(table)
    for finding in document["findings"]:
        colour = "red" if finding["level"] == "error" else "yellow"
        where = f" at {finding['source']}" if finding.get("source") else ""
        out.print(f"[{colour}]{finding['level']}[/] {finding['node']}{where}: {finding['message']}", highlight=False)
    if not document["findings"]:
        out.print("[green]nothing found that TensorRT would refuse[/]")
