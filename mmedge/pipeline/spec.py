"""The run specification: everything a runtime needs, as data that can cross a process border."""

from __future__ import annotations

from typing import Literal

import msgspec

from mmedge.address import Address
from mmedge.privacy import Privacy
from mmedge.types import Backend, Latency, Precision, Video

PUSH = Address("push://")  # of an input that the user's own code feeds
RESULTS = 64  # results that wait to be read: two seconds at 30 a second
FEW = 8  # the same, where each holds its pictures and nothing is lost


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, on what, and how fast.

    Attributes:
        bundle: Path of the bundle.
        manifest_sha256: Hash of its manifest, as it was when all this was checked: another is not run.
        inputs: Input name -> address; inputs fed by ``push`` have the address ``push://``.
        backend: ``auto``, or one of ``mmedge.types.Backend``.
        precision: Use only this precision; None takes the best that passes its self-test.
        latency: ``low`` waits less for late inputs, ``balanced`` follows the bundle, ``offline`` waits
            for everything, drops nothing and plays files as fast as they can be processed.
        speed: How fast files are played with ``low`` and ``balanced``.
        isolation: ``process``: each live device is read in a process of its own, and so the runtime itself is in one;
            ``thread``: everything is in the process that called.
        duration_s: Stop after this many seconds of capture time; None runs until the sources end.
        record: Folder to record the run into; new or empty.
        results: What a slow reader gets: the ``latest`` result, or ``all`` that wait (the oldest are lost when too many
            do).
        record_privacy: What a recording keeps of pictures and sound.
        video: How a recording keeps pictures: bit by bit, or so that they look the same.
        allow: Modules whose functions the bundle may call, and paths of ``mmedge.toml`` files.
        attach: Path of the socket that programs attach to; None without one.
        sharing: Input -> those that share what is pushed to it.
        engines: ``now``: start on the engines that are there, and put in better ones when they are built; ``wait``:
            build first.
        place: Stage -> where its engine runs, ``dla:CORE`` or ``sms:COUNT``.
        spans: Whether each result brings when its stages were fed and ran (``Result.spans``).
    """

    bundle: str
    manifest_sha256: str = ""
    inputs: dict[str, Address]
    backend: Backend = "auto"
    precision: Precision | None = None
    latency: Latency = "balanced"
    speed: float = 1.0
    isolation: Literal["process", "thread"] = "thread"
    duration_s: float | None = None
    record: str | None = None
    record_privacy: Privacy = "picture"
    video: Video = "lossless"
    results: Literal["latest", "all"] = "all"
    allow: tuple[str, ...] = ()
    attach: str | None = None
    sharing: dict[str, tuple[str, ...]] = {}
    engines: Literal["now", "wait"] = "wait"
    spans: bool = False
    place: dict[str, str] = {}
