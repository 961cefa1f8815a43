"""A slow reference of the synchroniser's streams, and what tests draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, Missing, Sync, TensorInput, TextInput
from mmedge.plan import hold_ns, plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, Frame, Snapshot

MS = 1_000_000
S = 1000 * MS
HOUR = 3600 * S
JUMP = 2 * S  # time stamps that run further back, or ahead of the clock, have another origin
RATE = 1000
WINDOW = 100
IDLE = 250 * MS
PICTURE = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(8, 8))
INPUTS = {
    "image": PICTURE,
    "front": PICTURE,
    "audio": AudioInput(sample_rate_hz=RATE, window_ms=WINDOW),
    "text": TextInput(max_tokens=8),
    "imu": TensorInput(shape=(6,), rate_hz=100),
}
PIXELS = np.zeros((8, 8), np.uint8)
AHEAD = {"end": 0, "centre": WINDOW // 2 * MS, "start": WINDOW * MS}


@dataclass(frozen=True)
class Setup:
    """One synchroniser, made anew for each replay."""

    attached: dict[str, bool]
    missing: dict[str, Missing]
    sync: Sync
    lossless: bool = False

    def make(self, cls: type[Any] = Synchronizer) -> Any:
        rules = (INPUTS, self.attached, self.missing, self.sync)
        if cls is Synchronizer:
            return cls(plan_sync(*rules, lossless=self.lossless), started_ns=0)
        return cls(*rules, started_ns=0, lossless=self.lossless)

    @property
    def hold_ns(self) -> int:
        return hold_ns(self.sync, {name: INPUTS[name] for name in self.attached}, lossless=self.lossless)

    @property
    def longest_wait_ns(self) -> int:
        ahead = AHEAD[self.sync.align] if "audio" in self.attached else 0
        return ahead + round(self.sync.deadline_ms * 1e6)


def encode(sync: Any, snapshot: Snapshot) -> bytes:
    """Everything a snapshot says, with the sound and the identity of what it holds."""
    sound = {}
    for name in snapshot.audio_end:
        out = np.full(WINDOW, np.nan, np.float32)
        sound[name] = (sync.read_audio(name, snapshot, out), out.tobytes())
    held = {n: (p.epoch, p.seq, p.capture_ns) for n, p in {**snapshot.frames, **snapshot.values}.items()}
    plain = {n: getattr(snapshot, n) for n in Snapshot.__struct_fields__ if n not in ("frames", "values")}
    return msgspec.json.encode((plain, held, sound))


@dataclass
class Sound:
    """The slow reference: every sample of the epoch that is known, by its index."""

    live: bool
    readable: int  # so many of the newest samples
    known: dict[int, float] = field(default_factory=dict)
    end: int = 0
    newest_ns: int = 0
    arrive_ns: int = 0
    source_epoch: int | None = None
    epoch: int = 0
    lost: int = 0

    def push(self, block: Block) -> None:
        step_ns, lost = block.capture_ns - self.newest_ns, block.lost
        off_ns = step_ns - (len(block.samples) + lost) * S // RATE
        ran_ahead = step_ns - max(block.arrive_ns - self.arrive_ns, 0) > JUMP
        if self.source_epoch is not None and block.epoch < self.source_epoch:
            return
        if self.source_epoch is None:
            self.epoch, fresh = block.epoch, True
        else:
            jumped = off_ns < -100 * MS or (self.live and off_ns > 100 * MS and ran_ahead)
            fresh = block.epoch > self.source_epoch or jumped
            self.epoch = max(block.epoch, self.epoch + fresh)
        if not fresh and off_ns > 100 * MS:
            lost += off_ns * RATE // S
        self.lost += lost
        if fresh:
            self.known, self.end = {}, 0
        else:
            self.end += lost
        self.known.update(enumerate(block.samples.tolist(), self.end))
        self.end += len(block.samples)
        self.newest_ns, self.arrive_ns, self.source_epoch = block.capture_ns, block.arrive_ns, block.epoch

    def window(self, needed_ns: int, *, latest: bool) -> tuple[list[float], int, int]:
        """Samples, how many are real (-1: some were overwritten), and the capture time they end at."""
        back = 0
        if not latest and needed_ns < self.newest_ns:
            back = ((self.newest_ns - needed_ns) * RATE + S // 2) // S
        end = self.end - back
        wanted = range(end - WINDOW, end)
        real = sum(index in self.known for index in wanted)
        if end > 0 and max(wanted[0], 0) < self.end - self.readable:
            real = -1
        return [self.known.get(index, 0.0) for index in wanted], real, self.newest_ns - back * S // RATE


@dataclass
class Pictures:
    """The slow reference: every frame of the epoch that is in order."""

    live: bool
    frames: list[Frame] = field(default_factory=list)
    arrive_ns: int = 0
    source_epoch: int = -1

    def push(self, frame: Frame) -> None:
        if frame.epoch < self.source_epoch:
            return
        if self.frames and frame.epoch == self.source_epoch:
            step_ns = frame.capture_ns - self.frames[-1].capture_ns
            if step_ns < -JUMP or (self.live and step_ns - (frame.arrive_ns - self.arrive_ns) > JUMP):
                self.frames = []
            elif step_ns < 1:
                return
        else:
            self.frames = []
        self.frames.append(frame)
        self.arrive_ns, self.source_epoch = frame.arrive_ns, frame.epoch


policies = st.one_of(
    st.none(),
    st.sampled_from(["zero", "skip", "fail"]).map(lambda policy: Missing(policy=policy)),
    st.integers(1, 1000).map(lambda age: Missing(policy="hold", max_age_ms=age)),
)
names = st.sampled_from(list(INPUTS))
syncs = st.builds(
    Sync,
    trigger=st.sampled_from([*INPUTS, "timer"]),
    policy=st.sampled_from(["sliced", "sliced", "latest"]),
    align=st.sampled_from(["end", "centre", "start"]),
    deadline_ms=st.sampled_from([1.0, 20.0, 50.0, 200.0]),
    every_ms=st.sampled_from([10.0, 40.0, 100.0]),
)
