"""After warm-up a trigger allocates nothing that stays, and no array."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np

import mmedge
from mmedge.fusion import load_graph
from mmedge.interpret import make_interpreter
from mmedge.plan import plan_sync
from mmedge.sync import Synchronizer
from mmedge.types import Block, Frame
from tests.tiny import tiny_bundle

PERIOD_NS = 40_000_000


def test_nothing_grows_and_no_array_is_allocated(tmp_path: Path) -> None:
    with mmedge.load(tiny_bundle(tmp_path / "tiny.mmedge")) as bundle:
        manifest = bundle.manifest
        graph = load_graph(bundle, backend="onnxruntime")
        sync = Synchronizer(
            plan_sync(manifest.inputs, {"image": True, "audio": True}, manifest.missing, manifest.sync), started_ns=0
        )
        interpreters = {n: make_interpreter(n, t, bundle.labels(n)) for n, t in manifest.tasks.items()}
        pixels, samples = np.full((8, 8), 80, np.uint8), np.full(320, 0.1, np.float32)

        def trigger(k: int) -> None:
            t = (k + 1) * PERIOD_NS
            sync.push(Block(stream="audio", seq=k, capture_ns=t, arrive_ns=t, samples=samples))
            sync.push(
                Frame(stream="image", seq=k, capture_ns=t, arrive_ns=t, data=pixels, format="gray8", width=8, height=8)
            )
            (snapshot,) = sync.poll()
            graph.run(snapshot, sync.read_audio)
            for name, task in manifest.tasks.items():
                interpreters[name](graph.output(task.output), snapshot)
            sync.trim()

        peaks = np.zeros(4000, np.int64)
        for k in range(500):
            trigger(k)
        gc.collect()
        tracemalloc.start()
        for k in range(500, 1000):
            trigger(k)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for k in range(1000, 5000):
            tracemalloc.reset_peak()
            low = tracemalloc.get_traced_memory()[0]
            trigger(k)
            peaks[k - 1000] = tracemalloc.get_traced_memory()[1] - low
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        graph.close()
        sync.close()
    # ONNX Runtime's wrapper keeps a few frame objects; one leaked object a trigger would be 100 kB and more.
    assert after - before < 16_384, f"{after - before} bytes stayed after 4,000 triggers"
    # Packets, a snapshot and results come and go with each trigger; arrays do not.
    assert np.median(peaks) < 16_384, np.median(peaks)
