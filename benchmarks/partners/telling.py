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
_LEARN = 9  # numbers that are read from pictures; after them the frame's time tells its number...
MOVED = 3  # exit code: the numbers were wrong
_CHECK = 32  # ... which is checked with a picture each second
_SETTLE_NS = 1_500_000_000  # a clock that is estimated from arrivals moves in the beginning


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
        self._answers = self._checked = self._wrong = 0
        self._first_ns = 0
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

    def answered(self, time_ns: int) -> bool:
        """The frame of ``time_ns``, on a steady clock, has been answered, now; return whether ``learn`` wants it."""
        now_ns = time.monotonic_ns()
        self._answers += 1
        self._first_ns = self._first_ns or now_ns
        if self._offset_ns is None:
            return now_ns - self._first_ns > _SETTLE_NS
        self._told.append((self._number(time_ns, self._offset_ns), now_ns))
        return self._answers % _CHECK == 0

    def learn(self, time_ns: int, luma: npt.NDArray[np.uint8]) -> None:
        """Read from a picture, uint8 [rows, columns], which frame the one of ``time_ns`` is."""
        number = read_number(luma)
        if number is None:
            return
        if self._offset_ns is not None:
            self._checked += 1
            self._wrong += self._number(time_ns, self._offset_ns) != number
            return
        self._offsets_ns.append(time_ns - number * PERIOD_NS)
        if len(self._offsets_ns) == _LEARN:
            self._offset_ns = statistics.median(self._offsets_ns)
            print("ready", flush=True)

    @staticmethod
    def _number(time_ns: int, offset_ns: float) -> int:
        return round((time_ns - offset_ns) / PERIOD_NS)

    def tell(self) -> None:
        """Print the frames' numbers and when each was answered; or end the program if the numbers were wrong."""
        if self._wrong > self._checked / 4:
            print(f"{self._wrong} of {self._checked} pictures show another number: their clock moved", file=sys.stderr)
            sys.exit(MOVED)
        print(json.dumps(self._told), flush=True)
