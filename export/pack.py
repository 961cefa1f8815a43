"""Everything a device needs in one file: variants, golden vectors, labels, manifest, hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from mmedge.bundle.archive import write_archive
from mmedge.bundle.manifest import File, Input, Manifest, Mask, Task, TextInput, Variant
from mmedge.bundle.onnx_file import is_weights, weights_member
from mmedge.errors import ConfigError
from mmedge.files import file_hash
from mmedge.learn import learn
from mmedge.types import Precision, Tensors

from .golden import MARGIN, Golden, make_golden, row_tolerance
from .int8.cpu_choice import checked_cpu_form
from .judge import judge
from .onnx.decompose import TENSORRT_FAILS, decompose
from .onnx.gate import Gate, parser_gate
from .onnx.onnx_models import OnnxModels
from .onnx.outside import left, link_or_copy, spooled, whole
from .preprocess.onnx_prefix import merge_prefix
from .provenance import provenance
from .recipe import Recipe, plain_stage
from .recordings import RawSamples, as_samples
from .report import int8_nodes
from .stages import onnx_runners, seats_of
from .tokenizer import check_vocabulary, load_tokenizer, read_tokenizer

Target: TypeAlias = Literal["cpu", "tensorrt"]
_VARIANTS = "variants.json"
# Another backend sums in another order, and TensorRT may use TF32: 10 bits of mantissa. An int8 kernel that fuses
# differently than the simulation moved outputs by 0.8 % of their range where it was measured.
_FLOOR: dict[tuple[Target, Precision], float] = {
    ("cpu", "fp32"): 1e-3,
    ("cpu", "int8"): 2e-2,
    ("tensorrt", "fp32"): 5e-3,
    ("tensorrt", "fp16"): 1e-2,
    ("tensorrt", "int8"): 2e-2,
    ("tensorrt", "fp8"): 2e-2,
    ("tensorrt", "int4"): 1e-2,
}
# ONNX Runtime's 8-bit kernels round inside, where what is written does not: 3.3 % of the range were measured.
_KERNEL_ROUNDING = 0.05
_log = logging.getLogger(__name__)


class _BlindError(ConfigError):
    """A network is so far from fp32 that no golden vector could tell it from a broken one."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What training knows and the manifest wants.

    Attributes:
        temperature: Task name -> calibrated temperature.
        validated_masks: Presence masks that were measured.
        seed: The seed the model was trained with.
        seeds: Where several were trained: all of them (``trained``), and by which figure one was chosen (``by``).
    """

    temperature: dict[str, float] = {}
    validated_masks: tuple[Mask, ...] = ()
    seed: int | None = None
    seeds: dict[str, Any] | None = None

    @property
    def chosen(self) -> dict[str, str | int | float | None]:
        """What the manifest says of the choice of the seed; nothing where there was none."""
        if self.seeds is None:
            return {}
        return {"seeds": " ".join(map(str, self.seeds["trained"])), "seed_chosen_by": str(self.seeds["by"])}


class Members(msgspec.Struct, frozen=True, kw_only=True):
    """The networks of a bundle and their golden vectors, before anything is written.

    Attributes:
        variants: As the manifest has them.
        files: Member -> content; one file may serve several variants. Weights that lie beside a network are a file.
    """

    variants: tuple[Variant, ...]
    files: dict[str, bytes | Path]

    def save(self, folder: Path) -> None:
        """Write them into a folder."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                link_or_copy(content, folder / name)
        (folder / _VARIANTS).write_bytes(msgspec.json.encode((self.variants, list(self.files))))

    @classmethod
    def load(cls, folder: Path) -> Members:
        """Read what ``save`` wrote."""
        kind = tuple[tuple[Variant, ...], list[str]]
        variants, names = msgspec.json.decode((folder / _VARIANTS).read_bytes(), type=learn(kind))
        files = {name: folder / name if is_weights(name) else (folder / name).read_bytes() for name in names}
        return cls(variants=variants, files=files)


