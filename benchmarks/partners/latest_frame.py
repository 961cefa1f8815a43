"""Threads by hand: one decodes and keeps the newest frame, PortAudio's keeps the sound, the main one answers.

Usage: ``python -m benchmarks.partners.latest_frame URI FOLDER [--busy] [--switch-s S] [--decode-only]``.
With ``--switch-s`` the interpreter changes threads that often, so that a busy one holds the others up for less.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.partners.camera import Camera, luma_of
from benchmarks.partners.telling import Told


class Newest:
    """A place for one frame: the camera's thread overwrites it, the loop takes it."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._frame: Any = None

    def put(self, frame: Any) -> None:
        with self._change:
            self._frame = frame
            self._change.notify()

    def take(self, timeout_s: float) -> Any:
        """Return the newest frame that was not taken yet; None if none comes in time."""
        with self._change:
            self._change.wait_for(lambda: self._frame is not None, timeout_s)
            frame, self._frame = self._frame, None
            return frame


def decode_only(camera: Camera, told: Told) -> None:
    """What no loop can be faster than: a frame has been decoded."""
    for time_ns, frame in camera:
        if told.over.is_set():
            return
        if told.answered(time_ns):
            told.learn(time_ns, luma_of(frame))


def loop(camera: Camera, told: Told, folder: Path) -> None:
    """Answer the newest frame, always."""
    from benchmarks.partners.by_hand import Digits, Microphone

    digits, newest = Digits(folder), Newest()
    microphone = Microphone(digits.sound.rate_hz)

    def decode() -> None:
        for item in camera:
            newest.put(item)
            if told.over.is_set():
                return

    reader = threading.Thread(target=decode, name="camera", daemon=True)
    reader.start()
    while not told.over.is_set():
        if (item := newest.take(0.5)) is None:
            continue
        time_ns, frame = item
        luma: npt.NDArray[np.uint8] = luma_of(frame)
        digits(luma, microphone.ring, microphone.written)
        if told.answered(time_ns):
            told.learn(time_ns, luma)
    reader.join()
    microphone.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--switch-s", type=float)
    parser.add_argument("--decode-only", action="store_true")
    options = parser.parse_args()
    if options.switch_s:
        sys.setswitchinterval(options.switch_s)
    camera, told = Camera(options.uri), Told(busy=options.busy)
    if options.decode_only:
        decode_only(camera, told)
    else:
        loop(camera, told, options.folder)
    told.tell()


if __name__ == "__main__":
    main()
