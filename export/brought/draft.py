"""The recipe of a new project without its tasks, and the command that runs its bundle."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Mask, Missing, Sync, TextInput
from mmedge.errors import ConfigError

from ..recipe import Export, Recipe, RecipeStage
from ..stages import seats_of
from .infer import Network

# A device may feed the inputs of several networks; what follows is for two inputs of one network, and for texts.
_URIS = {
    ImageInput: ("image", "0", "{}"),
    AudioInput: ("audio", "mic://default", "mic://NAME{}"),
    TextInput: ("text", "text://stdin", "text://said{}.txt"),
}


def draft_recipe(folder: Path, networks: list[Network], inputs: Mapping[str, Input]) -> Recipe:
    """Return the recipe without its tasks."""
    images = [name for name, spec in inputs.items() if isinstance(spec, ImageInput)]
    sounds = [name for name, spec in inputs.items() if isinstance(spec, AudioInput)]
    every_ms = min((n.every_ms for n in networks if n.every_ms is not None), default=100.0)
    if not inputs:
        raise ConfigError(
            "the networks have no inputs",
            where=str(networks[0].path),
            fix="give networks with image, audio or text inputs",
        )
    trigger = [*images, *sounds, *inputs][0]
    missing = {name: Missing(policy="hold", max_age_ms=300) for name in images}
    missing |= {name: Missing(policy="zero") for name in inputs if name not in images}
    masks = [tuple(name for name in inputs if name in present) for present in _masks(networks, inputs)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "project"
    return Recipe(
        name=name[:64],
        licence=_licence(networks),
        inputs=dict(inputs),
        stages={
            n.name: RecipeStage(
                inputs=n.sources, onnx=f"networks/{n.name}.onnx", every_ms=n.every_ms if n.stream else None
            )
            for n in networks
        },
        tasks={},
        export=Export(precisions=("fp32",)),
        missing=missing,
        validated_masks=tuple(Mask(present=mask, metric="not measured", value=0.0) for mask in sorted(masks)),
        sync=Sync(trigger=trigger, every_ms=every_ms),
        folder=folder.resolve(),
        sha256="",
    )


def _masks(networks: list[Network], inputs: Mapping[str, Input]) -> set[frozenset[str]]:
    """Return which inputs may come without the others: a network has all of its inputs or none.

    As in ``stages.masks``, each network alone and all but one; and since a device may feed many of them, the same for
    what sees, what hears, and what a device can feed at all.
    """
    seats = [frozenset(seats_of(network.sources, inputs).values()) for network in networks]
    parts: list[set[int]] = [{index} for index in range(len(seats))]
    for kinds in (*((kind,) for kind in _URIS), tuple(_URIS)):
        parts.append({index for index, own in enumerate(seats) if all(isinstance(inputs[s], kinds) for s in own)})
        parts.append({index for index, own in enumerate(seats) if any(isinstance(inputs[s], kinds) for s in own)})
    everything = set(range(len(seats)))
    unions = {frozenset[str]().union(*(seats[i] for i in kept)) for part in parts for kept in (part, everything - part)}
    return {union for union in unions if 0 < len(union) < len(inputs)}


def _licence(networks: list[Network]) -> str:
    found = [entry.value for n in networks for entry in n.model.metadata_props if entry.key == "license"]
    return " AND ".join(dict.fromkeys(found)) or "unknown"


def run_sources(recipe: Recipe, networks: list[Network]) -> dict[str, str]:
    """Return seat -> source of what runs the bundle live.

    It is one device of a kind, two where one network has two inputs of that kind.
    """
    inputs = recipe.inputs
    live = {name: _URIS[type(spec)] for name, spec in inputs.items() if type(spec) in _URIS}
    beside = [set(seats_of(network.sources, inputs).values()) for network in networks]
    devices: dict[str, str] = {}
    for name, (kind, first, other) in live.items():
        # A text source feeds one input.
        taken = {uri for n, uri in devices.items() if kind == "text" or any({name, n} <= seats for seats in beside)}
        uris = (other.format(number) if number else first for number in itertools.count())
        devices[name] = next(uri for uri in uris if uri not in taken)
    sources: dict[str, str] = {}
    for network in networks:
        seats = seats_of(network.sources, inputs).values()
        if all(seat in live for seat in seats):
            for seat in seats:
                shares = getattr(inputs[seat], "shares", None)
                if shares is not None and devices[seat] == devices[shares]:
                    seat = shares
                sources[seat] = devices[seat]
    return sources


def run_command(bundle: Path, recipe: Recipe, networks: list[Network]) -> str:
    """Return what runs the bundle live."""
    inputs = recipe.inputs
    kinds = {name: _URIS[type(spec)][0] for name, spec in inputs.items() if type(spec) in _URIS}
    own = [kind for name, kind in kinds.items() if getattr(inputs[name], "shares", None) is None]
    sources = run_sources(recipe, networks)
    options = [
        f"--{kinds[seat]} {uri}" if own.count(kinds[seat]) == 1 else f"--input {seat}={uri}"
        for seat, uri in sources.items()
    ]
    if not options:
        pushed = ", ".join(f"'{name}': 'push://'" for name in recipe.inputs)
        return f"python: mmedge.Pipeline({str(bundle)!r}, inputs={{{pushed}}}), then pipe.push(name, array, time_ns)"
    return f"mmedge run {quote(str(bundle))} {' '.join(dict.fromkeys(options))}"
