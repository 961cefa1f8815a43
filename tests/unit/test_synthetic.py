"""Simulated devices: what they show and sound like, and what becomes of each fault."""

from __future__ import annotations

import math
import threading
import time
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.capture import open_sources
from mmedge.capture.pattern import Picture, Sound, hear, read_time_code
from mmedge.capture.simulator import Ending, Settings, Shot, Simulator, Take
from mmedge.capture.synthetic import SyntheticSource
from mmedge.capture.uri import parse
from mmedge.clock import now_ns
from mmedge.errors import ConfigError
from mmedge.types import Block, EndOfStream, Frame, Packet
from tests.processes import until

MS = 1_000_000
S = 1000 * MS
OPENED = 5_000 * S + 123_456_789
RATE = 16_000


class Ear:
    """Keeps packets and gives their slots back; reads every picture's time code first."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.times_ms: dict[int, int | None] = {}
        self.flashes: list[int] = []
        self.beeps: list[int] = []
        self._quiet_ns = 0

    def __call__(self, packet: Packet) -> None:
        self.packets.append(packet)
        if isinstance(packet, Frame):
            luma = packet.data[: packet.height]
            self.times_ms[id(packet)] = read_time_code(luma)
            if luma.mean() > 220:
                self.flashes.append(packet.capture_ns)
            assert packet.release is not None
            packet.release()
        elif isinstance(packet, Block):
            loud = np.flatnonzero(np.abs(packet.samples) > 0.2)
            if len(loud):
                at_ns = packet.capture_ns - (len(packet.samples) - int(loud[0])) * S // RATE
                if at_ns - self._quiet_ns > S // 2:
                    self.beeps.append(at_ns)
                self._quiet_ns = at_ns

    @property
    def frames(self) -> list[Frame]:
        return [packet for packet in self.packets if isinstance(packet, Frame)]

    @property
    def blocks(self) -> list[Block]:
        return [packet for packet in self.packets if isinstance(packet, Block)]

    def error_ns(self, frame: Frame) -> int:
        time_ms = self.times_ms[id(frame)]
        assert time_ms is not None
        return frame.capture_ns - time_ms * MS


def source(query: str) -> SyntheticSource:
    return SyntheticSource(parse(f"test://?{query}"), images=("image",), sounds={"audio": RATE})


def simulate(query: str, seconds: float) -> tuple[SyntheticSource, Ear, list[Shot | Take]]:
    """Run a device without waiting for it: everything arrives when it is due."""
    device, ear, stop = source(query), Ear(), threading.Event()
    settings = Settings.read(parse(f"test://?{query}").params)
    events = []
    for event in Simulator(settings, rate_hz=settings.rate_hz or RATE, pictures=True).events(OPENED):
        if isinstance(event, Ending) or event.due_ns > OPENED + seconds * S:
            break
        events.append(event)
        device.receive(event, ear, stop, arrive_ns=event.due_ns)
    return device, ear, events


@given(
    st.integers(0, (1 << 36) - 1),
    st.sampled_from([(160, 64), (320, 240), (640, 480), (1280, 720)]),
    st.sampled_from(["as it is", "limited range", "colour", "half", "two thirds"]),
)
def test_time_code_survives_what_happens_to_pictures(time_ms: int, size: tuple[int, int], how: str) -> None:
    width, height = size
    slot = np.empty((height * 3 // 2, width), np.uint8)
    Picture(width, height).paint(slot, time_ms * MS + 999)
    picture = slot[:height]
    if how == "limited range":
        picture = (16 + picture.astype(float) * 219 / 255).astype(np.uint8)
    elif how == "colour":
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    elif how == "half":
        picture = picture.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)).astype(np.uint8)
    elif how == "two thirds":
        rows, columns = np.arange(height * 2 // 3) * 3 // 2, np.arange(width * 2 // 3) * 3 // 2
        picture = picture[rows][:, columns]
    assert read_time_code(picture) == time_ms


@pytest.mark.parametrize("picture", ["black", "white", "noise", "wave", "small"])
def test_no_time_is_read_where_there_is_none(picture: str) -> None:
    shape = (8, 16) if picture == "small" else (480, 640)
    pictures = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8),
        "wave": np.tile(np.linspace(0, 255, shape[1]).astype(np.uint8), (shape[0], 1)),
        "small": np.zeros(shape, np.uint8),
    }
    assert read_time_code(pictures[picture]) is None


def test_the_beep_begins_with_the_second_and_no_two_blocks_are_the_same() -> None:
    noise = np.random.default_rng(0)
    sound = hear(41 * S + S // 2, 48_000, 48_000.0, noise)
    loud = np.flatnonzero(np.abs(sound) > 0.1) / 48_000
    assert loud[0] == pytest.approx(0.5, abs=0.0005)
    assert loud[-1] == pytest.approx(0.55, abs=0.0005)
    quiet = [hear(41 * S + S // 2 + k * 10 * MS, 480, 48_000.0, noise).tobytes() for k in range(40)]
    assert len(set(quiet)) == 40


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 2000)), max_size=60), st.integers(0, 1 << 50))
def test_sound_that_is_made_ahead_is_what_is_heard_then(takes: list[tuple[int, int]], opened_ns: int) -> None:
    class Silence(np.random.Generator):
        def standard_normal(self, size: int) -> np.ndarray:  # type: ignore[override]
            return np.zeros(size)

    noise = Silence(np.random.PCG64(0))
    sound, first = Sound(RATE, noise), 0
    for lost, samples in takes:
        first += lost
        start_ns = opened_ns + first * S // RATE
        took = sound.take(first, samples, start_ns)
        assert took.shape == (samples,)
        # Where a beep begins and ends, a rounded ns decides.
        assert np.count_nonzero(np.abs(took - hear(start_ns, samples, RATE, noise)) > 2e-4) <= 2
        first += samples


settings_st = st.builds(
    Settings,
    fps=st.integers(1, 240),
    seed=st.integers(0, 9),
    latency_ms=st.floats(0, 100),
    drift_ppm=st.floats(-1000, 1000),
    jitter_ms=st.floats(0, 50),
    stall_ms=st.floats(0, 200),
    stall_rate=st.floats(0, 1),
    xrun=st.floats(0, 600),
    gap_ms=st.floats(0, 500),
    gap_at_s=st.floats(0, 3),
    time_jump_ms=st.floats(-86_400_000, 86_400_000),
    burst=st.integers(1, 20),
    unplug_at_s=st.sampled_from([math.inf, 2.0]),
)


@given(settings_st, st.integers(0, 1 << 60))
def test_a_device_can_be_repeated_and_loses_nothing_unsaid(settings: Settings, opened_ns: int) -> None:
    def events() -> list[Shot | Take | Ending]:
        return list(islice(Simulator(settings, rate_hz=8000, pictures=True).events(opened_ns), 400))

    first = events()
    assert first == events()
    assert all(a.due_ns <= b.due_ns for a, b in pairwise(first))
    takes = [event for event in first if isinstance(event, Take)]
    shots = [event for event in first if isinstance(event, Shot)]
    delivered_and_lost = sum(take.samples + take.lost for take in takes)
    assert not takes or delivered_and_lost == takes[-1].first + takes[-1].samples
    for event in (*takes, *shots):
        assert event.due_ns >= event.true_ns + round(settings.latency_ms * 1e6) > opened_ns
    for take in takes:
        assert take.true_ns - take.start_ns == pytest.approx(take.samples * S / 8000, rel=0.0011, abs=2)
    for a, b in pairwise(shots):
        assert b.true_ns - a.true_ns == pytest.approx(S / settings.fps, abs=1)


def test_capture_times_are_true_in_spite_of_drift_jitter_and_stalls() -> None:
    device, ear, _ = simulate("drift_ppm=200&jitter_ms=3&stall_ms=80&latency_ms=30&rate_hz=48000", 20)
    settled = [frame for frame in ear.frames if frame.capture_ns > OPENED + 3 * S]
    # The time code is cut to whole ms.
    good = [-frame.uncertainty_ns <= ear.error_ns(frame) <= frame.uncertainty_ns + MS for frame in settled]
    assert np.mean(good) >= 0.99
    assert max(frame.uncertainty_ns for frame in settled) < 15 * MS
    assert len(ear.flashes) == len(ear.beeps) == 20
    assert all(abs(flash - beep) < 5 * MS for flash, beep in zip(ear.flashes[3:], ear.beeps[3:], strict=True))
    assert device.epoch == 0
    assert all(abs(report.ppm) < 400 for report in device.health().clocks.values())
    assert set(device.health().clocks) == {"image", "audio"}


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000, 5_000, -5_000])
def test_a_jump_of_the_stamps_is_a_new_epoch_and_nothing_else(jump_ms: int) -> None:
    device, ear, events = simulate(f"time_jump_ms={jump_ms}&jump_at_s=3", 6)
    assert device.epoch == 1
    assert sum(block.lost for block in ear.blocks) == 0
    assert len(ear.packets) == len(events)
    for frame in ear.frames:
        assert abs(ear.error_ns(frame)) < 5 * MS
    for packet in ear.packets:
        assert packet.epoch == (packet.capture_ns >= OPENED + 3 * S)


def test_a_reported_overflow_is_a_timed_gap() -> None:
    device, ear, events = simulate("xrun=60&seed=3&rate_hz=48000", 10)
    takes = [event for event in events if isinstance(event, Take)]
    truly_lost = sum(take.lost for take in takes) * RATE / 48_000
    assert device.counters["overflows"] == sum(take.overflow for take in takes) >= 3
    assert sum(block.lost for block in ear.blocks) == pytest.approx(truly_lost, abs=5 * RATE // 1000)
    assert device.epoch == 0
    assert len(ear.beeps) >= 5
    assert all(min(abs(beep - flash) for flash in ear.flashes) < 5 * MS or beep % S > 5 * MS for beep in ear.beeps)
    length_ns = sum(len(block.samples) + block.lost for block in ear.blocks) * S // RATE
    assert abs(length_ns - (ear.blocks[-1].capture_ns - OPENED)) < 10 * MS


def test_an_unreported_gap_is_found() -> None:
    device, ear, _ = simulate("gap_ms=100&gap_at_s=4.2", 12)
    assert device.epoch == 1
    assert sum(block.lost for block in ear.blocks) == pytest.approx(RATE // 10, abs=5 * RATE // 1000)
    late = [beep % S for beep in ear.beeps if beep > OPENED + 9 * S]
    assert len(late) >= 2
    assert all(min(after, S - after) < 5 * MS for after in late)


def test_a_frozen_picture_repeats_while_time_goes_on() -> None:
    _, ear, _ = simulate("freeze_at_s=1", 3)
    frozen = [frame for frame in ear.frames if frame.capture_ns > OPENED + S + 50 * MS]
    assert len({ear.times_ms[id(frame)] for frame in frozen}) == 1
    assert frozen[-1].unchanged_ns > 1.8 * S
    assert all(frame.unchanged_ns == 0 for frame in ear.frames if frame.capture_ns < OPENED + S)
    assert len(ear.beeps) == 3  # the sound goes on


@pytest.mark.parametrize(("query", "at_s"), [("stale=1", 2), ("stale=1&freeze_at_s=1", 1)])
def test_stamps_stand_still_while_packets_go_on(query: str, at_s: int) -> None:
    device, ear, events = simulate(query, 4)
    assert len(ear.packets) == len(events)
    assert device.counters["stale_stamps"] > 100
    for packets in (ear.frames, ear.blocks):
        assert len({packet.capture_ns for packet in packets if packet.capture_ns > OPENED + at_s * S - 5 * MS}) <= 2


def test_the_picture_shrinks_in_mid_run() -> None:
    _, ear, _ = simulate("resize_at_s=1&width=320&height=240", 2)
    sizes = [(frame.width, frame.height) for frame in ear.frames]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {(320, 240), (160, 120)}
    assert all(abs(ear.error_ns(frame)) < 5 * MS for frame in ear.frames)
    assert ear.frames[-1].data.shape == (180, 160)


def test_deliveries_come_in_bursts() -> None:
    _, ear, events = simulate("burst=5&fps=25", 5)
    shots = [event for event in events if isinstance(event, Shot)]
    assert len(shots) % 5 == 0
    for first in range(0, len(shots), 5):
        assert len({shot.due_ns for shot in shots[first : first + 5]}) == 1
    assert all(abs(ear.error_ns(frame)) < 5 * MS for frame in ear.frames[25:])


def play(query: str, seconds: float) -> tuple[SyntheticSource, Ear]:
    """Run a device in real time."""
    device, ear = source(query), Ear()
    device.start(ear)
    time.sleep(seconds)
    return device, ear


def test_inputs_of_one_address_share_one_device() -> None:
    image = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(8, 8))
    inputs = {"left": image, "right": image, "audio": AudioInput(sample_rate_hz=RATE, window_ms=100)}
    one, other = "test://?fps=25&seed=1", "test://?seed=1&fps=25"
    sources = open_sources(inputs, {"left": one, "right": "test://", "audio": other})
    assert [source.streams for source in sources] == [("left", "audio"), ("right",)]
    assert all(source.live for source in sources)
    ear = Ear()
    for each in sources:
        each.start(ear)
    assert until(lambda: {packet.stream for packet in list(ear.packets)} == {"left", "right", "audio"}, 60)
    for each in sources:
        each.stop()
    with pytest.raises(ConfigError, match="test source cannot feed the text input"):
        open_sources({"text": TextInput(max_tokens=4)}, {"text": "test://"})


def test_real_time_is_kept() -> None:
    began_ns = now_ns()
    device, ear = play("drift_ppm=60&fps=60", 1.5)
    device.stop()
    assert 10 < len(ear.frames) < 1.1 * 60 * (now_ns() - began_ns) / S
    for frame in ear.frames:
        assert began_ns - MS < frame.capture_ns <= frame.arrive_ns
    assert abs(np.median([ear.error_ns(frame) for frame in ear.frames])) < 30 * MS
    assert device.health().counters["frames"] == len(ear.frames)


def test_an_unplugged_device_ends_with_its_reason_and_works_when_opened_again() -> None:
    for _ in range(2):
        device, ear = play("unplug_at_s=0.3", 0.3)
        assert until(lambda ear=ear: sum(isinstance(p, EndOfStream) for p in list(ear.packets)) == 2, 60)
        device.stop()
        ends = [packet.reason for packet in ear.packets if isinstance(packet, EndOfStream)]
        assert len(ends) == 2
        assert all("unplugged" in (reason or "") for reason in ends)
        assert "unplugged" in (device.health().reason or "")
        assert device.error is not None
        assert len(ear.frames) <= 10


def test_a_hanging_device_can_be_stopped() -> None:
    device, ear = play("hang_at_s=0.2", 0.6)

    def hangs() -> bool:
        count = len(ear.packets)
        time.sleep(0.2)
        return len(ear.packets) == count > 10

    assert until(hangs, 60)
    assert device.health().state == "OK"  # it has not ended: nobody knows
    began_ns = now_ns()
    device.stop()
    assert now_ns() - began_ns < 60 * S
    assert device.error is None
