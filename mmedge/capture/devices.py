"""List the cameras and microphones of this machine."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmedge.capture.gstreamer import has_element
from mmedge.errors import MissingDependencyError
from mmedge.extras import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One device, or the reason why a kind of device cannot be listed.

    Attributes:
        kind: What it captures with.
        uri: What to give to ``--input``; None if it cannot be used as it is.
        name: The device's own name.
        detail: Rates, driver, or what to do.
    """

    kind: Literal["camera", "csi", "microphone"]
    uri: str | None
    name: str
    detail: str


def list_devices() -> list[Device]:
    """List cameras and microphones.

    Returns:
        Devices in the order of their numbers. A kind that cannot be listed is one entry with no uri
        whose detail says why.

    Example:
        >>> all(device.name for device in list_devices())
        True
    """
    return [*_cameras(), *_microphones()]


def _cameras(sys_class: Path = Path("/sys/class/video4linux"), dev: Path = Path("/dev")) -> list[Device]:
    found: list[Device] = []
    sensors = 0
    for node in sorted(dev.glob("video*"), key=lambda path: (len(path.name), path.name)):
        if not re.fullmatch(r"video\d+", node.name) or not stat.S_ISCHR(node.stat().st_mode):
            continue
        about = sys_class / node.name
        name = (about / "name").read_text().strip() if (about / "name").exists() else node.name
        index = (about / "index").read_text().strip() if (about / "index").exists() else "0"
        if index != "0":  # a camera's further nodes carry metadata, no pictures
            continue
        if name.startswith("vi-output"):  # Jetson: a raw sensor, whose pictures come through the ISP
            usable = has_element("nvarguscamerasrc")
            detail = f"sensor behind {node}" if usable else f"sensor behind {node}; needs GStreamer's nvarguscamerasrc"
            found.append(Device(kind="csi", uri=f"csi://{sensors}" if usable else None, name=name, detail=detail))
            sensors += 1
        else:
            found.append(Device(kind="camera", uri=f"v4l2://{node}", name=name, detail=str(node)))
    return found


def _microphones() -> list[Device]:
    try:
        sounddevice = require("sounddevice", "listing microphones")
    except MissingDependencyError as error:
        return [Device(kind="microphone", uri=None, name="not listed", detail=f"{error.message}; {error.fix}")]
    default = sounddevice.default.device[0]
    return [
        Device(
            kind="microphone",
            uri="mic://default" if device["index"] == default else f"mic://{device['name']}",
            name=device["name"],
            detail=f"{device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz",
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]
