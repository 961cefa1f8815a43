"""How long a trigger, and what it needs, may be kept."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle.manifest import AudioInput, Input, Sync

# What the sources of one run may differ in between capture and arrival.
MARGIN_NS = 250_000_000


def look_ahead_ns(sync: Sync, spec: Input) -> int:
    """Return by how much an input's window ends after the trigger: only sound that is not end-aligned looks ahead."""
    if not isinstance(spec, AudioInput) or sync.align == "end":
        return 0
    window_ns = spec.samples * 1_000_000_000 // spec.sample_rate_hz
    return window_ns if sync.align == "start" else window_ns // 2


def wait_ns(sync: Sync, inputs: Mapping[str, Input], *, lossless: bool = False) -> int:
    """Return how long after its delivery a trigger may wait: the look-ahead and, unless ``lossless``, the deadline."""
    ahead_ns = max((look_ahead_ns(sync, spec) for spec in inputs.values()), default=0)
    return ahead_ns + (0 if lossless else round(sync.deadline_ms * 1e6))


def hold_ns(sync: Sync, inputs: Mapping[str, Input], *, lossless: bool = False) -> int:
    """Return for how long the synchroniser may hold a frame, which sizes the pools that frames come from.

    Args:
        sync: Alignment and deadline.
        inputs: The inputs that have a source.
        lossless: Played as fast as possible: what is waited for is time in the file, not on the clock.

    Returns:
        Span in ns of capture time; a pool needs a slot for each frame in it, and a few for what is on its way.

    Example:
        >>> from mmedge.bundle.manifest import Sync
        >>> hold_ns(Sync(trigger="image", deadline_ms=50), {})
        300000000
    """
    return wait_ns(sync, inputs, lossless=lossless) + MARGIN_NS
