"""Where the networks of a run were run: on the CPU, a GPU or a Jetson."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmedge.types import Evidence


def evidence_of(backends: Iterable[str]) -> Evidence:
    """Return what was run on what, of these backends."""
    networks = set(backends) - {"callable"}
    if not networks or not all(backend.startswith(("tensorrt", "onnxruntime-")) for backend in networks):
        return "cpu"
    return "jetson" if Path("/etc/nv_tegra_release").exists() else "gpu"
