"""Make the stage around an engine."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.bundle import Bundle
from mmedge.engine.base import Engine
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.stream import StreamStage
from mmedge.plan.stream import is_stream


def make_stage(
    bundle: Bundle, name: str, engine: Engine, upstream: Mapping[str, StageRunner], *, raw: bool = False
) -> StageRunner:
    """Return a stage around its engine, one that listens where it is a stream."""
    spec = bundle.manifest.stages[name]
    kind = StreamStage if is_stream(spec, bundle.inputs) else StageRunner
    return kind(name, spec, bundle.inputs, engine, upstream, raw=raw, read=bundle.read)
