"""The border between two processes, in one: a writer of packets and their reader."""

from __future__ import annotations

import os
from typing import Any

from mmedge.ipc.channel import PacketReader, PacketWriter
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.sound import SoundRecord
from mmedge.ipc.wake import Wake
from mmedge.types import Packet

STAMP = {"stream": "s", "seq": 3, "capture_ns": 10, "arrive_ns": 11, "epoch": 2, "uncertainty_ns": 5, "quality": "C"}


def sound(**other: Any) -> SoundRecord:
    stamp = {name: STAMP[name] for name in ("quality", "seq", "capture_ns", "arrive_ns", "epoch", "uncertainty_ns")}
    return SoundRecord(**{**stamp, "end": 3001, "n": 1, "lost": 0, **other})


class Border:
    """A writer and a reader as in two processes, in one."""

    def __init__(self) -> None:
        self.here, self.there = Control.pair()
        self.wake, self.flow = Wake(), Wake()
        self.writer = PacketWriter(self.here, self.wake, self.flow)
        self.reader = PacketReader("test", self.wake, self.flow)

    def __enter__(self) -> Border:
        return self

    def __exit__(self, *_: object) -> None:
        self.here.close()
        self.there.close()

    def take(self, *, newest: bool = False) -> list[Packet]:
        self.read_announcements()
        return self.reader.take(newest=newest)

    def read_announcements(self) -> None:
        while (received := self.there.receive(0)) is not None:
            message, fds = received
            assert isinstance(message, Ring)
            self.reader.add(message, fds[0])
            for fd in fds:
                os.close(fd)
