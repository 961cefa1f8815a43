"""``mmedge devices``: cameras and microphones, with the URI of each; what they deliver with ``--probe``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from mmedge.capture.devices import Device, list_devices
from mmedge.cli.output import Json, bar, err, next_step, out, print_json
from mmedge.doctor.devices_probe import SETTLED_S, DeviceProbe, StreamProbe, probe
from mmedge.errors import ConfigError, DeviceError

_STAMPS = {"A": "driver", "B": "stream", "C": "arrival"}
_NOTHING = "no camera and no microphone was found; files, udp:// and rtsp:// streams work as sources too"


def command(
    uri: Annotated[list[str], typer.Argument(metavar="[URI]...", help="Devices to probe; none: all there are.")] = [],
    probe: Annotated[bool, typer.Option("--probe", help="Open each device and measure what it delivers.")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each is measured.")] = 5.0,
    json: Json = False,
) -> None:
    """List cameras and microphones, with what to type for each; with --probe what each really delivers.

    Devices are probed one after the other, each in a process of its own. Exit code 3 if none delivers.
    """
    if uri and not probe:
        raise ConfigError("addresses were given without --probe", where="command line", fix="mmedge devices --probe URI")
    devices = [] if uri else list_devices()
    if probe:
        _probe(uri, devices, seconds, json=json)
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


def _probe(uris: Sequence[str], devices: Sequence[Device], seconds: float, *, json: bool) -> None:
    usable = [*uris, *(device.uri for device in devices if device.uri is not None)]
    with bar("probing") as progress:
        found = probe(usable, seconds=seconds, progress=progress)
    for device in devices:
        if device.uri is None:
            reason = DeviceError(f"it cannot be used as it is: {device.detail}", where=device.name)
            found.append(DeviceProbe(uri=device.name, error=reason.to_dict()))
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
    next_step(f"mmedge run BUNDLE --{option} {escape(working.uri)}")
