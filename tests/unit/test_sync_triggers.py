"""The synchroniser: what triggers, what is held, how well the time is known."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, Input, Missing, Sync, TextInput
from mmedge.plan import hold_ns, plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, EndOfStream, Frame, Packet, Tensor, Text
from tests.sync_cases import (
    HOUR_MS,
    IMU,
    INPUTS,
    MS,
    RATE,
    SPEC,
    S,
    block,
    blocks,
    frame,
    make,
    ramp,
    run,
    stamp_of,
    value,
)


@pytest.mark.parametrize("align", ["centre", "start"])
def test_windows_that_look_ahead_keep_the_rate(align: str) -> None:
    inputs = {**INPUTS, "audio": AudioInput(sample_rate_hz=RATE, window_ms=1000)}
    sync = Synchronizer(
        plan_sync(inputs, {"image": True, "audio": True}, {}, Sync(trigger="image", align=align)), started_ns=0
    )
    frames = [frame(1000 + 1000 / 30 * k, k) for k in range(90)]
    snapshots = run(sync, [*blocks(0, 4000), *frames], until_ms=6000)
    assert len(snapshots) == 90
    ahead_ms = 500 if align == "centre" else 1000
    complete = [s for s in snapshots if s.t_ns + ahead_ms * MS <= 4 * S]
    assert all(s.wait_ns <= (ahead_ms + 10) * MS and s.skew_ms < 0.1 for s in complete)
    assert len(complete) > 58


def test_an_hour_forth_and_back_stops_no_trigger() -> None:
    sync = Synchronizer(plan_sync(INPUTS, {"audio": True}, {}, Sync(trigger="audio")), started_ns=0)
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
    sync = Synchronizer(plan_sync(inputs, {"image": True, "front": True}, {}, SPEC), started_ns=0)
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


def test_a_fast_array_is_there_and_its_past_is_forgotten() -> None:
    inputs: dict[str, Input] = {**INPUTS, "imu": IMU}
    sync = Synchronizer(plan_sync(inputs, dict.fromkeys(inputs, True), {}, SPEC), started_ns=0)
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
    sync = Synchronizer(plan_sync(inputs, {"image": True, "imu": True}, {}, SPEC), started_ns=0)
    snapshots = run(sync, [*(value("imu", t) for t in range(500)), *(frame(40 * k) for k in range(1, 50))])
    assert [s.present["imu"] for s in snapshots if s.t_ns <= 499 * MS] == [True] * 12
    assert not any(s.present["imu"] for s in snapshots if s.t_ns > 760 * MS)
    assert "old" in (snapshots[-1].reason or "")


def test_each_text_is_a_trigger() -> None:
    inputs: dict[str, Input] = {**INPUTS, "text": TextInput(max_tokens=8)}
    sync = Synchronizer(plan_sync(inputs, {"text": True, "audio": True}, {}, Sync(trigger="text")), started_ns=0)
    snapshots = run(sync, [*blocks(0, 9000), *(value("text", t, t) for t in (1005, 5005, 5006))], until_ms=9100)
    assert [s.t_ns // MS for s in snapshots] == [1005, 5005, 5006]
    assert all(s.present["text"] and s.present["audio"] and s.skew_ms == 0 for s in snapshots)


def test_a_timer_with_texts_alone_keeps_the_time() -> None:
    sync = Synchronizer(
        plan_sync({"text": TextInput(max_tokens=8)}, {"text": True}, {}, Sync(trigger="timer", every_ms=100)),
        started_ns=0,
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


@pytest.mark.parametrize("missing", [Missing(policy="zero"), Missing(policy="hold", max_age_ms=400)])
@pytest.mark.parametrize("back_ms", [None, 2700])
def test_a_timer_goes_on_with_the_time_while_its_only_input_is_dead(missing: Missing, back_ms: int | None) -> None:
    spec = Sync(trigger="timer", every_ms=40, deadline_ms=10)
    sync = Synchronizer(plan_sync(INPUTS, {"image": True}, {"image": missing}, spec), started_ns=0)
    assert sync.next_deadline_ns() is not None
    sync.advance(900 * MS)
    assert not sync.poll(), "before something has come there is nothing to go on with"
    times = [*range(1000, 1600, 20), *(range(back_ms, 4000, 20) if back_ms else ())]
    packets = [frame(t, t, arrive_ms=t + 5) for t in times]
    snapshots, now_ns = [], 0
    while now_ns < 3980 * MS:  # as the runtime does: until the next packet or the next deadline
        due_ns = sync.next_deadline_ns()
        assert due_ns is not None
        now_ns = min(due_ns, packets[0].arrive_ns) if packets else due_ns
        while packets and packets[0].arrive_ns <= now_ns:
            sync.push(packets.pop(0))
        sync.advance(now_ns)
        snapshots += sync.poll()
        sync.trim()
    made = [s.t_ns / MS for s in snapshots]
    assert np.diff(made) == pytest.approx(40)
    assert made[-1] > 3900
    assert sync.triggers == len(made)
    present = [t for t, s in zip(made, snapshots, strict=True) if s.present["image"]]
    gone = [t for t, s in zip(made, snapshots, strict=True) if not s.present["image"]]
    last_ms = 1580 + (missing.max_age_ms or 20)
    assert gone[0] == pytest.approx(last_ms, abs=41)
    assert (present[-1] > 3900) == (back_ms is not None)


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
    sync = Synchronizer(plan_sync(inputs, dict.fromkeys(inputs, True), {}, SPEC), started_ns=0)
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
    sync = Synchronizer(plan_sync(inputs, dict.fromkeys(inputs, True), {}, spec), started_ns=0)
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


def texts(**more: object) -> dict[str, Input]:
    return {"image": INPUTS["image"], "text": TextInput(max_tokens=8, **more)}  # type: ignore[arg-type]


def test_a_first_text_that_comes_after_the_picture_does_not_fail_the_run() -> None:
    missing = {"text": Missing(policy="fail")}
    sync = Synchronizer(
        plan_sync(texts(ttl_ms=500), {"image": True, "text": True}, missing, Sync(trigger="image")), started_ns=0
    )
    packets = [*(frame(100 * k, k) for k in range(9)), value("text", 205, arrive_ms=195)]
    failed = []
    for packet in sorted(packets, key=lambda packet: packet.arrive_ns):
        sync.push(packet)
        failed += [sync.failed(snapshot) for snapshot in sync.poll()]
    assert failed == [None] * 8 + ["text"]  # after 595 ms its time is over


def test_a_blank_text_takes_the_one_before_back() -> None:
    sync = Synchronizer(plan_sync(texts(), {"image": True, "text": True}, {}, Sync(trigger="image")), started_ns=0)
    said = [("seven", 150), ("", 250), ("eight", 350), (" \t\u00a0", 450)]
    packets = [
        *(frame(100 * k, k) for k in range(1, 6)),
        *(value("text", t, k, text=w) for k, (w, t) in enumerate(said)),
    ]
    snapshots = run(sync, packets)
    assert [s.present["text"] for s in snapshots] == [False, True, False, True, False]
    assert [s.reason for s in snapshots[2::2]] == ["text: taken back"] * 2


@pytest.mark.parametrize(
    ("trigger", "ended", "finished"),
    [
        ("image", {"image"}, True),
        ("image", {"text"}, False),
        ("text", {"image"}, False),
        ("text", {"image", "text"}, True),
        ("timer", {"image"}, False),
    ],
)
def test_a_text_that_only_accompanies_keeps_no_run_going(trigger: str, ended: set[str], finished: bool) -> None:
    sync = Synchronizer(plan_sync(texts(), {"image": True, "text": True}, {}, Sync(trigger=trigger)), started_ns=0)
    for name in ended:
        sync.push(EndOfStream(stream=name, seq=0, capture_ns=0, arrive_ns=0))
    assert sync.finished == finished


def distances(trigger: str, packets: list[Packet]) -> list[int | None]:
    """How far, in ms, the pictures of a camera of a hundred a second are from the triggers; None: no picture."""
    inputs = {**INPUTS, "front": INPUTS["image"], "text": TextInput(max_tokens=8)}
    sync = Synchronizer(
        plan_sync(inputs, {"front": True, trigger: True}, {}, Sync(trigger=trigger, deadline_ms=1)), started_ns=0
    )
    steady = [Frame(**{**stamp_of(frame(10.0 * k, k)), "stream": "front"}) for k in range(1, 41)]
    off: list[int | None] = []
    for packet in sorted([*steady, *packets], key=lambda packet: packet.arrive_ns):
        sync.push(packet)
        for snapshot in sync.poll():
            picture = snapshot.frames.get("front")
            off.append(None if picture is None else round(abs(snapshot.t_ns - picture.capture_ns) / MS))
        sync.trim()
    assert sync.pending == 0
    return off


def end(name: str, t_ms: float, reason: str | None = None) -> EndOfStream:
    return EndOfStream(stream=name, seq=0, capture_ns=0, arrive_ns=round(t_ms * MS), reason=reason)


def test_a_source_that_speaks_again_after_its_end_finds_the_pictures_of_what_it_says() -> None:
    said = [value("text", 52), end("text", 53), value("text", 193, arrive_ms=302)]
    assert distances("text", said) == [2, 3]


def test_a_camera_that_ended_and_is_then_known_as_broken_is_followed_from_where_it_ended() -> None:
    pictures = [frame(t, t, arrive_ms=t + 2) for t in (31, 71, 111)]
    # Each 40 ms to 391.
    assert distances("image", [*pictures, end("image", 114), end("image", 303, "unplugged")]) == [1] * 10


def test_a_clock_that_was_an_hour_ahead_releases_no_picture_that_is_wanted_when_it_is_right_again() -> None:
    wrong = frame(HOUR_MS, 2, arrive_ms=302)
    assert distances("image", [frame(52, 1), wrong, frame(193, 3, arrive_ms=313)]) == [2, None, 3]


def test_a_file_that_ended_well_holds_no_picture_of_another() -> None:
    """Files are read on although no trigger comes any more; their readers have few slots."""
    held = 0

    def release() -> None:
        nonlocal held
        held -= 1

    inputs = {**INPUTS, "front": INPUTS["image"]}
    attached = {"image": False, "front": False}
    sync = Synchronizer(plan_sync(inputs, attached, {}, SPEC, lossless=True), started_ns=0)
    sync.push(frame(10))
    sync.push(end("image", 10))
    for k in range(1, 100):
        held += 1
        sync.push(Frame(**{**stamp_of(frame(40 * k, k)), "stream": "front", "release": release}))
        sync.poll()
        sync.trim()
        assert held == 1
