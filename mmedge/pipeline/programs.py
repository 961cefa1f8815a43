"""Programs that attach to a run: a server for them, and what they push."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from mmedge.bundle.manifest import Input
from mmedge.capture.picture import slots_for
from mmedge.clients.server import Server
from mmedge.errors import ConfigError
from mmedge.ipc.frames import FramePool
from mmedge.pipeline.pushed import Fed, Pushes
from mmedge.types import Frame, Packet


def serve_programs(path: str, inputs: Mapping[str, Input], runtime: Fed, held_ns: int) -> Server:
    """Let programs attach to a runtime that holds pictures for ``held_ns``.

    Raises:
        ConfigError: If it cannot listen at ``path``.
    """
    return Server(path, Pushes(inputs, SharedPushes(runtime, slots_for(held_ns))))


class SharedPushes:
    """Stands before a runtime: what the pipeline's reader and other programs may look at lies in memory they share.

    Args:
        runtime: Takes the packets.
        slots: How many pictures of an input may be in use at once.
    """

    def __init__(self, runtime: Fed, slots: int) -> None:
        self.spec, self._runtime, self._slots = runtime.spec, runtime, slots
        self._pools: dict[str, FramePool] = {}

    def push(self, packet: Packet) -> bool:
        """Feed a packet; False when the run has ended.

        Raises:
            ConfigError: If all slots are in use: the run is behind.
        """
        return self._runtime.push(self._moved(packet) if isinstance(packet, Frame) else packet)

    def _moved(self, frame: Frame) -> Frame:
        pool = self._pools.get(frame.stream)
        if pool is None or pool.shape != frame.data.shape:
            pool = self._pools[frame.stream] = FramePool(frame.data.shape, slots=self._slots)
        lent = pool.acquire()
        if lent is None:
            where = f"input '{frame.stream}'"
            raise ConfigError("the pipeline is behind", where=where, fix="push later, or less often")
        slot, loan = lent
        slot[...] = frame.data
        return replace(frame, data=slot, release=loan)
