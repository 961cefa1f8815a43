"""From the start of a process to its first fused result, beside a bare script; and what importing costs.

The files of the disk are in memory, and mmedge's own cache is filled, as it is from the second start on: see
``benchmarks/first_answer.py`` for the very first one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mmedge
from benchmarks.cost import installed
from benchmarks.goals import judged, load, ratio, summed_up
from benchmarks.harness import BenchmarkReport, main, versions
from benchmarks.partners.by_hand import unpack

DIGITS = Path(mmedge.__file__).parent / "assets" / "digits"
BUNDLE, CLIP = DIGITS / "digits.mmedge", DIGITS / "clips" / "clean.mp4"
BARE = Path(__file__).parent / "partners" / "cold_bare.py"
# What a user's script is: the whole of it. The clip is not waited for, as it is not by the bare script.
OURS = """
import json, sys, mmedge
options = {"backend": "onnxruntime", "isolation": "thread", "latency": "offline"}
with mmedge.Pipeline(sys.argv[1], {"image": sys.argv[2], "audio": sys.argv[2]}, **options) as pipe:
    for result in pipe:
        print(json.dumps([result.tasks["digit"].label, result.tasks["digit"].score]), flush=True)
        break
"""
IMPORT = """
import time
begin = time.perf_counter_ns()
{}
print((time.perf_counter_ns() - begin) / 1e6)
"""
IMPORTS = {"mmedge": "import mmedge; mmedge.Pipeline", "onnxruntime": "import onnxruntime"}


def first_ms(command: list[str], environment: dict[str, str]) -> tuple[float, list[object]]:
    """Return how long a new process takes to its first line, in ms, and what that says."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True, cwd="/") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took_ms = 1e3 * (time.perf_counter() - begin)
        process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    said: list[object] = json.loads(line)
    return took_ms, said


def import_ms(what: str, environment: dict[str, str]) -> float:
    """Return how long a new process takes for an import; the start of Python is not counted."""
    command = [sys.executable, "-c", IMPORT.format(IMPORTS[what])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd="/")
    return float(done.stdout)


def measure(quick: bool) -> BenchmarkReport:
    """First fused result of a cold process beside a bare script; import of mmedge beside that of onnxruntime."""
    rounds = 1 if quick else 21
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        unpack(BUNDLE, Path(folder), "fp32")
        cache = {"MMEDGE_CACHE": f"{folder}/engines", "XDG_CACHE_HOME": folder}
        environment = {**installed(Path(folder)), "ORT_DISABLE_TELEMETRY": "1", **cache}
        commands = {
            "ours": [sys.executable, "-c", OURS, str(BUNDLE), str(CLIP)],
            "bare": [sys.executable, str(BARE), folder, str(CLIP)],
        }
        candidates: dict[str, Callable[[], float]] = {
            **{name: lambda c=c: first_ms(c, environment)[0] for name, c in commands.items()},  # type: ignore[misc]
            **{what: lambda w=what: import_ms(w, environment) for what in IMPORTS},  # type: ignore[misc]
        }
        answers = {name: first_ms(command, environment)[1] for name, command in commands.items()}  # and fills caches
        for what in IMPORTS:
            import_ms(what, environment)
        took: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(rounds):
            names = list(candidates)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                took[name].append(candidates[name]())
    targets = {
        "import_vs_onnxruntime": ratio(took["mmedge"], took["onnxruntime"]),
        "cold_first_result_vs_bare": ratio(took["ours"], took["bare"]),
    }
    return judged(
        name="cold_start",
        title="A cold process: imports, and the first fused result of the digits bundle on a clip",
        conditions={
            "rounds": rounds,
            "first answer": str(answers["ours"]),
            "bare script's": str(answers["bare"]),
            "load before": before,
            "load after": load(),
            **versions("mmedge", "numpy", "av", "onnxruntime"),
        },
        rows=[
            summed_up("`import mmedge; mmedge.Pipeline`", "ms", took["mmedge"], {"onnxruntime": took["onnxruntime"]}),
            summed_up("start of Python to the first fused result", "ms", took["ours"], {"bare script": took["bare"]}),
        ],
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
