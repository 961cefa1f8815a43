"""A run starts on the engines that are there and changes to better ones when they are built; wrong ones never serve."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mmedge
from mmedge.engine.cache import Verdict
from mmedge.engine.cuda import gpu_problem
from mmedge.errors import CheckError, ConfigError
from mmedge.fusion import load_graph
from mmedge.fusion.built import load_built
from mmedge.fusion.choice import candidates
from mmedge.fusion.compile import compile_bundle
from mmedge.fusion.doors import DOORS, TensorRTDoor
from mmedge.types import Result
from tests.doors import OrtDoor, built, optimised, raw_eye, twin_bundle, wait_for
from tests.networks import FLOAT, NODE, network
from tests.tiny import networks

WRONG_EYE = network(
    [NODE("Flatten", ["x"], ["f"]), NODE("ReduceSum", ["f", "one"], ["y"])],
    {"x": (FLOAT, [1, 1, 4, 4])}, {"y": (FLOAT, [1, 1])}, one=np.array([1]),
).SerializeToString()  # fmt: skip
INPUTS = {"image": "push://", "audio": "push://"}


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OrtDoor:
    own = OrtDoor(tmp_path / "engines")
    monkeypatch.setitem(DOORS, "tensorrt", own)
    return own


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[mmedge.Bundle]:
    with mmedge.load(twin_bundle(tmp_path / "twin.mmedge")) as opened:
        yield opened


def answer(pipe: mmedge.Pipeline) -> Result:
    """Push a bright picture, never the same twice, and the loud sound since then; return what is made of them."""
    time.sleep(0.1)
    now = time.monotonic_ns()
    pipe.push("audio", np.full(800, 0.8, np.float32), now)
    pipe.push("image", np.full((8, 8), 203 + now // 1000 % 3, np.uint8), now)
    return next(iter(pipe))


def test_a_run_starts_at_once_and_changes_its_engines_when_they_are_built(
    bundle: mmedge.Bundle, door: OrtDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door.held = True
    with caplog.at_level(logging.WARNING), mmedge.Pipeline(bundle, INPUTS, isolation="thread") as pipe:
        first = answer(pipe)
        assert pipe.statistics.swaps == []
        assert pipe.health()["@engines"]["state"] == "BUILDING"
        assert first.tasks["scene"].label == "bright"
        door.held, door.build_s = False, 0.5
        results, give_up = [], time.monotonic() + 60
        while len(pipe.statistics.swaps) < 3:
            assert time.monotonic() < give_up
            results.append(answer(pipe))
        results.append(answer(pipe))
        health = pipe.health()["@engines"]
        swaps = {swap["stage"]: swap for swap in pipe.statistics.swaps}
    # The same answers before and after, none of them lost, and each swap is told.
    assert {r.tasks["scene"].label for r in results} == {"bright"}
    assert {r.tasks["same"].label for r in results} == {first.tasks["same"].label}
    assert pipe.statistics.triggers == pipe.statistics.results == len(results) + 1
    assert pipe.statistics.drops == {}
    assert swaps["eye"]["before"] == "onnxruntime eye.onnx"
    assert swaps["eye"]["after"] == "onnxruntime eye.trt.onnx"
    assert health["counters"] == {"swaps": 3, "building": 0, "given_up": 0}
    assert pipe.statistics.to_dict()["swaps"] == pipe.statistics.swaps
    assert sum("runs on" in record.message for record in caplog.records) == 3
    assert sum("ran on" in note for note in pipe.statistics.notes) == 3
    assert door.builds == ["eye.trt.onnx", "ear.trt.onnx", "join.trt.onnx"]


def test_what_is_built_serves_from_the_start(bundle: mmedge.Bundle, door: OrtDoor) -> None:
    load_graph(bundle).close()
    with mmedge.Pipeline(bundle, INPUTS, isolation="thread") as pipe:
        answer(pipe)
        assert "@engines" not in pipe.health()
    assert "swaps" not in pipe.statistics.to_dict()
    assert len(door.builds) == 3


def test_it_can_wait_instead_and_a_recorded_run_does(bundle: mmedge.Bundle, door: OrtDoor, tmp_path: Path) -> None:
    door.build_s = 0.2
    with mmedge.Pipeline(bundle, INPUTS, isolation="thread", engines="wait") as pipe:
        answer(pipe)
        assert pipe.statistics.swaps == []
    assert len(door.builds) == 3
    for path in door.cache.folder.glob("*.json"):
        path.unlink()
    with mmedge.Pipeline(bundle, INPUTS, isolation="thread", record=tmp_path / "recorded") as pipe:
        answer(pipe)
    assert len(door.builds) == 6
    with pytest.raises(ConfigError, match="cannot change its engines"):
        mmedge.Pipeline(bundle, INPUTS, isolation="thread", record=tmp_path / "other", engines="now")


def test_the_option_reaches_a_runtime_of_its_own(bundle: mmedge.Bundle) -> None:
    with pytest.raises(ConfigError, match="unknown engines 'later'"):
        mmedge.Pipeline(bundle, INPUTS, engines="later")  # type: ignore[arg-type]
    for engines in ("now", "wait"):
        with mmedge.Pipeline(bundle, INPUTS, isolation="process", engines=engines, backend="onnxruntime") as pipe:  # type: ignore[arg-type]
            assert answer(pipe).tasks["scene"].label == "bright"
            assert "@engines" not in pipe.health()


def test_a_build_that_fails_is_told_once_and_changes_nothing(
    bundle: mmedge.Bundle, door: OrtDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door.fails = "no kernel for it"
    with caplog.at_level(logging.WARNING), mmedge.Pipeline(bundle, INPUTS, isolation="thread") as pipe:
        answer(pipe)
        wait_for(lambda: not pipe.health()["@engines"]["counters"]["building"])  # type: ignore[index]
        assert answer(pipe).tasks["scene"].label == "bright"
        report = pipe.health()["@engines"]
    assert report["counters"] == {"swaps": 0, "building": 0, "given_up": 3}
    assert "no kernel for it" in str(report["reason"])
    assert sum("stage 'eye' stays on onnxruntime eye.onnx" in record.message for record in caplog.records) == 1


def test_what_is_there_but_wrong_is_no_start(tmp_path: Path, door: OrtDoor) -> None:
    """Then the run waits for what must be built after all."""
    with mmedge.load(twin_bundle(tmp_path / "wrong.mmedge", cpu_eye=WRONG_EYE)) as bundle:
        graph = load_graph(bundle, wait=False)
        assert graph.served["eye"] == "onnxruntime eye.trt.onnx"
        graph.close()


def test_the_end_of_a_run_ends_its_builds(bundle: mmedge.Bundle, door: OrtDoor) -> None:
    door.build_s = 60
    with mmedge.Pipeline(bundle, INPUTS, isolation="thread") as pipe:
        answer(pipe)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert not list(door.cache.folder.glob("*.plan"))


def test_an_engine_that_cannot_run_here_is_told_once(
    bundle: mmedge.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real builder, ahead of time: what it builds needs a GPU, the run goes on as it was."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'mmedge[tensorrt-rtx]'")
    if gpu_problem() is None:
        pytest.skip("this machine has a GPU")

    class Ahead(TensorRTDoor):
        def problem(self) -> str | None:
            return None

    monkeypatch.setitem(DOORS, "tensorrt", Ahead())
    monkeypatch.setenv("MMEDGE_CACHE", str(tmp_path / "real"))
    monkeypatch.setenv("MMEDGE_TENSORRT", "tensorrt_rtx")
    with caplog.at_level(logging.WARNING), mmedge.Pipeline(bundle, INPUTS, isolation="thread") as pipe:
        assert answer(pipe).tasks["scene"].label == "bright"
        wait_for(lambda: not pipe.health()["@engines"]["counters"]["building"], 60)  # type: ignore[index]
        assert answer(pipe).tasks["scene"].label == "bright"
        report = pipe.health()["@engines"]
    assert report["counters"] == {"swaps": 0, "building": 0, "given_up": 3}
    assert "was built, but cannot run here" in str(report["reason"])
    assert sum("cannot run here" in record.message for record in caplog.records) == 1
    assert len(list((tmp_path / "real").glob("*.plan"))) == 1  # no more are built in vain


WRONG = {
    "another network's": lambda: networks()["ear"],  # other tensors
    "the same tensors": lambda: raw_eye(128.0),  # other numbers
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_engine_in_the_cache_is_caught_and_built_again(
    bundle: mmedge.Bundle, door: OrtDoor, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Put there by hand, with a sidecar whose hash is right: what it answers gives it away."""
    (variant,) = bundle.variants("eye", "tensorrt")
    key = door.key(bundle, variant)
    door.cache.put(key, built(optimised(WRONG[kind]())))
    with caplog.at_level(logging.WARNING):
        graph = load_graph(bundle)
    try:
        assert "the engine in the cache is wrong, building it again" in caplog.text
        assert graph.served["eye"] == "onnxruntime eye.trt.onnx"
        assert "eye.trt.onnx" in door.builds
    finally:
        graph.close()
    caplog.clear()
    load_graph(bundle).close()  # the right one is there now
    assert "wrong" not in caplog.text
    assert door.builds.count("eye.trt.onnx") == 1


