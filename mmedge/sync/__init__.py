"""Packets in, snapshots out: the synchroniser."""

from mmedge.sync.bounds import hold_ns
from mmedge.sync.presets import apply_preset
from mmedge.sync.synchronizer import Synchronizer

__all__ = ["Synchronizer", "apply_preset", "hold_ns"]
