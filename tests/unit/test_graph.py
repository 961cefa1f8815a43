"""The stage graph: what is due, what is cached, rules in place of networks."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.manifest import TensorInput
from mmedge.engine.base import EngineBase
from mmedge.errors import BundleError, ConfigError, EngineError
from mmedge.fusion import StageGraph
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.stage import StageRunner
from mmedge.types import Snapshot, Tensor

SEATS = {"imu": TensorInput(shape=(1, 2))}


class Adder(EngineBase):
    """y = x + state; counts its runs."""

    def __init__(self, *, state: bool = False, gate: threading.Event | None = None) -> None:
        super().__init__("test")
        self.inputs = {"x": np.zeros((1, 2), np.float32)}
        if state:
            self.inputs["h"] = np.zeros((1, 2), np.float32)
        self.outputs = {"y": np.zeros((1, 2), np.float32)}
        self.runs = 0
        self._gate = gate

    def _run_impl(self) -> None:
        if self._gate is not None and self.runs:
            self._gate.wait(60)
        self.runs += 1
        self.outputs["y"][...] = sum(self.inputs.values())


def snapshot(t_ms: float, value: float | None, seq: int = 0, epoch: int = 0) -> Snapshot:
    shot = Snapshot(t_ns=round(t_ms * 1e6), seq=seq, present={"imu": value is not None})
    if value is not None:
        data = np.full((1, 2), value, np.float32)
        shot.values["imu"] = Tensor(stream="imu", seq=seq, capture_ns=shot.t_ns, arrive_ns=shot.t_ns, data=data)
        shot.epoch["imu"] = epoch
    return shot


def graph_of(engine: EngineBase, **rules: Any) -> tuple[StageGraph, Any]:
    inputs = {"x": "imu", **({"h": "@state:y"} if "h" in engine.inputs else {})}
    spec = StageSpec(inputs=inputs, outputs={"y": ("batch", 2)}, **rules)
    return StageGraph([StageRunner("s", spec, SEATS, engine, {}, raw=False)]), engine


def no_audio(*_: object) -> int:
    raise AssertionError("no sound here")


def test_a_stage_runs_only_when_its_input_is_new() -> None:
    graph, engine = graph_of(Adder())
    for seq, t in ((0, 0), (0, 10), (1, 20), (1, 30)):
        graph.run(snapshot(t, 1.0 + seq, seq), no_audio)
    assert engine.runs == 2
    assert graph.output("s.y")[0, 0] == 2.0


def test_every_ms_reuses_the_output_and_tells_its_age() -> None:
    graph, engine = graph_of(Adder(), every_ms=100)
    ages = []
    for k in range(10):
        shot = snapshot(40 * k, float(k), k)
        graph.run(shot, no_audio)
        ages.append(shot.age_ms.get("imu", 0.0))
    assert engine.runs == 4  # at 0, 120, 240, 360 ms
    assert ages[:5] == [0, 40, 80, 0, 40]


def test_every_ms_keeps_its_mean_whatever_the_triggers() -> None:
    graph, engine = graph_of(Adder(), every_ms=100)
    for k in range(250):
        graph.run(snapshot(40 * k, 1.0, k), no_audio)
    assert engine.runs == 100


def test_every_ms_waits_for_no_output_of_other_inputs() -> None:
    seats = {"imu": TensorInput(shape=(1, 2)), "other": TensorInput(shape=(1, 2))}
    engine = Adder()
    engine.inputs["z"] = np.zeros((1, 2), np.float32)
    spec = StageSpec(inputs={"x": "imu", "z": "other"}, outputs={"y": ("batch", 2)}, every_ms=100)
    graph = StageGraph([StageRunner("s", spec, seats, engine, {}, raw=False)])
    seen = []
    for k, there in enumerate((True, True, False, False, True, True)):
        shot = snapshot(20 * k, 1.0, k)
        shot.present["other"] = there
        if there:
            data = np.full((1, 2), 10.0, np.float32)
            shot.values["other"] = Tensor(stream="other", seq=k, capture_ns=shot.t_ns, arrive_ns=shot.t_ns, data=data)
        graph.run(shot, no_audio)
        seen.append((float(graph.output("s.y")[0, 0]), engine.runs))
    assert seen == [(11, 1), (11, 1), (1, 2), (1, 2), (11, 3), (11, 3)]


def test_an_absent_input_gives_zeros() -> None:
    graph, engine = graph_of(Adder())
    graph.run(snapshot(0, 3.0), no_audio)
    graph.run(snapshot(40, None, 1), no_audio)
    assert not graph.output("s.y").any()
    assert engine.runs == 1


def test_state_is_fed_back_and_reset_on_a_new_epoch() -> None:
    graph, _ = graph_of(Adder(state=True))
    for seq in range(3):
        graph.run(snapshot(40 * seq, 1.0, seq), no_audio)
    assert graph.output("s.y")[0, 0] == 3.0
    graph.run(snapshot(200, 1.0, 0, epoch=1), no_audio)
    assert graph.output("s.y")[0, 0] == 1.0


def test_async_never_holds_a_trigger_and_reports_the_age() -> None:
    gate = threading.Event()
    graph, _ = graph_of(Adder(gate=gate), mode="async")
    graph.run(snapshot(0, 1.0, 0), no_audio)
    begin = time.monotonic()
    late = snapshot(40, 2.0, 1)
    graph.run(late, no_audio)
    later = snapshot(80, 3.0, 2)
    graph.run(later, no_audio)
    assert time.monotonic() - begin < 50
    assert graph.output("s.y")[0, 0] == 1.0
    assert later.age_ms["imu"] == 80
    gate.set()
    for seq in range(3, 6000):
        graph.run(snapshot(40 * seq, 4.0, seq), no_audio)
        if graph.output("s.y")[0, 0] != 1.0:
            break
        time.sleep(0.01)
    assert graph.output("s.y")[0, 0] == 2.0
    graph.close()


def test_a_callable_is_a_stage() -> None:
    engine = CallableEngine("tests.unit.test_graph:double", {"x": (1, 2)}, {"y": (1, 2)})
    graph, _ = graph_of(engine)
    graph.run(snapshot(0, 4.0), no_audio)
    assert graph.output("s.y").tolist() == [[8.0, 8.0]]


def double(x: np.ndarray) -> np.ndarray:
    return 2 * x


def wrong(x: np.ndarray) -> np.ndarray:
    return x[0]


def broken(x: np.ndarray) -> np.ndarray:
    raise KeyError("oops")


@pytest.mark.parametrize(("name", "message"), [("wrong", "declared"), ("broken", "KeyError: 'oops'")])
def test_a_callable_that_misbehaves_is_named(name: str, message: str) -> None:
    engine = CallableEngine(f"tests.unit.test_graph:{name}", {"x": (1, 2)}, {"y": (1, 2)})
    with pytest.raises(EngineError, match=message) as caught:
        engine.run()
    assert f"tests.unit.test_graph:{name}" in (caught.value.where or "")


@pytest.mark.parametrize("target", ["nothing", "tests.unit.test_graph:none", "no.such.module:f", "math:pi"])
def test_a_callable_that_does_not_exist(target: str) -> None:
    with pytest.raises(ConfigError):
        CallableEngine(target, {}, {})


def test_shapes_are_checked_before_the_first_run() -> None:
    engine = Adder()
    engine.outputs["y"] = np.zeros((1, 3), np.float32)
    with pytest.raises(BundleError, match=r"\[1, 3\], the graph has \[1, 2\]"):
        graph_of(engine)


def test_async_is_warm_again_after_an_absence() -> None:
    graph, _ = graph_of(Adder(), mode="async")
    graph.run(snapshot(0, 1.0, 0), no_audio)
    graph.run(snapshot(40, None, 1), no_audio)
    assert not graph.output("s.y").any()
    graph.run(snapshot(80, 5.0, 2), no_audio)
    assert graph.output("s.y")[0, 0] == 5.0
    graph.close()


@pytest.mark.parametrize(
    ("backends", "evidence"),
    [(("tensorrt", "callable"), "gpu"), (("tensorrt", "onnxruntime"), "cpu"), (("callable",), "cpu")],
)
def test_rules_say_nothing_of_where_networks_run(backends: tuple[str, ...], evidence: str) -> None:
    stages = []
    for number, backend in enumerate(backends):
        engine = Adder()
        engine.backend = backend
        spec = StageSpec(inputs={"x": "imu"}, outputs={"y": ("batch", 2)})
        stages.append(StageRunner(f"s{number}", spec, SEATS, engine, {}, raw=False))
    assert StageGraph(stages).evidence == evidence
