"""``mmedge devices``: cameras and microphones, with the URI of each; what they deliver with ``--probe``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from shlex import quote
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mmedge.address import Address
from mmedge.capture.devices import Device, list_devices
from mmedge.cli.addresses import typed
from mmedge.cli.output import Bar, Json, bar, err, next_step, out, print_json, styled
from mmedge.doctor.devices_probe import SETTLED_S, DeviceProbe, StreamProbe, probe_devices
from mmedge.errors import ConfigError, DeviceError
from mmedge.pipeline.statistics import told

_STAMPS = {"A": "driver", "B": "stream", "C": "arrival"}
_NOTHING = "no camera and no microphone was found; files, udp:// and rtsp:// streams work as sources too"


def command(
    uri: Annotated[list[str], typer.Argument(metavar="[URI]...", help="Devices to probe; default: all of them.")] = [],
    probe: Annotated[bool, typer.Option("--probe", help="Open each device and measure what it delivers.")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Seconds to measure each device.")] = 5.0,
    json: Json = False,
) -> None:
    """List cameras and microphones, with what to type for each; with --probe what each really delivers.

    Devices are probed one after the other, each in a process of its own. Exit code 3 if none delivers.
    """
    if uri and not probe:
        raise ConfigError("device addresses need --probe", where="command line", fix="mmedge devices --probe URI")
    devices = [] if uri else list_devices()
    if probe:
        _probe([typed(each, "URI") for each in uri], devices, seconds, json=json)
        return
    if json:
        print_json({"schema": "mmedge.devices/1", "devices": [asdict(device) for device in devices]})
        return
    if not devices:
        out.print(_NOTHING)
        return
    table = Table()
    for heading in ("kind", "source", "name", "detail"):
        table.add_column(heading)
    for device in devices:
        table.add_row(device.kind, device.uri, device.name, device.detail)
    out.print(table)
    next_step("mmedge devices --probe")


def probed(uris: Sequence[Address], devices: Sequence[Device], seconds: float, progress: Bar) -> list[DeviceProbe]:
    """Measure what devices deliver, those of ``uris`` first; one that cannot be used has the reason."""
    usable = [*uris, *(Address(device.uri) for device in devices if device.uri is not None)]
    found = probe_devices(usable, seconds=seconds, progress=progress)
    for device in devices:
        if device.uri is None:
            reason = DeviceError(
                f"the device cannot be used: {device.detail}", where=device.name, fix="run `mmedge doctor`"
            )
            found.append(DeviceProbe(uri=device.name, error=reason.to_dict()))
    return found


def _probe(uris: Sequence[Address], devices: Sequence[Device], seconds: float, *, json: bool) -> None:
    with bar("probing") as progress:
        found = probed(uris, devices, seconds, progress)
    failed = [device for device in found if device.error is not None]
    if json:
        print_json(
            {
                "schema": "mmedge.devices/1",
                "devices": [asdict(device) for device in devices],
                "probe": [{**msgspec.to_builtins(device), "seconds": seconds} for device in found],
            }
        )
        raise typer.Exit(DeviceError.exit_code if len(failed) == len(found) else 0)
    if not found:
        raise DeviceError(_NOTHING, where="mmedge devices", fix="plug one in, or name a source: --probe URI")
    out.print(_table(found))
    _explain(found, seconds)
    if len(failed) == len(found):
        what = "the device does not deliver" if len(found) == 1 else f"none of {len(found)} devices delivers"
        raise DeviceError(what, where=failed[0].uri, fix=str(failed[0].error and failed[0].error["fix"]))
    working = next(device for device in found if device.error is None)
    option = "image" if working.streams[0].modality == "image" else "audio"
    next_step(f"mmedge run BUNDLE --{option} {quote(working.uri)}")


def _table(found: Sequence[DeviceProbe]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("device", overflow="fold")
    table.add_column("stamps", no_wrap=True)
    for heading in ("jitter ms\np50/p99", "clock\nppm", "within\nms", "latency\nms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for device in found:
        table.add_row(styled((device.uri, "bold")))
        if device.error is not None:
            table.add_row(styled((str(device.error["message"]), "red")))
        for stream in device.streams:
            table.add_row(*_row(stream))
        facts = _facts(device)
        if facts:
            table.add_row(styled(*facts))
        table.add_section()
    return table


def _facts(device: DeviceProbe) -> list[str | tuple[str, str]]:
    """Say what concerns a device and not one of its streams, in parts with their colours."""
    facts = [] if device.first_packet_ms is None else [f"first packet after {device.first_packet_ms / 1e3:.1f} s"]
    if device.queue_depth is not None:
        facts.append(f"{device.queue_depth} waited at open")
    lost = ", ".join(f"{cause.replace('_', ' ')} {count}" for cause, count in device.lost.items())
    told = [(text, "yellow") for text in (lost, device.trouble) if text]
    told = [(", ".join(facts), "dim"), *told] if facts else told
    return [part for pair in told for part in ("; ", pair)][1:]


def _row(stream: StreamProbe) -> list[str | Text]:
    unit, digits = ("Hz", 0) if stream.modality == "audio" else ("fps", 1)
    rate = "?" if stream.rate_hz is None else f"{stream.rate_hz:.{digits}f}"
    claimed = "" if stream.nominal_hz is None else f" of {stream.nominal_hz:g}"
    ppm = "-" if stream.ppm is None else f"{stream.ppm:+.0f}"
    return [
        f"{stream.picture + ', ' if stream.picture else ''}{rate}{claimed} {unit}",
        f"{stream.quality} {_STAMPS[stream.quality]}",
        f"{told(stream.jitter_p50_ms, 1)}/{told(stream.jitter_p99_ms, 1)}",
        ppm if stream.ppm is None or stream.ppm_settled else styled((f"({ppm})", "dim")),
        f"{stream.uncertainty_ms:.1f}",
        f"{stream.latency_p50_ms:.1f}",
    ]


def _explain(found: Sequence[DeviceProbe], seconds: float) -> None:
    """Say on stderr what the columns cannot."""
    for device in found:
        if device.error is not None and device.error["fix"]:
            fix = str(device.error["fix"])
            err.print(styled((device.uri, "red"), " ", ("fix:", "bold"), f" {fix}"), highlight=False)
    if any(stream.ppm is not None and not stream.ppm_settled for device in found for stream in device.streams):
        err.print(
            f"(ppm): {seconds:g} s do not show how a clock drifts; for that: --seconds {SETTLED_S + 10:g}",
            style="dim",
            highlight=False,
        )
