"""A virtual camera and a virtual microphone whose true capture times are known, driving the real synchroniser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.bundle.manifest import AudioInput, ImageInput, Sync
from mmedge.clock import StreamClock
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, Frame, Packet, Snapshot

Noise = Literal["one-sided", "two-sided", "wandering", "PulseAudio", "calm"]
NOISES: tuple[Noise, ...] = ("one-sided", "two-sided", "wandering", "PulseAudio")
Times = npt.NDArray[np.float64]  # ns since the beginning of the world: exact to 1 us even after an hour

S, MS = 1_000_000_000, 1_000_000
FPS, RATE_HZ, BLOCK = 30, 48_000, 480
AUDIO_PPM, VIDEO_PPM = 60.0, -25.0
AUDIO_LATENCY_NS, VIDEO_LATENCY_NS = 6 * MS, 35 * MS
FLOOR_NS = 500_000  # what may be left once the constant latencies are known
WINDOW_MS = 960.0
NUMBERS = 1 << 24  # what a float32 sample can count to
STALLS, STALL_MS = 0.02, (5.0, 80.0)
ORIGIN_NS = 1_000 * S  # CLOCK_MONOTONIC when the world begins
AUDIO_SPEC = AudioInput(sample_rate_hz=RATE_HZ, window_ms=WINDOW_MS)
IMAGE_SPEC = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,))
SYNC_SPEC = Sync(trigger="image", deadline_ms=50, every_ms=1000 / FPS)
RECORDED = Path(__file__).parent / "recorded" / "pulseaudio.npz"


def recorded_ns() -> Times:
    """Return the recorded lateness of PulseAudio's callbacks."""
    with np.load(RECORDED) as data:
        return data["delay_us"].astype(np.float64) * 1000


def noise_ns(kind: Noise, n: int, rng: np.random.Generator) -> Times:
    """Return how late each of ``n`` packets is, beyond the constant latency."""
    if kind == "PulseAudio":
        recorded = recorded_ns()
        return np.resize(np.roll(recorded, rng.integers(len(recorded))), n)
    # Two-sided: stamps in steps of a USB frame, and a little jitter.
    two_sided = kind == "two-sided"
    late = rng.uniform(-0.5, 0.5, n) + rng.normal(0, 0.1, n) if two_sided else rng.exponential(0.5, n)
    stalled = rng.random(n) < (0 if kind == "calm" else STALLS)
    return (late + stalled * rng.uniform(*STALL_MS, n)) * MS


@dataclass(frozen=True)
class Track:
    """Packets of one device: its own time, the true time, the time of arrival, and what our clock made of them."""

    stream_ns: npt.NDArray[np.int64]
    true_ns: Times
    arrive_ns: npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What two devices deliver.

    Args:
        seed: Chooses the noise.
        noise: Its kind; ``wandering`` is one-sided and the drift wanders, ``calm`` is one-sided without stalls.
        duration_s: Virtual seconds.
        gaps_s: When 100 ms of sound are lost without a word.
        audio_s, video_s: From when to when each of them is alive.
    """

    seed: int
    noise: Noise
    duration_s: float
    gaps_s: tuple[float, ...] = ()
    gap_ns: int = 100 * MS
    audio_s: tuple[float, float] = (0.0, 1e9)
    video_s: tuple[float, float] = (0.0, 1e9)

    def audio(self) -> Track:
        """Return one entry for each block; times are those after its last sample."""
        rng = np.random.default_rng([self.seed, 1])
        n = round(self.duration_s * RATE_HZ / BLOCK)
        ppm = np.full(n, AUDIO_PPM)
        if self.noise == "wandering":  # with the room's temperature
            t = np.arange(n) * BLOCK / RATE_HZ
            ppm += 15 * np.sin(t / 900 * 2 * np.pi + rng.uniform(0, 6)) + 5 * np.sin(t / 120 * 2 * np.pi)
        true = np.cumsum(BLOCK / RATE_HZ * S * (1 + ppm * 1e-6))
        for gap_s in self.gaps_s:
            true[np.searchsorted(true, gap_s * S) :] += self.gap_ns
        stream = np.arange(1, n + 1, dtype=np.int64) * BLOCK * S // RATE_HZ
        return self._track(stream, true, AUDIO_LATENCY_NS, noise_ns(self.noise, n, rng), self.audio_s)

    def video(self) -> Track:
        """Return one entry for each frame."""
        rng = np.random.default_rng([self.seed, 2])
        n = round(self.duration_s * FPS)
        own = 3600 * S + (np.arange(n) / FPS + rng.normal(0, 0.0008, n)) * S
        true = (own - 3600 * S) * (1 + VIDEO_PPM * 1e-6) + 7 * MS
        return self._track(
            np.rint(own).astype(np.int64), true, VIDEO_LATENCY_NS, noise_ns(self.noise, n, rng), self.video_s
        )

    @staticmethod
    def _track(
        stream: npt.NDArray[np.int64], true: Times, latency_ns: int, late: Times, alive_s: tuple[float, float]
    ) -> Track:
        arrive = np.maximum.accumulate(true + latency_ns + late)  # a reader takes packets in order
        alive = (true >= alive_s[0] * S) & (true < alive_s[1] * S)
        return Track(stream[alive], true[alive] + ORIGIN_NS, np.rint(arrive[alive]).astype(np.int64) + ORIGIN_NS)


@dataclass
class Run:
    """What was made of a world.

    Attributes:
        output_s: When each result left.
        true_skew_ms, reported_skew_ms, uncertainty_ms, wait_ms: Of each result in which both inputs are present.
        alone, silent: Results with one input only, or whose sound ends in a gap.
        jumps: How often a clock jumped.
        frame_ns, block_ns: Capture times that our clocks gave to the packets.
        block_u_ms: Their stated uncertainty, of blocks.
        digest: SHA-256 of everything that came out.
    """

    duration_s: float
    output_s: list[float] = field(default_factory=list)
    true_skew_ms: list[float] = field(default_factory=list)
    reported_skew_ms: list[float] = field(default_factory=list)
    uncertainty_ms: list[float] = field(default_factory=list)
    wait_ms: list[float] = field(default_factory=list)
    alone: int = 0
    silent: int = 0
    jumps: int = 0
    frame_ns: list[int] = field(default_factory=list)
    block_ns: list[int] = field(default_factory=list)
    block_u_ms: list[float] = field(default_factory=list)
    digest: str = ""

    @property
    def outputs_per_s(self) -> float:
        return len(self.output_s) / self.duration_s


def simulate(world: World) -> Run:
    """Send a world's packets through real clocks and a real synchroniser."""
    audio, video = world.audio(), world.video()
    run, digest = Run(world.duration_s), hashlib.sha256()
    sync = Synchronizer(
        plan_sync({"image": IMAGE_SPEC, "audio": AUDIO_SPEC}, {"image": True, "audio": True}, {}, SYNC_SPEC),
        started_ns=ORIGIN_NS,
    )
    sound = _Sound(audio, run)
    picture = _Picture(video, run)
    last = np.empty(1, np.float32)

    def take(snapshots: list[Snapshot]) -> None:
        for snapshot in snapshots:
            digest.update(repr((snapshot.t_ns, snapshot.audio_end, snapshot.present, snapshot.uncertainty_ms)).encode())
            run.output_s.append((snapshot.deliver_ns + snapshot.wait_ns - ORIGIN_NS) / S)
            if not all(snapshot.present.values()):
                run.alone += 1
                continue
            frame_ns = picture.true_ns[snapshot.frames["image"].seq]
            if not sync.read_audio("audio", snapshot, last):
                run.silent += 1
                continue
            run.true_skew_ms.append((sound.true_after(int(last[0])) - frame_ns) / MS)
            run.reported_skew_ms.append(snapshot.skew_ms)
            run.uncertainty_ms.append(snapshot.uncertainty_ms)
            run.wait_ms.append(snapshot.wait_ns / MS)

    for packet in _in_order(sound, picture):
        while (due_ns := sync.next_deadline_ns()) is not None and due_ns < packet.arrive_ns:
            sync.advance(due_ns)
            take(sync.poll())
        sync.push(packet)
        take(sync.poll())
        sync.trim()
    run.digest = digest.hexdigest()
    return run


