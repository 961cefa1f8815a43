"""Processes by hand: one decodes into shared memory, one listens and answers, the user's takes the answers.

Usage: ``python -m benchmarks.partners.shared_memory URI FOLDER [--busy]``.

The children are forked before anything large is loaded or a thread is started; the memory is an anonymous mapping that
they inherit, which needs no process to look after it. Pipes say what is where; nobody spins.
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.partners.telling import Told

SLOTS, HEIGHT, WIDTH = 8, 480, 640
Slots = npt.NDArray[np.uint8]  # [slots, rows, columns]


def capture(uri: str, slots: Slots, frames: Connection) -> None:
    """Decode; say the slot and the time of each frame. A slot is written again after eight frames."""
    from benchmarks.partners.camera import Camera, luma_of

    for number, (time_ns, frame) in enumerate(Camera(uri)):
        np.copyto(slots[number % SLOTS], luma_of(frame))
        frames.send((number % SLOTS, time_ns))


def answer(folder: Path, slots: Slots, frames: Connection, answers: Connection) -> None:
    """Answer the newest frame, always."""
    from benchmarks.partners.by_hand import Digits, Microphone

    digits = Digits(folder)
    microphone = Microphone(digits.sound.rate_hz)
    while True:
        slot, time_ns = frames.recv()
        while frames.poll():
            slot, time_ns = frames.recv()
        answers.send((slot, time_ns, digits(slots[slot], microphone.ring, microphone.written)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    fork = multiprocessing.get_context("fork")
    memory = mmap.mmap(-1, SLOTS * HEIGHT * WIDTH)
    slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, HEIGHT, WIDTH)
    frames_in, frames_out = fork.Pipe(duplex=False)
    answers_in, answers_out = fork.Pipe(duplex=False)
    children = [
        fork.Process(target=capture, args=(options.uri, slots, frames_out), name="camera", daemon=True),
        fork.Process(target=answer, args=(options.folder, slots, frames_in, answers_out), name="loop", daemon=True),
    ]
    for child in children:
        child.start()
    told = Told(busy=options.busy)
    while not told.over.is_set():
        if not answers_in.poll(0.5):
            continue
        slot, time_ns, _ = answers_in.recv()
        if told.answered(time_ns):
            told.learn(time_ns, slots[slot])
    for child in children:
        child.terminate()
        child.join()
    told.tell()


if __name__ == "__main__":
    main()
