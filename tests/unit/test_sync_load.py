"""A busy executor in virtual time: however long an answer takes, answers stay young and live inputs present."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmedge.bundle.manifest import AudioInput, ImageInput, Missing, Sync, TensorInput
from mmedge.pipeline.inbox import Inbox
from mmedge.pipeline.shed import shed
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Arrival, Block, Frame, Packet, Tensor

MS, S = 1_000_000, 1_000_000_000
PIXELS = np.zeros((8, 8), np.uint8)
RATE = 8000
END_NS = 9 * S
DEADLINE_MS = 15.0
INPUTS = {
    "image": ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,)),
    "audio": AudioInput(sample_rate_hz=RATE, window_ms=100),
}


def deliveries(fps: int, block_ms: int, seed: int) -> list[Packet]:
    rng = np.random.default_rng(seed)
    packets: list[Packet] = []
    for k in range(1, END_NS * fps // S):
        capture = k * S // fps
        arrive = capture + round(rng.uniform(2, 8) * MS)
        stamp = {"stream": "image", "seq": k, "capture_ns": capture, "arrive_ns": arrive}
        packets.append(Frame(**stamp, data=PIXELS, format="gray8", width=8, height=8))  # type: ignore[arg-type]
    samples = np.ones(RATE * block_ms // 1000, np.float32)
    for k in range(1, END_NS // (block_ms * MS)):
        capture = k * block_ms * MS
        arrive = capture + round(rng.uniform(1, 5) * MS)
        stamp = {"stream": "audio", "seq": k, "capture_ns": capture, "arrive_ns": arrive}
        packets.append(Block(**stamp, samples=samples))  # type: ignore[arg-type]
    return sorted(packets, key=lambda packet: packet.arrive_ns)


@settings(max_examples=40, deadline=None)
@given(
    trigger=st.sampled_from(["image", "audio", "timer"]),
    stage_ms=st.one_of(st.integers(0, 120), st.integers(120, 3000)),
    fps=st.sampled_from([10, 25, 30, 60]),
    block_ms=st.sampled_from([5, 10, 20]),
    seed=st.integers(0, 99),
)
def test_answers_stay_young_and_live_inputs_present(
    trigger: str, stage_ms: int, fps: int, block_ms: int, seed: int
) -> None:
    sync = Synchronizer(
        plan_sync(
            INPUTS,
            {"image": True, "audio": True},
            {"image": Missing(policy="hold", max_age_ms=300.0)},
            Sync(trigger=trigger, deadline_ms=DEADLINE_MS),
        ),
        started_ns=0,
    )
    inbox, coming = Inbox(), deliveries(fps, block_ms, seed)
    now, run_ns, at, answered, let_go = 0, 0, 0, 0, 0
    stage_ns = stage_ms * MS
    period_ns = S // fps if trigger == "image" else 40 * MS

    def arrive() -> None:
        nonlocal at
        while at < len(coming) and coming[at].arrive_ns <= now:
            inbox.put(coming[at])
            at += 1

    while now < END_NS and at < len(coming):
        arrive()
        for packet in inbox.take_all():
            sync.push(packet)
        sync.advance(now)
        kept, late = shed(sync.poll(), period_ns=sync.period_ns, run_ns=run_ns)
        let_go += len(late)
        for snapshot in kept:
            now += stage_ns
            arrive()
            run_ns = stage_ns
            answered += 1
            if snapshot.t_ns > S:
                # 8 ms on the way, 15 ms of waiting for sound, and what one block of it holds back.
                late_ns = (8 + DEADLINE_MS + block_ms) * MS
                assert now - snapshot.t_ns <= 2 * stage_ns + period_ns + late_ns
                assert all(snapshot.present.values()), snapshot.reason
        sync.trim()
        if not kept:
            due = sync.next_deadline_ns()
            arrivals = coming[at].arrive_ns if at < len(coming) else END_NS
            now = max(now + 1, min(arrivals, due if due is not None else arrivals))
    assert sync.triggers == answered + let_go + sync.drops.total() + sync.pending
    assert answered >= min(END_NS // max(stage_ns, period_ns), 2) - 1


def test_the_first_frame_of_an_epoch_may_be_one_that_was_let_go() -> None:
    sync = Synchronizer(plan_sync(INPUTS, {"image": True, "audio": True}, {}, Sync(trigger="audio")), started_ns=0)

    def frame(t_ms: int, epoch: int, kind: type = Frame) -> Packet:
        stamp = {"stream": "image", "seq": t_ms, "epoch": epoch, "capture_ns": t_ms * MS, "arrive_ns": t_ms * MS}
        more = {} if kind is Arrival else {"data": PIXELS, "format": "gray8", "width": 8, "height": 8}
        return kind(**stamp, **more)  # type: ignore[no-any-return]

    for packet in (frame(100, 0), frame(5, 1, Arrival), frame(40, 1)):
        sync.push(packet)
    sound = {"capture_ns": 100 * MS, "arrive_ns": 100 * MS, "samples": np.ones(RATE // 10, np.float32)}
    sync.push(Block(stream="audio", seq=0, **sound))  # type: ignore[arg-type]
    sync.advance(200 * MS)
    (snapshot,) = sync.poll()
    assert snapshot.reason == "image: 60 ms old", "that of the epoch before would be on time"
    assert sync.refused == {"image_overrun": 1}


def test_a_let_go_picture_with_a_wrong_stamp_silences_nobody() -> None:
    sync = Synchronizer(plan_sync(INPUTS, {"image": True, "audio": True}, {}, Sync(trigger="audio")), started_ns=0)
    stamp = {"stream": "image", "seq": 0, "capture_ns": 60 * S, "arrive_ns": 100 * MS}
    sync.push(Arrival(**stamp))  # type: ignore[arg-type]
    answered = 0
    for k in range(1, 500):
        at = {"seq": k, "capture_ns": k * 10 * MS, "arrive_ns": k * 10 * MS + MS}
        if k < 100:
            sync.push(Frame(stream="image", data=PIXELS, format="gray8", width=8, height=8, **at))  # type: ignore[arg-type]
        sync.push(Block(stream="audio", samples=np.ones(RATE // 100, np.float32), **at))  # type: ignore[arg-type]
        sync.advance(k * 10 * MS + MS)
        answered += len(sync.poll())
        sync.trim()
    assert answered > 100
    assert sync.drops["overrun"] == 0


def test_sound_that_was_let_go_is_silence_before_the_next_block() -> None:
    sync = Synchronizer(plan_sync(INPUTS, {"image": True, "audio": True}, {}, Sync(trigger="audio")), started_ns=0)
    samples = np.ones(160, np.float32)
    sync.push(Block(stream="audio", seq=0, capture_ns=10 * MS, arrive_ns=10 * MS, samples=samples))
    sync.push(Arrival(stream="audio", seq=1, capture_ns=20 * MS, arrive_ns=20 * MS))
    sync.push(Block(stream="audio", seq=2, capture_ns=30 * MS, arrive_ns=30 * MS, samples=samples, lost=160))
    assert sync.lost_samples() == {"audio": 160}
    assert sync.refused == {"audio_overrun": 1}


@settings(max_examples=15, deadline=None)
@example(stage_ms=2, rate_hz=1000)
@given(stage_ms=st.integers(1, 500), rate_hz=st.sampled_from([20, 100, 1000]))
def test_tensors_without_a_rate_are_answered_young_too(stage_ms: int, rate_hz: int) -> None:
    inputs = {"imu": TensorInput(shape=(1, 6), dtype="float32")}
    sync = Synchronizer(
        plan_sync(inputs, {"imu": True}, {}, Sync(trigger="imu", deadline_ms=DEADLINE_MS)), started_ns=0
    )
    inbox, period_ns, stage_ns = Inbox(), S // rate_hz, stage_ms * MS
    now, run_ns, sent, worst = 0, 0, 0, 0
    data = np.zeros((1, 6), np.float32)
    while now < 4 * S:
        while (sent + 1) * period_ns <= now:
            sent += 1
            stamp = {"seq": sent, "capture_ns": sent * period_ns, "arrive_ns": sent * period_ns}
            inbox.put(Tensor(stream="imu", data=data, **stamp))  # type: ignore[arg-type]
        for packet in inbox.take_all():
            sync.push(packet)
        sync.advance(now)
        kept, _ = shed(sync.poll(), period_ns=sync.period_ns, run_ns=run_ns)
        for snapshot in kept:
            now, run_ns = now + stage_ns, stage_ns
            worst = max(worst, now - snapshot.t_ns)
        sync.trim()
        if not kept:
            now += period_ns
    assert worst <= 2 * stage_ns + 2 * period_ns
