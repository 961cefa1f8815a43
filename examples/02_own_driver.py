"""Your own camera or sensor driver: push arrays with the time at which they were sensed.

Run: python examples/02_own_driver.py
"""

import time
from pathlib import Path

import numpy as np

import mmedge

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
FRAMES = 25


def main() -> None:
    rng = np.random.default_rng(0)
    inputs = {"image": "push://", "audio": "push://"}
    with mmedge.Pipeline(ASSETS / "digits.mmedge", inputs=inputs) as pipe:
        start_ns = time.monotonic_ns()
        for k in range(1, FRAMES + 1):
            sensed_ns = start_ns + k * 40_000_000
            time.sleep(max(0.0, (sensed_ns - time.monotonic_ns()) / 1e9))
            # 40 ms of sound end at the instant the frame is taken; both are on CLOCK_MONOTONIC.
            pipe.push("audio", rng.normal(0, 0.01, 320).astype(np.float32), sensed_ns)
            pipe.push("image", rng.integers(90, 110, (480, 640), np.uint8), sensed_ns)
        result = [result for result, _ in zip(pipe, range(FRAMES - 2), strict=False)][-1]
        print(f"digit: {result.tasks['digit']}  (nothing is shown and nothing is said)")
        print(f"skew {result.skew_ms} ms, end to end {result.latency_ms['end_to_end']} ms")


if __name__ == "__main__":
    main()
