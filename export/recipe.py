"""The recipe: one TOML file that says how a bundle is trained, calibrated, exported and packed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

import mmedge
from mmedge.bundle.manifest import Detection, Input, Missing, Smoothing, Stage, Sync
from mmedge.errors import ConfigError


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Data(_Strict, frozen=True, kw_only=True):
    """Where samples come from: a data set class, or a folder with ``index.csv``.

    Attributes:
        dataset: ``"pkg.mod:Class"``, called with ``recipe`` and ``options``.
        folder: Folder with ``index.csv`` (columns split, group, label, image, audio, text), relative to the recipe.
        options: Passed to the data set.
    """

    dataset: str | None = None
    folder: str | None = None
    options: dict[str, Any] = {}


class Model(_Strict, frozen=True, kw_only=True):
    """``factory`` names a callable that returns a ``torch.nn.Module`` with one submodule per stage."""

    factory: str
    parameters: dict[str, Any] = {}


class RecipeTask(_Strict, frozen=True, kw_only=True):
    """A task as the manifest has it, with its labels in place of a file, and its share of the loss."""

    kind: Literal["classification", "verification", "detection"]
    output: str
    labels: tuple[str, ...]
    threshold: float = 0.0
    smoothing: Smoothing | tuple[Smoothing, ...] | None = None
    top_k: int = 0
    scores: Literal["logits", "probabilities"] = "logits"
    detection: Detection | None = None
    loss_weight: float = 1.0


class Train(_Strict, frozen=True, kw_only=True):
    """How the model is trained."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    modality_dropout: float = 0.15
    workers: int = 2
    weights: str | None = None


class Calibration(_Strict, frozen=True, kw_only=True):
    """How INT8 ranges are found: media files in ``recordings``, ``frames`` of them, by ``rule``."""

    recordings: str | None = None
    frames: int = 128
    rule: Literal["frame-quantile", "max"] = "frame-quantile"
    quantile: float = 0.99
    max_drop_points: float = 0.5


class Export(_Strict, frozen=True, kw_only=True):
    """What is written: precisions, opset, targets."""

    precisions: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
    opset: int = 20
    targets: tuple[Literal["cpu", "tensorrt"], ...] = ("cpu", "tensorrt")


class _Document(_Strict, frozen=True, kw_only=True):
    name: str
    licence: str
    seed: int = 0
    data: Data = Data()
    inputs: dict[str, Input]
    model: Model
    stages: dict[str, Stage]
    tasks: dict[str, RecipeTask]
    train: Train = Train()
    calibration: Calibration = Calibration()
    export: Export = Export()
    missing: dict[str, Missing] = {}
    sync: Sync


class Recipe(_Document, frozen=True, kw_only=True):
    """A decoded recipe. Paths inside it are relative to ``folder``, where its file lies."""

    folder: Path
    sha256: str

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Args:
            path: The TOML file.

        Returns:
            The recipe.

        Raises:
            ConfigError: If the file is missing or a key is unknown, of the wrong type or absent.

        Example:
            >>> from mmedge import export
            >>> export.Recipe.load("recipes/av_digits.toml").name  # doctest: +SKIP
            'digits'
        """
        path = Path(path)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read the recipe: {error.strerror}", where=str(path), fix="check the path"
            ) from error
        try:
            document = msgspec.toml.decode(raw, type=_Document)
        except msgspec.DecodeError as error:
            text, _, key = str(error).partition(" - at ")
            raise ConfigError(text, where=f"{path}: {key.strip('`') or '$'}", fix="correct the recipe") from error
        fields = {name: getattr(document, name) for name in _Document.__struct_fields__}
        return cls(**fields, folder=path.resolve().parent, sha256=hashlib.sha256(raw).hexdigest())

    def path(self, relative: str) -> Path:
        """Return a path of the recipe: relative to its folder, or ``mmedge:PATH`` inside the installed package."""
        inside = relative.removeprefix("mmedge:")
        return Path(mmedge.__file__).parent / inside if inside != relative else self.folder / relative
