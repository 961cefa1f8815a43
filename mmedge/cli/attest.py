"""``mmedge attest``: doctor, compile, golden self-tests, bench and sweep as one document to send."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mmedge.address import Address
from mmedge.bench import bench
from mmedge.bench.attestation import SCHEMA, private, read, seal
from mmedge.bench.checklist import SOAK_S
from mmedge.bench.report import Report, write
from mmedge.bench.run import check_asked
from mmedge.bench.sweep import sweep
from mmedge.bundle import Bundle, load
from mmedge.cli.attest_board import on_board, print_checklist
from mmedge.cli.bench_tables import print_report, print_sweep
from mmedge.cli.output import Allow, Bar, Json, bar, err, print_json
from mmedge.cli.rates import rates_of
from mmedge.cli.run import parse_inputs
from mmedge.doctor import collect
from mmedge.errors import CheckError, ConfigError, MmedgeError
from mmedge.forecast import board_of, known_boards
from mmedge.forecast.seal import Score, read_sealed, scored
from mmedge.fusion import verify_bundle
from mmedge.fusion.compile import compile_bundle
from mmedge.plain import json_text

_BOARD_RATES, _PROBE_S = "10:240", 5.0  # unless other ones are asked for
# Of the doctor's report: nothing that is of this machine alone and says nothing about latency.
_LEFT_OUT = ("cameras", "cache")


def command(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle, NAME.mmedge.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds to measure.")] = 30.0,
    sweep_rates: Annotated[
        str | None, typer.Option("--sweep", metavar="LOW:HIGH", help="Rates to find the knee between, e.g. 10:240.")
    ] = None,
    rate_seconds: Annotated[float, typer.Option(help="Seconds at each rate of the sweep.")] = 3.0,
    fps: Annotated[float, typer.Option(help="Rate of generated frames.")] = 30.0,
    board: Annotated[
        bool, typer.Option("--board", help="Besides: sweep, devices, calibration, a soak, and what is still missing.")
    ] = False,
    soak: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --board: how long it is to last, 180 by default.")
    ] = None,
    probe: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, max=600, help="With --board: for each device, 5 by default."),
    ] = None,
    input: Annotated[
        list[str], typer.Option("--input", metavar="NAME=URI", help="With --board: a real source for the soak.")
    ] = [],
    output: Annotated[Path, typer.Option(help="Where to write the document.")] = Path("attestation.json"),
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check a document instead: hash, schema, validity.")
    ] = None,
    forecast: Annotated[
        Path | None,
        typer.Option(metavar="REPORT.json", help="With --check: score it against the forecast that an export sealed."),
    ] = None,
    allow: Allow = [],
    json: Json = False,
) -> None:
    """Measure this machine with a bundle and write one document: no host, user or path is in it, and it has a hash.

    With --board it shows in one command what only a board can show, and says what is still missing; on another
    machine it says so and runs what applies. Exit code 1 if something fails, or if the figures are not valid; the
    document is written all the same and says so.
    """
    if check is not None:
        document = read(check)
        scores = [] if forecast is None else _scores(document, forecast)
        _tell(document, scores) if not json else print_json({**document, "scores": [_plain(s) for s in scores]})
        return
    if forecast is not None:
        raise ConfigError("a forecast is scored by an attestation", where="--forecast", fix="add --check FILE")
    if bundle is None:
        raise ConfigError("there is nothing to measure", where="BUNDLE", fix="name a bundle, or --check FILE")
    if not output.parent.is_dir():
        raise ConfigError("the folder does not exist", where=str(output.parent), fix="choose another path")
    if not board and (soak is not None or probe is not None or input):
        raise ConfigError("--soak, --probe and --input are of --board", where="command line", fix="add --board")
    if board and sweep_rates is None:
        sweep_rates = _BOARD_RATES
    rates = None if sweep_rates is None else rates_of(sweep_rates)
    for seconds in (duration, rate_seconds, *(() if soak is None else (soak,))):
        check_asked(seconds, fps)  # now, not after minutes
    began_s, done = time.monotonic(), count(1)

    def step(name: str) -> AbstractContextManager[Bar]:
        return bar(f"step {next(done)}, after {time.monotonic() - began_s:.0f} s: {name}")

    def measured(
        rate_hz: float, seconds: float, inputs: dict[str, Address] | None = None, name: str = "measuring"
    ) -> Report:
        text = f"{name} at {rate_hz:.4g} a second for {seconds:g} s"
        with step(text) as progress:
            tell = partial(progress, text)
            return bench(bundle, seconds, fps=rate_hz, inputs=inputs, allow=allow, progress=tell)

    with step("doctor"):
        doctor = msgspec.to_builtins(collect())
    with load(bundle) as opened, step("engines and golden inputs") as progress:
        sources = parse_inputs(opened, input, {}) if input else {}
        if private([str(uri) for uri in sources.values()]):  # it would be refused at the end
            message = "a source names the host, the user or the home folder, which is to stay out of the document"
            raise ConfigError(message, where="--input", fix="name it by another path, or link to it")
        golden = [
            {key: row[key] for key in ("stage", "target", "precision", "error", "error_over_tolerance", "run_ms")}
            for row in verify_bundle(opened, progress, allow=allow)
        ]
        compiled = _compiled(opened, progress)
        hashed = {"name": opened.name, "manifest_sha256": opened.manifest_sha256}
    report = measured(fps, duration)
    knee = None if rates is None else sweep(*rates, lambda rate_hz: measured(rate_hz, rate_seconds))
    problems = [f"{row['stage']} {row['precision']}: {row['error']}" for row in golden if row["error"]]
    problems += [*filter(None, (report.problem,)), *(knee.problems if knee is not None else ())]
    parts: dict[str, Any] = {}
    if board:
        soaked = partial(measured, fps, SOAK_S if soak is None else soak, sources or None, "soak")
        parts["board"], bad = on_board(step, sources, _PROBE_S if probe is None else probe, soaked)
        problems += bad
        parts["board"]["took_s"] = round(time.monotonic() - began_s, 1)
    document = seal(
        {
            "schema": SCHEMA,
            "bundle": hashed,
            "doctor": {key: value for key, value in doctor.items() if key not in _LEFT_OUT},
            "compile": compiled,
            "golden": golden,
            "bench": report.to_dict(),
            "sweep": None if knee is None else knee.to_dict(),
            **parts,
            "valid": not problems,
            "problem": "; ".join(problems) or None,
        }
    )
    write(output, lambda: json_text(dumps(document, indent=1, ensure_ascii=False)))
    err.print(f"wrote {output}", highlight=False)
    if json:
        print_json(document)
        raise typer.Exit(bool(problems))
    print_report(report)
    if knee is not None:
        print_sweep(knee)
    _tell(document)
    if problems:
        raise CheckError(
            f"the attestation is not valid: {document['problem']}",
            where=str(output),
            fix="measure on a machine that does nothing else, is cool and has a power supply that suffices",
        )


def _compiled(bundle: Bundle, progress: Bar) -> dict[str, Any]:
    """Return the engines that were built, or why there are none: a board without TensorRT can be attested as well."""
    kept = ("stage", "precision", "bytes", "layers", "int8_layers", "run_ms", "error", "evidence", "module", "version")
    try:
        rows, choices = compile_bundle(bundle, None, progress)
    except MmedgeError as error:
        return {"engines": [], "choices": [], "problem": error.message}
    chosen = [{key: choice[key] for key in ("stage", "serves", "why")} for choice in choices]
    there = {(row["stage"], row["precision"]) for row in rows}
    failed = [  # of these there is no engine, but that they fail is to be seen
        {"stage": choice["stage"], "precision": form["precision"], "error": form["error"].splitlines()[0]}
        for choice in choices
        for form in choice["forms"]
        if form["failed"] and (choice["stage"], form["precision"]) not in there
    ]
    engines = [{key: row.get(key) for key in kept} for row in [*rows, *failed]]
    return {"engines": engines, "choices": chosen, "problem": None}


def _scores(document: dict[str, Any], forecast: Path) -> list[Score]:
    machine = document["bench"]["conditions"]["machine"]
    device = board_of(machine)
    if device is None:
        message = f"forecasts are of boards that are known, and this is '{machine}'"
        raise CheckError(message, where=str(forecast), fix=f"known are {', '.join(known_boards())}")
    return scored(read_sealed(forecast), device, document["bundle"].get("manifest_sha256", ""), document["bench"])


def _plain(score: Score) -> dict[str, Any]:
    span = None if score.span is None else [score.span.low, score.span.middle, score.span.high]
    return {"what": score.what, "forecast_ms": span, "measured_ms": score.ms, "within": score.hit}


def _tell(document: dict[str, Any], scores: Sequence[Score] = ()) -> None:
    report = document["bench"]
    figures = report["latency_ms"]["end_to_end"]
    conditions = report["conditions"]
    lines = [
        f"{document['bundle']['name']} on {conditions['machine']}, evidence {report['evidence']}",
        f"end to end p50 {figures['p50']} ms, p99 {figures['p99']} ms, n {figures['n']}",
        f"sha256 {document['sha256']}",
    ]
    for score in scores:
        verdict = {True: "within", False: "OUTSIDE", None: "not scored"}[score.hit]
        span = "unknown" if score.span is None else score.span.told()
        lines.append(f"{verdict}: {score.what} {score.ms:g} ms, forecast {span}")
    known = [score.hit for score in scores if score.hit is not None]
    if scores:
        lines.append(f"{sum(known)} of {len(known)} figures within their intervals")
    for line in lines:
        err.print(line, highlight=False, markup=False)
    if "board" in document:
        print_checklist(document)
