"""The deployable artefact: manifest types, verified reading, atomic writing."""

from mmedge.bundle.archive import Archive, write_archive
from mmedge.bundle.bundle import Bundle, load
from mmedge.bundle.decoding import decode_manifest
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Manifest, Variant
from mmedge.bundle.order import stage_order, unused_stages

__all__ = [
    "Archive",
    "AudioInput",
    "Bundle",
    "ImageInput",
    "Input",
    "Manifest",
    "Variant",
    "decode_manifest",
    "load",
    "stage_order",
    "unused_stages",
    "write_archive",
]
