"""Where packets wait for the runtime: while it is busy, pictures make room for newer ones and stay as arrivals."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping

from msgspec.structs import replace

from mmedge.ipc.flow import FRAMES, TENSORS, flows
from mmedge.ipc.wake import Wake
from mmedge.types import NS_PER_S, Arrival, Block, EndOfStream, Frame, Packet, Tensor

REST = 4096  # texts, or blocks of sound (40 s in blocks of 10 ms), of a stream that may wait
# A reader that is later than this, and than two of its packets, was held up; it delivers within milliseconds, once it
# may. It is looked at in rounds.
_HELD_NS, _ROUND_NS, _ROUNDS = 30_000_000, 10_000_000, 25
INBOX = 1024  # packets that wait in all when no packet may be lost


class Inbox:
    """First in, first out, between the sources' threads and the runtime's.

    Of a stream's pictures only the newest are kept (and of very many tensors, blocks of sound and texts); an older one
    is released, and an ``Arrival`` takes its place in the order: its camera is alive, however long the runtime is busy.

    Args:
        lossless: Keep every picture; a full inbox makes ``put`` wait.

    Attributes:
        wake: Set when something waits that does not flow, and at the end.
        flow: Set when something waits that ``flows``: whoever has no use for it yet need not be woken by every block.
    """

    def __init__(self, *, lossless: bool = False) -> None:
        self._lossless = lossless
        self._packets: list[Packet] = []
        self._places: defaultdict[str, deque[int]] = defaultdict(deque)  # stream -> where its packets are
        self._put_ns: defaultdict[str, int] = defaultdict(int)  # stream -> when its last packet came
        self._puts: Counter[str] = Counter()
        self.wake, self.flow = Wake(), Wake()
        self._said: set[Wake] = set()  # that are set: once is enough
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
            if not self._lossless and not isinstance(packet, EndOfStream):
                places = self._places[packet.stream]
                if len(places) >= _most(packet):
                    old = self._let_go(places.popleft(), places[0])
                places.append(len(self._packets))
            self._packets.append(packet)
            self._put_ns[packet.stream] = time.monotonic_ns()
            self._puts[packet.stream] += 1
            wake = self.flow if flows(packet) else self.wake
            if wake not in self._said:
                self._said.add(wake)
                wake.set()
        release(old)
        return True

    def _let_go(self, place: int, following: int) -> Packet:
        old, then = self._packets[place], self._packets[following]
        self._packets[place] = Arrival(**old.stamp())
        if isinstance(old, Block) and isinstance(then, Block) and then.epoch == old.epoch:  # it becomes timed silence
            self._packets[following] = replace(then, lost=old.lost + len(old.samples) + then.lost)
        return old

    def take_all(self) -> list[Packet]:
        """Return everything that is there; clear the wakes before, not after it."""
        if not self._packets:
            return []
        with self._change:
            packets, self._packets = self._packets, []
            self._places.clear()
            self._said.clear()
            if self._lossless:
                self._change.notify_all()
            return packets

    def settle(self, steady: Mapping[str, int]) -> None:
        """Give the sources' threads time to deliver what came while a long call held the interpreter, and so them.

        It returns at once when they were not held up, else when each has caught up, within 250 ms.

        Args:
            steady: Streams that were alive when the call began -> from one packet to the next, in ns.
        """
        began_ns = time.monotonic_ns()
        late = {s: step_ns for s, step_ns in steady.items() if began_ns - self._put_ns[s] > _HELD_NS + 2 * step_ns}
        calm: Counter[str] = Counter()  # rounds in which a reader that has delivered gave no more than it usually does
        for _ in range(_ROUNDS):
            if not late:
                return
            before = {stream: self._puts[stream] for stream in late}
            time.sleep(_ROUND_NS / NS_PER_S)
            for stream, puts in before.items():
                usual = self._puts[stream] - puts <= 1 + _ROUND_NS // late[stream]
                calm[stream] = calm[stream] + 1 if usual and self._put_ns[stream] > began_ns else 0
                if calm[stream] == 2:
                    del late[stream]

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Take no more packets; what is there can still be taken. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            self.wake.set()


def _most(packet: Packet) -> int:
    return FRAMES if isinstance(packet, Frame) else TENSORS if isinstance(packet, Tensor) else REST


def release(packet: Packet | None) -> None:
    """Release what an unread packet holds."""
    if isinstance(packet, Frame) and packet.release is not None:
        packet.release()
