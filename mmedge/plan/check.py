"""Whether bundle, inputs and latency fit, before anything is started."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mmedge.address import Address
from mmedge.bundle.manifest import Manifest, TextInput
from mmedge.bundle.masks import validated_masks
from mmedge.errors import ConfigError
from mmedge.types import Latency


def check_inputs(manifest: Manifest, given: Collection[str]) -> None:
    """Raise ConfigError unless a bundle can run with sources for the inputs of these names, and no others."""
    inputs, names = manifest.inputs, set(given)
    told = sorted(str(Address(name)) for name in names)  # an address may stand where a name should
    if not names or not names <= set(inputs):
        raise ConfigError(
            f"the bundle's inputs are {list(inputs)}, sources were given for {told}",
            where="inputs",
            fix="give a source to at least one of its inputs, and to no other name",
        )
    validated = validated_masks(manifest)
    if frozenset(names) not in validated:
        known = [sorted(mask) for mask in validated]
        raise ConfigError(
            f"this bundle was not validated with only {sorted(names)}",
            where="inputs",
            fix=f"give sources for one of {known}",
        )
    trigger = manifest.sync.trigger
    clocked = [
        n for n in names if not isinstance(inputs[n], TextInput) and getattr(inputs[n], "rate_hz", 1) is not None
    ]
    if trigger != "timer" and trigger not in names and not clocked:
        raise ConfigError(
            f"no triggers: input '{trigger}' makes them, and it has no source",
            where="inputs",
            fix=f"give '{trigger}' a source",
        )


def check_live(latency: Latency, live: Mapping[str, bool]) -> None:
    """Raise ConfigError if a run that waits for everything has a source that does not wait; ``live`` is by input."""
    if latency == "offline" and any(live.values()):
        raise ConfigError(
            "latency 'offline' waits for every packet, so it works with files only, not with live sources",
            where=f"inputs {sorted(n for n, on in live.items() if on)}",
            fix="use latency 'low' or 'balanced'",
        )
