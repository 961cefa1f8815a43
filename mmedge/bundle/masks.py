"""Which combinations of present inputs a bundle may run with."""

from __future__ import annotations

from mmedge.bundle.manifest import Manifest


def validated_masks(manifest: Manifest) -> set[frozenset[str]]:
    """Return the presence masks the exporter measured; all inputs together are always one of them."""
    return {frozenset(mask.present) for mask in manifest.validated_masks} | {frozenset(manifest.inputs)}
