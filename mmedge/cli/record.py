"""``mmedge record``: inputs into a folder, for replays, calibration and bug reports."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from mmedge.bundle import load
from mmedge.cli.output import Inputs, Json, bar, err, next_step, print_json
from mmedge.cli.run import parse_inputs
from mmedge.cli.signals import Stopped, finish
from mmedge.errors import ConfigError
from mmedge.pipeline.arguments import check_duration
from mmedge.replay.inputs import RATE_HZ, plain_seats, record
from mmedge.types import Video


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    input: Inputs = [],
    image: Annotated[str | None, typer.Option(help="Source of pictures.")] = None,
    audio: Annotated[str | None, typer.Option(help="Source of sound.")] = None,
    text: Annotated[str | None, typer.Option(help="Source of text.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Record the inputs of this bundle.")] = None,
    rate: Annotated[int, typer.Option(help="Sample rate of sound in Hz, when no --bundle is given.")] = RATE_HZ,
    video: Annotated[
        Video, typer.Option(help="Keep pictures bit for bit (lossless), or so that they look the same (visual).")
    ] = "lossless",
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    json: Json = False,
) -> None:
    """Record inputs without running anything on them; Ctrl-C ends it."""
    check_duration(duration)
    if not 1000 <= rate <= 384_000:
        raise ConfigError(
            f"the rate must be 1000 to 384000 Hz, got {rate}", where="--rate", fix="leave --rate out to use 48000"
        )
    given = {"image": image, "audio": audio, "text": text}
    if bundle is not None:
        with load(bundle) as opened:
            uris = parse_inputs(opened, input, given)
            seats = dict(opened.inputs)
    else:
        uris = parse_inputs(None, input, given)
        seats = plain_seats(uris, rate)
    report: dict[str, Any] = {}
    with bar(f"recording into {folder}") as show:

        def progress(now: dict[str, Any]) -> None:
            report.update(now)
            show(f"recording into {folder}: {_counted(now['counters'])}")

        try:
            report = record(folder, uris, seats, video=video, duration_s=duration, progress=progress)
        except KeyboardInterrupt as stop:
            # The end that was asked for, unless Ctrl-C comes before the end of a duration.
            if not report or (duration is not None and not isinstance(stop, Stopped)):
                raise
    finish()
    if json:
        print_json({"schema": "mmedge.record/1", "folder": str(folder), **report})
    err.print(f"recorded into {folder}: {_counted(report['counters'])}", highlight=False, markup=False)
    if report["reason"]:
        err.print(f"warning: {report['reason']}", highlight=False, markup=False)
    next_step(f"mmedge replay {quote(str(folder))} BUNDLE")


def _counted(counters: dict[str, int]) -> str:
    kinds = {kind: count for kind, count in counters.items() if kind not in ("polls", "healths", "eoss")}
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing has come"
