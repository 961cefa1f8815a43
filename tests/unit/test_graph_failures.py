"""Stages that fail: what is told, what is forgotten, what goes on; and what is refused before the first trigger."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mmedge
from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, TensorInput, TextInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import EngineBase
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import BundleError, ConfigError, EngineError
from mmedge.fusion import StageError, StageGraph, StageRunner, load_graph
from mmedge.fusion.callables import CallableEngine
from mmedge.fusion.failures import FiniteCheck
from mmedge.fusion.stream import StreamStage
from mmedge.fusion.tensors import constants, input_shapes
from mmedge.types import Snapshot, Tensor, Text
from tests.tiny import MANIFEST, tiny_bundle

SEATS = {"imu": TensorInput(shape=(1, 2)), "text": TextInput(max_tokens=2, tokenizer="t.json")}
GATE = threading.Event()


class Engine(EngineBase):
    """y = f(x, h)."""

    def __init__(self, function: Any, *names: str) -> None:
        super().__init__("test")
        self.inputs = {name: np.zeros((1, 2), np.float32) for name in names}
        self.outputs = {"y": np.zeros((1, 2), np.float32)}
        self.runs, self._function = 0, function

    def _run_impl(self) -> None:
        self.runs += 1
        self.outputs["y"][...] = self._function(**self.inputs)


def snapshot(t_ms: int, value: Any, seq: int) -> Snapshot:
    shot = Snapshot(t_ns=t_ms * 1_000_000, seq=seq, present={"imu": True, "text": False}, epoch={"imu": 0})
    data = np.full((1, 2), value, np.float32)
    shot.values["imu"] = Tensor(stream="imu", seq=seq, capture_ns=shot.t_ns, arrive_ns=shot.t_ns, data=data)
    return shot


def no_audio(*_: object) -> int:
    raise AssertionError("no sound here")


def graph_of(engine: EngineBase, sources: dict[str, str], **rules: Any) -> StageGraph:
    spec = StageSpec(inputs=sources, outputs={"y": ("batch", 2)}, **rules)
    return StageGraph([StageRunner("s", spec, SEATS, engine, {}, raw=False)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 32, 33, 5000])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_one_value_that_is_no_number_is_found(bad: float, size: int, dtype: str) -> None:
    values = np.full((1, size), 3e4, dtype)
    check = FiniteCheck({"n": np.ones(3, np.int64), "y": values})
    check()
    values[0, size // 2] = bad
    with pytest.raises(EngineError, match="not finite") as caught:
        check()
    assert caught.value.where == "tensor 'y'"


def test_a_state_that_went_bad_begins_anew() -> None:
    graph = graph_of(Engine(lambda x, h: x + h, "x", "h"), {"x": "imu", "h": "@state:y"})
    for seq, value in enumerate((1.0, 2.0)):
        graph.run(snapshot(40 * seq, value, seq), no_audio)
    assert graph.output("s.y")[0, 0] == 3.0
    with pytest.raises(StageError, match="not finite") as caught:
        graph.run(snapshot(80, np.nan, 2), no_audio)
    assert (caught.value.stage, caught.value.depends) == ("s", ("imu",))
    assert caught.value.where == "stage 's': tensor 'y'"
    assert not graph.output("s.y").any()
    graph.run(snapshot(120, 5.0, 3), no_audio)
    assert graph.output("s.y")[0, 0] == 5.0


def test_a_background_stage_fails_at_the_trigger_that_takes_it_up_and_recovers_behind_the_triggers() -> None:
    engine = Engine(lambda x: x, "x")
    graph = graph_of(engine, {"x": "imu"}, mode="async")
    graph.run(snapshot(0, 1.0, 0), no_audio, ())
    graph.run(snapshot(40, np.nan, 1), no_audio, ())
    with pytest.raises(StageError, match="not finite") as caught:
        graph.run(snapshot(80, 2.0, 2), no_audio, ())
    assert not caught.value.again
    for t_ms, busy in ((120, ()), (160, ("s",))):
        with pytest.raises(StageError, match="not finite") as caught:
            graph.run(snapshot(t_ms, 3.0, 3), no_audio, busy)
        assert caught.value.again
        assert not graph.output("s.y").any()
        assert not graph.answered("s.y")
    graph.run(snapshot(200, 4.0, 4), no_audio, ())
    assert graph.output("s.y")[0, 0] == 3.0
    graph.close()


def test_a_background_run_whose_inputs_went_away_holds_nothing_and_is_seen_by_nobody() -> None:
    gate = threading.Event()

    def wait(x: Any) -> Any:
        if x[0, 0] == 2.0:
            gate.wait(60)
        if x[0, 0] == 2.0 and fails:
            raise EngineError("it was tired", where="tensor 'y'")
        return x

    for fails in (False, True):
        gate.clear()
        graph = graph_of(Engine(wait, "x"), {"x": "imu"}, mode="async")
        graph.run(snapshot(0, 1.0, 0), no_audio)
        graph.run(snapshot(40, 2.0, 1), no_audio)
        begin = time.monotonic()
        gone = snapshot(80, 0.0, 1)
        gone.present["imu"] = False
        graph.run(gone, no_audio)
        assert graph.busy == ["s"]
        with pytest.raises(StageError, match="its inputs were missing since") as caught:
            graph.run(snapshot(120, 3.0, 2), no_audio)
        assert caught.value.again
        assert time.monotonic() - begin < 50
        gate.set()
        graph.run(snapshot(160, 4.0, 3), no_audio, ())  # waits as at the first time
        assert graph.output("s.y")[0, 0] == 4.0
        assert [error.message for error in graph.lost] == ["it was tired"] * fails
        graph.close()


def test_on_change_runs_for_another_value_not_for_another_number() -> None:
    first = Engine(lambda x: np.round(x), "x")
    second = Engine(lambda x: x, "x")
    spec = StageSpec(inputs={"x": "imu"}, outputs={"y": (1, 2)}, on="change")
    stages = {"a": StageRunner("a", spec, SEATS, first, {}, raw=False)}
    spec = StageSpec(inputs={"x": "a.y"}, outputs={"y": (1, 2)}, on="change")
    stages["b"] = StageRunner("b", spec, SEATS, second, stages, raw=False)
    graph = StageGraph(list(stages.values()))
    for seq, value in enumerate((1.0, 1.0, 1.2, 1.2, 2.0, 1.0)):
        graph.run(snapshot(40 * seq, value, seq), no_audio)
    assert (first.runs, second.runs) == (4, 3)


def block(x: Any) -> Any:
    GATE.wait(60)
    return x


def test_a_callable_that_blocks_fails_at_once_until_it_is_back_and_never_holds_the_end() -> None:
    engine = CallableEngine(f"{__name__}:block", {"x": (1, 2)}, {"y": (1, 2)}, timeout_ms=50)
    threading.Timer(0.2, GATE.set).start()
    engine.run()  # the first time it may import what it needs
    GATE.clear()
    with pytest.raises(EngineError, match="did not return within 50 ms"):
        engine.run()
    begin = time.monotonic()
    for _ in range(100):
        with pytest.raises(EngineError, match="has not returned"):
            engine.run()
    assert time.monotonic() - begin < 50
    GATE.set()
    engine.inputs["x"].fill(3)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            engine.run()
            break
        except EngineError:
            time.sleep(0.01)
    assert engine.outputs["y"].tolist() == [[3.0, 3.0]]
    GATE.clear()
    with pytest.raises(EngineError):
        engine.run()
    begin = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - begin < 50
    GATE.set()


def raises(x: Any) -> Any:
    raise KeyError("oops")


def missing(x: Any) -> Any:
    return {}


def unknown(x: Any) -> Any:
    return {"y": x, "z": x, 3: x}


def nothing(x: Any) -> Any:
    pass


async def later(x: Any) -> Any:
    return x


def ragged(x: Any) -> Any:
    return [[1, 2], [3]]


def too_large(x: Any) -> Any:
    return np.full((1, 2), 1e300)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", rf"KeyError: 'oops' \(line {raises.__code__.co_firstlineno + 1} of test_graph_failures.py\)"),
        ("missing", "'y' is missing"),
        ("unknown", "returned 'z', 3, but the stage declares 'y'"),
        ("nothing", "returned None"),
        ("ragged", "not an array|object"),
        ("too_large", "not finite"),
    ],
)
@pytest.mark.parametrize("timeout_ms", [None, 1000.0])
def test_what_a_callable_does_wrong_is_told(name: str, message: str, timeout_ms: float | None) -> None:
    engine = CallableEngine(f"{__name__}:{name}", {"x": (1, 2)}, {"y": (1, 2)}, timeout_ms=timeout_ms)
    graph = graph_of(engine, {"x": "imu"})
    with pytest.raises(StageError, match=message) as caught:
        graph.run(snapshot(0, 1.0, 0), no_audio)
    assert "stage 's'" in (caught.value.where or "")
    assert caught.value.fix
    assert name != "raises" or __file__ in (caught.value.where or "")
    graph.close()


def test_a_callable_that_is_async_is_refused() -> None:
    with pytest.raises(ConfigError, match="is async"):
        CallableEngine(f"{__name__}:later", {"x": (1, 2)}, {"y": (1, 2)})


def test_a_graph_that_is_told_how_its_stages_failed_fails_so_without_running_them() -> None:
    engine = Engine(lambda x, h: x + h, "x", "h")
    graph = graph_of(engine, {"x": "imu", "h": "@state:y"})
    graph.run(snapshot(0, 1.0, 0), no_audio)
    with pytest.raises(StageError, match="it was tired") as caught:
        graph.run(snapshot(40, 2.0, 1), no_audio, failed=({"s": "it was tired"},))
    assert caught.value.where == "stage 's': the recorded run"
    assert graph.failed == [{"s": "it was tired"}]
    assert engine.runs == 1
    graph.run(snapshot(80, 5.0, 2), no_audio)
    assert graph.output("s.y")[0, 0] == 5.0
    assert graph.failed == []


def test_an_output_that_is_rejected_is_a_failure_of_its_stage() -> None:
    graph = graph_of(Engine(lambda x, h: x + h, "x", "h"), {"x": "imu", "h": "@state:y"})
    graph.run(snapshot(0, 1.0, 0), no_audio)
    error = graph.reject("s.y", EngineError("too much", where="task 't'", fix="less"))
    assert (error.stage, error.depends, error.message, error.fix) == ("s", ("imu",), "too much", "less")
    assert error.where == "stage 's': tensor 'y', task 't'"
    graph.run(snapshot(40, 5.0, 1), no_audio)
    assert graph.output("s.y")[0, 0] == 5.0  # its state has begun anew


def test_heavy_independent_stages_run_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=60)
    engines = [Engine(lambda x: (meet.wait(), x)[1], "x") for _ in range(2)]
    spec = StageSpec(inputs={"x": "imu"}, outputs={"y": (1, 2)})
    stages = [StageRunner(name, spec, SEATS, engine, {}, raw=False) for name, engine in zip("ab", engines, strict=True)]
    for stage in stages:
        stage.cost_ns = core.Stage.HEAVY_NS
    graph = StageGraph(stages, cores=2)
    graph.run(snapshot(0, 4.0, 0), no_audio)  # one after the other they would never meet
    assert graph.output("a.y")[0, 0] == graph.output("b.y")[0, 0] == 4.0
    graph.close()


# Networks with signatures of all kinds.


def network(nodes: list[Any], inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, list[Any]]) -> bytes:
    infos = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos, outs), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_scalars_integers_odd_names_and_dynamic_lengths() -> None:
    nodes = [
        helper.make_node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["input.1", "rate"], ["m"]),
        helper.make_node("Add", ["m", "x:0"], ["y.2"]),
    ]
    inputs = {"input.1": (1, ["batch", "n"]), "sr": (TensorProto.INT64, []), "x:0": (1, ["batch", "n"])}
    raw = network(nodes, inputs, {"y.2": ["batch", "n"]})
    spec = StageSpec(inputs={"input.1": "imu", "sr": "@const:3", "x:0": "@state:y.2"}, outputs={"y.2": ("batch", 2)})
    shapes = input_shapes(spec, SEATS, lambda *_: np.zeros(0), raw=False)
    engine = OnnxRuntimeEngine(raw, shapes=shapes, constants=constants(spec))
    graph = StageGraph([StageRunner("s", spec, SEATS, engine, {}, raw=False)])
    for seq in range(3):
        graph.run(snapshot(40 * seq, 1.0, seq), no_audio)
    assert graph.output("s.y.2").tolist() == [[9.0, 9.0]]


def test_an_output_whose_shape_changes_is_named() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["y"], to=TensorProto.FLOAT),
    ]
    raw = network(nodes, {"x": (1, [1, 2])}, {"y": [2, "n"]})
    with OnnxRuntimeEngine(raw, name="net") as engine:
        engine.inputs["x"][...] = 1
        with pytest.raises(EngineError, match=r"'y' changed its shape from \[2, 0\] to \[2, 2\]") as caught:
            engine.run()
    assert "tensor 'y'" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("sources", "dtype", "message"),
    [
        ({"x": "imu"}, "float64", r"'x' of the network is float64 \[1, 2\], the graph has float32 \[1, 2\]"),
        ({"x": "text"}, "float32", r"float32 \[1, 2\], the graph has int64 \[1, 2\]"),
        ({"x": "@state:y"}, "float64", r"float64 \[1, 2\], the graph has float32 \[1, 2\]"),
        ({"x": "up.y"}, "float16", r"float16 \[1, 2\], the graph has float32 \[1, 2\]"),
        ({"x": "@const:1.5"}, "int64", "1.5 does not fit into a tensor of int64"),
    ],
)
def test_dtypes_are_checked_before_the_first_run(sources: dict[str, str], dtype: str, message: str) -> None:
    up_spec = StageSpec(inputs={"x": "imu"}, outputs={"y": (1, 2)})
    up = StageRunner("up", up_spec, SEATS, Engine(lambda x: x, "x"), {}, raw=False)
    engine = Engine(lambda x: x, "x")
    engine.inputs["x"] = np.zeros((1, 2), dtype)
    with pytest.raises(BundleError, match=message) as caught:
        StageRunner("s", StageSpec(inputs=sources, outputs={"y": (1, 2)}), SEATS, engine, {"up": up}, raw=False)
    assert caught.value.where == "manifest.json: $.stages.s.inputs.x"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"every_ms": 12.55}, "100.4 samples"),
        ({"every_ms": 200}, "does not fit"),
        ({"mode": "async"}, "background"),
        ({"on": "audio"}, "'on' cannot be 'audio'"),
        ({"inputs": {"x": "audio", "h": "@state:y", "z": "imu"}}, "cannot be fed by 'imu'"),
        ({"inputs": {"x": "audio", "h": "@state:y", "z": "@present"}}, "cannot be fed by '@present'"),
        ({"inputs": {"x": "audio", "h": "@state:y", "z": "other"}}, "cannot be fed by 'other'"),
    ],
)
def test_streams_that_cannot_be(rules: dict[str, Any], message: str) -> None:
    sound = AudioInput(sample_rate_hz=8000, window_ms=100)
    seats = {"audio": sound, "other": sound, "imu": TensorInput(shape=(1, 2))}
    engine = Engine(lambda x, h: h, "x", "h")
    engine.inputs["x"] = np.zeros((1, 800), np.float32)
    spec = StageSpec(**{"inputs": {"x": "audio", "h": "@state:y"}, "outputs": {"y": (1, 2)}, "every_ms": 10, **rules})
    with pytest.raises(BundleError, match=message) as caught:
        StreamStage("s", spec, seats, engine, {}, raw=False)
    assert caught.value.fix


def test_tasks_that_nothing_reaches_and_stages_that_nobody_needs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stages = MANIFEST["stages"]
    alone = {"callable": f"{__name__}:block", "inputs": {"x": "@const:1"}, "outputs": {"y": ["batch", 2]}}
    path = tiny_bundle(tmp_path / "idle.mmedge", stages={**stages, "idle": alone})
    with mmedge.load(path) as bundle, caplog.at_level(logging.WARNING, "mmedge.fusion"):
        load_graph(bundle, backend="onnxruntime").close()
    assert "no task uses the outputs of stage 'idle'" in caplog.text
    tasks = {**MANIFEST["tasks"], "odd": {"kind": "classification", "output": "idle.y", "labels": "labels/scene.txt"}}
    path = tiny_bundle(tmp_path / "odd.mmedge", stages={**stages, "idle": alone}, tasks=tasks)
    with pytest.raises(BundleError, match="no input feeds") as caught:
        mmedge.load(path)
    assert caught.value.where == "manifest.json: $.tasks.odd.output"


def test_a_text_that_is_the_same_is_no_change() -> None:
    pytest.importorskip("tokenizers")
    tokenizer = (Path(mmedge.__file__).parent / "assets" / "digits" / "tokenizer.json").read_bytes()
    engine = Engine(lambda x: x, "x")
    engine.inputs["x"] = np.zeros((1, 2), np.int64)
    spec = StageSpec(inputs={"x": "text"}, outputs={"y": (1, 2)}, on="change")
    graph = StageGraph([StageRunner("s", spec, SEATS, engine, {}, raw=False, read=lambda name: tokenizer)])
    for seq, text in enumerate(("seven", "seven", "eight", "eight", "seven")):
        shot = Snapshot(t_ns=seq * 40_000_000, seq=seq, present={"imu": False, "text": True}, epoch={"text": 0})
        shot.values["text"] = Text(stream="text", seq=seq, capture_ns=shot.t_ns, arrive_ns=shot.t_ns, text=text)
        graph.run(shot, no_audio)
    assert engine.runs == 3
