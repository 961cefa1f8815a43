"""Backends whose engines are built on the device: each has one door, through which all that load engines go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mmedge.bundle import Bundle, Variant
from mmedge.engine.base import Engine
from mmedge.errors import MmedgeError
from mmedge.fusion.tensors import Shape, input_shapes, output_shapes
from mmedge.types import AnyArray

# Where engines cannot run, the machinery that builds them is not loaded.
if TYPE_CHECKING:
    from mmedge.engine.build_messages import BuildLimits
    from mmedge.engine.build_parent import BuildReport
    from mmedge.engine.cache import Verdict
    from mmedge.engine.compile import CompiledEngine
    from mmedge.engine.reach import EngineOptions

Progress = Callable[[str, float], None]


class Found(NamedTuple):
    """What is known of an engine before it is loaded: whether it is built, and what came of running it."""

    built: bool
    verdict: Verdict | None = None


class Built(Protocol):
    """An engine that was taken from a cache, or built and not yet published there.

    Attributes:
        cached: Whether it was there already.
    """

    @property
    def cached(self) -> bool:
        """Whether it was there already."""

    @property
    def build(self) -> BuildReport:
        """How it was built."""

    @property
    def plan_bytes(self) -> int:
        """Its size."""

    def open(self) -> Engine:
        """Load it."""

    def publish(self, verdict: Verdict | None) -> None:
        """Put it into the cache with what came of running it, None where it was not run; in the cache, note that."""

    def refuse(self, verdict: Verdict) -> None:
        """Remember why it is not published."""

    def discard(self) -> None:
        """Remove it: it is wrong."""


class Door(Protocol):
    """How the engines of one backend are found, built and opened."""

    def problem(self) -> str | None:
        """Say why its engines cannot run here; None when they can."""

    def find(self, bundle: Bundle, variant: Variant, options: EngineOptions | None = None) -> Found:
        """Say whether an engine is built, at once."""

    def build(
        self,
        bundle: Bundle,
        variant: Variant,
        progress: Progress | None = None,
        limits: BuildLimits | None = None,
        options: EngineOptions | None = None,
    ) -> Built:
        """Take an engine from its cache, or build it, which may take minutes; whoever has tested it publishes it.

        Raises:
            EngineError: If it cannot be built.
        """


class BuiltPlan:
    """A TensorRT engine.

    Attributes:
        compiled: Where it lies, or is to lie, and how it was built.
    """

    def __init__(self, compiled: CompiledEngine, stage: str) -> None:
        self.compiled, self._stage = compiled, stage

    @property
    def cached(self) -> bool:
        """Whether it was in the cache already."""
        return self.compiled.cached

    @property
    def build(self) -> BuildReport:
        """How it was built."""
        return self.compiled.build

    @property
    def plan_bytes(self) -> int:
        """Its size."""
        return self.compiled.plan_bytes

    def open(self) -> Engine:
        """Load it on the GPU."""
        return self.compiled.open(self._stage)

    def publish(self, verdict: Verdict | None) -> None:
        """Put it into the cache with what came of running it; of one that is there, note that beside it."""
        from mmedge.engine.cache import EngineCache

        if self.compiled.unpublished is not None:
            EngineCache().put(self.compiled.key, self.compiled.unpublished, verdict)
            self.compiled = replace(self.compiled, unpublished=None)
        elif verdict is not None:
            EngineCache().note(self.compiled.key, verdict)

    def refuse(self, verdict: Verdict) -> None:
        """Remember why it is not published."""
        from mmedge.engine.cache import EngineCache

        assert self.compiled.unpublished is not None
        EngineCache().refuse(self.compiled.key, self.compiled.unpublished, verdict)

    def discard(self) -> None:
        """Remove it from the cache."""
        from mmedge.engine.cache import EngineCache

        EngineCache().discard(self.compiled.key)


class TensorRTDoor:
    """TensorRT, or TensorRT-RTX."""

    def problem(self) -> str | None:
        """Say why engines cannot run on TensorRT here; None when they can."""
        from mmedge.engine.cuda import gpu_problem
        from mmedge.engine.tensorrt_loader import tensorrt_choice

        return "TensorRT is not installed" if tensorrt_choice() is None else gpu_problem()

    def find(self, bundle: Bundle, variant: Variant, options: EngineOptions | None = None) -> Found:
        """Look into the cache; an entry is verified when it is taken."""
        from mmedge.engine.cache import EngineCache
        from mmedge.engine.compile import engine_key_here
        from mmedge.engine.reach import PLAIN

        try:
            sha256 = bundle.manifest.files[variant.file].sha256
            shapes = variant_shapes(bundle, variant)
            key = engine_key_here(sha256, shapes, variant.precision, options or PLAIN)
            cache = EngineCache()
            sidecar = cache.peek(cache.find(key))
        except MmedgeError:  # whoever builds it will say what is wrong
            return Found(built=False)
        if sidecar is None:
            return Found(built=False)
        return Found(built=not sidecar.is_refused, verdict=sidecar.verdict)

    def build(
        self,
        bundle: Bundle,
        variant: Variant,
        progress: Progress | None = None,
        limits: BuildLimits | None = None,
        options: EngineOptions | None = None,
    ) -> BuiltPlan:
        """Take an engine from the cache, or build it in a child process."""
        from mmedge.engine.compile import compile_variant
        from mmedge.engine.reach import PLAIN

        compiled = compile_variant(
            bundle.read(variant.file),
            bundle.manifest.files[variant.file].sha256,
            variant.stage,
            variant.precision,
            progress=progress,
            shapes=variant_shapes(bundle, variant),
            limits=limits,
            publish=False,
            options=options or PLAIN,
        )
        return BuiltPlan(compiled, variant.stage)


DOORS: dict[str, Door] = {"tensorrt": TensorRTDoor()}


def variant_shapes(bundle: Bundle, variant: Variant) -> dict[str, Shape]:
    """Return tensor -> the shape that the graph feeds a variant with, by the manifest: it may leave some open."""
    stages = bundle.manifest.stages

    def declared(stage: str, output: str) -> AnyArray:
        return np.broadcast_to(np.float32(0), output_shapes(stages[stage])[output])

    return input_shapes(stages[variant.stage], bundle.inputs, declared, raw=variant.target == "tensorrt")
