"""What one export is asked for and has found so far, and what a step of it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from mmedge.errors import ConfigError

from .identity import digest_of
from .int8.emulated import as_tensorrt_computes
from .keys import graph_digest, model_digest, samples_digest
from .onnx.onnx_models import OnnxModels
from .onnx.to_onnx import random_samples
from .recipe import Recipe
from .recordings import RawSamples, raw_samples

if TYPE_CHECKING:
    from torch import nn

Step: TypeAlias = Literal[
    "train",
    "onnx",
    "parity",
    "parser",
    "fp16",
    "quantize",
    "fp8",
    "int4",
    "compare",
    "measure",
    "golden",
    "smoke",
    "pack",
]
Show = Callable[[str, float | None], None]
STEPS: tuple[Step, ...] = get_args(Step)
# What else the steps may be called.
ALIASES: dict[str, Step] = {"clean": "onnx", "normal-form": "quantize", "ranges": "quantize", "int8": "quantize"}
QUANTISED: tuple[Step, ...] = ("quantize", "fp8", "int4")


@dataclass(kw_only=True)
class Work:
    """One export: what is asked for, and what the steps have found so far.

    Attributes:
        recipe: With the shapes of all outputs filled in.
        show: Called with what goes on, and a share 0..1.
        is_measured: Whether to run the exported networks over the validation data.
        is_compiled: Whether to build the networks with TensorRT, where that is installed.
        model: A submodule per stage; None where every network is brought along.
        metadata: What training has measured.
        results: Step -> what it gave.
        digests: Step -> hash of what it gave.
    """

    recipe: Recipe
    show: Show
    is_measured: bool = True
    is_compiled: bool = True
    model: nn.Module | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @cached_property
    def samples(self) -> RawSamples:
        """Raw samples, read once and only if a step is done that needs them."""
        recipe = self.recipe
        if recipe.calibration.recordings is None and {"fp32"}.issuperset(recipe.export.precisions):
            return RawSamples.split(random_samples(recipe, 12), "noise")
        self.show("recordings", None)
        return raw_samples(recipe)

    @cached_property
    def recorded(self) -> bytes:
        """The hash of what the samples are read from."""
        return samples_digest(self.recipe)

    @cached_property
    def graph(self) -> bytes:
        """The hash of graph, rules and network files."""
        return graph_digest(self.recipe)

    @cached_property
    def network(self) -> bytes:
        """The hash of graph, rules, network files and model."""
        return digest_of(self.graph, model_digest(self.recipe, self.model))

    @property
    def fp32(self) -> OnnxModels:
        """The networks, with their parity once it was measured."""
        onnx: OnnxModels = self.results["onnx"]
        return replace(onnx, recipe=self.recipe, parity=self.results.get("parity", ()))

    @property
    def quantised(self) -> list[OnnxModels]:
        """The quantised networks, in every precision in which a stage is."""
        found = [self.results[step] for step in QUANTISED if step in self.results]
        return [version for version in found if version.models]

    @property
    def measured(self) -> list[OnnxModels]:
        """The networks whose accuracy is measured: fp32, and quantised ones with the stages that stay float."""
        fp32 = self.fp32
        own = [(v, v.models if v.precision == "int8" else as_tensorrt_computes(v)) for v in self.quantised]
        return [fp32, *(replace(version, models={**fp32.models, **models}) for version, models in own)]

    @property
    def versions(self) -> list[OnnxModels]:
        """The networks in every precision that there is."""
        return [self.fp32, *(self.results[step] for step in ("fp16", *QUANTISED) if step in self.results)]


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """One step; a further one is a further entry of ``TABLE``.

    Attributes:
        name: Names it in ``--only``, in reports and in the cache.
        after: Steps whose results it takes: it is done again when one of these gives another.
        key: What else it depends on.
        make: Does it.
        save: Writes the result into a folder.
        load: Reads it from there.
        lacks: Why this export does not have it; None where it does.
        keeps: Whether a result is kept; one that may be another the next time is not.
        check: Raises if the result is not good enough, whether made or cached.
    """

    name: Step
    after: tuple[Step, ...]
    key: Callable[[Work], object]
    make: Callable[[Work], Any]
    save: Callable[[Any, Path], None]
    load: Callable[[Work, Path], Any]
    lacks: Callable[[Work], ConfigError | None] = lambda work: None
    keeps: Callable[[Any], bool] = lambda result: True
    check: Callable[[Work, Any], None] = lambda work, result: None


def step_of(name: str) -> Step:
    """Return a step by its name or another one that it is known by.

    Raises:
        ConfigError: If there is none.

    Example:
        >>> step_of("clean")
        'onnx'
    """
    known: dict[str, Step] = {**{step: step for step in STEPS}, **ALIASES}
    if name not in known:
        raise ConfigError(f"unknown step '{name}'", where="only", fix=f"one of {', '.join(known)}")
    return known[name]
