"""Push generated data when it is due, from a thread, as a user's own drivers would."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmedge.bench.samples import Samples
from mmedge.bench.schedule import Feed, packets
from mmedge.bundle import AudioInput, Bundle, ImageInput
from mmedge.bundle.manifest import TensorInput
from mmedge.errors import MmedgeError
from mmedge.pipeline import Pipeline
from mmedge.plan import SyncPlan, plan_sync

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
        self,
        pipe: Pipeline,
        bundle: Bundle,
        feeds: tuple[Feed, ...],
        start_ns: int,
        delay_ns: int = 0,
    ) -> None:
        self.error: MmedgeError | None = None
        self._pipe, self._feeds = pipe, feeds
        self._start_ns, self._delay_ns = start_ns, delay_ns
        self._handed_ns = [array("q") for _ in feeds]  # of each packet, by its number
        manifest, live = bundle.manifest, {feed.name: True for feed in feeds}
        self._waits = tuple(_waits(feeds, plan_sync(manifest.inputs, live, manifest.missing, manifest.sync)))
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
                self._handed_ns[index].append(max(time.monotonic_ns(), due_ns + self._delay_ns))
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
        for feed, handed_ns in zip(self._feeds, self._handed_ns, strict=True):
            for number, at_ns in enumerate(handed_ns):
                due_ns = self._start_ns + feed.due_ns(number)
                if from_ns <= due_ns < until_ns:
                    found.add(at_ns - due_ns - self._delay_ns)
        return found

    def complete_ns(self, t_ns: int) -> int:
        """Return when a trigger's own packet was to be handed over, or the last of those that it waits for was.

        Args:
            t_ns: Of the trigger, on CLOCK_MONOTONIC.
        """
        found_ns = t_ns + self._delay_ns
        for index, after_ns in self._waits:
            number = self._feeds[index].first_from(t_ns + after_ns - self._start_ns)
            handed_ns = self._handed_ns[index]
            if number < len(handed_ns):  # else it did not wait so long
                found_ns = max(found_ns, handed_ns[number])
        return found_ns


def _waits(feeds: tuple[Feed, ...], sync: SyncPlan) -> Iterator[tuple[int, int]]:
    """Yield which other feeds a trigger waits for, and from how long after it on the first packet makes one complete.

    As ``native/sync`` has it: sound that reaches to the end of the window, a picture or an array that is the nearest.
    """
    places = {feed.name: index for index, feed in enumerate(feeds)}
    for seat in () if sync.latest else sync.seats:
        if seat.kind == "audio":
            own_ns = seat.ahead_ns
        elif seat.kind == "image" or seat.period_ns is not None:
            own_ns = -math.floor(feeds[places[seat.name]].period_ns / 2)
        else:
            continue  # it comes when it likes
        if not seat.trigger:
            yield places[seat.name], own_ns


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
