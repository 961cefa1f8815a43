"""A network camera whose frames say which they are, and when each was drawn: for latencies from the source on.

``python -m benchmarks.stamped CLIP URI TIMES`` draws the clip's pictures, 30 a second, with their numbers in the lowest
rows, and writes into the file TIMES, int64 ns on CLOCK_MONOTONIC, when it drew each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loopback import Sender
from benchmarks.partners.telling import BITS, COLUMN, FPS, PERIOD_NS, ROWS, checksum

WIDTH, HEIGHT = 640, 480
MOST = 1 << 16  # frames: 36 minutes
PICTURES = 60


def draw_number(luma: npt.NDArray[np.uint8], number: int) -> None:
    """Draw a number of 16 bits into a picture, uint8 [rows, columns], as ``telling.read_number`` reads it."""
    value = number | checksum(number) << 16
    bits = value >> np.arange(BITS) & 1
    luma[-ROWS:, : BITS * COLUMN] = np.repeat(np.where(bits, 235, 16).astype(np.uint8), COLUMN)


class StampedSender(Sender):
    """Sends a clip's pictures, stamped, from a process of its own.

    Args:
        folder: For the file of the times.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._times = folder / "drawn.i64"

    def begin(self, clip: Path) -> None:
        """Start to send, without end; returns at once."""
        np.zeros(MOST, np.int64).tofile(self._times)
        command = [sys.executable, "-m", "benchmarks.stamped", str(clip), self.uri, str(self._times)]
        self._processes.append(subprocess.Popen(command, cwd=Path(__file__).parents[1]))

    def drawn_ns(self) -> npt.NDArray[np.int64]:
        """Return when each frame was drawn, int64 [frames]; 0 of those that are still to come."""
        return np.fromfile(self._times, np.int64)


def _pictures(clip: Path) -> list[npt.NDArray[np.uint8]]:
    """Return the first pictures of a clip, uint8 [720, 640] in yuv420p each."""
    import av

    with av.open(str(clip)) as container:
        frames = (frame for frame, _ in zip(container.decode(video=0), range(PICTURES), strict=False))
        return [frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray() for frame in frames]


def _encoder(uri: str) -> subprocess.Popen[bytes]:
    """Start ffmpeg as ``Sender`` does, fed with raw pictures."""
    raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-")
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-threads", "1")
    send = ("-f", "mpegts", f"{uri}?pkt_size=1316")
    command = ["ffmpeg", "-hide_banner", "-loglevel", "fatal", *raw, *encode, *send]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def main(clip: Path, uri: str, times: Path) -> None:
    pictures = _pictures(clip)
    drawn: Any = np.memmap(times, np.int64, "r+")
    encoder = _encoder(uri)
    assert encoder.stdin is not None
    begin_ns = time.monotonic_ns()
    try:
        for number in range(MOST):
            picture = pictures[number % len(pictures)]
            time.sleep(max(0.0, (begin_ns + number * PERIOD_NS - time.monotonic_ns()) / 1e9))
            draw_number(picture[:HEIGHT], number)
            drawn[number] = time.monotonic_ns()
            encoder.stdin.write(picture.data)
            encoder.stdin.flush()
    finally:
        encoder.kill()
        encoder.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
