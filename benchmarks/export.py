"""What INT8, FP8 and INT4 cost: accuracy, noise, memory, time and coverage, beside ONNX Runtime and modelopt."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import msgspec
import numpy as np
import onnx

from benchmarks.export_nets import (
    CLASSES,
    Digits,
    Perceptron,
    attention,
    digits,
    fp32_of,
    packaged,
    picture_net,
    rescaled,
    tensor_recipe,
    trained,
)
from benchmarks.goals import limits, missed
from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from benchmarks.limits import GOALS
from benchmarks.partners.modelopt import modelopt
from mmedge.export import compare, half_rest, quantize, to_onnx
from mmedge.export.int8.prepare import prepare, tensor_types
from mmedge.export.int8.qdq import choose, insert_checked
from mmedge.export.int8.ranges import RangeCollector
from mmedge.export.judge import judge
from mmedge.export.onnx.onnx_models import OnnxModels
from mmedge.export.report import int8_nodes, sqnr_db
from mmedge.export.shipped import shipped_recipe
from mmedge.types import AnyArray, FloatArray

EPOCHS = 6
MEASURED = 400  # samples of AV-digits' validation
CALIBRATION, GLITCH_EVERY, GLITCH = 500, 100, 20.0
PEERS = {"ORT MinMax": "MinMax", "ORT Entropy": "Entropy", "ORT Percentile": "Percentile"}
MODELOPT = {"modelopt max": "max", "modelopt entropy": "entropy"}
INT8_PEERS = (*PEERS, *MODELOPT)
AGREES_AT = 0.7  # the probability from which O-Net says that a crop is a face
MEMORY_SIZES = (224, 640)


def measure(quick: bool) -> BenchmarkReport:
    """Quantise trained and packaged networks and measure what it costs."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp())
    data = digits()
    model = trained(data, EPOCHS // 2 if quick else EPOCHS)
    count = 150 if quick else CALIBRATION
    given = data.train[:count]
    recipe = tensor_recipe(folder, [1, 1, 32, 32], [1, CLASSES], labels=CLASSES)
    fp32 = fp32_of(model, recipe)
    glitched = given.copy()
    glitched[GLITCH_EVERY // 2 :: GLITCH_EVERY] *= GLITCH
    twin = OnnxModels(recipe=fp32.recipe, precision="fp32", models={"net": rescaled(prepare(fp32.models["net"]))})
    for what, own, frames, name, limit in (
        ("clean", fp32, given, "int8_drop_points", "digits"),
        ("1 % of frames x20", fp32, glitched, "int8_drop_glitch_points", "glitch"),
        ("badly scaled twin", twin, given, "int8_drop_stress_points", "stress"),
    ):
        ours = quantize(own, None, [{"x": frame[None]} for frame in frames]).models["net"]
        peers = _peers(own.models["net"], frames)
        figures = {p: _drop(own.models["net"], m, data) for p, m in {"mmedge": ours, **peers}.items() if m is not None}
        drop, low, high, noise = figures["mmedge"]
        told = f"MobileNetV2-like, {what}: accuracy lost ({low:+.2f}..{high:+.2f} at 95 %)"
        rows.append(_row(told, "points", {p: f[0] for p, f in figures.items()}, INT8_PEERS))
        told = f"MobileNetV2-like, {what}: SQNR of the logits"
        rows.append(_row(told, "dB", {p: f[3] for p, f in figures.items()}, INT8_PEERS))
        targets[name] = drop
        if limit == "digits":
            targets["int8_sqnr_db"] = noise
    rows += _narrower(fp32, data, given)
    perceptron = fp32_of(trained(data, EPOCHS // 2 if quick else EPOCHS, Perceptron), recipe)
    rows += _four_bits(perceptron, data, given)
    rows += _av_digits(targets, quick=quick)
    rows.append(_onet(folder, targets, 30 if quick else 120))
    _cost(folder, rows, targets, 40 if quick else CALIBRATION)
    _coverage(rows, targets)
    limited = {name: value for name, value in targets.items() if name in GOALS}
    return BenchmarkReport(
        name="export",
        title="INT8 of trained and packaged networks: what is lost against fp32, as written (Q/DQ in float)",
        host=host(),
        conditions={
            **versions("onnxruntime", "onnx", "torch", "nvidia-modelopt"),
            "calibration": count,
            "test": len(data.test),
            "peers": "ORT: quantize_static, QDQ, per channel, symmetric int8; modelopt: modelopt.onnx on the CPU",
        },
        evidence="cpu",
        rows=rows,
        targets=targets,
        limits=limits(limited),
        missed=missed(limited),
    )


def _row(what: str, unit: str, figures: dict[str, float], names: Iterable[str] = ()) -> Row:
    """Return a row with the peers that can do the same; one of ``names`` without a figure is told as missing."""
    peers: dict[str, float | None] = {peer: figures.get(peer) for peer in names}
    return Row(what=what, unit=unit, ours=figures["mmedge"], peers=peers, ratio=None)


def _peers(model: onnx.ModelProto, frames: FloatArray, tensor: str = "x") -> dict[str, onnx.ModelProto | None]:
    """Return the network as the peers quantise it to INT8; None where one is not installed."""
    found = {peer: _peer(model, frames, method, tensor) for peer, method in PEERS.items()}
    joined = frames if frames[0].ndim == 3 else frames.reshape(-1, *frames.shape[2:])
    return found | {peer: modelopt(model, {tensor: joined}, method=m) for peer, m in MODELOPT.items()}


def _narrower(fp32: OnnxModels, data: Digits, given: FloatArray) -> list[Row]:
    """What TensorRT alone gets of the same net: INT8 with the rest in float16, and FP8."""
    samples = [{"x": frame[None]} for frame in given]
    forms = {k: half_rest(quantize(fp32, None, samples, precision=k), fp32, samples) for k in ("int8", "fp8")}  # type: ignore[arg-type]
    peer = modelopt(fp32.models["net"], {"x": given}, mode="fp8", method="max")
    rows = []
    for kind, form in forms.items():
        figures = {"mmedge": _drop(fp32.models["net"], form.for_tensorrt["net"], data)}
        if kind == "fp8" and peer is not None:
            figures["modelopt fp8"] = _drop(fp32.models["net"], peer, data)
        names = ("modelopt fp8",) if kind == "fp8" else ()
        told = f"MobileNetV2-like, {kind}, the rest in {form.quantization['net'].rest}"
        rows.append(_row(f"{told}: accuracy lost", "points", {p: f[0] for p, f in figures.items()}, names))
        rows.append(_row(f"{told}: SQNR of the logits", "dB", {p: f[3] for p, f in figures.items()}, names))
    return rows


def _four_bits(fp32: OnnxModels, data: Digits, given: FloatArray) -> list[Row]:
    """INT4 weights, of a net of matrix products."""
    samples = [{"x": frame[None]} for frame in given]
    form = half_rest(quantize(fp32, None, samples, precision="int4"), fp32, samples)
    found = {"mmedge": _drop(fp32.models["net"], form.for_tensorrt["net"], data)}
    peer = modelopt(fp32.models["net"], {"x": given}, mode="int4", method="rtn_dq")
    if peer is not None:
        found["modelopt int4"] = _drop(fp32.models["net"], peer, data)
    told, names = f"perceptron, int4, the rest in {form.quantization['net'].rest}", ("modelopt int4",)
    return [
        _row(f"{told}: accuracy lost", "points", {p: f[0] for p, f in found.items()}, names),
        _row(f"{told}: SQNR of the logits", "dB", {p: f[3] for p, f in found.items()}, names),
    ]


def _drop(exact: onnx.ModelProto, coarse: onnx.ModelProto, data: Digits) -> tuple[float, float, float, float]:
    """Return the accuracy lost in points, its 95 % interval over pairs of answers, and the SQNR in dB."""
    want, got = (_logits(model, data.test) for model in (exact, coarse))
    right, still = want.argmax(1) == data.test_labels, got.argmax(1) == data.test_labels
    change = right.astype(float) - still
    spread = 1.96 * change.std() / math.sqrt(len(change))
    return 100 * change.mean(), 100 * (change.mean() - spread), 100 * (change.mean() + spread), sqnr_db(want, got)


def _logits(model: onnx.ModelProto, pictures: FloatArray) -> AnyArray:
    with judge(model) as engine:
        return np.concatenate([engine({"x": picture[None]})["y"] for picture in pictures])


def _peer(model: onnx.ModelProto, frames: FloatArray, method: str, tensor: str = "x") -> onnx.ModelProto | None:
    """Return the network as ONNX Runtime quantises it, in the flavour that TensorRT takes."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._frames = iter(frames)

        def get_next(self) -> dict[str, AnyArray] | None:
            frame = next(self._frames, None)
            return None if frame is None else {tensor: frame if frame.ndim == 4 else frame[None]}

    # It prints what it does, and advises through the root logger.
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, method),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "DedicatedQDQPair": True,
            },
        )
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _av_digits(targets: dict[str, float], *, quick: bool) -> list[Row]:
    """The shipped fused model: labels that differ on recordings held out, and the accuracy on unseen people."""
    recipe = shipped_recipe("av_digits")
    from mmedge.export import training

    model, _ = training.load_weights(recipe)
    fp32 = to_onnx(model, recipe)
    int8 = quantize(fp32, recipe.calibration)
    differ = 100 * (1 - compare(fp32, int8, recipe.calibration).agreement["digit"])
    rows = [_row("AV-digits: labels that differ, all masks", "points", {"mmedge": differ})]
    if not quick:
        from mmedge.export.measure import measure as measure_networks

        dataset = training.make_dataset(recipe)
        dataset.prepare()
        found = [row for row in measure_networks([fp32, int8], dataset, limit=MEASURED).rows if row.task == "digit"]
        count = sum(row.samples for row in found)
        lost = sum(row.right["fp32"] - row.right["int8"] for row in found)
        targets["av_digits_drop_points"] = 100 * lost / count
        told = f"AV-digits: accuracy lost over all masks, {count} answers"
        rows.append(_row(told, "points", {"mmedge": targets["av_digits_drop_points"]}))
    return rows


def _onet(folder: Path, targets: dict[str, float], count: int) -> Row:
    """O-Net on the crops of a real video: the first two thirds calibrate, the rest is judged."""
    fp32, crops = attention(count)
    onet = fp32.models["onet"]
    recipe = tensor_recipe(folder, crops[0].shape, [8, 1])
    stage = msgspec.structs.replace(
        recipe.stages["net"], inputs={"crops": "x"}, outputs={"probability": (8, 1), "offsets": (8, 4)}
    )
    recipe = msgspec.structs.replace(recipe, stages={"net": stage})
    cut = len(crops) * 2 // 3
    ours = quantize(OnnxModels(recipe=recipe, precision="fp32", models={"net": onet}), None, [{"x": c} for c in crops])
    forms = {"mmedge": ours.models["net"]}
    stacked = np.stack(crops[:cut])
    forms |= {p: m for p, m in _peers(onet, stacked, "crops").items() if m is not None}

    def says(model: onnx.ModelProto) -> AnyArray:
        with judge(model) as engine:
            return np.concatenate(
                [engine({"crops": c})["probability"][np.abs(c).max((1, 2, 3)) > 0] for c in crops[cut:]]
            )

    want = says(onet) >= AGREES_AT
    figures = {name: float(((says(model) >= AGREES_AT) == want).mean()) for name, model in forms.items()}
    targets["onet_agreement"] = figures["mmedge"]
    return _row(
        f"O-Net: {len(want)} real crops, {want.mean():.0%} of them faces, same verdict", "", figures, INT8_PEERS
    )


def _cost(folder: Path, rows: list[Row], targets: dict[str, float], count: int) -> None:
    """Memory above the loaded network, and CPU time against plain inference, of a calibration; each in a process."""
    peaks, ratios = [], []
    for size in MEMORY_SIZES:
        network = folder / f"{size}.onnx"
        onnx.save(picture_net(folder, size), network)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.export_cost", str(network), str(size), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout)
        peaks.append(told["peak_mb"])
        ratios.append(told["cpu_ratio"])
        rows.append(
            _row(f"calibration on {count} pictures of {size}x{size}: memory over base", "MB", {"mmedge": peaks[-1]})
        )
        rows.append(
            _row(f"calibration on {count} pictures of {size}x{size}: CPU over inference", "x", {"mmedge": ratios[-1]})
        )
    targets["calibration_peak_mb"], targets["calibration_cpu_ratio"] = max(peaks), max(ratios)


def _coverage(rows: list[Row], targets: dict[str, float]) -> None:
    """How many nodes with weights of packaged networks become int8; ranges of noise, since only the count matters."""
    int8, weighted = 0, 0
    for name, model in packaged():
        normal = prepare(model)
        types = tensor_types(normal, name)
        choice = choose(normal, (), {tensor: kind for tensor, (kind, _) in types.items()})
        collector = RangeCollector(normal, choice.tensors, name)
        rng = np.random.default_rng(0)
        for _ in range(4):
            collector({n: _noise(rng, array) for n, array in collector.inputs.items()})
        found = int8_nodes(insert_checked(normal, choice.nodes, collector.thresholds("max"), name)[0])
        rows.append(
            _row(f"{name}: {found[0]} of {found[1]} nodes with weights in int8", "", {"mmedge": found[0] / found[1]})
        )
        int8, weighted = int8 + found[0], weighted + found[1]
    targets["weighted_nodes_int8_ratio"] = int8 / weighted


def _noise(rng: np.random.Generator, array: AnyArray) -> AnyArray:
    if array.dtype.kind == "f":
        return rng.normal(size=array.shape).astype(array.dtype)
    return np.full(array.shape, 16000 if array.ndim == 0 else 1, array.dtype)


if __name__ == "__main__":
    main(measure)
