"""Another engine in a stage that is in use: states, what is cached and what is due go on as if nothing had happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from mmedge.bundle.manifest import AudioInput, TensorInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.fusion import StageGraph
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.stream import StreamStage
from mmedge.types import Snapshot, Tensor
from tests.doors import wait_for
from tests.networks import FLOAT, NODE, network

SEATS = {"imu": TensorInput(shape=(1, 2))}


def adder(factor: float = 1.0, *, state: bool = False) -> OnnxRuntimeEngine:
    """y = factor * x (+ h)."""
    nodes = [NODE("Mul", ["x", "k"], ["m" if state else "y"])] + ([NODE("Add", ["m", "h"], ["y"])] if state else [])
    inputs = {"x": (FLOAT, [1, 2]), **({"h": (FLOAT, [1, 2])} if state else {})}
    model = network(nodes, inputs, {"y": (FLOAT, [1, 2])}, k=np.float32(factor))
    return OnnxRuntimeEngine(model.SerializeToString())


def runner(name: str, engine: OnnxRuntimeEngine, upstream: dict[str, StageRunner], **rules: Any) -> StageRunner:
    source = f"{next(iter(upstream))}.y" if upstream else "imu"
    inputs = {"x": source, **({"h": "@state:y"} if "h" in engine.inputs else {})}
    spec = StageSpec(inputs=inputs, outputs={"y": ("batch", 2)}, **rules)
    return StageRunner(name, spec, SEATS, engine, upstream, raw=False)


def snapshot(t_ms: float, value: float, seq: int) -> Snapshot:
    shot = Snapshot(t_ns=round(t_ms * 1e6), seq=seq, present={"imu": True})
    data = np.full((1, 2), value, np.float32)
    shot.values["imu"] = Tensor(stream="imu", seq=seq, capture_ns=shot.t_ns, arrive_ns=shot.t_ns, data=data)
    shot.epoch["imu"] = 0
    return shot


def no_audio(*_: object) -> int:
    raise AssertionError("no sound here")


def run(
    rules: dict[str, Any], swap_at: int | None, *, state: bool, second: dict[str, Any] | None = None
) -> list[float]:
    """Run ten triggers; what the last stage says at each."""
    first = runner("a", adder(state=state), {}, **rules)
    stages = [first] + ([] if second is None else [runner("b", adder(10.0), {"a": first}, **second)])
    graph = StageGraph(stages)
    seen = []
    for k in range(10):
        if k == swap_at:
            other = runner("a", adder(state=state), {}, **rules)
            wait_for(lambda: graph.swap(other))  # noqa: B023  (a background run must have ended, taken up or not)
        graph.run(snapshot(40 * k, float(k // 2), k), no_audio, busy=())
        seen.append(float(graph.output(f"{stages[-1].name}.y")[0, 0]))
    graph.close()
    return seen


@pytest.mark.parametrize("swap_at", [0, 1, 5])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("second", [None, {}, {"on": "change"}, {"every_ms": 80.0}])
@pytest.mark.parametrize("rules", [{}, {"every_ms": 100.0}, {"on": "change"}, {"mode": "async"}])
def test_a_run_with_a_swap_answers_as_one_without(
    rules: dict[str, Any], second: dict[str, Any] | None, state: bool, swap_at: int
) -> None:
    assert run(rules, swap_at, state=state, second=second) == run(rules, None, state=state, second=second)


def test_the_new_engine_serves_from_the_next_trigger_on_and_the_old_one_is_freed() -> None:
    stage = runner("a", old := adder(1.0), {})
    graph = StageGraph([stage])
    graph.run(snapshot(0, 1.0, 0), no_audio)
    assert graph.swap(runner("a", adder(5.0), {}))
    assert float(graph.output("a.y")[0, 0]) == 1.0  # until it runs
    graph.run(snapshot(40, 1.0, 1), no_audio)
    assert float(graph.output("a.y")[0, 0]) == 5.0
    assert old._closed
    graph.close()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.DOUBLE])
def test_outputs_of_another_dtype_reach_the_stage_behind_as_the_same_numbers(kind: int) -> None:
    """Of another precision: of another size, or of the same."""
    nodes = [NODE("Mul", ["x", "k"], ["m"]), NODE("Cast", ["m"], ["y"], to=kind)]
    model = network(nodes, {"x": (FLOAT, [1, 2])}, {"y": (kind, [1, 2])}, k=np.float32(5.0))
    first = runner("a", adder(1.0), {})
    graph = StageGraph([first, runner("b", adder(10.0), {"a": first})])
    graph.run(snapshot(0, 3.0, 0), no_audio)
    assert float(graph.output("b.y")[0, 0]) == 30.0
    assert graph.swap(runner("a", OnnxRuntimeEngine(model.SerializeToString()), {}))
    graph.run(snapshot(40, 3.0, 1), no_audio)
    assert float(graph.output("b.y")[0, 0]) == 150.0
    graph.close()


SOUND = np.random.default_rng(3).standard_normal(8000).astype(np.float32)


def listener() -> OnnxRuntimeEngine:
    """y = h + mean of 80 samples."""
    nodes = [NODE("ReduceMean", ["x", "one"], ["m"], keepdims=1), NODE("Add", ["m", "h"], ["y"])]
    inputs = {"x": (FLOAT, [1, 80]), "h": (FLOAT, [1, 1])}
    model = network(nodes, inputs, {"y": (FLOAT, [1, 1])}, one=np.array([1]))
    return OnnxRuntimeEngine(model.SerializeToString())


def read(name: str, snapshot: Snapshot, out: Any, end: int | None = None) -> int:
    assert end is not None
    out.reshape(-1)[:] = SOUND[end - out.size : end]
    return int(out.size)


@pytest.mark.parametrize("swap_at", [1, 4])
def test_a_stream_hears_every_sample_once_across_a_swap(swap_at: int) -> None:
    seats = {"mic": AudioInput(sample_rate_hz=8000, window_ms=10)}
    spec = StageSpec(inputs={"x": "mic", "h": "@state:y"}, outputs={"y": ("batch", 1)}, every_ms=10)

    def stream() -> StreamStage:
        return StreamStage("s", spec, seats, listener(), {}, raw=False)

    graph = StageGraph([stream()])
    for k in range(8):
        if k == swap_at:
            assert graph.swap(stream())
        end = 330 * (k + 1)  # no whole number of steps
        shot = Snapshot(t_ns=k * 41_250_000, seq=k, present={"mic": True})
        shot.audio_end["mic"], shot.audio_span["mic"], shot.epoch["mic"] = end, (0, 0), 0
        graph.run(shot, read)
        heard = SOUND[: end // 80 * 80].reshape(-1, 80).mean(axis=1).sum()
        assert float(graph.output("s.y")[0, 0]) == pytest.approx(heard, abs=1e-5)
    graph.close()
