"""Which stages of a running bundle another one has, too: they go on as they are, with all that they know."""

from __future__ import annotations

from mmedge.bundle import Bundle, stage_order
from mmedge.bundle.manifest import TextInput
from mmedge.bundle.onnx_file import weights_member
from mmedge.bundle.source import Seat


def same_stages(old: Bundle, new: Bundle) -> frozenset[str]:
    """Return the stages that are the same in both, with everything that feeds them.

    Args:
        old: What runs; its inputs are named as those of ``new``, in the same order.
        new: What is to run.

    Returns:
        Names of stages with the same entry, networks (by hash), seats and tokenizers, behind stages that are the same.
    """
    found: set[str] = set()
    for name in stage_order(new.manifest.stages):
        spec = new.manifest.stages[name]
        seats = {source.name for source in spec.sources.values() if isinstance(source, Seat)}
        if (
            old.manifest.stages.get(name) == spec
            and {link.stage for link in spec.links.values()} <= found
            and all(_seat(old, seat) == _seat(new, seat) for seat in seats)
            and _networks(old, name) == _networks(new, name)
        ):
            found.add(name)
    return frozenset(found)


def _seat(bundle: Bundle, name: str) -> tuple[object, str | None]:
    spec = bundle.inputs[name]
    return spec, _hash(bundle, spec.tokenizer) if isinstance(spec, TextInput) else None


def _networks(bundle: Bundle, stage: str) -> list[tuple[object, ...]]:
    return [
        (variant, *(_hash(bundle, member) for member in (variant.file, weights_member(variant.file), variant.golden)))
        for variant in bundle.manifest.variants
        if variant.stage == stage
    ]


def _hash(bundle: Bundle, member: str | None) -> str | None:
    entry = bundle.manifest.files.get(member) if member is not None else None
    return None if entry is None else entry.sha256