def make_members(
    recipe: Recipe,
    models: Sequence[OnnxModels],
    samples: RawSamples | Iterable[Tensors] | None = None,
    gate: Gate | None = None,
) -> Members:
    """Choose golden vectors and put every variant into the form of its target.

    CPU variants take preprocessed tensors, and in INT8 have a form of their own. TensorRT variants have the
    preprocessing in front and take raw frames and PCM. What the recipe asks for and a stage does not get is logged
    as a warning, and so is a file too far from fp32 for a self-test; a stage that gets nothing of it is packed in
    fp32. Samples have the raw shapes [...] and dtypes of the recipe's inputs.

    Args:
        recipe: Names, targets and precisions.
        models: What ``to_onnx`` returned, and if there is INT8, what ``quantize`` returned.
        samples: Raw samples for the golden vectors; the recipe's recordings by default.
        gate: What TensorRT refuses; by default it is asked about networks that were brought along.

    Raises:
        ConfigError: If the fp32 networks are missing, or a precision that the recipe exports; or if TensorRT is the
            only target and cannot run a stage.
        CheckError: If the INT8 form of CPUs answers differently than the one that was calibrated.
    """
    by_precision: dict[Precision, OnnxModels] = {form.precision: form for form in models}
    wanted: tuple[Precision, ...] = ("fp32", *recipe.export.precisions)
    for precision in wanted:
        if precision not in by_precision:
            raise ConfigError(f"{precision} networks are missing", where="export.precisions", fix="pass [onnx, int8]")
    fp32 = by_precision["fp32"].models
    if gate is None:
        brought = {stage: model for stage, model in fp32.items() if recipe.stages[stage].onnx is not None}
        gate = parser_gate(recipe, brought if "tensorrt" in recipe.export.targets else {}, {})
    golden = make_golden(recipe, onnx_runners(fp32), as_samples(samples, recipe).held_out)
    files: dict[str, bytes | Path] = {f"golden/{stage}.npz": g.to_npz() for stage, g in golden.items()}
    variants: list[Variant] = []
    asked = check_forms(recipe)
    for target in recipe.export.targets:
        for precision in recipe.export.precisions:
            if (target, precision) not in asked:
                _log.warning("there is no %s form for target '%s', which runs another precision", precision, target)
    for stage in fp32:
        targets = list(recipe.export.targets)
        problem = next(iter(gate.refused.get(stage, ())), None)
        if problem is not None and "tensorrt" in targets:
            _log.warning("stage '%s' gets no TensorRT variant and runs on the CPU: %s", stage, problem)
            targets.remove("tensorrt")
        if not targets:
            raise ConfigError(
                f"TensorRT cannot run this stage: {problem}", where=f"stages.{stage}", fix='add "cpu" to export.targets'
            )
        blind: dict[Target, str] = {}
        for target, precision in asked:
            if target not in targets or stage not in by_precision[precision].models:
                continue  # it stays float: the step that left it so has said why
            try:
                variants.append(_add(files, recipe, by_precision[precision], stage, target, golden[stage]))
            except _BlindError as error:
                if precision == "fp32":
                    raise
                blind[target] = error.message
                _log.warning("stage '%s' gets no %s file for target '%s': %s", stage, precision, target, error.message)
                continue
            quantised = precision in ("int8", "fp8", "int4")
            if quantised and int8_nodes(by_precision[precision].models[stage])[0] == 0:
                _log.warning("stage '%s': its %s file for target '%s' has nothing in it", stage, precision, target)
        own = [variant for variant in variants if variant.stage == stage]
        packed, served = {variant.precision for variant in own}, {variant.target for variant in own}
        bare = [target for target in targets if not packed or target in blind.keys() - served]
        if bare:  # a graph without one of its stages cannot be loaded
            variants += [_add(files, recipe, by_precision["fp32"], stage, target, golden[stage]) for target in bare]
            near = blind.get(bare[0], problem)
            why = {p: by_precision[p].skipped.get(stage, near) for p in recipe.export.precisions}
            told = "; ".join(f"it has no {precision} form: {reason}" for precision, reason in why.items())
            _log.warning("stage '%s' is packed in fp32: %s", stage, told)
        for precision in {p for _, p in asked} - packed:
            if stage in by_precision[precision].models and not blind:  # else what left it float has said why
                _log.warning("stage '%s' was asked for in %s and is packed without: %s", stage, precision, problem)
    return Members(variants=tuple(variants), files=files)


