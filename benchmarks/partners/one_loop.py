"""One loop by hand: it decodes a frame, answers it, decodes the next one.

Usage: ``python -m benchmarks.partners.one_loop URI FOLDER [--busy]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.partners.by_hand import Digits, Microphone
from benchmarks.partners.camera import Camera, luma_of
from benchmarks.partners.telling import Told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    digits = Digits(options.folder)
    microphone, told = Microphone(digits.sound.rate_hz), Told(busy=options.busy)
    for time_ns, frame in Camera(options.uri):
        if told.over.is_set():
            break
        luma = luma_of(frame)
        digits(luma, microphone.ring, microphone.written)
        if told.answered(time_ns):
            told.learn(time_ns, luma)
    microphone.close()
    told.tell()


if __name__ == "__main__":
    main()
