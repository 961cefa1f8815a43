"""Record how late a microphone's callbacks come: the noise that benchmarks/sync.py replays.

Usage: python scripts/record_delays.py DEVICE SECONDS OUT.npz
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import sounddevice

RATE_HZ, BLOCK = 48_000, 480


def main(device: str, seconds: float, out: Path) -> None:
    """Record, take the line under the delays away, and write what is left."""
    total = round(seconds * RATE_HZ / BLOCK)
    entries = np.empty(total, np.int64)
    count, done = 0, threading.Event()

    def callback(data: object, frames: int, times: object, status: object) -> None:
        nonlocal count
        if count < total:
            entries[count] = time.monotonic_ns()
            count += 1
        else:
            done.set()

    options = {"samplerate": RATE_HZ, "channels": 1, "dtype": "float32", "blocksize": BLOCK, "latency": "low"}
    with sounddevice.RawInputStream(device=device, callback=callback, **options):
        done.wait(2 * seconds)
    late = entries[:count] - entries[0] - np.arange(count) * (BLOCK * 1_000_000_000 // RATE_HZ)
    # The server's own rate is taken out: the line under all points that rises most like them.
    k = np.arange(count)
    lows = np.array([part[np.argmin(late[part])] for part in np.array_split(k, max(2, count // 500))])
    slope, start = np.polyfit(lows, late[lows], 1)
    late = late - (slope * k + start)
    late -= late.min()
    np.savez_compressed(out, delay_us=np.round(late / 1000).astype(np.int32), block=BLOCK, rate_hz=RATE_HZ)
    print(f"{count} callbacks; p1 p50 p90 p99 max ms: {np.percentile(late / 1e6, (1, 50, 90, 99, 100)).round(2)}")
    print(f"rate {slope / 10:.2f} ppm; {out.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
