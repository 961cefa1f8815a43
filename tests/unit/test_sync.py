"""The synchroniser: cuts, deadlines, conservation, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import Missing, Sync
from mmedge.errors import ConfigError
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import EndOfStream
from tests.sync_cases import (
    INPUTS,
    MS,
    SPEC,
    block,
    frame,
    make,
    ramp,
)


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


def test_a_release_that_raises_leaves_the_others_in_order() -> None:
    released: list[int] = []

    def stop() -> None:
        raise KeyboardInterrupt

    sync = make()
    for k in range(4):
        sync.push(frame(40 * k, k, release=stop if k == 1 else lambda k=k: released.append(k)))
    with pytest.raises(KeyboardInterrupt):
        sync.close()
    sync.close()
    assert released == sorted(set(released))  # none twice
    for k in range(4, 8):
        sync.push(frame(40 * k, k, release=lambda k=k: released.append(k)))
    sync.close()
    assert released == sorted(set(released))
    assert set(range(4, 8)) <= set(released)


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
        Synchronizer(plan_sync(INPUTS, {"sound": True}, {}, SPEC), started_ns=0)


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
    sync = Synchronizer(plan_sync(INPUTS, {"audio": True}, {}, Sync(trigger="audio")), started_ns=0)
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


@pytest.mark.parametrize("policy", ["zero", "hold", "skip"])
def test_a_damaged_picture_is_absent_though_its_camera_is_alive(policy: str) -> None:
    released: list[int] = []

    class Slot:
        def __init__(self, seq: int) -> None:
            self.seq = seq

        def __call__(self) -> None:
            released.append(self.seq)

    missing = {"image": Missing(policy=policy, max_age_ms=100.0 if policy == "hold" else None)}
    sync, snapshots = make(missing=missing), []
    for k in range(8):
        sync.push(block(40 * (k + 1), ramp(320 * k, 320)))
        sync.push(frame(40 * (k + 1), k, damaged=k in (2, 4, 5, 6), release=Slot(k)))
        snapshots += sync.poll()
        sync.trim()
    if policy == "skip":
        assert [s.t_ns // (40 * MS) for s in snapshots] == [1, 2, 4, 8]
        assert sync.drops["skip_image"] == 4
    else:
        assert [s.t_ns // (40 * MS) for s in snapshots] == list(range(1, 9))
        absent = [k for k, s in enumerate(snapshots) if not s.present["image"]]
        # Held for 100 ms: the last good one is 80 ms old at the second of three, 120 ms at the third.
        assert absent == ([6] if policy == "hold" else [2, 4, 5, 6])
        assert all(snapshots[k].reason == "image: damaged" for k in absent)
    if policy == "hold":
        assert [round(s.age_ms["image"]) for s in snapshots if s.present["image"]] == [0, 0, 40, 0, 40, 80, 0]
    assert sync.silence_ns("image", 350 * MS) is None
    sync.close()
    assert sorted(released) == list(range(8))


def test_a_damaged_first_picture_of_an_epoch_is_not_replaced_by_one_of_the_epoch_before() -> None:
    sync = make(missing={"image": Missing(policy="hold", max_age_ms=1000.0)})
    sync.push(block(100, ramp(0, 800)))
    sync.push(frame(40))
    assert sync.poll()[0].present["image"]
    sync.push(frame(80, epoch=1, damaged=True))
    (snapshot,) = sync.poll()
    assert (snapshot.present["image"], snapshot.reason) == (False, "image: damaged")


def test_damage_is_the_reason_however_far_a_file_is_read_ahead() -> None:
    rules = {"image": Missing(policy="hold", max_age_ms=100.0)}
    sync = Synchronizer(plan_sync(INPUTS, {"image": False}, rules, Sync(trigger="image"), lossless=True), started_ns=0)
    for k in range(20):
        sync.push(frame(40 * (k + 1), k, damaged=k > 0))
    reasons = [snapshot.reason for snapshot in sync.poll()]
    assert reasons == [None, None, None] + ["image: damaged"] * 17
