"""Engines on a GPU under mmedge, beside a bare loop in C++ over the same kernels. Without a GPU there is no figure."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import mmedge
from benchmarks.goals import judged, load, ratio, summed_up
from benchmarks.harness import BenchmarkReport, Row, compare, main, versions
from benchmarks.partners import bare_gpu
from mmedge.bundle import Bundle
from mmedge.bundle.manifest import ImageInput, Stage
from mmedge.engine.compile import compile_variant
from mmedge.engine.cuda import Gpu, gpu_info, gpu_problem
from mmedge.engine.cuda_net import CudaNet, Layer, kernels_problem
from mmedge.engine.tensorrt import TensorRTEngine
from mmedge.engine.tensorrt_loader import tensorrt_choice
from mmedge.fusion import StageGraph, StageRunner
from mmedge.fusion.doors import variant_shapes
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import ByteArray, Evidence, Frame, Snapshot

DIGITS = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
SPEC = ImageInput(size=(128, 128), color="bgr", mean=(0.5,) * 3, std=(0.25,) * 3, frame=(480, 640))
SIZES = (3 * 128 * 128, 256, 64, 10)
_BUILT: Evidence = "built-not-run"
_GPU: Evidence = "gpu"
_JETSON: Evidence = "jetson"
TITLE = "Engines on a GPU: microseconds a run, median, from the picture in memory to the answer in memory"


def net() -> list[Layer]:
    """Return the layers, float32 [outputs, inputs] and [outputs]."""
    random = np.random.default_rng(0)
    return [
        ((random.standard_normal((n, m)) / m**0.5).astype(np.float32), np.zeros(n, np.float32))
        for m, n in pairwise(SIZES)
    ]


def pictures() -> list[ByteArray]:
    """Return a ring of 16 pictures, uint8 [480, 640, 3]."""
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (*SPEC.frame, 3), np.uint8) for _ in range(16)]


def frame_of(data: ByteArray, seq: int) -> Frame:
    """Return a picture uint8 [480, 640, 3] as a camera's frame."""
    stamp: dict[str, Any] = {"seq": seq, "capture_ns": seq * 33_000_000, "arrive_ns": seq * 33_000_000}
    return Frame(stream="image", data=data, format="bgr24", height=SPEC.frame[0], width=SPEC.frame[1], **stamp)


def timed(run: Callable[[int], None], runs: int) -> list[float]:
    """Return the times of the runs in us, after a tenth of them as warm-up."""
    took = []
    for at in range(-(runs // 10), runs):
        begin_ns = time.perf_counter_ns()
        run(at + runs)
        if at >= 0:
            took.append((time.perf_counter_ns() - begin_ns) / 1000)
    return took


def kernel_rows(gpu: Gpu, rounds: int, runs: int) -> tuple[list[Row], dict[str, float]]:
    """Time the engine by itself, and as a stage of a graph, in turn with the bare loop."""
    ring, layers = pictures(), net()
    table = ImagePreprocessor(SPEC).gpu_table(frame_of(ring[0], 0))
    engine = CudaNet(table, (1, *SPEC.frame, 3), SPEC.tensor_shape, layers)
    stage = StageRunner(
        "s", Stage(inputs={"x": "image"}, outputs={"y": ("batch", 10)}), {"image": SPEC}, engine, {}, raw=True
    )
    graph, x = StageGraph([stage]), engine.inputs["x"][0]

    def alone(at: int) -> None:
        np.copyto(x, ring[at % 16])
        engine.run()

    def staged(at: int) -> None:
        shot = Snapshot(t_ns=at * 33_000_000, seq=at, present={"image": True}, epoch={"image": 0})
        shot.frames["image"] = frame_of(ring[at % 16], at)
        graph.run(shot, _silent)

    ours, within, bare = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        program = bare_gpu.build(Path(folder), gpu.compute_capability.lower().replace("sm", "sm_"))
        data = Path(folder) / "net"
        bare_gpu.write(data, table, ring, layers)
        seq = 0
        for _ in range(rounds):
            ours.append(statistics.median(timed(alone, runs)))
            within.append(statistics.median(timed(lambda at, first=seq: staged(first + at), runs)))
            seq += 3 * runs
            if program is not None:
                took, answer = bare_gpu.run(program, data, runs)
                bare.append(statistics.median(took))
                alone(2 * runs - 1)  # the last picture there
                np.testing.assert_array_equal(engine.outputs["y"][0], answer)
    graph.close()
    what = "BGR 640x480 -> 3x128x128 -> 256 -> 64 -> 10, our kernels, one CUDA graph"
    if program is None:  # named as missing
        rows = [Row(f"{name}{what}", "us", statistics.median(mine), {"bare loop in C++": None}, None)
                for name, mine in (("", ours), ("as a stage: ", within))]  # fmt: skip
        return rows, {}
    peers = {"bare loop in C++": bare}
    return [summed_up(what, "us", ours, peers), summed_up(f"as a stage: {what}", "us", within, peers)], {
        "gpu_vs_bare": ratio(ours, bare)
    }


def _silent(*_: object) -> int:
    raise AssertionError("no sound here")


def tensorrt_row(rounds: int) -> Row:
    """Time the encoder of the shipped digits, as a CUDA graph and with its kernels launched one by one."""
    with Bundle(DIGITS) as bundle:
        variant = next(v for v in bundle.manifest.variants if v.stage == "image_encoder" and v.target == "tensorrt")
        compiled = compile_variant(
            bundle.read(variant.file),
            bundle.manifest.files[variant.file].sha256,
            variant.stage,
            variant.precision,
            shapes=variant_shapes(bundle, variant),
        )
    plan = compiled.plan_path.read_bytes()
    with TensorRTEngine(plan) as ours, TensorRTEngine(plan, cuda_graph=False) as theirs:
        what = f"digits' image encoder, TensorRT {variant.precision}, CUDA graph {ours.graph}"
        return compare(what, ours.run, {"launched one by one": theirs.run}, rounds)


def measure(quick: bool) -> BenchmarkReport:
    """Engines on a GPU beside a bare loop; without a GPU it says so, and gives no figure."""
    rows: list[Row] = []
    targets: dict[str, float] = {}
    problem, evidence = gpu_problem(), _BUILT
    said: dict[str, str | int | float] = {"gpu": problem or gpu_info().name, "load": load()}
    if problem is None:
        gpu = gpu_info()
        evidence = _JETSON if Path("/etc/nv_tegra_release").exists() else _GPU
        said |= {"compute capability": gpu.compute_capability, "CUDA": gpu.cuda}
        reason = kernels_problem()
        if reason is None:
            rows, targets = kernel_rows(gpu, 3 if quick else 7, 200 if quick else 2000)
        said["our kernels"] = reason or "run"
        if tensorrt_choice() is None:
            said["tensorrt"] = "missing"
        else:
            rows.append(tensorrt_row(200 if quick else 2000))
    return judged(
        name="gpu",
        title=TITLE if problem is None else f"Engines on a GPU: nothing was measured, {problem}",
        conditions={**said, **versions("tensorrt", "tensorrt-rtx")},
        evidence=evidence,
        rows=rows,
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
