"""``mmedge devices``: cameras and microphones, with the URI of each."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from mmedge.capture.devices import list_devices
from mmedge.cli.output import Json, next_step, out, print_json


def command(json: Json = False) -> None:
    """List cameras and microphones, with what to type for each."""
    devices = list_devices()
    if json:
        print_json({"schema": "mmedge.devices/1", "devices": [asdict(device) for device in devices]})
        return
    if not devices:
        out.print("no camera and no microphone was found; files, udp:// and rtsp:// streams work as sources too")
        return
    table = Table()
    for heading in ("kind", "source", "name", "detail"):
        table.add_column(heading)
    for device in devices:
        table.add_row(device.kind, device.uri, device.name, device.detail)
    out.print(table)
    next_step("mmedge run BUNDLE --image SOURCE --audio SOURCE")
