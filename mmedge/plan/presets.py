"""What ``latency`` means: deadline, alignment and hold over what the bundle says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from mmedge.bundle.manifest import ImageInput, Input, Missing, Sync
from mmedge.types import Latency

LOW_DEADLINE_MS = 15.0  # the longest wait of latency 'low'
LOW_HOLD_MS = 100.0  # three frames at 30 fps: how old a held input may be with latency 'low'


Preset: TypeAlias = tuple[Sync, dict[str, Missing]]  # the rules of one run


def apply_preset(latency: Latency, sync: Sync, missing: Mapping[str, Missing], inputs: Mapping[str, Input]) -> Preset:
    """Return the rules of one run.

    ``balanced`` follows the bundle. ``offline`` does too, and the synchroniser is made ``lossless``: there the
    deadline does not count. ``low`` waits at most 15 ms and never for sound after the trigger (align ``end``);
    a picture that makes no trigger may then be 100 ms old, unless the bundle has a rule for it.

    Args:
        latency: The preset.
        sync: The bundle's trigger and cutting.
        missing: The bundle's policies by input.
        inputs: The bundle's inputs.

    Example:
        >>> apply_preset("low", Sync(trigger="image", align="centre"), {}, {})[0].align
        'end'
    """
    if latency != "low":
        return sync, dict(missing)
    held = {
        name: Missing(policy="hold", max_age_ms=LOW_HOLD_MS)
        for name, spec in inputs.items()
        if isinstance(spec, ImageInput) and name != sync.trigger
    }
    low = msgspec.structs.replace(sync, align="end", deadline_ms=min(sync.deadline_ms, LOW_DEADLINE_MS))
    return low, {**held, **missing}
