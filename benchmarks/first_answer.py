"""From the start of a process to its first fused result, with empty caches and TensorRT building beside it.

Each run is a process of its own: Python, imports, the trial of the networks, the clip, the answer. The engines that are
built meanwhile need a GPU to run; where there is none they are built all the same, since what is measured is a run
beside a build, and the run stays on the CPU.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mmedge
from benchmarks.harness import BenchmarkReport, Row, host, main, versions

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
LIMIT_S = 2.0


def child(build: str, started_s: float) -> None:
    """Run the bundle on a clip at its real rate; print when the first result came, and when the builds had ended."""
    from mmedge.fusion.doors import DOORS, TensorRTDoor

    class Ahead(TensorRTDoor):
        def problem(self) -> str | None:
            return None

    if build == "build":
        DOORS["tensorrt"] = Ahead()
    clip = str(ASSETS / "clips" / "clean.mp4")
    first_s = built_s = cpu_s = None
    kwargs = {} if build == "build" else {"backend": "onnxruntime"}
    with mmedge.Pipeline(
        ASSETS / "digits.mmedge",
        {"image": clip, "audio": clip},
        isolation="thread",
        **kwargs,  # type: ignore[arg-type]
    ) as pipe:
        for _ in pipe:
            now_s = time.monotonic() - started_s
            if first_s is None:
                children = resource.getrusage(resource.RUSAGE_CHILDREN)  # the trial of the networks; no build has ended
                first_s, cpu_s = now_s, time.process_time() + children.ru_utime + children.ru_stime
            engines = pipe.health().get("@engines")
            if engines is not None and not engines["counters"]["building"]:  # type: ignore[index]
                built_s = built_s or now_s
                break
            if engines is None and now_s > first_s + 2:
                break
        p99_ms = pipe.statistics.end_to_end.percentile_ms(99)
        note = (pipe.health().get("@engines") or {}).get("reason")
    print(json.dumps({"first_s": first_s, "cpu_s": cpu_s, "built_s": built_s, "p99_ms": p99_ms, "note": note}))


def one(build: str) -> dict[str, float | None]:
    """Return what one process says, with caches of its own."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "MMEDGE_CACHE": f"{folder}/engines", "XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", "benchmarks.first_answer", "--child", build, str(time.monotonic())]
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, check=True, cwd=Path(__file__).parents[1]
        )
        found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
        return found


def measure(quick: bool) -> BenchmarkReport:
    """First result of a cold process with empty caches, while TensorRT builds beside it, and without."""
    runs = 3 if quick else 7
    found = {build: [one(build) for _ in range(runs)] for build in ("build", "alone")}
    firsts = {build: [run["first_s"] or float("nan") for run in own] for build, own in found.items()}
    built = [run["built_s"] for run in found["build"] if run["built_s"]]
    medians = {build: statistics.median(own) for build, own in firsts.items()}
    first_built = "the first engine is ready, which waiting would wait for"
    rows = [
        Row(
            what="first result, TensorRT builds beside it",
            unit="s",
            ours=medians["build"],
            peers={},
            ratio=None,
            beside={first_built: statistics.median(built) if built else None},
        ),
        Row(what="first result, nothing is built", unit="s", ours=medians["alone"], peers={}, ratio=None),
    ]
    return BenchmarkReport(
        name="first_answer",
        title="From the start of a process to its first fused result; caches are empty",
        host=host(),
        conditions={
            "runs": runs,
            "slowest_s": round(max(firsts["build"]), 2),
            **versions("onnxruntime", "tensorrt_rtx"),
        },
        evidence="cpu",
        rows=rows,
        targets={"first_answer_s": medians["build"]},
        missed=["first_answer_s"] if medians["build"] > LIMIT_S else [],
    )


if __name__ == "__main__":
    if "--child" in sys.argv:
        place = sys.argv.index("--child")
        child(sys.argv[place + 1], float(sys.argv[place + 2]))
    else:
        main(measure)
