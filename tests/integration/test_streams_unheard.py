"""Before a stream's first step its sound is absent to whatever is behind it: no rule claims what nothing has heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge._native import core
from mmedge.fusion import StageGraph, load_graph
from mmedge.plan import plan_sync
from mmedge.replay.replay import Replay
from mmedge.replay.samples import raw_samples
from mmedge.sync import Synchronizer
from mmedge.types import Block, FloatArray, Frame
from tests.lines import replayed_line
from tests.streams import RATE, STEP, listening_bundle

pytestmark = pytest.mark.parallel

S = 1_000_000_000
ORIGIN_NS = 5 * S
EAR = {
    "inputs": {"x": "audio", "h": "@state:h.next"},
    "outputs": {"p": ["batch", 1], "h.next": ["batch", 4]},
    "every_ms": 1000 * STEP / RATE,
}
ALONE = {"callable": f"{__name__}:claim", "inputs": {"p": "ear.p"}, "outputs": {"p": ["batch", 2]}}
SEEING = {
    "callable": f"{__name__}:look",
    "inputs": {"p": "ear.p", "image": "image", "present": "@present", "age": "@age_ms"},
    "outputs": {"p": ["batch", 2]},
}


def claim(p: FloatArray) -> FloatArray:
    """Say no voice, surely, when it is fed zeros: the claim that nothing supports."""
    return np.concatenate([1 - p, p], axis=1)


def look(p: FloatArray, image: FloatArray, present: FloatArray, age: FloatArray) -> FloatArray:
    """Say which inputs are there: [image, audio]."""
    return present.astype(np.float32)


def bundle_of(tmp_path: Path, stages: dict[str, Any], **changes: Any) -> Path:
    sync = changes.pop("sync", {"trigger": "audio", "every_ms": 7})
    return listening_bundle(tmp_path / "b.mmedge", sync, stages={"ear": EAR, **stages}, **changes)


class Fed:
    """A graph that is fed sound in small pieces, beside pictures."""

    def __init__(self, path: Path, seats: Sequence[str]) -> None:
        bundle = mmedge.load(path)
        self.graph: StageGraph = load_graph(bundle, backend="onnxruntime", allow=[__name__])
        attached = dict.fromkeys(seats, True)
        self.sync = Synchronizer(plan_sync(bundle.inputs, attached, {}, bundle.manifest.sync), started_ns=ORIGIN_NS)
        self.seats, self.seq, self.done = seats, 0, 0

    def say(self, samples: int, epoch: int = 0) -> list[bool]:
        """Push noise; return at each trigger whether the rule behind the stream has an answer."""
        self.seq, self.done = self.seq + 1, self.done + samples
        t_ns = ORIGIN_NS + self.done * S // RATE
        noise = np.random.default_rng(self.seq).uniform(-1, 1, samples).astype(np.float32)
        stamp: dict[str, Any] = {"seq": self.seq, "arrive_ns": t_ns}
        if "image" in self.seats:
            dot = np.zeros((8, 8), np.uint8)
            self.sync.push(Frame(stream="image", capture_ns=t_ns, data=dot, format="gray8", width=8, height=8, **stamp))
        self.sync.push(Block(stream="audio", epoch=epoch, capture_ns=t_ns, samples=noise, **stamp))
        told = []
        for shot in self.sync.poll():
            assert shot.present["audio"]
            self.graph.run(shot, self.sync.read_audio)
            told.append(self.graph.answered("join.p"))
        self.sync.trim()
        return told


def test_a_rule_behind_a_stream_is_absent_until_the_first_step_of_every_epoch(tmp_path: Path) -> None:
    fed = Fed(bundle_of(tmp_path, {"join": ALONE}), ["audio"])
    before, after = fed.say(STEP - 30), fed.say(3 * STEP)
    assert before
    assert not any(before)
    assert after[-1]
    anew = fed.say(STEP - 30, epoch=1)
    assert anew
    assert not any(anew)
    assert fed.graph.unheard("join.p") == {"audio"}
    assert not fed.graph.output("join.p").any()
    assert fed.say(2 * STEP, epoch=1)[-1]
    assert fed.graph.unheard("join.p") == frozenset()
    fed.graph.close()


def test_a_failed_stream_has_heard_nothing_until_its_next_step(tmp_path: Path) -> None:
    fed = Fed(bundle_of(tmp_path, {"join": ALONE}), ["audio"])
    assert fed.say(2 * STEP)[-1]
    ear = fed.graph.stages[0]
    ear.reset()  # as after a failure
    assert not any(fed.say(STEP // 2))
    assert fed.say(STEP)[-1]
    fed.graph.close()


def test_presence_and_age_leave_out_what_was_not_heard(tmp_path: Path) -> None:
    """A fusion stage that knows what is there takes the sound as missing, not as zeros that were heard."""
    fed = Fed(bundle_of(tmp_path, {"join": SEEING}), ["image", "audio"])
    fed.say(STEP - 30)
    assert fed.graph.unheard("join.p") == {"audio"}
    assert not fed.graph.stages[1].engine.inputs["age"][0, 1]
    fed.say(3 * STEP)
    assert fed.graph.output("join.p")[0, 1] == 1
    fed.graph.close()


MASKS = [{"present": [name], "metric": "top1", "value": 1.0} for name in ("image", "audio")]


@pytest.mark.parametrize(("validated", "claims"), [(MASKS, True), (MASKS[1:], False)])
def test_a_run_and_its_replay_say_nothing_that_was_not_heard(
    tmp_path: Path, write_clip: Any, validated: list[dict[str, Any]], claims: bool
) -> None:
    """With the picture alone a label is given only where the bundle was validated with the picture alone."""
    stages = {"join": ALONE, "both": SEEING}
    task = {"kind": "classification", "labels": "voice.txt", "scores": "probabilities"}
    tasks = {"voice": {**task, "output": "join.p"}, "there": {**task, "output": "both.p"}}
    path = bundle_of(tmp_path, stages, tasks=tasks, validated_masks=validated)
    sound = np.random.default_rng(1).uniform(-1, 1, RATE).astype(np.float32)
    clip = write_clip(times_s=tuple(k / 50 for k in range(50)), sound=sound[None], rate_hz=RATE)
    inputs = {"image": str(clip), "audio": str(clip)}
    options: dict[str, Any] = {"latency": "offline", "isolation": "thread", "allow": [__name__]}
    with mmedge.Pipeline(path, inputs, record=tmp_path / "r", **options) as pipe:
        results = list(pipe)
    start = next(k for k, result in enumerate(results) if result.tasks["voice"].label is not None)
    early = [result for result in results[:start] if result.present["audio"]]
    assert early  # the sound was there, no step of it was heard
    assert all(result.tasks["voice"].score is None for result in early)
    pictured = [result for result in early if result.present["image"]]
    assert all((result.tasks["there"].label == "silence") is claims for result in pictured)
    assert all(result.tasks["voice"].label is not None for result in results[start:])
    with mmedge.load(path) as bundle:
        replay = Replay(tmp_path / "r", bundle, allow=[__name__])
        assert [replayed_line(result) for result in replay] == [replayed_line(result) for result in results]
        assert replay.differs == 0


def test_samples_of_a_recording_have_no_sound_before_the_first_step(tmp_path: Path, write_clip: Any) -> None:
    sound = np.random.default_rng(2).uniform(-1, 1, RATE // 2).astype(np.float32)
    clip = write_clip(times_s=tuple(k / 50 for k in range(25)), sound=sound[None], rate_hz=RATE)
    with mmedge.load(bundle_of(tmp_path, {"join": ALONE})) as bundle:
        inputs, sync = bundle.inputs, bundle.manifest.sync
        uris = dict.fromkeys(inputs, str(clip))
        found = [
            ["audio" in sample for sample in raw_samples(inputs, sync, uris, least=least)]
            for least in (None, {"audio": STEP})
        ]
    assert all(found[0][1:])
    assert 0 < found[1].index(True) <= -(-STEP // 56) + 1
    assert all(found[1][found[1].index(True) :])


def replayed(tmp_path: Path, write_clip: Any, rule: dict[str, Any]) -> tuple[Replay, list[Any], list[Any]]:
    """Record by the rule of before, by which stages behind a stream ran before it had heard anything; replay."""
    task = {"kind": "classification", "labels": "voice.txt", "scores": "probabilities", "output": "join.p"}
    sync = {"trigger": "audio", "every_ms": 7}
    path = bundle_of(tmp_path, {"join": ALONE | rule}, tasks={"voice": task}, sync=sync)
    sound = np.random.default_rng(3).uniform(-1, 1, RATE).astype(np.float32)
    clip = write_clip(times_s=tuple(k / 50 for k in range(50)), sound=sound[None], rate_hz=RATE)
    options: dict[str, Any] = {"latency": "offline", "isolation": "thread", "allow": [__name__]}
    stage = core.Stage
    with pytest.MonkeyPatch.context() as patch:
        # As if every seat fed every stage directly, too.
        patch.setattr(core, "Stage", lambda **rules: stage(**{**rules, "direct": rules["depends"]}))
        with mmedge.Pipeline(path, {"audio": str(clip)}, record=tmp_path / "r", **options) as pipe:
            before = list(pipe)
    with mmedge.load(path) as bundle:
        replay = Replay(tmp_path / "r", bundle, allow=[__name__])
        after = list(replay)
    assert len(after) == len(before)
    return replay, before, after


def test_a_recording_of_before_replays_but_for_the_claims_that_were_wrong(tmp_path: Path, write_clip: Any) -> None:
    """What stages gave before a stream had heard anything is all that differs."""
    replay, before, after = replayed(tmp_path, write_clip, {"every_ms": 10})
    assert replay.differs == 0
    other = [k for k, pair in enumerate(zip(before, after, strict=True)) if len(set(map(replayed_line, pair))) > 1]
    assert other  # the claims: silence, for certain, of sound that nothing had heard
    assert other == list(range(other[-1] + 1))
    assert {before[k].tasks["voice"].label for k in other} == {"silence"}
    assert all(after[k].tasks["voice"].label is None for k in other)


@pytest.mark.parametrize("every_ms", [35, 50, 90, 400])
def test_a_rule_of_its_own_that_began_to_count_too_early_is_no_other_decision(
    tmp_path: Path, write_clip: Any, every_ms: int
) -> None:
    replay, before, after = replayed(tmp_path, write_clip, {"every_ms": every_ms})
    assert replay.differs == 0
    assert [a.t_ns for a in after] == [b.t_ns for b in before]
