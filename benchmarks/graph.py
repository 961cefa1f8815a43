"""What the stage graph costs: with networks that do nothing, and with the shipped ones at their inputs' own rates."""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmedge
from benchmarks.harness import BenchmarkReport, Row, host, main, versions
from mmedge._native import core
from mmedge.bundle import Bundle
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.bundle.manifest import Stage as StageSpec
from mmedge.engine.base import EngineBase
from mmedge.fusion import StageGraph, StageRunner, load_graph
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, FloatArray, Frame, Packet, Snapshot, Tensor, Text

DIGITS = Path(mmedge.__file__).parent / "assets" / "digits" / "digits.mmedge"
MS = 1_000_000
FPS = 25
HOP_MS = 100
TEXT_EVERY_MS = 2000
SEATS: dict[str, Input] = {
    "image": ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(8, 8)),
    "audio": AudioInput(sample_rate_hz=8000, window_ms=100),
    "text": TensorInput(shape=(1, 16), dtype="int64"),
}


class Null(EngineBase):
    """Computes nothing."""

    def __init__(self, inputs: dict[str, tuple[tuple[int, ...], str]]) -> None:
        super().__init__("null")
        self.inputs = {name: np.zeros(shape, dtype) for name, (shape, dtype) in inputs.items()}
        self.outputs = {"y": np.zeros((1, 64), np.float32)}

    def _run_impl(self) -> None:
        pass


def null_graph() -> StageGraph:
    """Return six stages over three modalities: an encoder each, fusion, two heads."""
    embedding = ((1, 64), "float32")
    plan: dict[str, tuple[dict[str, str], dict[str, tuple[tuple[int, ...], str]]]] = {
        "eye": ({"x": "image"}, {"x": ((1, 1, 8, 8), "float32")}),
        "ear": ({"x": "audio"}, {"x": ((1, 800), "float32")}),
        "reader": ({"x": "text"}, {"x": ((1, 16), "int64")}),
        "fusion": (
            {"image": "eye.y", "audio": "ear.y", "text": "reader.y", "present": "@present"},
            {"image": embedding, "audio": embedding, "text": embedding, "present": ((1, 3), "float32")},
        ),
        "digit": ({"x": "fusion.y"}, {"x": embedding}),
        "agreement": ({"x": "fusion.y"}, {"x": embedding}),
    }
    stages: dict[str, StageRunner] = {}
    for name, (sources, tensors) in plan.items():
        spec = StageSpec(inputs=sources, outputs={"y": ("batch", 64)})
        stages[name] = StageRunner(name, spec, SEATS, Null(tensors), stages, raw=False)
    return StageGraph(list(stages.values()))


def null_snapshots(count: int) -> Iterator[Snapshot]:
    """Yield snapshots in which every input is new."""
    pixels, ids = np.zeros((8, 8), np.uint8), np.zeros((1, 16), np.int64)
    for seq in range(count):
        stamp: dict[str, Any] = {"seq": seq, "capture_ns": seq * 40 * MS, "arrive_ns": seq * 40 * MS}
        shot = Snapshot(t_ns=seq * 40 * MS, seq=seq, present=dict.fromkeys(SEATS, True), epoch=dict.fromkeys(SEATS, 0))
        shot.frames["image"] = Frame(stream="image", data=pixels, format="gray8", width=8, height=8, **stamp)
        shot.audio_end["audio"] = 320 * (seq + 1)
        shot.values["text"] = Tensor(stream="text", data=ids, **stamp)
        yield shot


def silence(name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None, /) -> int:
    """Read no sound."""
    return out.size


