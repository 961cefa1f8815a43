"""``mmedge bench``: latency report of a bundle, or of one ONNX network."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from mmedge.bench import bench
from mmedge.bench.compare import Comparison, compare, merged, read_baseline
from mmedge.bench.network import bench_network
from mmedge.bench.report import Report, check_report_path
from mmedge.bench.schedule import BLOCK_MS, Arrivals
from mmedge.bench.sweep import Sweep, sweep
from mmedge.bench.warm_up import MOST_S
from mmedge.bundle import load
from mmedge.cli.bench_tables import print_comparison, print_report, print_sweep
from mmedge.cli.forecast import warn_before
from mmedge.cli.output import Allow, Json, Places, bar, err, next_step, parse_places, print_json
from mmedge.cli.rates import rates_of
from mmedge.cli.run import parse_inputs
from mmedge.errors import CheckError, ConfigError
from mmedge.types import Backend, Precision

_DURATION_S, _SWEEP_S = 10.0, 3.0
_ROUNDS = 2  # in which two bundles are measured in turn


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE|MODEL.onnx", help="NAME.mmedge, or one ONNX network.")],
    duration: Annotated[
        float | None, typer.Option(help="Seconds to measure: 10 by default, 3 at each rate of a sweep.")
    ] = None,
    input: Annotated[
        list[str],
        typer.Option("--input", metavar="NAME=URI", help="Real source of an input, instead of generated data."),
    ] = [],
    backend: Annotated[Backend, typer.Option()] = "auto",
    precision: Annotated[Precision | None, typer.Option()] = None,
    isolation: Annotated[
        Literal["auto", "process", "thread"],
        typer.Option(help="Where the runtime runs; auto: in its own process, as `mmedge run` does with live devices."),
    ] = "auto",
    fps: Annotated[float, typer.Option(help="Rate of generated frames, or of a network's calls.")] = 30.0,
    arrivals: Annotated[
        Arrivals, typer.Option(help="Triggers come evenly, or at random at the same mean rate.")
    ] = "fixed",
    seed: Annotated[int, typer.Option(help="Of random arrivals.")] = 0,
    block_ms: Annotated[float, typer.Option(help="Longest block of generated sound.")] = BLOCK_MS,
    delay_ms: Annotated[
        float, typer.Option(help="How long after its capture a generated packet is handed over.")
    ] = 0.0,
    warm_up: Annotated[float, typer.Option(help="Seconds that the run may take to settle.")] = MOST_S,
    sweep_rates: Annotated[
        str | None, typer.Option("--sweep", metavar="LOW:HIGH", help="Find the highest rate that is kept.")
    ] = None,
    compare_with: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE.json|BUNDLE", help="A saved report, or a bundle to run in turn."),
    ] = None,
    max_regress: Annotated[
        str, typer.Option(metavar="5%", help="By how much end to end may be slower than what it is compared with.")
    ] = "5%",
    save: Annotated[Path | None, typer.Option(help="Write the report to FILE.html or FILE.json.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write what ran when, for ui.perfetto.dev.")] = None,
    shape: Annotated[
        list[str], typer.Option(metavar="NAME=1x3x320x320", help="Shape of a network's input that is open.")
    ] = [],
    threads: Annotated[int, typer.Option(help="Threads of a single network on the CPU.")] = 1,
    allow: Allow = [],
    place: Places = [],
    json: Json = False,
) -> None:
    """Latency per trigger: generated frames and sound at their real rates, or your own sources.

    Exit code 1 if the figures are not valid (the rate was missed, the machine was throttled or busy with something
    else), or if it is slower than what it is compared with.
    """
    if save is not None:
        check_report_path(save)
    for path in (save, html, trace):
        if path is not None and not path.parent.is_dir():
            raise ConfigError("the folder does not exist", where=str(path.parent), fix="choose another path")
    most, rates = _share(max_regress), None if sweep_rates is None else rates_of(sweep_rates)
    if rates is not None and any(asked is not None for asked in (compare_with, trace)):
        raise ConfigError("a sweep has no trace and no comparison", where="--sweep", fix="use --save, or --html")
    seconds = duration if duration is not None else _DURATION_S if rates is None else _SWEEP_S
    options: dict[str, Any] = {"backend": backend, "arrivals": arrivals, "seed": seed, "warm_up_s": warm_up}
    if bundle.suffix == ".onnx":
        of_bundles = {"--input": input, "--precision": precision, "--allow-callable": allow, "--place": place}
        for name, given in of_bundles.items():
            if given:
                raise ConfigError(f"{name} is of bundles, and this is one network", where=name, fix="leave it out")
        options |= {"threads": threads, "shapes": dict(map(_shape, shape)) or None}
        measure: Callable[..., Report] = bench_network
    else:
        for name, wanted in (("--shape", bool(shape)), ("--threads", threads != 1)):
            if wanted:
                raise ConfigError(f"{name} is of single networks, and this is a bundle", where=name, fix="leave it out")
        options |= {"precision": precision, "isolation": isolation, "block_ms": block_ms, "delay_ms": delay_ms}
        inputs = _inputs(bundle, input, fps if rates is None else rates[0])
        options |= {"allow": allow, "inputs": inputs, "place": parse_places(place)}
        measure = bench
    baseline = None
    if compare_with is not None and compare_with.suffix == ".json":
        baseline = read_baseline(compare_with)

    def measured(path: Path, rate: float) -> Report:
        with bar(f"measuring {path.name} for {seconds:g} s") as progress:
            tell = partial(progress, f"measuring {path.name} for {seconds:g} s")
            return measure(path, seconds, fps=rate, progress=tell, **options)

    if rates is not None:
        _finish_sweep(sweep(*rates, partial(measured, bundle)), save, html, json=json)
        return
    comparison: Comparison | None = None
    if compare_with is not None and baseline is None:
        runs = [measured(path, fps) for _ in range(_ROUNDS) for path in (bundle, compare_with)]
        report, other = merged(runs[::2]), merged(runs[1::2])
        comparison = compare(report.to_dict(), other.to_dict(), most, in_turn=True)
    else:
        report = measured(bundle, fps)
        if baseline is not None:
            comparison = compare(report.to_dict(), baseline, most)
    for path, save_as in ((save, report.save), (html, report.save_page), (trace, report.save_trace)):
        if path is not None:
            save_as(path)
            err.print(f"wrote {path}", highlight=False)
    _finish(report, comparison, json=json)
    if save is None and html is None:
        next_step(f"mmedge bench {quote(str(bundle))} --html bench.html")


def _finish(report: Report, comparison: Comparison | None, *, json: bool) -> None:
    if json:
        compared = {} if comparison is None else {"compare": comparison.to_dict()}
        print_json({**report.to_dict(), **compared})
        bad = not report.valid
        try:
            if comparison is not None:
                comparison.raise_for_status()
        except CheckError:
            bad = True
        raise typer.Exit(bad)
    print_report(report)
    if comparison is not None:
        print_comparison(comparison)
    report.raise_for_status()
    if comparison is not None:
        comparison.raise_for_status()


def _finish_sweep(found: Sweep, save: Path | None, html: Path | None, *, json: bool) -> None:
    for path, save_as in ((save, found.save), (html, found.save_page)):
        if path is not None:
            save_as(path)
            err.print(f"wrote {path}", highlight=False)
    if json:
        document = found.to_dict()
        print_json(document)
        raise typer.Exit(not document["valid"])
    print_sweep(found)
    found.raise_for_status()


def _inputs(bundle: Path, given: list[str], fps: float) -> Any:
    """Return the sources that are given, None without any; say beforehand why the run cannot hold its rate or fit."""
    with load(bundle) as opened:
        uris = parse_inputs(opened, given, {}) if given else None
        warn_before(opened, fps if uris is None else None, inputs=list(uris or ()))
        return uris


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if found is None:
        raise ConfigError(f"'{text}' is not a share", where="--max-regress", fix="write it as 5% or 0.05")
    return float(found[1]) / (100 if found[2] else 1)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name or re.fullmatch(r"\d+(x\d+)*", sizes) is None:
        raise ConfigError(f"'{text}' is not the shape of an input", where="--shape", fix="use NAME=1x3x320x320")
    return name, tuple(map(int, sizes.split("x")))
