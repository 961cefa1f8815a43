"""What every live loop says, ours and those by hand: when it is ready, and at its end which frame it answered when.

Kept small, because its memory counts: numpy, and nothing else that is large. ``benchmarks.stamped`` sends the frames.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time

import numpy as np
import numpy.typing as npt

FPS = 30
PERIOD_NS = 1e9 / FPS
BITS, ROWS, COLUMN = 20, 16, 32  # of the number: 16 bits, 4 of its checksum; each is a block of the lowest rows
_LEARN = 9  # numbers that are read from pictures; after them the frame's time tells its number


def checksum(number: int) -> int:
    """Return the sum of the four hexadecimal digits, modulo 16."""
    return sum(number >> shift & 15 for shift in (0, 4, 8, 12)) & 15


def read_number(luma: npt.NDArray[np.uint8]) -> int | None:
    """Return the number that is drawn into a picture, uint8 [rows, columns]; None where it cannot be read."""
    blocks = luma[-ROWS:, : BITS * COLUMN].reshape(ROWS, BITS, COLUMN).mean((0, 2)) > 128
    value = int(blocks @ (1 << np.arange(BITS)))
    number = value & 0xFFFF
    return number if value >> 16 == checksum(number) else None


class Told:
    """Frames that were answered.

    Args:
        busy: Run a thread of Python beside the loop that never waits, as a user's program may.

    Attributes:
        over: Set when whoever started this program wants it to end.
    """

    def __init__(self, *, busy: bool) -> None:
        self.over = threading.Event()
        self._offsets_ns: list[float] = []
        self._offset_ns: float | None = None
        self._told: list[tuple[int, int]] = []
        self._ready = False
        threading.Thread(target=self._listen, name="stdin", daemon=True).start()
        if busy:
            threading.Thread(target=self._work, name="busy", daemon=True).start()

    def _listen(self) -> None:
        sys.stdin.read()
        self.over.set()

    def _work(self) -> None:
        count = 0
        while not self.over.is_set():
            for _ in range(1000):
                count += 1

    @property
    def learning(self) -> bool:
        """Whether ``learn`` still wants pictures."""
        return self._offset_ns is None

    def learn(self, time_ns: int, luma: npt.NDArray[np.uint8]) -> None:
        """Read which frame the one of ``time_ns``, on the source's or any other steady clock, is."""
        number = read_number(luma)
        if number is None:
            return
        self._offsets_ns.append(time_ns - number * PERIOD_NS)
        if len(self._offsets_ns) == _LEARN:
            self._offset_ns = statistics.median(self._offsets_ns)

    def answered(self, time_ns: int) -> None:
        """The frame of ``time_ns`` has been answered, now, in the user's hands."""
        now_ns = time.monotonic_ns()
        if self._offset_ns is None:
            return
        if not self._ready:
            self._ready = True
            print("ready", flush=True)
        self._told.append((round((time_ns - self._offset_ns) / PERIOD_NS), now_ns))

    def tell(self) -> None:
        """Print the frames' numbers and when each was answered."""
        print(json.dumps(self._told), flush=True)
