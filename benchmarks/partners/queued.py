"""How a stage that is too slow is fed by hand: through a queue, or through a place that holds the newest frame."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress

PERIOD_S = 1 / 30


def ages_ms(stage_s: float, duration_s: float, *, newest: bool) -> list[float]:
    """Return the ages of the answers of a 30 fps camera and a stage that takes ``stage_s``.

    Args:
        stage_s: How long the stage takes.
        duration_s: How long to run.
        newest: A place for one frame, which the camera's thread overwrites; otherwise a queue, as in one loop over a
            capture that buffers.
    """
    frames: queue.Queue[float] = queue.Queue(1 if newest else 0)
    begin = time.monotonic()

    def camera() -> None:
        for k in range(int(duration_s / PERIOD_S)):
            due = begin + k * PERIOD_S
            time.sleep(max(0.0, due - time.monotonic()))
            if newest and frames.full():
                with suppress(queue.Empty):  # the stage has just taken it
                    frames.get_nowait()
            frames.put(due)

    threading.Thread(target=camera, daemon=True).start()
    ages = []
    while time.monotonic() - begin < duration_s:
        try:
            due = frames.get(timeout=1)
        except queue.Empty:
            break
        time.sleep(stage_s)
        ages.append((time.monotonic() - due) * 1e3)
    return ages
