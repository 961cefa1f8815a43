"""``mmedge run``: live fused inference."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from mmedge.address import Address
from mmedge.bundle import Bundle, load
from mmedge.bundle.manifest import ImageInput
from mmedge.cli.addresses import typed
from mmedge.cli.output import (
    Allow,
    AudioSource,
    ImageSource,
    Inputs,
    JsonLines,
    Places,
    PrivacyOption,
    Sinks,
    TextSource,
    ViewOption,
    abandon_stdout,
    err,
    next_step,
    parse_places,
    tell_links,
)
from mmedge.cli.reload import Reload
from mmedge.cli.signals import Stopped, finish
from mmedge.cli.sinks import make_sinks
from mmedge.errors import ConfigError
from mmedge.pipeline import Percentiles, Pipeline, Statistics
from mmedge.pipeline.arguments import share_sources
from mmedge.pipeline.spec import PUSH
from mmedge.pipeline.statistics import told
from mmedge.privacy import Privacy
from mmedge.service import Notifier
from mmedge.types import Backend, Engines, Latency, Precision, Result, Video

if TYPE_CHECKING:
    from mmedge.view.live import LivePage


def parse_inputs(
    bundle: Bundle | None, pairs: list[str], by_modality: dict[str, str | None], *, pushes: bool = False
) -> dict[str, Address]:
    """Return input name -> address from ``NAME=URI`` pairs and the ``--image`` kind of options; see ``typed``.

    Without a bundle any name will do, and ``--image`` feeds the input ``image``. ``pushes``: programs that attach may
    push.

    Raises:
        ConfigError: If a pair is malformed, or a modality is not unique in the bundle.
    """
    uris: dict[str, Address] = {}

    def add(name: str, text: str, where: str) -> None:
        if bundle is not None and name not in bundle.inputs:
            raise ConfigError(
                f"the bundle has no input '{Address(name)}'", where=where, fix=f"it has {list(bundle.inputs)}"
            )
        uri = typed(text, where)
        if uri == PUSH and not pushes:
            raise ConfigError(
                "a command line cannot push data",
                where=where,
                fix="name a source, let a program push (--attach PATH), or use the Python API",
            )
        if name in uris:
            raise ConfigError(f"input '{Address(name)}' was given twice", where=where, fix="give one source per input")
        uris[name] = uri

    for pair in pairs:
        name, equals, uri = pair.partition("=")
        if not equals or not name or not uri:
            raise ConfigError(f"'{Address(pair)}' is not NAME=URI", where="--input", fix="for example --input image=0")
        add(name, uri, "--input")
    given = {modality: uri for modality, uri in by_modality.items() if uri is not None}
    for modality, uri in given.items():
        if bundle is None:
            add(modality, uri, f"--{modality}")
            continue
        kind = {"image": "ImageInput", "audio": "AudioInput", "text": "TextInput"}[modality]
        names = [
            n
            for n, spec in bundle.inputs.items()
            if type(spec).__name__ == kind and getattr(spec, "shares", None) is None
        ]
        if len(names) != 1:
            raise ConfigError(
                f"the bundle has {len(names)} {modality} inputs {names}",
                where=f"--{modality}",
                fix="use --input NAME=URI",
            )
        add(names[0], uri, f"--{modality}")
    if not uris:
        raise ConfigError(
            "no source was given",
            where="command line",
            fix="--image 0 --audio mic://default, or --input NAME=URI; run `mmedge devices` to list devices",
        )
    return uris if bundle is None else share_sources(uris, bundle.inputs)


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle, NAME.mmedge.")],
    input: Inputs = [],
    image: ImageSource = None,
    audio: AudioSource = None,
    text: TextSource = None,
    sink: Sinks = [],
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    latency: Annotated[
        Latency, typer.Option(help="How long to wait for late inputs; offline: wait for every packet (files only).")
    ] = "balanced",
    backend: Annotated[Backend, typer.Option()] = "auto",
    precision: Annotated[Precision | None, typer.Option()] = None,
    speed: Annotated[float, typer.Option(help="Playing speed of files; 1 is real time.")] = 1.0,
    record: Annotated[Path | None, typer.Option(metavar="DIR", help="Record the run, for `mmedge replay`.")] = None,
    video: Annotated[Video, typer.Option(help="How --record keeps pictures.")] = "lossless",
    record_privacy: Annotated[
        Privacy, typer.Option(help="What --record keeps of pictures and sound; none: black and silent.")
    ] = "picture",
    results: Annotated[
        Literal["auto", "latest", "all"],
        typer.Option(help="Which results to print when printing is slower than the run."),
    ] = "auto",
    allow: Allow = [],
    place: Places = [],
    view: ViewOption = None,
    privacy: PrivacyOption = "picture",
    engines: Annotated[
        Engines,
        typer.Option(help="now: start on what is there, and put in better engines once built; wait: build first."),
    ] = "auto",
    attach: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A socket, on which programs of yours get results and push data."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what ran when at the end, for ui.perfetto.dev.")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Show pictures and answers in a window.")] = False,
    json: JsonLines = False,
) -> None:
    """Live fused inference. With --json: one result a line on stdout (JSON Lines)."""
    with load(bundle) as opened, live_page(view, privacy) as page:
        named = {"image": image, "audio": audio, "text": text}
        uris = parse_inputs(opened, input, named, pushes=attach is not None)
        from mmedge.cli.forecast import warn_before

        warn_before(opened, None, latency, list(uris))
        shown = _window(opened, uris) if window else None
        sinks = make_sinks(sink, json=json, privacy=privacy)
        if page is not None:
            from mmedge.view.live import with_typed

            uris, sinks = with_typed(opened, uris), [*sinks, page.sink]
        if trace is not None:
            from mmedge.bench.trace_sink import TraceSink

            sinks = [*sinks, TraceSink(trace, opened)]
        with Pipeline(
            opened,
            uris,
            sinks=sinks,
            spans=trace is not None,
            on_result=shown,
            latency=latency,
            backend=backend,
            precision=precision,
            speed=speed,
            duration_s=duration,
            record=record,
            video=video,
            results=results,
            allow=allow,
            place=parse_places(place),
            engines=engines,
            record_privacy=record_privacy,
            attach=attach,
        ) as pipe:
            if page is not None:
                page.open(pipe)
                tell_links(page.links)
            try:
                with Reload(pipe, bundle), Notifier(pipe):  # who is told that it is ready may ask for a reload
                    pipe.run()
                interrupted = False
            except Stopped:
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
            except BrokenPipeError:
                # The reader of our stdout has left (`mmedge run --json | head`): that is the end of the run.
                abandon_stdout()
                interrupted = False
        finish()
        print_summary(pipe.statistics)
        print_devices(pipe.health())
        if interrupted:
            raise KeyboardInterrupt
        next_step(
            f"mmedge bench {quote(str(bundle))}"
            if record is None
            else f"mmedge replay {quote(str(record))} {quote(str(bundle))}"
        )
    if sys.stdout is not None:
        sys.stdout.flush()


@contextmanager
def live_page(place: str | None, privacy: Privacy) -> Iterator[LivePage | None]:
    """Give the page of a run, not open yet, None without a place."""
    if place is None:
        yield None
        return
    from mmedge.view.live import LivePage

    with LivePage(place, privacy) as page:
        yield page


def _window(bundle: Bundle, uris: Mapping[str, Address]) -> Callable[[Result], None]:
    from mmedge.cli.window import window_of

    return window_of([n for n in uris if isinstance(bundle.inputs[n], ImageInput)], f"mmedge: {bundle.name}")


def latency_table(title: str, rows: Mapping[str, Percentiles]) -> Table:
    """Return a table of latencies, each with its n; percentiles that n cannot tell are left out."""
    table = Table(title=title)
    for heading in ("ms", "p50", "p90", "p99", "max", "n"):
        table.add_column(heading, justify="left" if heading == "ms" else "right")
    for name, p in rows.items():
        if p.n:
            table.add_row(name, told(p.p50), told(p.p90), told(p.p99), told(p.max), str(p.n))
    return table


def print_summary(statistics: Statistics) -> None:
    """Print counts and latencies of a run on stderr."""
    rows = {"end to end": statistics.end_to_end, "received": statistics.received}
    rows |= {**statistics.steps, "skew": statistics.skew}
    title = f"{statistics.results} results of {statistics.triggers} triggers ({statistics.evidence})"
    err.print(latency_table(title, {name: histogram.summary() for name, histogram in rows.items()}))
    print_facts(statistics)


def print_facts(statistics: Statistics) -> None:
    """Print on stderr what a run lost and noted."""
    if statistics.stamps.n and (bound := statistics.stamps.summary().p50) >= 0.1:
        err.print(
            f"end to end, received and deliver count from capture times that are known to ± {bound:.1f} ms",
            highlight=False,
        )
    for line in _facts(statistics):
        err.print(line, highlight=False, markup=False)
    for note in statistics.notes:
        err.print(f"note: {note}", highlight=False, markup=False)
    if statistics.recording.get("reason"):
        err.print(f"warning: {statistics.recording['reason']}", highlight=False, markup=False)


def _facts(statistics: Statistics) -> list[str]:
    """Return what a run lost, a line each; the first two are always told."""
    named = {
        "dropped": statistics.drops,
        "absent": statistics.absent,
        "failed stages": statistics.stage_errors,
        "refused": statistics.refused,
    }
    told = {what: ", ".join(f"{cause} {count}" for cause, count in found.items()) for what, found in named.items()}
    lines = [
        f"dropped: {told.pop('dropped') or 'none'}",
        f"audio samples lost: {sum(statistics.lost_samples.values())}",
    ]
    lines += [f"{what}: {causes}" for what, causes in told.items() if causes]
    if statistics.undelivered:
        lines.append(f"not read in time: {statistics.undelivered}")
    for name, report in statistics.sinks.items():
        counters = {what: count for what, count in report["counters"].items() if count and what != "written"}
        if counters or report["reason"]:
            told_counts = ", ".join(f"{what} {count}" for what, count in counters.items())
            lines.append(f"sink {name}: {'; '.join(filter(None, (told_counts, report['reason'])))}")
    return lines


def print_devices(health: dict[str, dict[str, Any]]) -> None:
    """Print on stderr how well the time of each device is known, and what it lost."""
    table = Table(title="devices")
    for heading in ("input", "class", "drift ppm", "jitter ms", "± ms", "lost"):
        table.add_column(heading, justify="left" if heading in ("input", "lost") else "right")
    for name, report in health.items():
        clock, counters = report.get("clock"), report.get("counters", {})
        if clock is None:
            continue
        counted = ("restarts", "dropped", "lost", "overflow")
        lost = [f"{what} {n}" for what, n in counters.items() if n and what.startswith(counted)]
        table.add_row(
            name,
            clock["quality"],
            f"{clock['ppm']:+.1f}",
            f"{clock['jitter_ns'] / 1e6:.1f}",
            f"{clock['uncertainty_ns'] / 1e6:.1f}",
            ", ".join(lost) or "nothing",
        )
    if table.row_count:
        err.print(table)
