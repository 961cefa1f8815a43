"""``mmedge inspect``: a bundle, an ONNX file or an engine as text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from mmedge.bundle import AudioInput, Bundle, ImageInput, Input, Manifest, load, stage_order
from mmedge.bundle.manifest import Debounce, Ema, Hysteresis, Stage, Task, TextInput
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, State, parse_output
from mmedge.bundle.tasks import TASK_KINDS
from mmedge.cli.graph import Key, draw, plain, tree
from mmedge.cli.inspect_engine import print_engine
from mmedge.cli.inspect_network import print_network
from mmedge.cli.output import Json, add_names, next_step, out, print_json
from mmedge.engine.plan_file import SUFFIXES, describe_plan
from mmedge.errors import ConfigError
from mmedge.interpret import recognise
from mmedge.types import Latency

if TYPE_CHECKING:
    from mmedge.plan import Plan

WIDEST = 100  # columns: a wider drawing is hard to follow


def command(
    file: Annotated[Path, typer.Argument(help="A bundle (NAME.mmedge), an ONNX file, an engine, or a plan (JSON).")],
    plan: Annotated[
        bool, typer.Option("--plan", help="Of a bundle: what a run does, from triggers and inputs to stages.")
    ] = False,
    inputs: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="With --plan: the inputs that have a source; all, if left out.")
    ] = "",
    latency: Annotated[Latency, typer.Option(help="With --plan: as of `mmedge run`.")] = "balanced",
    device: Annotated[
        str | None,
        typer.Option(help="With --plan: what to expect on orin-nano, orin-nx, agx-orin or thor, not on this machine."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="With --plan: rate of pictures; 30 by default.")] = None,
    measured: Annotated[
        list[Path],
        typer.Option(metavar="FILE.json", help="With --plan: a report of `mmedge bench`, or an attestation."),
    ] = [],
    json: Json = False,
) -> None:
    """Show what a file is: inputs, stages, tasks and variants, an ONNX signature and findings, engine or plan."""
    expects = device is not None or bool(measured) or fps is not None
    if plan or inputs or latency != "balanced" or expects:
        if not plan:
            raise ConfigError(
                "--inputs, --latency, --device, --fps and --measured are of --plan", where="inspect", fix="add --plan"
            )
        from mmedge.cli.forecast import forecast_of, print_forecast
        from mmedge.cli.plan import print_plan
        from mmedge.cli.plan_engines import print_engines

        names = [name for name in inputs.split(",") if name]
        with load(file) as bundle:
            what = _plan(bundle, names, latency)
            # Before anything is shown, so that what is wrong with what was asked for comes alone.
            asked = (device, measured, 30.0 if fps is None else fps, latency, names)
            forecast = forecast_of(bundle, *asked) if expects or not json else None
            if json:  # one document
                print_json(msgspec.to_builtins(what) if forecast is None else forecast.to_dict())
                return
            print_plan(what)
            if device is None:
                print_engines(bundle, names or list(bundle.inputs))
        if forecast is not None:
            print_forecast(forecast)
        next_step(f"mmedge run {quote(str(file))}")
        return
    if file.suffix.lower() == ".json":
        _show_written_plan(file, json=json)
        return
    if file.suffix.lower() in SUFFIXES:
        engine = describe_plan(file)
        print_json(engine) if json else print_engine(engine)
        return
    if file.suffix.lower() == ".onnx":
        document = import_module("mmedge.export.bounded").inspect_network(file)
        document["detector"] = _detector(document, document.pop("classes"))
        print_json(document) if json else print_network(document)
        return
    with load(file) as bundle:
        if json:
            print_json({"schema": "mmedge.inspect/1", "manifest": msgspec.to_builtins(bundle.manifest)})
            return
        manifest = bundle.manifest
        title = f"{manifest.name}  {manifest.licence}  trigger: {manifest.sync.trigger}, {manifest.sync.policy}"
        nodes, edges = nodes_of(bundle), edges_of(manifest)
        drawing = None if out.options.ascii_only else draw(nodes, edges, min(out.width, WIDEST))
        if drawing is None:
            out.print(tree(nodes, edges, title))
        else:
            out.print(Text(plain(title), style="bold"), drawing, sep="\n\n")
        out.print(_masks(manifest))
        out.print(_variants(bundle))
    next_step(f"mmedge verify {quote(str(file))}")


def _plan(bundle: Bundle, given: Sequence[str], latency: Latency) -> Plan:
    from mmedge.plan import make_plan

    attached = dict.fromkeys(given or bundle.inputs, latency != "offline")
    return make_plan(bundle.manifest, attached, latency=latency, manifest_sha256=bundle.manifest_sha256)


def _show_written_plan(file: Path, *, json: bool) -> None:
    from mmedge.cli.plan import print_plan
    from mmedge.plan import load_plan

    plan = load_plan(file)
    print_json(msgspec.to_builtins(plan)) if json else print_plan(plan)


def nodes_of(bundle: Bundle) -> dict[Key, list[str]]:
    """Return what a drawing says about each input, stage and task, in the order in which they run."""
    manifest = bundle.manifest
    nodes: dict[Key, list[str]] = {}
    for name, seat in manifest.inputs.items():
        nodes["input", name] = _seat(seat)
        missing = manifest.missing.get(name)
        if missing is not None:
            age = f" {missing.max_age_ms:g} ms" if missing.max_age_ms else ""
            nodes["input", name].append(f"missing: {missing.policy}{age}")
    for name in stage_order(manifest.stages):
        nodes["stage", name] = _stage(manifest, manifest.stages[name])
    for name, task in manifest.tasks.items():
        nodes["task", name] = _task(manifest, task, bundle.labels(name))
    for output in manifest.outputs:
        source = parse_output(output)
        nodes["task", output] = ["told as it is", _dims(manifest.stages[source.stage].outputs[source.name])]
    return nodes


def edges_of(manifest: Manifest) -> list[tuple[Key, Key]]:
    """Return what feeds what."""
    edges: list[tuple[Key, Key]] = []
    for name, stage in manifest.stages.items():
        for source in stage.sources.values():
            if isinstance(source, Seat):
                edges.append((("input", source.name), ("stage", name)))
            elif isinstance(source, Output):
                edges.append((("stage", source.stage), ("stage", name)))
    edges += [(("stage", task.tensor.stage), ("task", name)) for name, task in manifest.tasks.items()]
    edges += [(("stage", parse_output(output).stage), ("task", output)) for output in manifest.outputs]
    return edges


def _seat(seat: Input) -> list[str]:
    if isinstance(seat, ImageInput):
        reduce = f"area / {seat.reduce}, " if seat.reduce > 1 else ""
        told = [f"image {seat.color} {seat.frame[1]}x{seat.frame[0]}", f"{reduce}{seat.fit} {_dims(seat.size[::-1])}"]
        return told + ([] if seat.shares is None else [f"from the source of {seat.shares}"])
    if isinstance(seat, AudioInput):
        kind = "PCM" if seat.features is None else f"log-mel {_dims(seat.tensor_shape[1:])}"
        told = [f"audio {seat.sample_rate_hz} Hz, {seat.window_ms:g} ms", kind]
        told += [] if seat.gain == 1 else [f"times {seat.gain:g}"]
        return told + ([] if seat.shares is None else [f"from the source of {seat.shares}"])
    if isinstance(seat, TextInput):
        life = "until the next" if seat.ttl_ms is None else f"for {seat.ttl_ms:g} ms"
        return [f"text, {seat.max_tokens} tokens", f"valid {life}"]
    rate = f", {seat.rate_hz:g} Hz" if seat.rate_hz else ""
    return [f"tensor {seat.dtype} {_dims(seat.shape)}{rate}"]


def _stage(manifest: Manifest, stage: Stage) -> list[str]:
    when = f"every {stage.every_ms:g} ms" if stage.every_ms else f"on {stage.on}" if stage.on else "when new"
    lines = [when + (", async" if stage.mode == "async" else "")]
    if stage.callable is not None:
        lines.append(f"calls {stage.callable}")
    for tensor, source in stage.sources.items():
        match source:
            case Presence() | Age():
                lines.append(f"{tensor} = {source}")
            case State(output):
                lines.append(f"{tensor} = {output} of the step before")
            case Constant(number):
                lines.append(f"{tensor} = {number:.15g}")
            case Output(producer) if len(manifest.stages[producer].outputs) > 1:
                lines.append(f"{tensor} = {source}")
    return [*lines, *(f"-> {name} {_dims(dims)}" for name, dims in stage.outputs.items())]


def _task(manifest: Manifest, task: Task, labels: tuple[str, ...]) -> list[str]:
    of = f" of {task.tensor.name}" if len(manifest.stages[task.tensor.stage].outputs) > 1 else ""
    lines = [f"{task.kind}{of}", *TASK_KINDS[task.kind].describe(task, labels)]
    for part in task.smoothings:
        if isinstance(part, Ema):
            lines.append(f"ema {part.tau_ms:g} ms")
        elif isinstance(part, Hysteresis):
            lines.append(f"hysteresis {part.enter:g}, {part.leave:g}")
        elif isinstance(part, Debounce):
            lines.append(f"debounce {part.hold_ms:g} ms")
    return lines


def _dims(dims: Sequence[str | int]) -> str:
    return "x".join("1" if isinstance(size, str) else str(size) for size in dims)


def _masks(manifest: Manifest) -> Table:
    table = Table(title="validated masks")
    table.add_column("present", overflow="fold")
    table.add_column("metric")
    for heading in ("value", "95 %", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mask in manifest.validated_masks:
        between = "-" if mask.low is None or mask.high is None else f"{mask.low:.3f} to {mask.high:.3f}"
        number = "-" if mask.samples is None else str(mask.samples)
        present = " + ".join(mask.present) or "nothing"
        table.add_row(present, mask.metric, f"{mask.value:.3f}", between, number)
    return table


def _variants(bundle: Bundle) -> Table:
    table = Table(title="variants")
    add_names(table, "stage", bundle.manifest.stages)
    table.add_column("variant", no_wrap=True)
    table.add_column("kB", justify="right", no_wrap=True)
    table.add_column("quantization", overflow="fold")
    for variant in bundle.manifest.variants:
        quantization = variant.quantization
        how = "" if quantization is None else f"{quantization.rule}, {quantization.frames} frames"
        if quantization is not None and quantization.sqnr_db is not None:
            how += f", {quantization.sqnr_db:.1f} dB"
        if quantization is not None and quantization.rest == "fp16":
            how += ", the rest in fp16"
        size = bundle.network_bytes(variant.file) / 1000
        table.add_row(variant.stage, f"{variant.target} {variant.precision}", f"{size:.0f}", how)
    return table


def _detector(document: dict[str, Any], named: int | None) -> dict[str, Any] | None:
    """Return layout and number of classes where the signature is that of a known detector."""
    outputs = [output["shape"] for output in document["outputs"]]
    found = next(filter(None, (recognise(value["shape"], outputs, named) for value in document["inputs"])), None)
    return None if found is None else {"layout": found[0], "classes": found[1]}