def pack(
    path: str | Path,
    recipe: Recipe,
    models: Sequence[OnnxModels],
    *,
    metadata: Metadata | Mapping[str, Any] | None = None,
    samples: RawSamples | Sequence[Tensors] | None = None,
    members: Members | None = None,
) -> Path:
    """Write a bundle. Equal input gives equal bytes; what was there stays until all of the new one is on the disk.

    Args:
        path: Where to, ``NAME.mmedge``.
        recipe: Names, tasks, targets and precisions.
        models: What ``to_onnx`` returned, and if there is INT8, what ``quantize`` returned.
        metadata: Temperatures, validated masks and seed; by default what the model carried from training.
        samples: Raw samples for the golden vectors; the recipe's recordings by default.
        members: What ``make_members`` returned, if it was called before.

    Returns:
        The path written.

    Raises:
        ConfigError: If the fp32 networks are missing, or a precision that the recipe exports; or if the bundle cannot
            be written.

    Example:
        >>> export.pack("digits.mmedge", recipe, [onnx, int8])  # doctest: +SKIP
        PosixPath('digits.mmedge')
    """
    made = make_members(recipe, models, samples) if members is None else members
    fp32 = next(form for form in models if form.precision == "fp32")
    given = fp32.metadata if metadata is None else metadata
    known = given if isinstance(given, Metadata) else _metadata(given)
    files = dict(made.files)
    inputs = {name: _seat(files, recipe, name) for name in recipe.inputs}
    tasks: dict[str, Task] = {}
    for name, task in recipe.tasks.items():
        if task.labels:
            files[f"labels/{name}.txt"] = "".join(f"{label}\n" for label in task.labels).encode()
        temperature = known.temperature.get(name, task.temperature)
        tasks[name] = task.in_manifest(f"labels/{name}.txt", temperature=temperature)
    manifest = Manifest(
        schema="mmedge.bundle/1",
        name=recipe.name,
        licence=recipe.licence,
        inputs=inputs,
        stages={name: plain_stage(stage) for name, stage in recipe.stages.items()},
        variants=made.variants,
        tasks=tasks,
        outputs=recipe.outputs,
        missing=recipe.missing,
        validated_masks=known.validated_masks or recipe.validated_masks,
        sync=recipe.sync,
        provenance={**provenance(recipe, seed=known.seed), **known.chosen},
        files={name: _listed(content) for name, content in files.items()},
    )
    try:
        return write_archive(path, manifest, files)
    except OSError as error:
        raise ConfigError(
            f"cannot write the bundle: {error.strerror or error}",
            where=str(path),
            fix="free space there, or choose another --output; what was there before is as it was",
        ) from error


def _listed(content: bytes | Path) -> File:
    if isinstance(content, bytes):
        return File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    return File(sha256=file_hash(content), bytes=content.stat().st_size)


def _metadata(known: Mapping[str, Any]) -> Metadata:
    try:
        return msgspec.convert(dict(known), learn(Metadata))
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"metadata: {error}", where="pack", fix="pass the weights that load_weights returned"
        ) from error


