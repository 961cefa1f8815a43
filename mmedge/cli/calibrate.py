"""``mmedge calibrate``: the constant offset between a camera and a microphone, by flashes and beeps."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.table import Table

from mmedge.calibration.calibration import FEWEST, MeasuredOffset, calibrate
from mmedge.calibration.flash_clip import FLASHES, flash_times, write_clip
from mmedge.calibration.offsets import store
from mmedge.cli.addresses import suggested, typed
from mmedge.cli.output import Json, bar, err, next_step, out, print_json, styled
from mmedge.errors import ConfigError

_BINS, _WIDTH = 9, 30


def command(
    image: Annotated[str | None, typer.Option(metavar="URI", help="The camera that sees the flashes.")] = None,
    audio: Annotated[str | None, typer.Option(metavar="URI", help="The microphone that hears the beeps.")] = None,
    flashes: Annotated[int, typer.Option(min=FEWEST, max=200, help="How many pairs of flash and beep to find.")] = 20,
    write: Annotated[Path | None, typer.Option(metavar="CLIP", help="Write the clip to show: .mp4 or .mkv.")] = None,
    json: Json = False,
) -> None:
    """Measure how late a camera is against a microphone, and keep it for every later run.

    1. Write the clip: mmedge calibrate --write flash.mp4. Copy it to a phone or a laptop.

    2. Start mmedge calibrate --image URI --audio URI.

    3. Play the clip in a loop, bright and loud. The screen fills the camera's picture, the loudspeaker (no Bluetooth)
    is near the microphone.
    """
    if write is not None:
        if image is not None or audio is not None:
            raise ConfigError(
                "--write cannot be combined with --image or --audio",
                where="command line",
                fix="write the clip first; then play it and measure without --write",
            )
        _write(write, json=json)
        return
    if image is None or audio is None:
        raise ConfigError(
            "both devices are needed",
            where="command line",
            fix="mmedge calibrate --image URI --audio URI; first the clip to show: mmedge calibrate --write flash.mp4",
        )
    with bar(f"waiting for flashes and beeps: 0 of {flashes}") as progress:

        def show(found: int, seen: int, heard: int) -> None:
            progress(f"{found} of {flashes} pairs ({seen} flashes, {heard} beeps)", found / flashes)

        camera, microphone = typed(image, "--image"), typed(audio, "--audio")
        calibration = calibrate(camera, microphone, flashes=flashes, progress=show)
    path = store(calibration.offset)
    if json:
        print_json(_document(calibration, path))
        return
    _print(calibration)
    err.print(f"kept in {path!s}; every run of these two devices uses it", highlight=False)
    next_step(f"mmedge run BUNDLE --image {quote(suggested(image))} --audio {quote(suggested(audio))}")


def _write(path: Path, *, json: bool) -> None:
    write_clip(path)
    if json:
        times = [float(time) for time in flash_times()]
        print_json({"schema": "mmedge.clip/1", "path": str(path), "flashes_s": times})
        return
    out.print(f"{path!s}: {FLASHES} flashes with a beep each, {float(flash_times()[-1]) + 2:.0f} s")
    next_step("play it in a loop before camera and microphone, and: mmedge calibrate --image URI --audio URI")


def _remarks(calibration: MeasuredOffset) -> list[str]:
    remarks: list[str] = []
    if calibration.in_step:
        remarks.append(
            "every flash fell at the same place of a frame, so more of them tell nothing more: show the clip of "
            "`mmedge calibrate --write flash.mp4`, or use a higher frame rate"
        )
    if calibration.ambiguous:
        remarks.append(
            "the flashes are as regular as a clock: of all offsets that fit, the smallest was taken; "
            "the clip of `mmedge calibrate --write flash.mp4` leaves no doubt"
        )
    return remarks


def _document(calibration: MeasuredOffset, path: Path) -> dict[str, Any]:
    return {
        "schema": "mmedge.calibrate/1",
        **msgspec.to_builtins(calibration.offset),
        "flashes": calibration.flashes,
        "beeps": calibration.beeps,
        "frame_ns": calibration.period_ns,
        "image_quality": calibration.image_quality,
        "audio_quality": calibration.audio_quality,
        "differences_ns": [pair.middle_ns for pair in calibration.pairs],
        "remarks": _remarks(calibration),
        "path": str(path),
    }


def _print(calibration: MeasuredOffset) -> None:
    offset = calibration.offset
    late, other = ("picture", "sound") if offset.offset_ns >= 0 else ("sound", "picture")
    title = f"the {late} is stamped {abs(offset.offset_ns) / 1e6:.1f} ms late against the {other}"
    table = Table(title=title, show_header=False)
    table.title_justify = "left"
    for name, value in (
        (
            "picture",
            f"{offset.image}  (stamps {calibration.image_quality}, a frame is {calibration.period_ns / 1e6:.1f} ms)",
        ),
        ("sound", f"{offset.audio}  (stamps {calibration.audio_quality})"),
        ("offset", f"{offset.offset_ns / 1e6:+.1f} ms, within {offset.uncertainty_ns / 1e6:.1f} ms"),
        ("spread", f"{offset.mad_ns / 1e6:.1f} ms (median deviation of the single pairs)"),
        ("pairs", f"{offset.pairs} of {calibration.flashes} flashes and {calibration.beeps} beeps"),
    ):
        table.add_row(name, value)
    out.print(table)
    values = np.array([pair.middle_ns for pair in calibration.pairs]) / 1e6
    middle, half = offset.offset_ns / 1e6, max(1.0, float(np.abs(values - offset.offset_ns / 1e6).max()))
    counts, edges = np.histogram(values, _BINS, (middle - half, middle + half))
    histogram = Table(box=None, show_header=False, pad_edge=False, title="flash (middle of two frames) less beep")
    histogram.title_justify = "left"
    histogram.add_column(justify="right")
    for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        histogram.add_row(
            f"{(left + right) / 2:+.1f} ms",
            styled(("█" * round(_WIDTH * count / counts.max()), "cyan")),
            str(count or ""),
        )
    out.print(histogram)
    for remark in _remarks(calibration):
        err.print(styled(("note:", "yellow"), f" {remark}"), highlight=False)
