"""What a run holds in memory, as far as it follows from the bundle or was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from mmedge.bundle import Bundle, ImageInput
from mmedge.bundle.manifest import Variant
from mmedge.plan import Plan

_SAMPLE = 4  # bytes of a float32


class Part(NamedTuple):
    """One thing that takes memory: at least so many bytes, None if that is not known, and how it is known."""

    what: str
    size_bytes: int | None
    how: str


def memory_of(
    bundle: Bundle, plan: Plan, variants: Iterable[Variant], fps: float, processes_bytes: int | None, measured_on: str
) -> list[Part]:
    """Return what takes memory.

    Args:
        bundle: An open bundle.
        plan: Of the run.
        variants: The files that serve.
        fps: Rate of pictures.
        processes_bytes: What the processes of a run were measured to take; None if they were not.
        measured_on: Where.
    """
    if processes_bytes is not None:
        return [Part("processes", processes_bytes, f"measured on {measured_on}, networks and pictures included")]
    weights = sum(bundle.network_bytes(file) for file in {variant.file for variant in variants})
    pictures = sound = 0
    for seat in plan.sync.seats:
        spec = plan.inputs[seat.name]
        if isinstance(spec, ImageInput):
            pictures += math.ceil(plan.sync.hold_ns / 1e9 * fps) * math.prod(spec.raw_shape)
        elif seat.kind == "audio":
            sound += _SAMPLE * (seat.window + round(seat.reserve_ns / 1e9 * seat.rate_hz))
    return [
        Part("networks", weights, "the files that serve"),
        Part("pictures", pictures, f"held for {plan.sync.hold_ns / 1e6:g} ms at {fps:g} a second"),
        Part("sound", sound, "windows, and what is behind them"),
        Part("processes, libraries, buffers of engines", None, "not measured: --measured takes a report of `bench`"),
    ]
