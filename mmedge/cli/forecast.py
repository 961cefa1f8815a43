"""``mmedge inspect --plan``: what a run is expected to take, and on what that rests; warnings before a run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.table import Table

from mmedge.bundle import AudioInput, Bundle
from mmedge.cli.output import add_names, err, out
from mmedge.console import styled
from mmedge.errors import MissingDependencyError, MmedgeError
from mmedge.files import scratch
from mmedge.forecast import Forecast, Sources, board_named, board_of, expect, known_boards
from mmedge.forecast.boards import desktop
from mmedge.forecast.expect import counted_gmacs
from mmedge.forecast.times import read_measured
from mmedge.types import Latency


def forecast_of(
    bundle: Bundle, device: str | None, measured: Sequence[Path], fps: float, latency: Latency, inputs: Sequence[str]
) -> Forecast:
    """Return the forecast of a run from what is known on this machine, in documents, and publicly."""
    from mmedge.bench.machine import machine

    name = None if device is None else board_named(device)
    documents = [read_measured(path, bundle.name) for path in measured]
    own = machine()
    counted = {} if name is None or name == board_of(own) else multiply_adds_of(bundle)
    sources = Sources(own, documents, counted)
    return expect(bundle, sources, device=name, fps=fps, latency=latency, inputs=inputs)


def multiply_adds_of(bundle: Bundle) -> dict[str, float]:
    """Return the multiply-adds of each network that a board would run, in 10^9, where the toolchain is installed."""
    with scratch() as folder:
        file = folder / "network.onnx"

        def count(content: bytes) -> int | None:
            file.write_bytes(content)
            counted: int | None = import_module("mmedge.export.bounded").count_multiply_adds(file)
            return counted

        try:
            return counted_gmacs(bundle, count)
        except (MissingDependencyError, ModuleNotFoundError):
            err.print("the work of networks is not counted: pip install 'mmedge[export]'", markup=False)
            return {}


def print_forecast(forecast: Forecast) -> None:
    """Print what a run is expected to take, from what, and why it cannot hold its rate or fit, if so."""
    table = Table(title=f"expected on {forecast.device} at {forecast.rate_hz:.4g} triggers a second")
    add_names(table, "step", [step.name for step in forecast.steps])
    table.add_column("takes", justify="right", overflow="fold")
    table.add_column("a trigger", justify="right")
    table.add_column("known from", overflow="fold")
    for step in forecast.steps:
        told = "unknown" if step.span is None else step.span.told()
        often = "beside" if step.background else f"{step.share:.3g}"
        table.add_row(step.name, told, often, step.how)
    out.print(table)
    unknown = f" (not counted: {'; '.join(forecast.unknown)})" if forecast.unknown else ""
    lines = [f"end to end of a typical trigger, from delivery: {forecast.end_to_end.told()}{unknown}"]
    lines.append(f"networks of a typical trigger: {forecast.engines.told()}")
    if forecast.binds:
        lines.append(f"binds: {forecast.binds}, of {forecast.busy.told()} a trigger")
    there = "" if forecast.memory_bytes is None else f" of {forecast.memory_bytes / 1e9:.2f} GB"
    lines.append(f"memory: at least {forecast.needed_bytes / 1e6:.1f} MB{there}")
    for part in forecast.memory:
        held = "unknown" if part.size_bytes is None else f"{part.size_bytes / 1e6:.1f} MB"
        lines.append(f"  {part.what}: {held}, {part.how}")
    board = known_boards().get(forecast.device)
    if board is not None:
        peak = f"{board.fp16_tflops:g} TFLOPS FP16 dense ({board.why})"
        lines.append(f"{board.name}: {board.memory_gb:g} GB shared, {board.bandwidth_gb_s:g} GB/s, {peak}")
        lines.append(f"  {board.source}; evidence: none of it was measured by us")
        lines.append(f"of its memory a desktop takes up to {desktop().gb:g} GB: {desktop().source}")
    for line in lines:
        out.print(line, highlight=False, markup=False)
    for problem in forecast.problems:
        out.print(styled(("warning:", "yellow"), f" {problem}"), highlight=False)


def warn_before(bundle: Bundle, fps: float | None, latency: Latency = "balanced", inputs: Sequence[str] = ()) -> None:
    """Print on stderr why a run on this machine cannot hold its rate or fit, before it starts; else nothing.

    Args:
        bundle: An open bundle.
        fps: Rate of pictures; None: not known before they come, so that of hops and timers alone counts.
        latency: As of the run.
        inputs: Those that have a source.
    """
    try:
        found = expect(bundle, Sources(), fps=fps or 30.0, latency=latency, inputs=inputs)
    except MmedgeError:  # what is wrong with the run is said by the run
        return
    trigger = bundle.inputs.get(bundle.manifest.sync.trigger)
    is_known = fps is not None or trigger is None or isinstance(trigger, AudioInput)
    for problem in found.problems if is_known else filter(None, (found.memory_problem,)):
        err.print(styled(("warning:", "yellow"), f" {problem}"), highlight=False)
