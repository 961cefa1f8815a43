"""When triggers are made and how each input is cut: what a manifest and a run say of time, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.plan.bounds import hold_ns, look_ahead_ns, wait_ns
from mmedge.plan.parts import FOREVER_NS, SeatPlan, SyncPlan

# For how much longer than the longest wait a window can be read, and for how long at most: files are read
# ahead by seconds.
RESERVE_NS, MAX_RESERVE_NS = 1_000_000_000, 30_000_000_000


def plan_sync(
    inputs: Mapping[str, Input],
    attached: Mapping[str, bool],
    missing: Mapping[str, Missing],
    sync: Sync,
    *,
    lossless: bool = False,
) -> SyncPlan:
    """Return what the synchroniser does.

    Args:
        inputs: Every input of the bundle, in its order.
        attached: Name -> whether its source is live, for the inputs that have a source.
        missing: Policies by input.
        sync: Trigger, policy, alignment, deadline.
        lossless: Wait for data as long as it takes (files played as fast as possible).

    Raises:
        ConfigError: If no input is attached or an attached one does not exist.
    """
    if not attached or not set(attached) <= set(inputs):
        raise ConfigError(
            f"the bundle's inputs are {list(inputs)}, sources were given for {list(attached)}",
            where="inputs",
            fix="give a source to at least one of its inputs, and to no other name",
        )
    own = {name: spec for name, spec in inputs.items() if name in attached}
    wait = FOREVER_NS if lossless else wait_ns(sync, own)
    return SyncPlan(
        trigger=sync.trigger,
        latest=sync.policy == "latest",
        every_ns=round(sync.every_ms * 1e6),
        wait_ns=wait,
        hold_ns=FOREVER_NS if lossless else hold_ns(sync, own),
        lossless=lossless,
        present=tuple(inputs),
        seats=tuple(
            _seat(name, spec, missing.get(name), sync, live=attached[name], wait=wait) for name, spec in own.items()
        ),
    )


def _seat(name: str, spec: Input, rule: Missing | None, sync: Sync, *, live: bool, wait: int) -> SeatPlan:
    return SeatPlan(
        name=name,
        live=live,
        policy=rule.policy if rule else "zero",
        max_age_ns=round(rule.max_age_ms * 1e6) if rule and rule.max_age_ms else None,
        trigger=name == sync.trigger,
        **_cut(spec, sync, wait),
    )


def _cut(spec: Input, sync: Sync, wait: int) -> dict[str, Any]:
    match spec:
        case ImageInput():
            return {"kind": "image"}
        case AudioInput():
            return {
                "kind": "audio",
                "rate_hz": spec.sample_rate_hz,
                "window": spec.samples,
                "ahead_ns": look_ahead_ns(sync, spec),
                "reserve_ns": min(wait + RESERVE_NS, MAX_RESERVE_NS),
            }
        case TextInput():
            return {"kind": "value", "ttl_ns": round(spec.ttl_ms * 1e6) if spec.ttl_ms else None}
        case TensorInput():
            period_ns = None if spec.rate_hz is None else round(1e9 / spec.rate_hz)
            return {"kind": "value", "period_ns": period_ns, "paced": True}
