"""Copies sound out of the rings that the synchroniser fills."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge._native import core
from mmedge.errors import ConfigError
from mmedge.types import FloatArray, Snapshot


class RingReader:
    """What ``Synchronizer.read_audio`` is.

    Args:
        rings: Audio input -> its ring, for whoever needs less than a whole window of it.
    """

    def __init__(self, rings: Mapping[str, core.SampleRing]) -> None:
        self.rings = rings

    def __call__(self, name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None, /) -> int:
        """Copy the window of ``snapshot`` into ``out``, or the one before index ``end``; return how many are real.

        ``out`` is float32 [n], -1..1, at the input's sample rate.
        """
        ring = self.rings.get(name)
        if ring is None:
            raise ConfigError("this input is not an audio input", where=f"input '{name}'", fix="name an audio input")
        return ring.read(snapshot.audio_end[name] if end is None else end, out)