class _Sound:
    """The microphone's source: a clock, and samples that carry their own number."""

    def __init__(self, track: Track, run: Run) -> None:
        self._clock = StreamClock(floor_ns=FLOOR_NS)
        self._stream, self._true = track.stream_ns.tolist(), track.true_ns.tolist()
        self.arrive = track.arrive_ns.tolist()
        self._run = run
        self._next = self._epoch = 0

    def take(self) -> Block:
        k, clock = self._next, self._clock
        jump_ns = clock.observe(self._stream[k], self.arrive[k])
        lost = max(0, round(jump_ns * RATE_HZ / S))
        if jump_ns:
            self._run.jumps += 1
            self._epoch += 1
        self._next = k + 1
        capture_ns = clock.to_monotonic(self._stream[k]) - AUDIO_LATENCY_NS
        self._run.block_ns.append(capture_ns)
        self._run.block_u_ms.append(clock.uncertainty_ns / MS)
        return Block(
            stream="audio",
            seq=k,
            epoch=self._epoch,
            capture_ns=capture_ns,
            arrive_ns=self.arrive[k],
            uncertainty_ns=clock.uncertainty_ns,
            samples=np.remainder(np.arange(k * BLOCK, (k + 1) * BLOCK), NUMBERS).astype(np.float32),
            lost=lost,
        )

    def true_after(self, number: int) -> float:
        """Return the instant after the sample that carries ``number`` was sensed."""
        newest = self._next * BLOCK - 1
        sample = newest - (newest - number) % NUMBERS
        k, part = sample // BLOCK, (sample % BLOCK + 1) / BLOCK
        return self._true[k] - (1 - part) * BLOCK * S / RATE_HZ


class _Picture:
    """The camera's source."""

    def __init__(self, track: Track, run: Run) -> None:
        self._clock = StreamClock(floor_ns=FLOOR_NS)
        self._stream, self.true_ns = track.stream_ns.tolist(), track.true_ns.tolist()
        self.arrive = track.arrive_ns.tolist()
        self._run = run
        self._data = np.zeros((8, 8), np.uint8)
        self._next = self._epoch = 0

    def take(self) -> Frame:
        k, clock = self._next, self._clock
        if clock.observe(self._stream[k], self.arrive[k]):
            self._run.jumps += 1
            self._epoch += 1
        self._next = k + 1
        capture_ns = clock.to_monotonic(self._stream[k]) - VIDEO_LATENCY_NS
        self._run.frame_ns.append(capture_ns)
        return Frame(
            stream="image",
            seq=k,
            epoch=self._epoch,
            capture_ns=capture_ns,
            arrive_ns=self.arrive[k],
            uncertainty_ns=clock.uncertainty_ns,
            data=self._data,
            format="gray8",
            width=8,
            height=8,
        )


def _in_order(sound: _Sound, picture: _Picture) -> Iterator[Packet]:
    """Yield the packets of both in the order of their arrival."""
    a, v = 0, 0
    audio, video = [*sound.arrive, 1 << 62], [*picture.arrive, 1 << 62]
    while a < len(audio) - 1 or v < len(video) - 1:
        if audio[a] <= video[v]:
            a += 1
            yield sound.take()
        else:
            v += 1
            yield picture.take()
