"""The stages of one model as ONNX, with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import onnx

from mmedge.bundle.manifest import Quantization
from mmedge.learn import learn
from mmedge.types import Precision

from ..recipe import Recipe
from .network_file import load_network
from .outside import write_network


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far one output of a stage is from torch: ``max_rel`` is ``max|got - want| / max|want|`` of its worst row."""

    stage: str
    output: str
    samples: int
    max_abs: float
    max_rel: float
    cosine: float


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxModels:
    """One ONNX network per stage, in tensor form (without preprocessing).

    Attributes:
        recipe: The recipe they were made from.
        precision: ``fp32``; ``int8``, ``fp8`` or ``int4`` for explicit Q/DQ.
        models: Stage name -> network; rules (``callable`` stages) have none. Weights of a network of more than 256 MB
            that was brought along stay in files: ``outside.whole`` takes them in, ``write_network`` writes both.
        sources: Stage name -> node name -> ``"file:line (module)"``. Private: never written into a bundle.
        parity: Agreement with torch, one entry per output.
        quantization: Stage name -> how its ranges were found (``int8`` only).
        metadata: What training measured, as the model carried it: temperature, validated masks, seed.
        sqnr_db: ``"STAGE.OUTPUT"`` -> signal to quantisation noise on held-out samples (``int8`` only).
        skipped: Stage without a network of this precision -> why.
        ranges: Stage -> tensor -> magnitude beyond which it is cut off (``int8`` only).
        half: Stage -> its quantised network with the rest in float16, as TensorRT gets it (``half_rest``).
    """

    recipe: Recipe
    precision: Precision
    models: Mapping[str, onnx.ModelProto]
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    parity: tuple[Parity, ...] = ()
    quantization: Mapping[str, Quantization] = field(default_factory=dict)
    sqnr_db: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    half: Mapping[str, onnx.ModelProto] = field(default_factory=dict)

    @property
    def for_tensorrt(self) -> dict[str, onnx.ModelProto]:
        """Stage -> network as TensorRT gets it, in tensor form."""
        return {**self.models, **self.half}

    def save(self, folder: Path) -> None:
        """Write ``STAGE.PRECISION.onnx`` and ``PRECISION.json`` into ``folder``, and weights that stay in files."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind, models in ((self.precision, self.models), (f"{self.precision}.half", self.half)):
            for stage, model in models.items():
                write_network(model, folder / f"{stage}.{kind}.onnx")
        notes = _Notes(
            stages=tuple(self.models),
            sources={stage: dict(nodes) for stage, nodes in self.sources.items()},
            parity=self.parity,
            quantization=dict(self.quantization),
            sqnr_db=dict(self.sqnr_db),
            skipped=dict(self.skipped),
            ranges={stage: dict(own) for stage, own in self.ranges.items()},
            half=tuple(self.half),
        )
        # Written last: its presence says that the folder is complete.
        (folder / f"{self.precision}.json").write_bytes(msgspec.json.format(msgspec.json.encode(notes)))

    @classmethod
    def load(cls, folder: Path, recipe: Recipe, precision: Precision) -> OnnxModels:
        """Read what ``save`` wrote."""
        notes = msgspec.json.decode((folder / f"{precision}.json").read_bytes(), type=learn(_Notes))
        models = {stage: load_network(folder / f"{stage}.{precision}.onnx", streamed=True) for stage in notes.stages}
        return cls(
            recipe=recipe,
            precision=precision,
            models=models,
            sources=notes.sources,
            parity=notes.parity,
            quantization=notes.quantization,
            sqnr_db=notes.sqnr_db,
            skipped=notes.skipped,
            ranges=notes.ranges,
            half={stage: load_network(folder / f"{stage}.{precision}.half.onnx") for stage in notes.half},
        )


class _Notes(msgspec.Struct, frozen=True, kw_only=True):
    stages: tuple[str, ...]
    sources: dict[str, dict[str, str]]
    parity: tuple[Parity, ...]
    quantization: dict[str, Quantization]
    sqnr_db: dict[str, float]
    skipped: dict[str, str] = {}
    ranges: dict[str, dict[str, float]] = {}
    half: tuple[str, ...] = ()
