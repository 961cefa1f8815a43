"""Does TensorRT take what is packed? Every variant is built once, in a child, where TensorRT can build here."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping

import msgspec

from mmedge.engine.build_parent import target_capability
from mmedge.engine.compile import compile_network
from mmedge.engine.network import Network
from mmedge.engine.tensorrt_loader import load_tensorrt
from mmedge.errors import DeviceError, EngineError, MissingDependencyError, MmedgeError

from .pack import Members

QUANTISED_KINDS = ("int8", "fp8", "int4")
_log = logging.getLogger(__name__)


class SmokeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One variant: what TensorRT built of it, or why it did not.

    Attributes:
        int8_layers: Layers that compute in INT8, or in FP8 or with INT4 weights as the variant asks.
        int8_coverage: Share of the quantised convolutions and products that they are, 0..1.
        problem: Why nothing was built; None where it was.
    """

    stage: str
    precision: str
    layers: int = 0
    int8_layers: int = 0
    int8_coverage: float = 0.0
    seconds: float = 0.0
    problem: str | None = None


class Smoke(msgspec.Struct, frozen=True, kw_only=True):
    """What was built, by what; ``skipped`` says why nothing was tried."""

    builder: str = ""
    rows: tuple[SmokeRow, ...] = ()
    skipped: str | None = None


def smoke_key() -> object:
    """Return what decides over the answer besides the networks: the builder and what it builds for."""
    try:
        trt = load_tensorrt(None)
        return trt.name, trt.version, target_capability(trt, None)
    except MmedgeError as error:
        return error.message


def smoke(
    members: Members, sources: Mapping[str, Mapping[str, str]], show: Callable[[str, float | None], None]
) -> Smoke:
    """Build every TensorRT variant into the cache of engines, where ``mmedge compile`` finds it again.

    Args:
        members: What ``make_members`` returned.
        sources: Stage -> node -> source line, for what is refused.
        show: Called with what goes on.

    Returns:
        A row per variant. What is refused is a warning: the device may have another TensorRT.
    """
    try:
        trt = load_tensorrt(None)
        target = target_capability(trt, None)
    except (MissingDependencyError, DeviceError) as error:
        return Smoke(skipped=error.message)
    rows = []
    variants = [variant for variant in members.variants if variant.target == "tensorrt"]
    for variant in variants:
        show(f"smoke: {variant.file}", None)
        content = members.files[variant.file]
        assert isinstance(content, bytes)  # its weights are in it
        try:
            sha256 = hashlib.sha256(content).hexdigest()
            compiled = compile_network(
                Network(name=variant.file, model=content, path=None, weights=(), sha256=sha256),
                variant.stage,
                variant.precision,
                sources=sources.get(variant.stage),
                module=trt.name,
            )
        except EngineError as error:
            _log.warning("stage '%s', %s: %s", variant.stage, variant.precision, error.message)
            rows.append(SmokeRow(stage=variant.stage, precision=variant.precision, problem=error.message))
            continue
        built = compiled.build
        rows.append(
            SmokeRow(
                stage=variant.stage,
                precision=variant.precision,
                layers=built.layers,
                int8_layers=built.int8_layers,
                int8_coverage=round(built.int8_coverage, 3),
                seconds=round(built.seconds, 2),
            )
        )
    return Smoke(builder=f"{trt.name} {trt.version} for {target}", rows=tuple(rows))
