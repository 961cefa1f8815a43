"""Packets and synchronisers for tests of the synchroniser."""

from __future__ import annotations

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Sync, TensorInput
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, Frame, Snapshot, Tensor, Text

MS = 1_000_000
RATE = 8000
INPUTS = {
    "image": ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(8, 8)),
    "audio": AudioInput(sample_rate_hz=RATE, window_ms=100),
}
SPEC = Sync(trigger="image", deadline_ms=50)


def frame(t_ms: float, seq: int = 0, arrive_ms: float | None = None, **more: object) -> Frame:
    arrive = round((t_ms if arrive_ms is None else arrive_ms) * MS)
    data = np.zeros((8, 8), np.uint8)
    stamp = {"stream": "image", "seq": seq, "capture_ns": round(t_ms * MS), "arrive_ns": arrive}
    return Frame(**{**stamp, "data": data, "format": "gray8", "width": 8, "height": 8, **more})


def block(end_ms: float, samples: np.ndarray, arrive_ms: float | None = None, **more: object) -> Block:
    arrive = round((end_ms if arrive_ms is None else arrive_ms) * MS)
    stamp = {"stream": "audio", "seq": 0, "capture_ns": round(end_ms * MS), "arrive_ns": arrive}
    return Block(**{**stamp, "samples": samples.astype(np.float32), **more})


def make(spec: Sync = SPEC, missing: dict | None = None, lossless: bool = False, live: bool = True) -> Synchronizer:
    return Synchronizer(
        plan_sync(INPUTS, {"image": live, "audio": live}, missing or {}, spec, lossless=lossless), started_ns=0
    )


def ramp(start: int, n: int) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.float32)


S = 1000 * MS
HOUR_MS = 3_600_000.0
IMU = TensorInput(shape=(6,), rate_hz=1000)


def value(name: str, t_ms: float, seq: int = 0, arrive_ms: float | None = None, **more: object) -> Tensor | Text:
    arrive = round((t_ms if arrive_ms is None else arrive_ms) * MS)
    stamp = {"stream": name, "seq": seq, "capture_ns": round(t_ms * MS), "arrive_ns": arrive, **more}
    return Text(**{"text": "seven", **stamp}) if name == "text" else Tensor(**{"data": np.zeros(6), **stamp})


def run(sync: Synchronizer, packets: list[Frame | Block | Tensor | Text], until_ms: float = 0) -> list[Snapshot]:
    """Push packets in the order of their arrival, poll after each."""
    snapshots = []
    for packet in sorted(packets, key=lambda packet: packet.arrive_ns):
        sync.push(packet)
        snapshots += sync.poll()
        sync.trim()
    sync.advance(round(until_ms * MS))
    return snapshots + sync.poll()


def blocks(start_ms: int, stop_ms: int, **more: object) -> list[Block]:
    return [block(t + 10, np.ones(80), **more) for t in range(start_ms, stop_ms, 10)]


def stamp_of(packet: Frame) -> dict[str, object]:
    return {name: getattr(packet, name) for name in packet.__struct_fields__}
