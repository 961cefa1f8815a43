"""A stage that listens hears every sample once, whatever the chunks and whatever the trigger."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmedge
from mmedge.cli import run
from mmedge.fusion import StageGraph, load_graph
from mmedge.plan import plan_sync
from mmedge.replay.replay import Replay
from mmedge.sync import Synchronizer
from mmedge.types import Block, Frame, Packet, Snapshot
from tests.lines import replayed_line
from tests.streams import RATE, STEP, listening_bundle, plain_loop

pytestmark = pytest.mark.parallel

S = 1_000_000_000
ORIGIN_NS = 5 * S
SYNCS: list[dict[str, Any]] = [
    {"trigger": "image"},
    {"trigger": "audio", "every_ms": 20},
    {"trigger": "audio", "every_ms": 7},
    {"trigger": "audio", "every_ms": 90},
]


def sound_of(seed: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE)).astype(np.float32)


@cache
def bundle_of(number: int) -> mmedge.bundle.Bundle:
    folder = Path(mkdtemp())
    return mmedge.load(listening_bundle(folder / "listener.mmedge", SYNCS[number]))


class Listened:
    """The answers of the ear after each of its steps, and what it gave at each trigger."""

    def __init__(self, number: int, *seats: str) -> None:
        bundle = bundle_of(number)
        self.graph: StageGraph = load_graph(bundle, backend="onnxruntime", allow=["tests.streams"])
        self.sync = Synchronizer(
            plan_sync(bundle.inputs, dict.fromkeys(seats or bundle.inputs, True), {}, bundle.manifest.sync),
            started_ns=ORIGIN_NS,
        )
        self.steps: list[float] = []
        self.told: list[tuple[int, float]] = []
        self._ear = self.graph.stages[0]
        run = self._ear.engine.run

        def heard() -> None:
            run()
            self.steps.append(float(self._ear.engine.outputs["p"][0, 0]))

        self._ear.engine.run = heard  # type: ignore[method-assign]
        self._ear.serve()

    def push(self, packet: Packet) -> None:
        self.sync.push(packet)
        for shot in self.sync.poll():
            self.graph.run(shot, self.sync.read_audio)
            self.told.append((len(self.steps), float(self.graph.output("ear.p")[0, 0])))
        self.sync.trim()


def frame(seq: int, t_ns: int, arrive_ns: int) -> Frame:
    stamp: dict[str, Any] = {"stream": "image", "seq": seq, "capture_ns": t_ns, "arrive_ns": arrive_ns}
    return Frame(data=np.zeros((8, 8), np.uint8), format="gray8", width=8, height=8, **stamp)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    number=st.integers(0, len(SYNCS) - 1),
    chunks=st.lists(st.integers(1, 900), min_size=1, max_size=40),
    slews=st.lists(st.integers(-4_000_000, 4_000_000), min_size=1, max_size=9),
)
def test_streaming_equals_the_plain_loop(number: int, chunks: list[int], slews: list[int]) -> None:
    sound = sound_of(len(chunks), sum(chunks) / RATE)
    heard, done, pictures = Listened(number), 0, 0
    for seq, size in enumerate(chunks):
        samples, done = sound[done : done + size], done + size
        true_ns = ORIGIN_NS + done * S // RATE
        stamp_ns = true_ns + slews[seq % len(slews)]  # the estimate of the clock wavers; samples are samples
        heard.push(Block(stream="audio", seq=seq, capture_ns=stamp_ns, arrive_ns=true_ns, samples=samples))
        while ORIGIN_NS + pictures * S // 25 < true_ns - 20_000_000:
            heard.push(frame(pictures, ORIGIN_NS + pictures * S // 25, true_ns))
            pictures += 1
    want = plain_loop(sound)
    assert len(want) - len(heard.steps) <= (0.2 * RATE + max(chunks)) // STEP
    np.testing.assert_allclose(heard.steps, want[: len(heard.steps)], atol=1e-4)
    for steps, told in heard.told:
        assert told == pytest.approx(want[steps - 1], abs=1e-4) if steps else told == 0
    heard.graph.close()


def test_a_new_epoch_begins_anew_and_so_does_sound_that_was_overwritten() -> None:
    sound = sound_of(3, 6.0)
    heard = Listened(1, "audio")

    def say(samples: np.ndarray, end: int, epoch: int, seq: int) -> None:
        t_ns = ORIGIN_NS + end * S // RATE
        heard.push(Block(stream="audio", seq=seq, epoch=epoch, capture_ns=t_ns, arrive_ns=t_ns, samples=samples))

    say(sound[:1000], 1000, 0, 0)
    say(sound[1000:2000], 2000, 1, 1)
    first, second = plain_loop(sound[:1000]), plain_loop(sound[1000:2000])
    np.testing.assert_allclose(heard.steps, [*first, *second], atol=1e-4)
    heard.steps.clear()
    # More than the ring holds, between two triggers that it had time for.
    say(sound[2000:32_000], 32_000, 1, 2)
    assert heard.graph.overruns == {"ear": 1}
    epoch = sound[1000:32_000]
    begin = len(epoch) // STEP * STEP - len(heard.steps) * STEP
    assert begin > 1000  # something was skipped, in whole steps
    np.testing.assert_allclose(heard.steps, plain_loop(epoch[begin:], epoch[:begin]), atol=1e-4)
    heard.graph.close()


def test_absent_sound_gives_zeros_and_is_heard_later() -> None:
    sound = sound_of(4, 1.0)
    heard = Listened(0)
    late_ns = ORIGIN_NS + 4 * S // 10
    for seq, end in enumerate(range(400, 3201, 400)):
        t_ns = ORIGIN_NS + end * S // RATE
        heard.push(Block(stream="audio", seq=seq, capture_ns=t_ns, arrive_ns=t_ns, samples=sound[end - 400 : end]))
        heard.push(frame(seq, t_ns, t_ns))
    known = heard.told[-1][1]
    heard.push(frame(50, late_ns + S, late_ns + S))
    heard.sync.advance(late_ns + 2 * S)
    heard.push(frame(51, late_ns + 2 * S, late_ns + 2 * S))
    assert heard.told[-1][1] == 0 != known
    assert not any(isinstance(value, Snapshot) for value in vars(heard.graph.stages[0]).values())  # nor keeps pictures
    heard.graph.close()


@pytest.mark.parametrize("trigger", ["image", "audio"])
def test_a_pipeline_listens_and_its_replay_too(tmp_path: Path, write_clip: Any, trigger: str) -> None:
    sound = sound_of(5, 1.6)
    clip = write_clip(times_s=tuple(k / 25 for k in range(40)), sound=sound[None], rate_hz=RATE)
    path = listening_bundle(tmp_path / "b.mmedge", {"trigger": trigger, "every_ms": 30})
    inputs = {"image": str(clip), "audio": str(clip)}
    with mmedge.Pipeline(path, inputs, latency="offline", record=tmp_path / "r", isolation="thread") as pipe:
        lines = [replayed_line(result) for result in pipe]
        statistics = pipe.statistics
    with mmedge.load(path) as bundle:
        again = Replay(tmp_path / "r", bundle)
        results = list(again)
    assert [replayed_line(result) for result in results] == lines
    assert again.differs == 0
    assert statistics.stage_errors == statistics.stage_overruns == {}
    want, place = plain_loop(sound), 0
    scores = [dict(result.tasks["voice"].top)["voice"] for result in results if result.present["audio"]]
    for score in scores[2:]:  # by then a step has come
        while abs(want[place] - score) > 1e-4:
            place += 1
    assert place >= len(want) - 3


def test_verify_says_what_would_mend_a_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ear = {"inputs": {"x": "audio", "h": "@state:h.next"}, "outputs": {"p": ["batch", 1], "h.next": ["batch", 4]}}
    join = {
        "callable": "tests.streams:pick",
        "inputs": {"p": "ear.p", "image": "image"},
        "outputs": {"p": ["batch", 2]},
    }
    stages = {"ear": {**ear, "every_ms": 100}, "join": join}
    path = listening_bundle(tmp_path / "b.mmedge", {"trigger": "image"}, stages=stages)
    assert run(["verify", str(path)]) == 1
    told = capfd.readouterr().err
    assert "fix: lengthen the window_ms of 'audio' or shorten the step" in told
