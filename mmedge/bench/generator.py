"""Push generated data when it is due, from a thread, as a user's own drivers would."""

from __future__ import annotations

import ctypes
import threading
import time
from array import array
from typing import Any

import numpy as np

from mmedge.bench.samples import Samples
from mmedge.bench.schedule import Feed, packets
from mmedge.bundle import AudioInput, Bundle, ImageInput
from mmedge.bundle.manifest import TensorInput
from mmedge.errors import MmedgeError
from mmedge.pipeline import Pipeline

# More pictures than fit a cache's favourite: a single hot picture flatters the result.
RING = 16
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_LETTERS = list("abcdefghijklmnopqrstuvwxyz 0123456789")


class Generator:
    """Feeds every input of a pipeline by an open-loop schedule: it never waits for the pipeline.

    What the thread could not push in time it pushes as soon as it can; the capture time is when it was due, so that a
    delay shows as latency.

    Args:
        pipe: Started, all inputs ``push://``.
        bundle: Its bundle.
        feeds: What is due when.
        start_ns: Where the schedule begins, on CLOCK_MONOTONIC.
        delay_ns: A packet is handed over this long after it was captured, as a camera's are, which needs time to
            expose, read out and send a picture.

    Attributes:
        error: What ended it before it was stopped.
    """

    def __init__(
        self, pipe: Pipeline, bundle: Bundle, feeds: tuple[Feed, ...], start_ns: int, delay_ns: int = 0
    ) -> None:
        self.error: MmedgeError | None = None
        self._pipe, self._feeds = pipe, feeds
        self._start_ns, self._delay_ns = start_ns, delay_ns
        self._due_ns, self._late_ns = array("q"), array("q")
        rng = np.random.default_rng(0)
        self._rings = [_ring(rng, bundle, feed) for feed in feeds]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mmedge-bench", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _wake_in_time()
        try:
            for due_ns, index, number in packets(self._feeds, self._start_ns):
                early_ns = due_ns + self._delay_ns - time.monotonic_ns()
                if (early_ns > 0 and self._stop.wait(early_ns / 1e9)) or self._stop.is_set():
                    return
                self._due_ns.append(due_ns)
                self._late_ns.append(max(0, time.monotonic_ns() - due_ns - self._delay_ns))
                name, ring = self._feeds[index].name, self._rings[index]
                value = ring[number % len(ring)]
                if isinstance(value, str):
                    self._pipe.text(value, name, capture_ns=due_ns)
                else:
                    self._pipe.push(name, value, due_ns)
        except MmedgeError as error:
            self.error = error

    def stop(self) -> None:
        """Stop pushing; idempotent."""
        self._stop.set()
        self._thread.join()

    def lateness(self, from_ns: int, until_ns: int) -> Samples:
        """Return how late packets were pushed that were due between two times; for when it has stopped."""
        found = Samples()
        for due_ns, late_ns in zip(self._due_ns, self._late_ns, strict=False):
            if from_ns <= due_ns < until_ns:
                found.add(late_ns)
        return found


def _wake_in_time() -> None:
    """Let this thread's sleeps end when they are to: the kernel may lump wake-ups within 50 us together otherwise.

    What it did not get counts as lateness, and is reported.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1))


def _ring(rng: np.random.Generator, bundle: Bundle, feed: Feed) -> list[Any]:
    """Return what the packets of a feed carry in turn: seeded noise, or texts of 24 letters."""
    spec = bundle.inputs[feed.name]
    if isinstance(spec, ImageInput):
        shape = spec.frame if spec.channels == 1 else (*spec.frame, 3)
        return [rng.integers(0, 256, shape, np.uint8) for _ in range(RING)]
    if isinstance(spec, AudioInput):
        return [rng.normal(0, 0.1, feed.samples).astype(np.float32) for _ in range(RING)]
    if isinstance(spec, TensorInput):
        return [rng.normal(0, 1, spec.shape).astype(spec.dtype)]
    return ["".join(letters) for letters in rng.choice(_LETTERS, (RING, 24))]
