"""Another bundle takes over in a live run: how many frames that costs, and how long nothing comes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

import mmedge
from benchmarks.goals import judged, load, summed_up
from benchmarks.harness import BenchmarkReport, main, versions
from benchmarks.null_bundle import null_bundle
from mmedge.bundle import write_archive
from mmedge.types import NS_PER_S

FPS = 30
INPUTS = {"image": f"test://?fps={FPS}", "audio": "test://?seed=7"}
SETTLE_S, AFTER_S = 1.5, 0.5
DIGITS = Path(mmedge.__file__).parent / "assets/digits/digits.mmedge"


def other_version(path: Path, folder: Path) -> Path:
    """Write a bundle that differs from that of ``path`` in every stage, so that none goes on as it is."""
    with mmedge.load(path) as bundle:
        manifest = bundle.manifest
        stages = {n: msgspec.structs.replace(s, timeout_ms=s.timeout_ms + 1) for n, s in manifest.stages.items()}
        members = {name: bundle.read(name) for name in manifest.files}
    other = msgspec.structs.replace(manifest, name=f"{manifest.name}-2", stages=stages)
    return write_archive(folder / f"{other.name}.mmedge", other, members)


class Window:
    """What a reader sees of a run in some time.

    Args:
        pipe: A pipeline that runs.
        arrived_ns: When each of its results has come, so far.
    """

    def __init__(self, pipe: mmedge.Pipeline, arrived_ns: Sequence[int]) -> None:
        self._pipe, self._arrived_ns = pipe, arrived_ns
        self._begin, self._lost = len(arrived_ns), self._all_lost()

    def _all_lost(self) -> int:
        return self._pipe.statistics.dropped + self._pipe.statistics.undelivered

    def close(self) -> tuple[int, float]:
        """Return how many frames were lost since the start, and the longest time without a result, in frames.

        A run that gives every result when it is due has a gap of 0.
        """
        times = self._arrived_ns[self._begin - 1 :]
        longest_ns = max((b - a for a, b in pairwise(times)), default=AFTER_S * NS_PER_S)
        return self._all_lost() - self._lost, max(0.0, longest_ns * FPS / NS_PER_S - 1)


def run(old: Path, new: Path) -> dict[str, tuple[int, float]]:
    """Return frames lost and the gap of a swap, of the swap back, and of as long a time without any."""
    arrived_ns: list[int] = []

    def read() -> None:
        arrived_ns.extend(time.monotonic_ns() for _ in pipe)

    found = {}
    with mmedge.Pipeline(old, INPUTS, isolation="process", results="all") as pipe:
        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(SETTLE_S)
        took_s = 2.0
        for name, bundle in (("nothing", None), ("swap", new), ("back", old)):
            window, began_s = Window(pipe, arrived_ns), time.monotonic()
            if bundle is None:
                time.sleep(took_s)
            else:
                pipe.swap(bundle)
            took_s = time.monotonic() - began_s
            time.sleep(AFTER_S)  # the runtime reports twice a second
            found[name] = window.close()
    reader.join()
    return found


def measure(quick: bool) -> BenchmarkReport:
    """Frames lost and the longest silence of a swap at 30 fps + 16 kHz, beside the same run without."""
    before = load()
    rows, gaps, losses = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        bundles = {"null engines": null_bundle(Path(folder) / "null.mmedge")}
        if not quick:
            bundles["digits, INT8"] = DIGITS
        others = {name: other_version(path, Path(folder)) for name, path in bundles.items()}
        runs: dict[str, list[dict[str, tuple[int, float]]]] = {name: [] for name in bundles}
        for _ in range(1 if quick else 7):
            for name, path in bundles.items():
                runs[name].append(run(path, others[name]))
        for name, found in runs.items():
            for place, (what, unit) in enumerate((("frames lost", "frames"), ("longest silence", "frames"))):
                ours = [each[which][place] for each in found for which in ("swap", "back")]
                none = [float(each["nothing"][place]) for each in found]
                told = f"{name}: {what} at a swap, at most {max(ours):.3g}"
                rows.append(summed_up(told, unit, ours, beside={"without a swap": none}))
                (gaps if place else losses).append(rows[-1].ours)
    targets = {"swap_frames_lost": float(max(losses)), "swap_gap_frames": float(max(gaps))}
    return judged(
        name="swap",
        title=f"A bundle takes over in a live run: {FPS} fps and 16 kHz (simulated devices, real processes)",
        conditions={"load before": before, "load after": load(), **versions("onnxruntime", "numpy")},
        rows=rows,
        targets=targets,
        quick=quick,
    )


if __name__ == "__main__":
    main(measure)