def overhead_us(count: int) -> list[float]:
    """Return the times of ``StageGraph.run`` on null networks, everything included."""
    graph = null_graph()
    took = []
    for shot in null_snapshots(count):
        begin_ns = time.perf_counter_ns()
        graph.run(shot, silence)
        took.append((time.perf_counter_ns() - begin_ns) / 1000)
    graph.close()
    return took[count // 10 :]


class Watched:
    """What a stage took in the graph, feeding its network and running it, and without the graph."""

    def __init__(self, stage: StageRunner) -> None:
        self.stage = stage
        self.took: list[int] = []
        self.alone: list[int] = []

    def run_alone(self, moment: core.Moment, bits: int) -> None:
        """Feed and run it, without the graph."""
        fed_ns = self.stage.native.feed(moment, bits)
        self.stage.native.execute()
        self.alone.append(fed_ns + self.stage.took_ns)

    def ideal_hz(self, bundle: Bundle) -> float:
        """Return how often it would have to run: as often as the fastest of what feeds it directly."""
        spec = bundle.manifest.stages[self.stage.name]
        seats = [bundle.inputs[source] for source in spec.inputs.values() if source in bundle.inputs]
        rates = {ImageInput: FPS, AudioInput: 1000 / (spec.every_ms or HOP_MS), TextInput: 1000 / TEXT_EVERY_MS}
        return max((rates.get(type(seat), FPS) for seat in seats), default=FPS)


def packets(bundle: Bundle, begin_ms: int, stop_ms: int) -> Iterator[tuple[int, list[Packet]]]:
    """Yield what comes every 40 ms: a picture, sound, now and then a text; noise, so that nothing is zero."""
    rng = np.random.default_rng(begin_ms)
    for t_ms in range(begin_ms, stop_ms, 1000 // FPS):
        t_ns, found = (t_ms + 1000 // FPS) * MS, []
        for name, spec in bundle.inputs.items():
            stamp: dict[str, Any] = {"stream": name, "seq": t_ms // 40, "capture_ns": t_ns, "arrive_ns": t_ns}
            if isinstance(spec, AudioInput):
                samples = 0.1 * rng.standard_normal(spec.sample_rate_hz // FPS).astype(np.float32)
                found.insert(0, Block(samples=samples, **stamp))
            elif isinstance(spec, ImageInput):
                height, width = spec.frame
                pixels = rng.integers(0, 256, (height, width), np.uint8)
                found.append(Frame(data=pixels, format="gray8", width=width, height=height, **stamp))
            elif isinstance(spec, TextInput) and t_ms % TEXT_EVERY_MS == 0:
                found.insert(0, Text(text=f"it is {t_ms // TEXT_EVERY_MS % 10}", **stamp))
        yield t_ns, found


def snapshots(bundle: Bundle, sync: Synchronizer, begin_ms: int, stop_ms: int) -> Iterator[Snapshot]:
    """Yield the snapshots of what comes, one by one."""
    for t_ns, arrived in packets(bundle, begin_ms, stop_ms):
        for packet in arrived:
            sync.push(packet)
        sync.advance(t_ns)
        yield from sync.poll()
        sync.trim()


def fused_cost(rounds: int, seconds: int) -> tuple[dict[str, tuple[float, float, float, float]], float]:
    """Run the shipped bundle on inputs that come at their own rates.

    Returns:
        Stage -> runs per second, wanted runs per second, us per run, us per run in a plain loop, medians; and what
        ``graph.run`` takes in ms per second, its own work included.
    """
    with mmedge.load(DIGITS) as bundle:
        graph = load_graph(bundle, backend="onnxruntime")
        manifest = bundle.manifest
        sync = Synchronizer(
            plan_sync(bundle.inputs, dict.fromkeys(bundle.inputs, True), manifest.missing, manifest.sync), started_ns=0
        )
        watched = [Watched(stage) for stage in graph.stages]
        spans, moment = core.Spans([stage.memory for stage in graph.stages]), core.Moment(len(bundle.inputs))
        spent: list[float] = []
        for turn in range(rounds + 1):
            if turn == 1:  # what came before was warm-up
                spent.clear()
                for watch in watched:
                    watch.took.clear()
                    watch.alone.clear()
            begin_ms, spent_ns = 2 * turn * seconds * 1000, 0
            for shot in snapshots(bundle, sync, begin_ms, begin_ms + seconds * 1000):
                begin_ns = time.thread_time_ns()
                graph.run(shot, sync.read_audio)
                spent_ns += time.thread_time_ns() - begin_ns
                for place, *times in struct.iter_unpack("=5q", spans.take()):
                    watched[place].took.append(times[1] - times[0] + times[3] - times[2])
            spent.append(spent_ns / 1e6 / seconds)
            begin_ms += seconds * 1000
            for step, shot in enumerate(snapshots(bundle, sync, begin_ms, begin_ms + seconds * 1000)):
                bits = moment.look(shot, sync.read_audio, None)
                # A plain loop with the rates written down, so that the caches are as cold.
                for watch in watched:
                    if (step + 1) * watch.ideal_hz(bundle) // FPS > step * watch.ideal_hz(bundle) // FPS:
                        watch.run_alone(moment, bits)
        found = {}
        for watch in watched:
            hz = len(watch.took) / rounds / seconds
            cost_us, alone_us = (statistics.median(values) / 1000 for values in (watch.took, watch.alone))
            found[watch.stage.name] = (hz, watch.ideal_hz(bundle), cost_us, alone_us)
        graph.close()
        sync.close()
    return found, statistics.median(spent)


def measure(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """Measure the graph with null networks, and the shipped bundle's networks at the rates of its inputs."""
    took = overhead_us(2_000 if quick else 20_000)
    stages, spent_ms = fused_cost(*((3, 4) if quick else (10, 10)))
    median_us = statistics.median(took)
    fused_ms = sum(hz * cost_us for hz, _, cost_us, _ in stages.values()) / 1000
    ideal_ms = sum(ideal_hz * alone_us for _, ideal_hz, _, alone_us in stages.values()) / 1000
    ideal: dict[str, float | None] = {"rate x cost in a plain loop": ideal_ms}
    null = "6 null stages, 3 modalities, per trigger"
    rows = [
        Row(what=null, unit="us", ours=median_us, peers={}, ratio=None),
        Row(what="the same, 99 of 100 triggers", unit="us", ours=float(np.percentile(took, 99)), peers={}, ratio=None),
    ]
    for name, (hz, ideal_hz, cost_us, alone_us) in stages.items():
        beside: dict[str, float | None] = {"rate x cost in a plain loop": ideal_hz * alone_us / 1000}
        what = f"{name}: {hz:.1f} runs/s of {cost_us:.0f} us"
        rows.append(Row(what=what, unit="ms/s", ours=hz * cost_us / 1000, peers={}, ratio=None, beside=beside))
    rows += [
        Row(
            what="all stages at their inputs' own rates", unit="ms/s", ours=fused_ms, peers={}, ratio=None, beside=ideal
        ),
        Row(what="the same and the graph's own work", unit="ms/s", ours=spent_ms, peers={}, ratio=None, beside=ideal),
    ]
    return rows, {"graph_overhead_p50_us": median_us, "async_cost_vs_ideal": fused_ms / ideal_ms}


def alone(quick: bool) -> BenchmarkReport:
    """What the stage graph costs, without the other parts of ``benchmarks/fusion.py``."""
    rows, targets = measure(quick)
    return BenchmarkReport(
        name="graph",
        title="What the stage graph costs: with networks that do nothing, and with the shipped ones",
        host=host(),
        conditions={**versions("onnxruntime", "numpy")},
        evidence="cpu",
        rows=rows,
        targets=targets,
    )


if __name__ == "__main__":
    main(alone)
