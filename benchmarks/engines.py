"""Engines on the CPU: what ``backend: auto`` serves of a packed network, beside ONNX Runtime and OpenVINO bare."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import mmedge
from benchmarks import nets
from benchmarks.export_nets import fp32_of, tensor_recipe
from benchmarks.goals import judged, load
from benchmarks.harness import BenchmarkReport, Row, compare, main, versions
from benchmarks.limits import GOALS
from mmedge import export
from mmedge.bundle import Bundle
from mmedge.engine.base import Engine
from mmedge.engine.onnxruntime import OnnxRuntimeEngine
from mmedge.errors import MissingDependencyError
from mmedge.export.judge import judge
from mmedge.extras import is_installed
from mmedge.fusion import load_graph
from mmedge.fusion.measure import measure_cpu
from mmedge.types import FloatArray

SIZE = 224
NETWORKS = {"resnet18": nets.resnet18, "mobilenet": nets.mobilenet_v3}
WITH_OPENVINO = "auto, OpenVINO is installed"
JUDGED = 8  # pictures on which kernels are held against what is written


def pictures(count: int, seed: int) -> list[FloatArray]:
    """Return normalised noise, float32 [1, 3, 224, 224] each."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32) for _ in range(count)]


def packed(name: str, folder: Path) -> Path:
    """Return a network as a user packs it: fp32 and INT8 for CPUs."""
    recipe = tensor_recipe(
        folder,
        [1, 3, SIZE, SIZE],
        [1, nets.CLASSES],
        '[calibration]\nrule = "max"\n[export]\ntargets = ["cpu"]\nprecisions = ["fp32", "int8"]\n',
        labels=nets.CLASSES,
    )
    fp32 = fp32_of(NETWORKS[name](), recipe)
    samples = [{"x": picture} for picture in pictures(24, 0)]
    int8 = export.quantize(fp32, recipe.calibration, samples)
    return export.pack(folder / f"{name}.mmedge", recipe, [fp32, int8], samples=samples)


def chosen(bundle: Bundle, *backends: str) -> tuple[Engine, str]:
    """Return the engine that serves after ``mmedge compile`` where these are installed, and what it is."""
    with patch("mmedge.fusion.choice.installed_backends", lambda: backends):
        measure_cpu(bundle, lambda text, share: None)
        graph = load_graph(bundle)
    return graph.stages[0].engine, graph.served["net"]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left = iter(pictures(16, 0))

    def get_next(self) -> dict[str, FloatArray] | None:
        picture = next(self._left, None)
        return None if picture is None else {"x": picture}


