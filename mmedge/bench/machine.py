"""What a measurement ran on: enough to compare two, nothing that identifies the owner."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmedge
from mmedge.engine.cpu import instruction_sets

# Of the conditions: two measurements compare where these are the same.
SAME = ("machine", "cores", "instructions", "backends", "isolation", "inputs")


def machine() -> str:
    """Return the processor's or board's model."""
    for path, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if key is None:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.machine()


def facts() -> dict[str, object]:
    """Return what a report says of machine and software."""
    return {
        "mmedge": mmedge.__version__,
        "python": platform.python_version(),
        "machine": machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": " ".join(instruction_sets()),
        "load_before": round(os.getloadavg()[0], 2),
    }


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return in what two conditions differ that decides about latency, in words."""
    return [
        f"{name}: {ours.get(name)} here, {theirs.get(name)} there"
        for name in SAME
        if ours.get(name) != theirs.get(name)
    ]
