"""Forecasts that are fixed by a hash before a bundle runs anywhere, and how well a board's figures kept to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from mmedge.errors import CheckError, ConfigError
from mmedge.files import read_document
from mmedge.forecast.expect import SCHEMA, Forecast
from mmedge.forecast.span import Span
from mmedge.learn import learn


class _Step(msgspec.Struct, frozen=True):
    name: str
    kind: str
    ms: tuple[float, float | None, float | None] | None = None


class _Forecast(msgspec.Struct, frozen=True):
    schema: str
    bundle: str
    manifest_sha256: str
    device: str
    rate_hz: float
    end_to_end_ms: tuple[float, float | None, float | None]
    engines_ms: tuple[float, float | None, float | None]
    steps: tuple[_Step, ...]


class _Rate(msgspec.Struct, frozen=True):
    asked_hz: Annotated[float, msgspec.Meta(gt=0)] | None


class _Figures(msgspec.Struct, frozen=True):
    p50: float | None


class _EndToEnd(msgspec.Struct, frozen=True):
    p50: float


class _Latency(msgspec.Struct, frozen=True):
    end_to_end: _EndToEnd
    steps: dict[str, _Figures]


class _Stage(msgspec.Struct, frozen=True):
    engine: _Figures


class _Measured(msgspec.Struct, frozen=True):
    rate: _Rate
    latency_ms: _Latency
    stages_ms: dict[str, _Stage]


class _Sealed(msgspec.Struct, frozen=True):
    forecasts: tuple[_Forecast, ...]


class Score(NamedTuple):
    """A figure that was measured, and what had been said of it; ``span`` is None where nothing had."""

    what: str
    span: Span | None
    ms: float

    @property
    def hit(self) -> bool | None:
        """Whether it lies in the interval; None where there is none on both sides."""
        return None if self.span is None or self.span.high is None else self.span.holds(self.ms)


def digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document without its own ``sha256``, as JSON with sorted keys and no blanks."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(forecasts: Iterable[Forecast]) -> dict[str, Any]:
    """Return forecasts of a bundle with a hash over them; each names the hash of the manifest that it is of.

    Example:
        >>> sorted(sealed([]))
        ['forecasts', 'sha256']
    """
    document: dict[str, Any] = {"forecasts": [forecast.to_dict() for forecast in forecasts]}
    return {**document, "sha256": digest(document)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the sealed forecasts of the report of an export.

    Raises:
        ConfigError: If it cannot be read, or there is none in it.
        CheckError: If they were changed after they had been sealed.
    """
    fix = "take the NAME.json that `mmedge export` writes beside the bundle"
    content = read_document(path, "the report")
    try:
        document: Any = json.loads(content)
        found = document.get("forecast") if isinstance(document, dict) else None
        if not isinstance(found, dict):
            raise ConfigError("the file has no sealed forecast", where=str(path), fix=fix)
        is_changed = digest(found) != found.get("sha256")
        msgspec.convert(found, learn(_Sealed))
    except (ValueError, RecursionError) as error:  # of JSON, UTF-8, msgspec, and numbers that JSON does not have
        raise ConfigError(f"the forecast cannot be read: {error}", where=str(path), fix=fix) from error
    if is_changed:
        raise CheckError(
            "the forecast was changed after it was sealed: its hash does not fit", where=str(path), fix="take the first"
        )
    return dict(found)


def scored(document: Mapping[str, Any], device: str, manifest_sha256: str, report: Mapping[str, Any]) -> list[Score]:
    """Return how what was measured on a board keeps to what had been said of it.

    Args:
        document: What ``read_sealed`` returned.
        device: Short name of the board.
        manifest_sha256: Of the bundle that was measured.
        report: Of schema ``mmedge.bench/2``.

    Raises:
        CheckError: If nothing had been said of this bundle on this board at this rate.
        ConfigError: If the report lacks what is to be scored.
    """
    forecasts = msgspec.convert(document, learn(_Sealed)).forecasts
    try:
        measured = msgspec.convert(report, learn(_Measured))
    except msgspec.ValidationError as error:
        message = f"the report cannot be scored: {error}"
        raise ConfigError(message, where="bench", fix="measure again with this version") from None
    asked = measured.rate.asked_hz
    for own in forecasts:
        same = (own.schema, own.device, own.manifest_sha256) == (SCHEMA, device, manifest_sha256)
        if same and asked is not None and abs(own.rate_hz / asked - 1) < 0.01:
            break
    else:
        raise CheckError(
            f"there is no forecast of this bundle (manifest {manifest_sha256[:12]}) on '{device}' at {asked} a second",
            where="forecast",
            fix="take the report that was written with this very bundle, and measure at its rate",
        )
    figures = [Score("end to end", Span(*own.end_to_end_ms), measured.latency_ms.end_to_end.p50)]
    together = measured.latency_ms.steps.get("inferred")
    if together is not None and together.p50 is not None:
        figures.append(Score("engines of a trigger", Span(*own.engines_ms), together.p50))
    for step in own.steps:
        stage = measured.stages_ms.get(step.name) if step.kind == "stage" else None
        if stage is not None and stage.engine.p50 is not None:
            span = None if step.ms is None else Span(*step.ms)
            figures.append(Score(f"engine of {step.name}", span, stage.engine.p50))
    return figures
