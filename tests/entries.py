"""What child processes of the tests run."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from mmedge.errors import DeviceError
from mmedge.ipc.channel import PacketReader, PacketWriter
from mmedge.ipc.wake import Wake
from mmedge.ipc.worker import Link
from mmedge.types import AnyArray


def wait(link: Link) -> None:
    """Log, then wait to be told to stop."""
    logging.getLogger("mmedge.tests").warning("got %d bytes", len(link.payload))
    link.ready()
    link.stopping.wait()


def refuse(link: Link) -> None:
    raise DeviceError("no such thing", where="here", fix="look there")


def talk_at_length(link: Link) -> None:
    raise DeviceError("x" * 200_000, where="here")


def leave_a_program_behind(link: Link) -> None:
    """Start a program that outlives this process, then crash."""
    os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
    link.ready()
    link.stopping.wait()


def bug(link: Link) -> None:
    raise ZeroDivisionError("one over nothing")


def bug_1(link: Link) -> None:
    deeper(1)


def bug_2(link: Link) -> None:
    deeper(2)


def deeper(times: int) -> None:
    raise TypeError(f"{times} is no int")


def long_bug(link: Link) -> None:
    raise ValueError("x" * 200_000)


def crash(link: Link) -> None:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.abort()


def hold_the_interpreter(link: Link) -> None:
    """Sleep in C with the interpreter's lock, as a driver may."""
    link.ready()
    ctypes.PyDLL(None).sleep(1000)


def echo(link: Link) -> None:
    """Send every packet back."""
    ours, theirs = map(Wake, link.fds)
    reader, writer = PacketReader("echo"), PacketWriter(link.control, theirs)
    link.on_ring(reader.add)
    link.ready()
    while not link.stopping.is_set():
        ours.wait(0.05)
        for packet in reader.take():
            writer.put(packet)
            release = getattr(packet, "release", None)
            if release is not None:
                release()


def shaken(image: AnyArray, imu: AnyArray) -> AnyArray:
    """Tell whether the sensor says what the picture shows: both carry the same number."""
    same = abs(image.mean() * 255 / 2 - imu.mean()) < 0.01
    return np.full((1, 1), 5.0 if same else -5.0, np.float32)


def wordy(image: AnyArray, imu: AnyArray) -> AnyArray:
    raise ValueError("x" * 200_000)


def sluggish(image: AnyArray, audio: AnyArray) -> AnyArray:
    """Take as long as the environment says."""
    time.sleep(float(os.environ.get("MMEDGE_TEST_STAGE_MS", "0")) / 1e3)
    return np.zeros((1, 1), np.float32)


def holding(image: AnyArray, audio: AnyArray) -> AnyArray:
    """Hold the interpreter for as long as the environment says, as an extension does that forgot to release it."""
    ctypes.PyDLL(None).usleep(round(float(os.environ["MMEDGE_TEST_STAGE_MS"]) * 1e3))
    return np.zeros((1, 1), np.float32)


def never_answers(image: AnyArray, imu: AnyArray) -> dict[str, AnyArray]:
    """Be stuck: a stage that waits for ever, without holding the interpreter."""
    time.sleep(3600)
    return {"same": np.zeros((1, 1), np.float32)}


def tell(link: Link) -> None:
    """Say what this process has of its environment, its standard input, and its threads."""
    stdin = str(Path("/proc/self/fd/0").readlink())
    told = {"environment": dict(os.environ), "stdin": stdin, "random": random.random()}
    link.report(json.dumps(told).encode())
    link.stopping.wait()
