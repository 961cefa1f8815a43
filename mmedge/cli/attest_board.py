"""The part of ``mmedge attest --board`` that needs devices and minutes, and the checklist of what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from mmedge.address import Address
from mmedge.bench.checklist import checklist, model_of, view
from mmedge.bench.report import Report
from mmedge.calibration.calibration import calibrate
from mmedge.calibration.offsets import lookup
from mmedge.capture import parse
from mmedge.capture.devices import list_devices
from mmedge.cli.devices import probed
from mmedge.cli.output import Bar, err, styled
from mmedge.doctor.devices_probe import DeviceProbe
from mmedge.errors import MmedgeError

Step = Callable[[str], AbstractContextManager[Bar]]
_FLASHES = 10  # half of what `mmedge calibrate` takes: minutes are few


def on_board(
    step: Step, inputs: Mapping[str, Address], probe_s: float, soak: Callable[[], Report]
) -> tuple[dict[str, Any], list[str]]:
    """Probe the devices, calibrate a camera against a microphone, and soak.

    Args:
        step: Begins a step under a name; yields its progress bar.
        inputs: Sources of the soak; those that are live are probed besides what is found.
        probe_s: Seconds for each device.
        soak: Runs it.

    Returns:
        The attestation's ``board``, and what makes it invalid.
    """
    found = list_devices()
    known = {parse(device.uri).device for device in found if device.uri is not None}
    named = [address for address in inputs.values() if parse(address).live and parse(address).device not in known]
    with step("devices") as progress:
        devices = probed(list(dict.fromkeys(named)), found, probe_s, progress)
    calibration = _calibration(step, devices)
    part: dict[str, Any] = {
        "devices": [msgspec.to_builtins(device) for device in devices],
        "calibration": calibration,
        "soak": None,
    }
    try:
        report = soak()
    except MmedgeError as error:  # a camera that was pulled out takes nothing of what was measured before
        return part, [f"soak: {error.message}"]
    return {**part, "soak": report.to_dict()}, [f"soak: {report.problem}"] if report.problem else []


def _calibration(step: Step, devices: list[DeviceProbe]) -> dict[str, Any]:
    """Return what is known of the first camera and microphone that deliver, or why nothing is."""
    first = {
        modality: next((d.uri for d in devices if any(s.modality == modality for s in d.streams)), None)
        for modality in ("image", "audio")
    }
    camera, microphone = first["image"], first["audio"]
    if camera is None or microphone is None:
        lacking = " and ".join(name for name, uri in (("camera", camera), ("microphone", microphone)) if uri is None)
        return {"problem": f"no {lacking} delivers"}
    try:
        kept = lookup(camera, microphone)
        if kept is None:
            with step("flashes and beeps") as progress:

                def show(found: int, seen: int, heard: int) -> None:
                    progress(f"{found} of {_FLASHES} pairs ({seen} flashes, {heard} beeps)", found / _FLASHES)

                kept = calibrate(camera, microphone, flashes=_FLASHES, progress=show).offset
    except MmedgeError as error:  # nobody shows the clip: a line of the checklist, no failure
        return {"problem": error.message}
    return dict(msgspec.to_builtins(kept))


def print_checklist(document: Mapping[str, Any]) -> None:
    """Print what is shown and what is missing, with what to type, on stderr."""
    model = model_of(view(document))
    if model is None:
        err.print("this machine is no Jetson: what applies was run, and it is no evidence for one", highlight=False)
    lines = checklist(document)
    done = sum(line.missing is None for line in lines)
    title = f"{done} of {len(lines)} lines shown{f' on {model}' if model else ''}"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("line", "", "what"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        if line.missing is None:
            table.add_row(line.name, styled(("shown", "green")), line.what)
        else:
            told = styled(f"{line.what}: {line.missing}", "\n", ("fix:", "bold"), f" {line.fix}")
            table.add_row(line.name, styled(("missing", "yellow")), told)
    err.print(table)
