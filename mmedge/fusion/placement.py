"""Where the engines of a bundle's stages run, as a run asks for it: on a DLA, or on multiprocessors of their own."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle.manifest import Manifest
from mmedge.engine.reach import EngineOptions
from mmedge.errors import ConfigError

_FORMS = '"dla:CORE" for a DLA, "sms:COUNT" for multiprocessors of the GPU that no other stage uses'


def placements(manifest: Manifest, place: Mapping[str, str]) -> dict[str, EngineOptions]:
    """Return what the engines of a bundle's networks are to be, of those for which anything was asked.

    Where one stage has multiprocessors of its own, the others share the rest.

    Args:
        manifest: Of the bundle.
        place: Stage -> ``dla:CORE`` or ``sms:COUNT``.

    Raises:
        ConfigError: If a stage is not a network of the bundle, a place has another form, or two stages ask for
            different shares.

    Example:
        >>> placements(bundle.manifest, {"image_encoder": "dla:0"})["image_encoder"].dla_core  # doctest: +SKIP
        0
    """
    networks = [name for name, spec in manifest.stages.items() if spec.callable is None]
    found: dict[str, EngineOptions] = {}
    for stage, text in place.items():
        if stage not in networks:
            raise ConfigError(
                f"'{stage}' is not a network of this bundle", where="place", fix=f"it has {', '.join(networks)}"
            )
        found[stage] = _parse(stage, text)
    shares = {options.sms for options in found.values() if options.sms is not None}
    if len(shares) > 1:
        raise ConfigError(
            f"a GPU is split once, not into {' and '.join(map(str, sorted(shares)))} multiprocessors",
            where="place",
            fix="give the stages that share a part the same sms:COUNT",
        )
    for sms in shares:
        rest = EngineOptions(sms=sms, reserved=False)
        found = {name: found.get(name, rest) for name in networks}
    return found


def _parse(stage: str, text: str) -> EngineOptions:
    kind, _, number = text.partition(":")
    if kind in ("dla", "sms") and number.isascii() and number.isdigit() and len(number) <= 4:
        if kind == "dla":
            return EngineOptions(dla_core=int(number))
        if int(number) > 0:
            return EngineOptions(sms=int(number))
    raise ConfigError(f"'{text[:80]}' is not a place for stage '{stage}'", where="place", fix=f"use {_FORMS}")
