"""The synchroniser: cuts, deadlines, conservation, determinism."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, Missing, Sync, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.sync import Synchronizer, apply_preset, hold_ns
from mmedge.types import Block, EndOfStream, Frame, Snapshot, Tensor, Text

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
    return Synchronizer(INPUTS, {"image": live, "audio": live}, missing or {}, spec, started_ns=0, lossless=lossless)


def ramp(start: int, n: int) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.float32)


def test_audio_is_cut_at_the_capture_time() -> None:
    sync = make()
    for k in range(10):  # sample i was sensed at i / 8 ms: its value is its index
        sync.push(block(20 * (k + 1), ramp(160 * k, 160)))
    sync.push(frame(150.0))
    (snapshot,) = sync.poll()
    window = np.empty(800, np.float32)
    assert sync.read_audio("audio", snapshot, window) == 800
    assert window[-1] == 150 * 8 - 1
    assert window[0] == 50 * 8
    assert snapshot.skew_ms == 0
    assert snapshot.present == {"image": True, "audio": True}


def test_a_trigger_waits_for_sound_but_not_beyond_the_deadline() -> None:
    sync = make()
    sync.push(block(90, ramp(0, 720)))
    sync.push(frame(100.0))
    sync.advance(149 * MS)
    assert sync.poll() == []
    assert sync.pending == 1
    assert sync.next_deadline_ns() == 150 * MS
    sync.advance(150 * MS)
    (snapshot,) = sync.poll()
    assert snapshot.wait_ns == 50 * MS
    assert snapshot.age_ms["audio"] == pytest.approx(10)
    assert snapshot.skew_ms == pytest.approx(10)


def test_a_dead_microphone_holds_nothing_back() -> None:
    sync = make()
    sync.push(block(20, ramp(0, 160)))
    snapshots = []
    for k in range(10):
        sync.push(frame(1000 + 40 * k, k))
        snapshots += sync.poll()
    assert len(snapshots) == 10
    assert all(s.present == {"image": True, "audio": False} for s in snapshots)
    assert "audio" in (snapshots[0].reason or "")


def test_a_dead_camera_never_lowers_the_trigger_rate() -> None:
    sync, alive = make(), 0
    for k in range(25):
        sync.push(frame(40 * k, k))
        sync.push(block(40 * (k + 1), ramp(320 * k, 320)))
        alive += len(sync.poll())
    later = []
    for k in range(25, 75):  # two seconds of sound alone
        sync.push(block(40 * (k + 1), ramp(320 * k, 320)))
        later += sync.poll()
    assert alive == 25
    assert len(later) >= 40
    assert not later[-1].present["image"]
    assert later[-1].present["audio"]


def test_a_frozen_picture_is_absent() -> None:
    sync = make()
    sync.push(block(40, ramp(0, 320)))
    sync.push(frame(40, unchanged_ns=1_200 * MS))
    (snapshot,) = sync.poll()
    assert not snapshot.present["image"]
    assert "STALE" in (snapshot.reason or "")


def test_lost_samples_become_silence_of_the_same_length() -> None:
    sync = make()
    sync.push(block(20, np.ones(160)))
    sync.push(block(60, np.ones(160), lost=160))
    sync.push(frame(60.0))
    (snapshot,) = sync.poll()
    window = np.empty(800, np.float32)
    sync.read_audio("audio", snapshot, window)
    assert window[-160:].all()
    assert not window[-320:-160].any()
    assert window[-480:-320].all()
    assert sync.lost_samples() == {"audio": 160}


def test_frames_are_released_exactly_once() -> None:
    released: list[int] = []
    sync = make()
    for k in range(5):
        sync.push(block(40 * (k + 1), ramp(0, 320)))
        sync.push(frame(40 * k, k, release=lambda k=k: released.append(k)))
        sync.poll()
        sync.trim()
    assert released == [0, 1, 2, 3]
    sync.close()
    assert released == [0, 1, 2, 3, 4]


def test_skip_drops_and_counts() -> None:
    sync = make(missing={"audio": Missing(policy="skip")})
    sync.push(EndOfStream(stream="audio", seq=0, capture_ns=0, arrive_ns=0, reason="clip.mp4 has no audio track"))
    sync.push(frame(10))
    assert sync.poll() == []
    assert sync.drops == {"skip_audio": 1}


def test_no_track_is_a_missing_input_not_the_end() -> None:
    sync = make(lossless=True, live=False)
    sync.push(EndOfStream(stream="audio", seq=0, capture_ns=0, arrive_ns=0, reason="clip.mp4 has no audio track"))
    sync.push(frame(10))
    (snapshot,) = sync.poll()
    assert snapshot.present == {"image": True, "audio": False}
    assert snapshot.reason == "audio: clip.mp4 has no audio track"


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="sound"):
        Synchronizer(INPUTS, {"sound": True}, {}, SPEC, started_ns=0)


events = st.lists(
    st.tuples(st.sampled_from(["frame", "block", "tick"]), st.integers(1, 60), st.integers(0, 80)), max_size=80
)


def replay(script: list[tuple[str, int, int]], lossless: bool) -> tuple[list[tuple[object, ...]], Synchronizer]:
    sync = make(lossless=lossless, live=not lossless)
    now = picture = sound = seq = 0
    seen: list[tuple[object, ...]] = []
    for kind, step, delay in script:
        now += step
        if kind == "frame":
            picture = max(picture + 1, now - delay)
            sync.push(frame(picture, seq, now))
            seq += 1
        elif kind == "block":
            sound += step
            sync.push(block(sound, np.ones(step * 8), now))
        sync.advance(now * MS)
        seen += [
            (s.t_ns, tuple(s.present.items()), s.wait_ns, s.skew_ms, s.audio_end.get("audio"), s.reason)
            for s in sync.poll()
        ]
        sync.trim()
    return seen, sync


@settings(max_examples=150, deadline=None)
@given(events, st.booleans())
def test_invariants(script: list[tuple[str, int, int]], lossless: bool) -> None:
    seen, sync = replay(script, lossless)
    times = [s[0] for s in seen]
    assert times == sorted(set(times)), "snapshots come in order of capture time, once each"
    assert sync.triggers == len(seen) + sum(sync.drops.values()) + sync.pending, "triggers are conserved"
    if not lossless:
        # The clock moves in steps of up to 60 ms, so a deadline is noticed at most one step late.
        assert all(s[2] <= (50 + 60) * MS for s in seen), "nobody waits longer than the deadline"
    assert replay(script, lossless)[0] == seen, "the same events give the same snapshots"


def test_a_window_never_spans_two_epochs() -> None:
    sync = make()
    sync.push(block(100, np.ones(800)))
    sync.push(block(10_000, np.full(160, 0.5), epoch=1))
    sync.push(frame(10_000.0))
    (snapshot,) = sync.poll()
    window = np.empty(800, np.float32)
    sync.read_audio("audio", snapshot, window)
    assert not window[:-160].any()
    assert (window[-160:] == 0.5).all()


def test_a_slow_camera_keeps_its_triggers() -> None:
    sync, frames = make(), 0
    for k in range(1, 400):
        t = 10 * k
        sync.push(block(t, ramp(0, 80)))
        if t % 330 == 0:
            sync.push(frame(t, k))
        frames += sum(s.on_frame for s in sync.poll())
        sync.trim()
    assert frames >= 11  # twelve were sent; the first gap teaches the period


def test_a_time_stamp_far_ahead_does_not_spin() -> None:
    sync = Synchronizer(INPUTS, {"audio": True}, {}, Sync(trigger="audio"), started_ns=0)
    sync.push(block(40, ramp(0, 320)))
    sync.push(block(4e10, ramp(0, 320), arrive_ms=80))
    made = len(sync.poll())
    assert made <= 9
    assert sync.triggers == made + sum(sync.drops.values()) + sync.pending


def test_a_window_that_ends_later_than_its_frame_is_waited_for() -> None:
    sync = make(Sync(trigger="image", align="centre", deadline_ms=50))
    sync.push(block(100, ramp(0, 800)))
    sync.push(frame(100.0))
    sync.advance(120 * MS)
    assert sync.poll() == []  # the 100 ms window ends at 150 ms
    sync.push(block(150, ramp(800, 400)))
    (snapshot,) = sync.poll()
    assert snapshot.present["audio"]
    window = np.empty(800, np.float32)
    sync.read_audio("audio", snapshot, window)
    assert window[-1] == 150 * 8 - 1


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


@pytest.mark.parametrize("align", ["centre", "start"])
def test_windows_that_look_ahead_keep_the_rate(align: str) -> None:
    inputs = {**INPUTS, "audio": AudioInput(sample_rate_hz=RATE, window_ms=1000)}
    sync = Synchronizer(inputs, {"image": True, "audio": True}, {}, Sync(trigger="image", align=align), started_ns=0)
    frames = [frame(1000 + 1000 / 30 * k, k) for k in range(90)]
    snapshots = run(sync, [*blocks(0, 4000), *frames], until_ms=6000)
    assert len(snapshots) == 90
    ahead_ms = 500 if align == "centre" else 1000
    complete = [s for s in snapshots if s.t_ns + ahead_ms * MS <= 4 * S]
    assert all(s.wait_ns <= (ahead_ms + 10) * MS and s.skew_ms < 0.1 for s in complete)
    assert len(complete) > 58


def test_an_hour_forth_and_back_stops_no_trigger() -> None:
    sync = Synchronizer(INPUTS, {"audio": True}, {}, Sync(trigger="audio"), started_ns=0)
    packets = blocks(0, 1000)
    packets += [block(HOUR_MS + t + 10, np.ones(80), arrive_ms=t + 10) for t in range(1000, 2000, 10)]
    packets += blocks(2000, 3000)
    snapshots = run(sync, packets)
    assert [s.epoch["audio"] for s in snapshots] == sorted(s.epoch["audio"] for s in snapshots)
    by_epoch = [sum(s.epoch["audio"] == epoch for s in snapshots) for epoch in range(3)]
    assert by_epoch == [25, 25, 25]
    assert sync.lost_samples() == {"audio": 0}


def test_a_camera_an_hour_ahead_stops_no_trigger() -> None:
    for epoch in (0, 1):
        sync = make()
        frames = [frame(40 * k, k) for k in range(1, 25)]
        frames += [frame(HOUR_MS + 40 * k, k, arrive_ms=40 * k, epoch=epoch) for k in range(25, 50)]
        frames += [frame(40 * k, k, epoch=2 * epoch) for k in range(50, 75)]
        snapshots = run(sync, [*blocks(0, 3000), *frames], until_ms=3100)
        assert len(snapshots) == 74
        assert [s.epoch["image"] for s in snapshots] == [0] * 24 + [1] * 25 + [2] * 25


def test_a_picture_of_the_past_does_not_release_one_that_is_waited_for() -> None:
    released: list[int] = []
    sync = make()
    sync.push(block(90, ramp(0, 720)))
    for k, t in enumerate([60.0, 100.0, 80.0]):
        sync.push(frame(t, k, arrive_ms=100 + k, release=lambda k=k: released.append(k)))
    sync.poll()
    sync.trim()
    assert 1 not in released
    sync.push(block(100, ramp(720, 80), arrive_ms=110))
    (snapshot,) = sync.poll()
    assert snapshot.frames["image"].seq == 1
    assert sync.drops == {"time_backwards": 1}
    sync.close()
    assert sorted(released) == [0, 1, 2]


def test_a_second_camera_holds_few_frames_while_nothing_is_triggered() -> None:
    inputs = {**INPUTS, "front": INPUTS["image"]}
    sync = Synchronizer(inputs, {"image": True, "front": True}, {}, SPEC, started_ns=0)
    held = 0
    for k in range(300):
        held += 1

        def release() -> None:
            nonlocal held
            held -= 1

        sync.push(Frame(**{**stamp_of(frame(10 * k, k)), "stream": "front", "release": release}))
        sync.poll()
        sync.trim()
        assert held <= hold_ns(SPEC, inputs) // (10 * MS) + 2
    sync.close()
    assert held == 0


def stamp_of(packet: Frame) -> dict[str, object]:
    return {name: getattr(packet, name) for cls in type(packet).__mro__ for name in getattr(cls, "__slots__", ())}


def test_a_fast_array_is_there_and_its_past_is_forgotten() -> None:
    inputs: dict[str, Input] = {**INPUTS, "imu": IMU}
    sync = Synchronizer(inputs, dict.fromkeys(inputs, True), {}, SPEC, started_ns=0)
    arrays: list[weakref.ref[np.ndarray]] = []
    packets: list[Frame | Block | Tensor | Text] = [*blocks(0, 3000)]
    packets += [frame(40 * k, k, arrive_ms=40 * k + 200) for k in range(1, 70)]
    for t in range(3000):
        data = np.zeros(6)
        arrays.append(weakref.ref(data))
        packets.append(value("imu", t, t, data=data))
    del data
    snapshots = run(sync, packets, until_ms=3100)
    assert all(s.values["imu"].capture_ns == s.t_ns for s in snapshots)
    assert len(snapshots) == 69
    packets.clear()
    snapshots.clear()
    gc.collect()
    alive = sum(ref() is not None for ref in arrays)
    assert alive <= hold_ns(SPEC, inputs) // MS + 2, alive


def test_an_array_that_stopped_is_absent() -> None:
    inputs: dict[str, Input] = {**INPUTS, "imu": IMU}
    sync = Synchronizer(inputs, {"image": True, "imu": True}, {}, SPEC, started_ns=0)
    snapshots = run(sync, [*(value("imu", t) for t in range(500)), *(frame(40 * k) for k in range(1, 50))])
    assert [s.present["imu"] for s in snapshots if s.t_ns <= 499 * MS] == [True] * 12
    assert not any(s.present["imu"] for s in snapshots if s.t_ns > 760 * MS)
    assert "old" in (snapshots[-1].reason or "")


def test_each_text_is_a_trigger() -> None:
    inputs: dict[str, Input] = {**INPUTS, "text": TextInput(max_tokens=8)}
    sync = Synchronizer(inputs, {"text": True, "audio": True}, {}, Sync(trigger="text"), started_ns=0)
    snapshots = run(sync, [*blocks(0, 9000), *(value("text", t, t) for t in (1005, 5005, 5006))], until_ms=9100)
    assert [s.t_ns // MS for s in snapshots] == [1005, 5005, 5006]
    assert all(s.present["text"] and s.present["audio"] and s.skew_ms == 0 for s in snapshots)


def test_a_timer_with_texts_alone_keeps_the_time() -> None:
    sync = Synchronizer(
        {"text": TextInput(max_tokens=8)}, {"text": True}, {}, Sync(trigger="timer", every_ms=100), started_ns=0
    )
    sync.push(value("text", 1000))
    made = len(sync.poll())
    for _ in range(50):
        due = sync.next_deadline_ns()
        assert due is not None
        sync.advance(due)
        made += len(sync.poll())
    assert made == 51
    assert sync.triggers == made


def test_hops_keep_the_rate_of_a_dead_camera_from_where_it_stopped() -> None:
    sync = make()
    frames = [frame(1000 / 30 * k, k, arrive_ms=1000 / 30 * k + 35) for k in range(1, 30)]
    snapshots = run(sync, [*blocks(0, 4000), *frames])
    steps = np.diff([s.t_ns for s in snapshots]) / 1e6
    assert len(snapshots) in (119, 120)  # thirty a second, not the timer's 25
    assert steps.max() < 35


def test_bursts_do_not_kill() -> None:
    """Sound that comes in bursts of 300 ms is late, not dead: it is learnt."""
    sync = make(Sync(trigger="image", deadline_ms=400))
    packets: list[Frame | Block | Tensor | Text] = [frame(40 * k, k) for k in range(1, 1500)]
    packets += [block(t, np.ones(80), arrive_ms=-(-t // 300) * 300) for t in range(10, 60_010, 10)]
    snapshots = run(sync, packets, until_ms=61_000)
    assert all(s.skew_ms == 0 for s in snapshots[1000:])


def test_silence_before_the_deadline_lets_a_trigger_go() -> None:
    sync = make(Sync(trigger="image", deadline_ms=500))
    sync.push(block(100, ramp(0, 800)))
    sync.push(frame(110.0))
    assert sync.poll() == []
    due = sync.next_deadline_ns()
    assert due is not None
    assert due < 400 * MS
    sync.advance(due)
    assert len(sync.poll()) == 1


def test_uncertainty_is_of_both_sides() -> None:
    inputs = {**INPUTS, "front": INPUTS["image"]}
    sync = Synchronizer(inputs, dict.fromkeys(inputs, True), {}, SPEC, started_ns=0)
    sync.push(block(100, ramp(0, 800), uncertainty_ns=3 * MS))
    sync.push(Frame(**{**stamp_of(frame(100.0, uncertainty_ns=2 * MS)), "stream": "front"}))
    sync.push(frame(100.0, uncertainty_ns=5 * MS))
    (snapshot,) = sync.poll()
    assert snapshot.uncertainty_ms == 8.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5_000, 5_000), min_size=3, max_size=3), st.integers(0, 4_000), st.booleans())
def test_the_true_skew_lies_within_the_uncertainty(errors_us: list[int], off_us: int, by_sound: bool) -> None:
    inputs = {**INPUTS, "front": INPUTS["image"]}
    spec = Sync(trigger="audio" if by_sound else "image", every_ms=100)
    sync = Synchronizer(inputs, dict.fromkeys(inputs, True), {}, spec, started_ns=0)
    image, front, audio = errors_us
    times = {"front": 100_000 + off_us, "image": 100_000, "audio": 100_000}
    stamps = {name: times[name] + error for name, error in (("image", image), ("front", front), ("audio", audio))}
    sync.push(Frame(**{**stamp_of(frame(stamps["front"] / 1000, uncertainty_ns=abs(front) * 1000)), "stream": "front"}))
    sync.push(frame(stamps["image"] / 1000, uncertainty_ns=abs(image) * 1000))
    sync.push(block(stamps["audio"] / 1000, ramp(0, 800), uncertainty_ns=abs(audio) * 1000))
    sync.advance(S)
    (snapshot,) = sync.poll()
    own = "audio" if by_sound else "image"
    # Where each was really cut, against when the trigger really was: by packets' true times.
    true_t = snapshot.t_ns / 1000 - (stamps[own] - times[own])
    worst = max(abs(true_t - times["image"]), abs(true_t - times["front"]))
    end = 100_000 + (snapshot.audio_end["audio"] - 800) * 125
    worst = max(worst, abs(true_t - end))
    assert abs(worst / 1000 - snapshot.skew_ms) <= snapshot.uncertainty_ms + 1e-6


def test_what_an_earlier_epoch_left_behind_is_refused() -> None:
    released: list[int] = []
    sync = make()
    sync.push(block(100, np.ones(800), epoch=1))
    sync.push(block(110, np.full(80, 9.0), epoch=0))
    sync.push(EndOfStream(stream="audio", seq=0, epoch=0, capture_ns=0, arrive_ns=0, reason="killed"))
    sync.push(frame(90.0, 1, epoch=1, release=lambda: released.append(1)))
    sync.push(frame(95.0, 0, epoch=0, release=lambda: released.append(0)))
    (snapshot,) = sync.poll()
    assert snapshot.epoch == {"image": 1, "audio": 1}
    assert released == [0]
    assert sync.refused == {"audio_old_epoch": 1}
    assert sync.drops == {"old_epoch": 1}


def test_a_gap_that_nobody_said_becomes_silence() -> None:
    sync = make()
    sync.push(block(100, np.ones(800)))
    sync.push(block(260, np.full(80, 0.5), arrive_ms=260))
    sync.push(frame(260.0))
    (snapshot,) = sync.poll()
    window = np.empty(800, np.float32)
    assert sync.read_audio("audio", snapshot, window) == 80
    assert (window[-80:] == 0.5).all()
    assert sync.lost_samples() == {"audio": 1200}


def test_a_window_of_which_nothing_is_known_is_absent() -> None:
    sync = make()
    sync.push(block(100, np.ones(800)))
    sync.push(block(1000, np.empty(0), lost=7200))
    sync.push(frame(500.0, arrive_ms=1000))
    (snapshot,) = sync.poll()
    assert not snapshot.present["audio"]
    assert "no sound" in (snapshot.reason or "")


def test_a_batch_read_ahead_of_a_file_is_all_there() -> None:
    sync = Synchronizer(INPUTS, {"audio": False}, {}, Sync(trigger="audio"), started_ns=0, lossless=True)
    for packet in blocks(0, 20_000):
        sync.push(packet)
    window = np.empty(800, np.float32)
    snapshots = sync.poll()
    assert len(snapshots) == 500
    assert all(sync.read_audio("audio", s, window) == 800 for s in snapshots[3:])


def test_a_hole_of_a_year_in_a_file_does_not_fill_memory() -> None:
    sync = Synchronizer(INPUTS, {"audio": False}, {}, Sync(trigger="audio"), started_ns=0, lossless=True)
    sync.push(block(40, ramp(0, 320)))
    sync.push(block(3.15e10, ramp(0, 320), arrive_ms=80))
    assert sync.pending <= 65_537
    made = len(sync.poll())
    assert sync.triggers == made + sum(sync.drops.values())


def test_sound_from_before_an_epoch_is_absent() -> None:
    sync = make()
    sync.push(block(90, ramp(0, 720)))
    sync.push(frame(95.0, arrive_ms=100))
    assert sync.poll() == []
    sync.push(block(110, ramp(0, 80), arrive_ms=110, epoch=1))
    (snapshot,) = sync.poll()
    assert not snapshot.present["audio"]


def test_holes_that_follow_each_other_are_one() -> None:
    sync = make()
    sync.push(block(100, np.ones(800)))
    for end in (162.5, 225.0):
        sync.push(block(end, np.empty(0), lost=500))
    sync.push(frame(210.0, arrive_ms=225))
    (snapshot,) = sync.poll()
    assert not snapshot.present["audio"]


def test_sound_that_is_overwritten_is_not_silence() -> None:
    sync = make(live=False)
    sync.push(frame(200.0, arrive_ms=200))
    for packet in blocks(0, 4000):  # the caller was busy
        sync.push(packet)
    (snapshot,) = sync.poll()
    assert not snapshot.present["audio"]
    assert "overwritten" in (snapshot.reason or "")


def test_a_stream_that_returns_has_not_ended() -> None:
    sync = make()
    for name in ("image", "audio"):
        sync.push(EndOfStream(stream=name, seq=0, capture_ns=0, arrive_ns=0, reason="unplugged"))
    assert sync.finished
    sync.push(block(100, ramp(0, 800), epoch=1))
    assert len(sync.poll()) == 1
    assert not sync.finished


def test_nothing_is_missed_between_death_and_return() -> None:
    """The clock of the hops is slower and later than what returns."""
    inputs: dict[str, Input] = {**INPUTS, "imu": TensorInput(shape=(6,), rate_hz=100)}
    sync = Synchronizer(inputs, {"image": True, "imu": True}, {}, Sync(trigger="imu"), started_ns=0)
    arrays = [value("imu", t, t, arrive_ms=t + 2) for t in range(0, 2000, 10) if not 500 < t < 1100]
    frames = [frame(33 * k, k, arrive_ms=33 * k + 35) for k in range(1, 60)]
    snapshots = run(sync, [*arrays, *frames], until_ms=2100)
    assert len(snapshots) in (199, 200)
    assert max(np.diff([s.t_ns for s in snapshots])) < 16 * MS


def test_presets() -> None:
    inputs = {**INPUTS, "front": INPUTS["image"], "rear": INPUTS["image"]}
    spec = Sync(trigger="image", align="centre", deadline_ms=50)
    own = {"audio": Missing(policy="zero"), "rear": Missing(policy="skip")}
    for latency in ("balanced", "offline"):
        assert apply_preset(latency, spec, own, inputs) == (spec, own)
    low, missing = apply_preset("low", spec, own, inputs)
    assert (low.align, low.deadline_ms, low.trigger) == ("end", 15.0, "image")
    assert missing == {**own, "front": Missing(policy="hold", max_age_ms=100.0)}
    assert apply_preset("low", Sync(trigger="image", deadline_ms=5), {}, {})[0].deadline_ms == 5.0


@pytest.mark.parametrize(("align", "ahead_ms"), [("end", 0), ("centre", 50), ("start", 100)])
def test_how_long_frames_are_held(align: str, ahead_ms: int) -> None:
    spec = Sync(trigger="image", align=align, deadline_ms=50)
    assert hold_ns(spec, INPUTS) == (ahead_ms + 50 + 250) * MS
    assert hold_ns(spec, INPUTS, lossless=True) == (ahead_ms + 250) * MS