def test_an_engine_that_fails_though_it_is_new_does_not_serve_and_is_not_built_at_every_start(
    tmp_path: Path, door: OrtDoor, caplog: pytest.LogCaptureFixture
) -> None:
    with mmedge.load(twin_bundle(tmp_path / "bad.mmedge", eye=raw_eye(128.0))) as bundle:
        graph = load_graph(bundle)
        assert graph.served["eye"] == "onnxruntime eye.onnx"
        graph.close()
        with caplog.at_level(logging.WARNING):
            load_graph(bundle).close()
            assert "self-test failed" in caplog.text
        assert door.builds.count("eye.trt.onnx") == 1
        with pytest.raises((CheckError, ConfigError)):
            load_graph(bundle, backend="tensorrt")


def test_an_engine_that_fails_its_self_test_is_never_published(
    bundle: mmedge.Bundle, door: OrtDoor, tmp_path: Path
) -> None:
    """A builder that makes something else of the network: what it made is not there when it is tried, nor after."""
    (variant,) = bundle.variants("eye", "tensorrt")
    plans: list[list[str]] = []

    def seen(built: object) -> None:
        plans.append([path.name for path in door.cache.folder.glob("*.plan")])

    door.corrupt = raw_eye(128.0)
    for _ in range(2):  # asked for, it is built again, and fails again
        with pytest.raises(CheckError, match="self-test failed"):
            load_built(bundle, "eye", {}, "tensorrt", variant, seen=seen)
    assert plans == [[], []]
    assert not list(door.cache.folder.glob("*.plan"))
    found = door.find(bundle, variant)
    assert not found.built
    assert found.verdict is not None
    assert "self-test failed" in str(found.verdict.error)
    door.corrupt = None
    load_built(bundle, "eye", {}, "tensorrt", variant, seen=seen).close()
    assert plans[2] == []  # it is published when it has passed
    assert door.find(bundle, variant).built


