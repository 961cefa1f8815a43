"""A stage that no input of a run feeds: its outputs stay zeros, so neither its network nor its tokenizer is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np

from mmedge.bundle import Bundle, Manifest
from mmedge.bundle.manifest import Input
from mmedge.engine.base import EngineBase
from mmedge.errors import InternalError
from mmedge.fusion.feed import Feed, ReadMember
from mmedge.fusion.stage import StageRunner
from mmedge.fusion.tensors import array_of, output_shapes, tensor_specs
from mmedge.plan import plan_stages


class UnfedEngine(EngineBase):
    """Stands where a network would: tensors as the graph and the manifest have them, and nothing that runs."""

    def _run_impl(self) -> None:
        raise InternalError("a stage that nothing feeds was run", where=self.backend, fix="please report it")


class UnfedStage(StageRunner):
    """A stage whose seats are all absent from the start to the end of a run."""

    def _make_feeds(self, inputs: Mapping[str, Input], read: ReadMember) -> dict[str, tuple[str, Feed]]:
        return {}


def unfed_stages(manifest: Manifest, fed: Collection[str]) -> frozenset[str]:
    """Return the stages that nothing can reach, directly or through others, in a run on the inputs ``fed``.

    A stream, and what is behind one, is loaded all the same: these wait for a first step by rules of their own. So is
    a rule of the user's own, which is to be refused at the start.
    """
    return frozenset(
        plan.name
        for plan in plan_stages(manifest.stages, manifest.inputs)
        if plan.depends and set(fed).isdisjoint(plan.depends)
        if plan.hears is None and not plan.behind and plan.calls is None
    )


def make_unfed(bundle: Bundle, name: str, upstream: Mapping[str, StageRunner]) -> UnfedStage:
    """Return the stage ``name``, one of ``unfed_stages``."""
    spec = bundle.manifest.stages[name]
    engine = UnfedEngine("unfed")
    for tensor, (shape, dtype) in tensor_specs(spec, bundle.inputs, partial(array_of, upstream)).items():
        engine.inputs[tensor] = np.zeros(shape, dtype)
    engine.outputs = {output: np.zeros(shape, np.float32) for output, shape in output_shapes(spec).items()}
    return UnfedStage(name, spec, bundle.inputs, engine, upstream, raw=False)
