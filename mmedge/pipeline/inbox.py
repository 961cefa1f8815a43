"""Where packets wait for the runtime: while it is busy, pictures make room for newer ones and stay as arrivals."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

from mmedge.types import Arrival, Frame, Packet, Tensor

# Pictures of a stream that may wait. Their slots are lent: held for a whole slow stage, they would leave none for
# what the camera sees now.
FRAMES = 3
# Tensors of a stream that may wait: half a second at 1 kHz.
TENSORS = 512
# Readers that were held up deliver within milliseconds, once they may.
_QUIET_NS, _ROUND_S, _ROUNDS = 30_000_000, 0.01, 10
INBOX = 1024  # packets that wait in all when no packet may be lost


class Inbox:
    """First in, first out, between the sources' threads and the runtime's.

    Sound and texts are all kept. Of a stream's pictures (and of very many tensors) only the newest are; an older one
    is released, and an ``Arrival`` takes its place in the order: its camera is alive, however long the runtime is busy.

    Args:
        lossless: Keep every picture; a full inbox makes ``put`` wait.
    """

    def __init__(self, *, lossless: bool = False) -> None:
        self._lossless = lossless
        self._packets: list[Packet] = []
        self._places: defaultdict[str, deque[int]] = defaultdict(deque)  # stream -> where its pictures or tensors are
        self._put_ns = 0
        self._change = threading.Condition()
        self._closed = False

    def put(self, packet: Packet) -> bool:
        """Add a packet; return False when the inbox is closed and the packet was not taken."""
        old = None
        with self._change:
            while self._lossless and len(self._packets) >= INBOX and not self._closed:
                self._change.wait()
            if self._closed:
                return False
            if isinstance(packet, (Frame, Tensor)) and not self._lossless:
                places = self._places[packet.stream]
                if len(places) >= (FRAMES if isinstance(packet, Frame) else TENSORS):
                    place = places.popleft()
                    old = self._packets[place]
                    self._packets[place] = Arrival(**old.stamp())
                places.append(len(self._packets))
            self._packets.append(packet)
            self._put_ns = time.monotonic_ns()
            self._change.notify_all()
        release(old)
        return True

    def take_all(self, timeout_s: float | None) -> list[Packet]:
        """Return everything that is there, waiting up to ``timeout_s`` for the first packet."""
        with self._change:
            if not self._packets and not self._closed:
                self._change.wait(timeout_s)
            packets, self._packets = self._packets, []
            self._places.clear()
            self._change.notify_all()
            return packets

    def settle(self) -> None:
        """Give the sources' threads time to deliver what came while a long call held the interpreter, and so them.

        It returns at once when they were not held up, else when nothing more comes, within 100 ms.
        """
        if time.monotonic_ns() - self._put_ns < _QUIET_NS:
            return
        for _ in range(_ROUNDS):
            before_ns = self._put_ns
            time.sleep(_ROUND_S)
            if self._put_ns == before_ns:
                return

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Take no more packets; what is there can still be taken. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()


def release(packet: Packet | None) -> None:
    """Release what an unread packet holds."""
    if isinstance(packet, Frame) and packet.release is not None:
        packet.release()
