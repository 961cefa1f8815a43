"""Packets in, snapshots out: the synchroniser."""

from mmedge.sync.synchronizer import Synchronizer

__all__ = ["Synchronizer"]
