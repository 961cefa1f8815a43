"""The synchroniser: gaps, epochs and returns of its streams."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.bundle.manifest import Input, Missing, Sync, TensorInput
from mmedge.plan import apply_preset, hold_ns, plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import EndOfStream
from tests.sync_cases import (
    INPUTS,
    MS,
    block,
    blocks,
    frame,
    make,
    ramp,
    run,
    value,
)


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
    sync = Synchronizer(plan_sync(INPUTS, {"audio": False}, {}, Sync(trigger="audio"), lossless=True), started_ns=0)
    for packet in blocks(0, 20_000):
        sync.push(packet)
    window = np.empty(800, np.float32)
    snapshots = sync.poll()
    assert len(snapshots) == 500
    assert all(sync.read_audio("audio", s, window) == 800 for s in snapshots[3:])


def test_a_hole_of_a_year_in_a_file_does_not_fill_memory() -> None:
    sync = Synchronizer(plan_sync(INPUTS, {"audio": False}, {}, Sync(trigger="audio"), lossless=True), started_ns=0)
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
    sync = Synchronizer(plan_sync(inputs, {"image": True, "imu": True}, {}, Sync(trigger="imu")), started_ns=0)
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
