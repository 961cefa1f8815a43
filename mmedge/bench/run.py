"""A latency benchmark of a bundle: real sources, or generated frames and sound at their real rates."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmedge.bench.report import Report
from mmedge.bundle import AudioInput, Bundle, ImageInput, load
from mmedge.bundle.manifest import TensorInput
from mmedge.errors import ConfigError, MmedgeError
from mmedge.pipeline import Pipeline
from mmedge.pipeline.pipeline import check_duration
from mmedge.pipeline.runtime import PUSH
from mmedge.version import __version__

BLOCK_S = 0.02
TEXT_S = 1.0


def bench(
    bundle: Bundle | str | Path,
    duration_s: float = 30.0,
    *,
    inputs: dict[str, str] | None = None,
    backend: Literal["auto", "onnxruntime", "tensorrt"] = "auto",
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    fps: float = 30.0,
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Measure a bundle's latency per trigger.

    Args:
        bundle: A bundle, or the path of one.
        duration_s: How long to measure.
        inputs: Sources; without them frames (seeded noise, a ring of 16) and sound are generated at ``fps`` and in
            20 ms blocks, stamped when they are handed over, and a text of 24 letters each second.
        backend: ``auto``, ``onnxruntime`` or ``tensorrt``.
        precision: Only this precision.
        fps: Rate of generated frames.
        progress: Called with the share done, 0..1.

    Returns:
        The report: ``report.latency_ms["end_to_end"].p99``, ``report.save("bench.html")``.

    Raises:
        MmedgeError: As ``Pipeline`` does.

    Example:
        >>> mmedge.bench("digits.mmedge", duration_s=5).latency_ms["end_to_end"].p50  # doctest: +SKIP
        1.7
    """
    if not duration_s > 0:
        raise ConfigError(
            f"duration {duration_s:g} s: it must be above 0", where="duration_s", fix="measure 10 s or more"
        )
    check_duration(duration_s)
    if not 0 < fps <= 1000:
        message = f"{fps:g} frames a second: it must be above 0 and at most 1000"
        raise ConfigError(message, where="fps", fix="use the camera's rate")
    own = not isinstance(bundle, Bundle)
    opened = bundle if isinstance(bundle, Bundle) else load(bundle)
    try:
        uris = dict.fromkeys(opened.inputs, PUSH) if inputs is None else inputs
        load_before = os.getloadavg()[0]
        with Pipeline(opened, uris, backend=backend, precision=precision) as pipe:
            driver = _Driver(pipe, opened, fps) if inputs is None else None
            end = time.monotonic() + duration_s
            try:
                for _ in pipe.results(end):
                    if progress is not None:
                        progress(1.0 - (end - time.monotonic()) / duration_s)
            finally:
                if driver is not None:
                    driver.stop()
        if not pipe.statistics.results:
            raise ConfigError("nothing was measured: the sources gave no data", where="inputs", fix="mmedge devices")
        return Report(
            bundle=opened.name,
            conditions={
                "duration_s": duration_s,
                "inputs": f"generated, {fps:g} fps and 20 ms blocks" if inputs is None else inputs,
                "backends": pipe.statistics.backends,
                "mmedge": __version__,
                "python": platform.python_version(),
                "machine": machine(),
                "cores": os.cpu_count(),
                "load_before": round(load_before, 2),
            },
            statistics=pipe.statistics,
        )
    finally:
        if own:
            opened.close()


def machine() -> str:
    """Return the processor's or board's model, nothing that identifies the owner."""
    for path, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if key is None:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.machine()


class _Driver:
    """Pushes generated data at its real rate from a thread, as a user's own camera driver would."""

    def __init__(self, pipe: Pipeline, bundle: Bundle, fps: float) -> None:
        self._stop = threading.Event()
        self.error: MmedgeError | None = None
        rng = np.random.default_rng(0)
        feeds: list[tuple[float, str, list[Any]]] = []
        for name, spec in bundle.inputs.items():
            if isinstance(spec, ImageInput):
                shape = spec.frame if spec.channels == 1 else (*spec.frame, 3)
                # More frames than fit a cache's favourite: a single hot frame flatters the result.
                feeds.append((1 / fps, name, [rng.integers(0, 256, shape, np.uint8) for _ in range(16)]))
            elif isinstance(spec, AudioInput):
                n = round(spec.sample_rate_hz * BLOCK_S)
                feeds.append((BLOCK_S, name, [rng.normal(0, 0.1, n).astype(np.float32) for _ in range(16)]))
            elif isinstance(spec, TensorInput):
                period = 1 / (spec.rate_hz or fps)
                feeds.append((period, name, [rng.normal(0, 1, spec.shape).astype(spec.dtype)]))
            else:
                texts = rng.choice(list("abcdefghijklmnopqrstuvwxyz 0123456789"), (16, 24))
                feeds.append((TEXT_S, name, ["".join(letters) for letters in texts]))
        self._thread = threading.Thread(target=self._run, args=(pipe, feeds), name="mmedge-bench", daemon=True)
        self._thread.start()

    def _run(self, pipe: Pipeline, feeds: list[tuple[float, str, list[Any]]]) -> None:
        start = time.monotonic()
        due = [start + min(period, BLOCK_S) for period, _, _ in feeds]
        counts = [0] * len(feeds)
        try:
            while not self._stop.is_set():
                index = min(range(len(feeds)), key=due.__getitem__)
                if self._stop.wait(max(0.0, due[index] - time.monotonic())):
                    return
                period, name, ring = feeds[index]
                value = ring[counts[index] % len(ring)]
                if isinstance(value, str):
                    pipe.text(value, name)
                else:
                    pipe.push(name, value, time.monotonic_ns())
                counts[index] += 1
                due[index] += period
        except MmedgeError as error:
            self.error = error

    def stop(self) -> None:
        """Stop pushing and hand over what went wrong."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