def check_forms(recipe: Recipe) -> list[tuple[Target, Precision]]:
    """Return target and precision of every file; whatever is asked for and does not exist is an error.

    Raises:
        ConfigError: If a precision has no form for any of the targets, a target none of any precision, or one of them
            is named twice.
    """
    for key in ("precisions", "targets"):
        named = getattr(recipe.export, key)
        if len(set(named)) != len(named):
            raise ConfigError(
                f"one of {', '.join(named)} is named twice",
                where=recipe.at(f"export.{key}"),
                fix="name each once",
            )
    asked: list[tuple[Target, Precision]] = [
        (target, precision) for target in recipe.export.targets for precision in recipe.export.precisions
    ]
    forms = [form for form in asked if form in _FLOOR]
    for precision in recipe.export.precisions:
        if not any(form[1] == precision for form in forms):
            raise ConfigError(
                f"{precision} is not packed for {' and '.join(recipe.export.targets)}",
                where=recipe.at("export.precisions"),
                fix=f"leave {precision} out, or add {' or '.join(sorted({t for t, p in _FLOOR if p == precision}))} "
                "to export.targets",
            )
    for target in recipe.export.targets:
        if not any(form[0] == target for form in forms):
            raise ConfigError(
                f"there is no {' and '.join(recipe.export.precisions)} form for target '{target}', so it gets nothing",
                where=recipe.at("export.precisions"),
                fix=f"add {' or '.join(sorted(p for t, p in _FLOOR if t == target))} to it, or leave '{target}' out",
            )
    return forms


def _seat(members: dict[str, bytes | Path], recipe: Recipe, name: str) -> Input:
    """Return a seat as the manifest has it: a text's tokenizer becomes a member."""
    spec = recipe.inputs[name]
    if not isinstance(spec, TextInput) or spec.tokenizer is None:
        return spec
    member = f"tokenizer/{name}.json"
    members[member] = read_tokenizer(recipe, name)
    return msgspec.structs.replace(spec, tokenizer=member)


def _add(
    members: dict[str, bytes | Path],
    recipe: Recipe,
    models: OnnxModels,
    stage: str,
    target: Target,
    golden: Golden,
) -> Variant:
    raw = target == "tensorrt"
    model = models.for_tensorrt[stage] if raw else models.models[stage]
    if raw:
        model = whole(model)
    notes = models.quantization.get(stage)
    if notes is not None and not raw:
        notes = msgspec.structs.replace(notes, rest="fp32")
    for tensor, source in recipe.stages[stage].inputs.items():
        if isinstance(recipe.inputs.get(source), TextInput):
            check_vocabulary(model, tensor, load_tokenizer(recipe, source))
    if raw:
        seats = seats_of(recipe.stages[stage].inputs, recipe.inputs)
        specs = {tensor: recipe.inputs[seat] for tensor, seat in seats.items()}
        model = merge_prefix(decompose(model, TENSORRT_FAILS, f"stages.{stage}"), specs)
    elif models.precision == "int8":
        model = checked_cpu_form(model, models.ranges.get(stage, {}), golden, stage)
    name = f"{stage}.{'trt' if raw else 'cpu'}.{models.precision}.onnx"
    content, weights = spooled(model, name)
    # A stage fed by other stages alone is the same for both targets: one member serves both.
    name = next((other for other, bytes_ in members.items() if bytes_ == content), name)
    with judge(model if left(model) else content, name) as engine:
        noise, rows, scales = golden.noise(engine, raw=raw)
    floor = _FLOOR[target, models.precision]
    kernels = _KERNEL_ROUNDING if target == "cpu" and models.precision == "int8" else 0.0
    for output, value in noise.items():
        if not value * MARGIN <= 1:
            raise _BlindError(
                f"{models.precision} differs from fp32 by {value:.2g} of the range of output '{output}', so a "
                "self-test would detect nothing",
                where=f"{stage}.{output}",
                fix='leave the output out if it is always zero, or export precisions = ["fp32"]',
            )
    members[name] = content
    if weights is not None:
        members[weights_member(name)] = weights
    limits = {output: row_tolerance(floor, own, scales[output], kernels) for output, own in rows.items()}
    for output, each in limits.items():
        if blind := sum(limit > 1 for limit in each):
            _log.warning(
                "stage '%s': the self-test sees little of %d of the %d rows of output '%s' in %s, whose noise is wide "
                "beside their range",
                *(stage, blind, len(each), output, models.precision),
            )
    return Variant(
        stage=stage,
        target=target,
        precision=models.precision,
        file=name,
        golden=f"golden/{stage}.npz",
        tolerance={
            output: float(f"{max(floor, MARGIN * value, value + kernels):.3g}") for output, value in noise.items()
        },
        row_tolerance=limits,
        quantization=notes,
    )
