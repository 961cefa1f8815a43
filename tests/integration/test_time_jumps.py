"""A network sender whose time begins anew without a pause, as a camera that is restarted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import ImageInput
from mmedge.capture import open_sources
from mmedge.types import EndOfStream, Frame, Packet

pytestmark = pytest.mark.parallel

IMAGE = ImageInput(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.devices
def test_a_sender_that_starts_again_begins_a_new_epoch(camera: Any, write_clip: Any) -> None:
    clip = write_clip(
        "clip.nut",
        times_s=[k / 25 for k in range(75)],
        picture=lambda s: round(40 + 60 * s),
        size=(320, 240),
    )
    packets: list[Packet] = []
    change = threading.Condition()

    def emit(packet: Packet) -> None:
        with change:
            packets.append(packet)
            if isinstance(packet, Frame) and packet.release is not None:
                packet.release()
            change.notify_all()

    (source,) = open_sources({"image": IMAGE}, {"image": camera.uri})
    source.start(emit)
    try:
        camera.send(clip).wait(60)
        camera.send(clip).wait(60)  # at once: the receiver notices no silence
        with change:
            assert change.wait_for(lambda: len([p for p in packets if isinstance(p, Frame)]) > 110, 60), source.health()
    finally:
        source.stop()
    frames = [p for p in packets if isinstance(p, Frame)]
    assert not any(isinstance(p, EndOfStream) for p in packets)
    assert {f.epoch for f in frames} == {0, 1}
    assert source.health().counters["clock_jumps"] == 1
    assert "reconnects" not in source.health().counters
    for epoch in (0, 1):
        times = [f.capture_ns for f in frames if f.epoch == epoch]
        assert times == sorted(times)
        ages_ms = [(f.arrive_ns - f.capture_ns) / 1e6 for f in frames if f.epoch == epoch]
        assert -50 < np.median(ages_ms) < 300
    assert source.health().clocks["image"].quality == "B"