def own_u8(fp32: Path) -> bytes:
    """Return a network as ONNX Runtime's own quantizer makes it for CPUs: unsigned activations, weights per channel."""
    out = fp32.with_suffix(".u8.onnx")
    quantize_static(
        str(fp32), str(out), _Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return out.read_bytes()


def session(model: bytes) -> Callable[[FloatArray], object]:
    """Return ONNX Runtime as a user calls it, but on one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = made.get_inputs()[0].name
    return lambda picture: made.run(None, {name: picture})


def openvino_request(model: bytes) -> Callable[[FloatArray], object] | None:
    """Return OpenVINO on one thread in float32 (or INT8, where the network is), None where it is not installed."""
    try:
        from mmedge.engine.openvino_library import openvino
    except MissingDependencyError:
        return None
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda picture: request.infer([picture], share_inputs=True, share_outputs=True)


def network_row(name: str, folder: Path, rounds: int) -> tuple[Row, str, float]:
    """Time what serves, with OpenVINO and without, beside its peers; also say what, and how its INT8 kernels agree."""
    ring, turn = pictures(16, 1), [0]

    def before() -> None:
        turn[0] = (turn[0] + 1) % len(ring)

    with mmedge.load(packed(name, folder)) as bundle:
        fp32, int8 = (bundle.read(f"net.cpu.{precision}.onnx") for precision in ("fp32", "int8"))
        (folder / "fp32.onnx").write_bytes(fp32)
        engine, served = chosen(bundle, "onnxruntime")
        calls: Mapping[str, Callable[[FloatArray], object] | None] = {
            "ORT fp32": session(fp32),
            "ORT, own u8": session(own_u8(folder / "fp32.onnx")),
            "OpenVINO f32": openvino_request(fp32),
            "OpenVINO, our int8": openvino_request(int8),
        }
        peers = {peer: call and _on(call, ring, turn) for peer, call in calls.items()}
        engines, beside = [engine], {}
        if is_installed("openvino"):
            other, faster = chosen(bundle, "onnxruntime", "openvino")
            engines.append(other)
            beside[WITH_OPENVINO] = _runs(other, ring, turn)
            served += f"; with OpenVINO: {faster}"
        row = compare(f"{name}, auto: {served}", _runs(engine, ring, turn), peers, rounds, before, beside)
        agreed = agreement(int8, ring[:JUDGED])
        for engine in engines:
            engine.close()
    return row, served, agreed


def _runs(engine: Engine, ring: Sequence[FloatArray], turn: list[int]) -> Callable[[], None]:
    (taken,) = engine.inputs.values()

    def run() -> None:
        np.copyto(taken, ring[turn[0]])
        engine.run()

    return run


def _on(call: Callable[[FloatArray], object], ring: Sequence[FloatArray], turn: list[int]) -> Callable[[], object]:
    return lambda: call(ring[turn[0]])


def agreement(int8: bytes, ring: Sequence[FloatArray]) -> float:
    """Return the least cosine between what 8-bit kernels answer and what exact arithmetic of the Q/DQ pairs does."""
    least = 1.0
    with OnnxRuntimeEngine(int8) as kernels, judge(int8) as exact:
        for picture in ring:
            got, want = (next(iter(run({"x": picture}).values())).ravel().astype(float) for run in (kernels, exact))
            least = min(least, float(got @ want / np.sqrt((got @ got) * (want @ want))))
    return least


def tiny() -> bytes:
    """Return a perceptron, 64 -> 32 -> 10."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("a", (64, 32)), ("b", (32, 10)))
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", 64), ("y", 10))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def call_row(rounds: int) -> Row:
    """Time a call of an engine whose network is next to nothing."""
    run, x = session(tiny()), np.zeros((1, 64), np.float32)
    with mmedge.load_engine(tiny(), backend="onnxruntime") as engine:
        return compare(
            "a call of a perceptron 64-32-10", engine.run, {"session.run": lambda: run(x)}, rounds, lambda: None
        )


def measure(quick: bool) -> BenchmarkReport:
    """Measure what ``auto`` serves of ResNet-18 and MobileNetV3-Large, and what a call of an engine costs."""
    rounds = 25 if quick else 150
    rows: list[Row] = []
    targets: dict[str, float] = {}
    served: dict[str, str] = {}
    agreed: list[float] = []
    with TemporaryDirectory() as folder:
        os.environ["MMEDGE_CACHE"] = str(Path(folder, "cache"))
        for name in NETWORKS:
            own = Path(folder, name)
            own.mkdir()
            row, served[name], own_agreement = network_row(name, own, rounds)
            rows.append(row)
            agreed.append(own_agreement)
            plain = row.peers["ORT fp32"]
            assert plain is not None
            targets[f"auto_{name}_vs_ort_fp32"] = plain / row.ours
            if (faster := row.beside.get(WITH_OPENVINO)) is not None:
                targets[f"auto_{name}_openvino_vs_ort_fp32"] = plain / faster
    call = call_row(2000 if quick else 20_000)
    targets["cpu_int8_agreement"] = min(agreed)
    targets["engine_call_vs_session_run"] = call.ours / (call.peers["session.run"] or float("nan"))
    goals = {name: value for name, value in targets.items() if name in GOALS}
    return judged(
        name="engines",
        title="Engines on the CPU, 1x3x224x224, random weights: one thread, frames from a ring of 16, medians of turns",
        conditions={
            **{"threads": 1, "rounds": rounds, "load": load()},
            **{f"serves {name}": what for name, what in served.items()},
            **versions("onnxruntime", "openvino", "torch"),
        },
        rows=[*rows, call],
        targets=targets,
        goals=goals,
    )


if __name__ == "__main__":
    main(measure)