def test_an_engine_is_timed_when_that_is_asked_for_and_not_beside_a_run(bundle: mmedge.Bundle, door: OrtDoor) -> None:
    (variant,) = bundle.variants("eye", "tensorrt")
    load_built(bundle, "eye", {}, "tensorrt", variant).close()
    assert door.find(bundle, variant).verdict is None
    compile_bundle(bundle, None, lambda text, share: None)
    verdict = door.find(bundle, variant).verdict
    assert verdict is not None
    assert verdict.error is None
    assert 0 < (verdict.run_ms or 0) < 1000


def test_the_fastest_that_passes_is_taken_once_all_were_timed(tmp_path: Path, door: OrtDoor) -> None:
    with mmedge.load(twin_bundle(tmp_path / "two.mmedge", precisions=("int8", "fp16"))) as bundle:
        order = [v.precision for b, v in candidates(bundle, "eye", "tensorrt", None)]
        assert order == ["int8", "fp16"]
        found = {v.precision: v for v in bundle.variants("eye", "tensorrt")}
        for variant in found.values():
            door.build(bundle, variant).publish(None)
        door.cache.note(door.key(bundle, found["fp16"]), Verdict(run_ms=1.0))
        assert [v.precision for _, v in candidates(bundle, "eye", "tensorrt", None)] == ["int8", "fp16"]
        door.cache.note(door.key(bundle, found["int8"]), Verdict(run_ms=2.0))
        assert [v.precision for _, v in candidates(bundle, "eye", "tensorrt", None)] == ["fp16", "int8"]
        door.cache.note(door.key(bundle, found["fp16"]), Verdict(error="self-test failed"))
        assert [v.precision for _, v in candidates(bundle, "eye", "tensorrt", None)] == ["int8"]
