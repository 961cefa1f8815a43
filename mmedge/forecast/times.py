"""Times of a bundle's networks that were measured: kept beside the engines, or in a document of a benchmark."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmedge.bundle import Bundle
from mmedge.bundle.manifest import Variant
from mmedge.engine.timings import timed_before
from mmedge.errors import ConfigError
from mmedge.files import engine_cache, read_plain
from mmedge.forecast.span import Span, added
from mmedge.learn import learn

BENCH, ATTESTATION = "mmedge.bench/2", "mmedge.attest/1"
_LARGEST = 1 << 24  # bytes of a file that is read


class _Figures(msgspec.Struct, frozen=True):
    p50: float | None = None
    interval: dict[str, tuple[float | None, float | None]] = {}


class _Stage(msgspec.Struct, frozen=True):
    engine: _Figures


class _Steps(msgspec.Struct, frozen=True):
    ready: _Figures = _Figures()


class _Latency(msgspec.Struct, frozen=True):
    overhead: _Figures = _Figures()
    steps: _Steps = _Steps()


class _Conditions(msgspec.Struct, frozen=True):
    machine: str
    backends: dict[str, str] = {}


class _Process(msgspec.Struct, frozen=True):
    name: str
    pss_mib: float | None = None


class Measured(msgspec.Struct, frozen=True):
    """What is taken of a document of ``mmedge bench``; times in ms.

    Attributes:
        bundle: Its name.
        evidence: As the document says it.
        conditions: Machine, and which backend ran which stage.
        stages_ms: Of each stage the time of its engine.
        latency_ms: The runtime's own time.
        processes: Of each its memory.
        valid: Whether the figures are those of what was asked for.
    """

    bundle: str
    evidence: str
    conditions: _Conditions
    stages_ms: dict[str, _Stage]
    latency_ms: _Latency
    processes: tuple[_Process, ...] = ()
    valid: bool = False

    def runtime(self, *, alone: bool) -> Span | None:
        """Return the runtime's own time of a trigger, tensors included.

        Args:
            alone: Whether triggers wait for no other input: what passes until one is ready is then its own, too.
        """
        own, ready = span_of(self.latency_ms.overhead), span_of(self.latency_ms.steps.ready)
        return added((own, ready)) if alone and own is not None and ready is not None else own

    @property
    def memory_bytes(self) -> int | None:
        """Memory of all its processes; None where one is not known."""
        found = [process.pss_mib for process in self.processes]
        return None if not found or None in found else round(sum(filter(None, found)) * (1 << 20))


def span_of(figures: _Figures) -> Span | None:
    """Return a median and between what it lies; None of no median."""
    if figures.p50 is None:
        return None
    low, high = figures.interval.get("p50", (None, None))
    return Span(figures.p50 if low is None else low, figures.p50, figures.p50 if high is None else high)


def read_measured(path: Path, bundle: str) -> Measured:
    """Return the document of a benchmark, or that in an attestation.

    Args:
        path: Where it is.
        bundle: Name of the bundle that it must be of.

    Raises:
        ConfigError: If it cannot be read, is neither, is not of this bundle, or is not valid.
    """
    try:
        document: Any = json.loads(read_plain(path, _LARGEST))
        if isinstance(document, dict) and document.get("schema") == ATTESTATION:
            document = document.get("bench")
        if not isinstance(document, dict) or document.get("schema") != BENCH:
            raise ConfigError(
                f"the file is not a report of schema '{BENCH}'",
                where=str(path),
                fix="make one: mmedge bench BUNDLE --save FILE.json",
            )
        found = msgspec.convert(document, learn(Measured))
    except OSError as error:
        message = f"cannot read the report: {error.strerror}"
        raise ConfigError(message, where=str(path), fix="check the path") from error
    except (ValueError, RecursionError) as error:  # of JSON, UTF-8 and msgspec
        message = f"the report cannot be read: {error}"
        raise ConfigError(message, where=str(path), fix="make one: mmedge bench BUNDLE --save FILE.json") from error
    if found.bundle != bundle:
        message = f"the report is of the bundle '{found.bundle}', not of '{bundle}'"
        raise ConfigError(message, where=str(path), fix="measure this one: mmedge bench BUNDLE --save FILE.json")
    if not found.valid:
        raise ConfigError("the figures of the report are not valid", where=str(path), fix="measure again")
    _check_numbers(found, path)
    return found


def _check_numbers(found: Measured, path: Path) -> None:
    figures = [
        found.latency_ms.overhead,
        found.latency_ms.steps.ready,
        *(stage.engine for stage in found.stages_ms.values()),
    ]
    numbers: list[float | None] = [process.pss_mib for process in found.processes]
    for each in figures:
        low, high = each.interval.get("p50", (None, None))
        numbers += [each.p50, low, high]
        if each.p50 is not None and not (low or 0) <= each.p50 <= (math.inf if high is None else high):
            raise ConfigError("a median lies outside of its interval", where=str(path), fix="take it as made")
    if any(number is not None and not 0 <= number < math.inf for number in numbers):
        raise ConfigError(
            "a figure of the report is not a time or a size", where=str(path), fix="take it as it was made"
        )


class Kept(NamedTuple):
    """What the engine of a stage took when it was built or timed on this machine: its form, median of a run in ms."""

    variant: Variant
    form: str
    ms: float


def kept_here(bundle: Bundle, stage: str) -> Kept | None:
    """Return what is known beside the engines of this machine; None of a stage that was never timed here.

    No backend is imported: what was timed last counts, whatever has been installed since.

    Args:
        bundle: An open bundle.
        stage: One that has networks.
    """
    files = bundle.manifest.files
    on_gpu = _on_gpu(bundle, stage)
    if on_gpu:
        return min(on_gpu, key=lambda kept: kept.ms)
    forms = {v.file: v for v in bundle.variants(stage, "cpu")}
    record = timed_before(files[file].sha256 for file in forms)
    if record is None or not record.order:
        return None
    form = record.forms[record.order[0]]
    if form.run_ms is None or form.file not in forms:
        return None
    return Kept(forms[form.file], f"{form.backend} {form.precision}", form.run_ms)


def _on_gpu(bundle: Bundle, stage: str) -> list[Kept]:
    try:
        if not any(engine_cache().glob("*.plan")):
            return []
    except (ConfigError, OSError):  # whoever builds one will say so
        return []
    from mmedge.engine.cache import timed_engine  # with what builds engines, which most runs do not need

    files = bundle.manifest.files
    return [
        Kept(variant, f"tensorrt {variant.precision}", sidecar.verdict.run_ms)
        for variant in bundle.variants(stage, "tensorrt")
        if (sidecar := timed_engine(files[variant.file].sha256)) and sidecar.verdict and sidecar.verdict.run_ms
    ]
