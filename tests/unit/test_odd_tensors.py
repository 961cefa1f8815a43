"""Tensors of other types than what feeds them, and engines that are put in while a stage runs in the background."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.bundle.manifest import TensorInput
from mmedge.engine.base import EngineBase
from mmedge.fusion import StageGraph
from mmedge.fusion.stage import StageRunner
from mmedge.types import Snapshot, Tensor

SEATS = {"a": TensorInput(shape=(1, 2)), "b": TensorInput(shape=(1, 2))}


class Sum(EngineBase):
    """Adds up its inputs; waits for ``gate`` from its second run on."""

    def __init__(self, inputs: dict[str, str], dtype: str = "float32", gate: threading.Event | None = None) -> None:
        super().__init__("test")
        self.inputs = {name: np.zeros((1, 2), kind) for name, kind in inputs.items()}
        self.outputs = {"y": np.zeros((1, 2), dtype)}
        self._gate, self._runs = gate, 0

    def _run_impl(self) -> None:
        self._runs += 1
        if self._gate is not None and self._runs > 1:
            assert self._gate.wait(60)
        self.outputs["y"][...] = sum(array.astype(np.float64) for array in self.inputs.values())


def shot(seq: int, value: float, *, b: bool = True, age_ms: float = 0.0) -> Snapshot:
    found = Snapshot(t_ns=seq * 10**8, seq=seq, present={"a": True, "b": b}, epoch={"a": 0, "b": 0})
    for name in ("a", "b") if b else ("a",):
        data = np.full((1, 2), value, np.float32)
        found.values[name] = Tensor(stream=name, seq=seq, capture_ns=found.t_ns, arrive_ns=found.t_ns, data=data)
        found.age_ms[name] = age_ms
    return found


def no_audio(*_: object) -> int:
    raise AssertionError("no sound here")


def stage(name: str, sources: dict[str, str], engine: EngineBase, upstream: Any, **rules: Any) -> StageRunner:
    spec = StageSpec(inputs=sources, outputs={"y": ("batch", 2)}, **rules)
    return StageRunner(name, spec, SEATS, engine, upstream, raw=False)


def test_presence_and_ages_of_any_type_are_what_they_are_as_float() -> None:
    sources = {"x": "a", "here": "@present", "old": "@age_ms"}
    for here, old, limit in (("bool", "uint8", 255), ("int64", "float64", 1e3), ("float16", "int32", 1e3)):
        engine = Sum({"x": "float32", "here": here, "old": old})
        graph = StageGraph([stage("s", sources, engine, {})])
        graph.run(shot(1, 1.0, age_ms=1e3), no_audio)
        assert (engine.inputs["here"].tolist(), engine.inputs["old"].tolist()) == ([[1, 1]], [[limit, limit]])
        graph.run(shot(2, 1.0, b=False), no_audio)
        assert (engine.inputs["here"].tolist(), engine.inputs["old"].tolist()) == ([[1, 0]], [[0, 0]])
        graph.close()


def test_an_engine_of_another_type_feeds_what_runs_in_the_background_meanwhile() -> None:
    gate = threading.Event()
    up = stage("up", {"x": "a"}, Sum({"x": "float32"}), {})
    state = Sum({"x": "float32", "h": "float32"}, gate=gate)
    down = stage("down", {"x": "up.y", "h": "@state:y"}, state, {"up": up}, mode="async")
    changed = stage("changed", {"x": "up.y"}, Sum({"x": "float32"}), {"up": up}, on="change")
    graph = StageGraph([up, down, changed])
    graph.run(shot(0, 1.0), no_audio)
    graph.run(shot(1, 2.0), no_audio)  # down runs in the background now
    assert down.running
    assert graph.swap(stage("up", {"x": "a"}, Sum({"x": "float32"}, "float64"), {}))
    gate.set()
    graph.run(shot(2, 5.0), no_audio, busy=())  # takes up what was fed before
    assert graph.output("down.y").tolist() == [[3.0, 3.0]]
    assert graph.output("up.y").dtype == np.float64
    assert graph.output("changed.y").tolist() == [[5.0, 5.0]]
    graph.run(shot(3, 7.0), no_audio, busy=())
    assert graph.output("down.y").tolist() == [[8.0, 8.0]]
    graph.run(shot(4, 7.0, b=False), no_audio, busy=())
    assert graph.output("down.y").tolist() == [[15.0, 15.0]]
    graph.close()
