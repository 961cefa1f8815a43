"""Packets in, snapshots out: the synchroniser."""

from mmedge.sync.ring_reader import RingReader
from mmedge.sync.synchronizer import Synchronizer

__all__ = ["RingReader", "Synchronizer"]
