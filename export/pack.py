"""Everything a device needs in one file: variants, golden vectors, labels, manifest, hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
from onnx import ModelProto

from mmedge.bundle.archive import write_archive
from mmedge.bundle.manifest import File, Input, Manifest, Mask, Task, TextInput, Variant
from mmedge.errors import ConfigError
from mmedge.types import Tensors

from .brought.brought import tensorrt_problem
from .golden import Golden, make_golden
from .int8.cpu_form import to_cpu_form
from .judge import judge
from .onnx.onnx_models import OnnxModels
from .preprocess.onnx_prefix import merge_prefix
from .recipe import Recipe, plain_stage
from .recordings import RawSamples, as_samples
from .stages import onnx_runners, seats_of
from .tokenizer import check_vocabulary, load_tokenizer, read_tokenizer

# Another backend sums in another order, and TensorRT may use TF32: 10 bits of mantissa. An int8 kernel that fuses
# differently than the simulation moved outputs by 0.8 % of their range where it was measured.
_FLOOR = {("cpu", "fp32"): 1e-3, ("cpu", "int8"): 2e-2, ("tensorrt", "fp32"): 5e-3, ("tensorrt", "int8"): 2e-2}
_MARGIN = 3.0
# ONNX Runtime's 8-bit kernels round inside, where what is written does not: 3.3 % of the range were measured.
_KERNEL_ROUNDING = 0.05
_log = logging.getLogger(__name__)


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


def pack(
    path: str | Path,
    recipe: Recipe,
    models: Sequence[OnnxModels],
    *,
    metadata: Metadata | Mapping[str, Any] | None = None,
    samples: RawSamples | Sequence[Tensors] | None = None,
) -> Path:
    """Write a bundle.

    CPU variants take preprocessed tensors, and in INT8 have a form of their own. TensorRT variants have the
    preprocessing in front and take raw frames and PCM. Equal input gives equal bytes.

    Args:
        path: Where to, ``NAME.mmedge``.
        recipe: Names, tasks, targets and precisions.
        models: What ``to_onnx`` returned, and if there is INT8, what ``quantize`` returned.
        metadata: Temperatures, validated masks and seed; by default what the model carried from training.
        samples: Raw samples for the golden vectors; the recipe's recordings by default.

    Returns:
        The path written.

    Raises:
        ConfigError: If the fp32 networks are missing, or a precision that the recipe exports.

    Example:
        >>> export.pack("digits.mmedge", recipe, [onnx, int8])  # doctest: +SKIP
        PosixPath('digits.mmedge')
    """
    by_precision = {form.precision: form for form in models}
    for precision in ("fp32", *recipe.export.precisions):
        if precision not in by_precision:
            raise ConfigError(f"{precision} networks are missing", where="export.precisions", fix="pass [onnx, int8]")
    given = by_precision["fp32"].metadata if metadata is None else metadata
    known = given if isinstance(given, Metadata) else _metadata(given)
    fp32 = by_precision["fp32"].models
    golden = make_golden(recipe, onnx_runners(fp32), as_samples(samples, recipe).held_out)
    members: dict[str, bytes] = {f"golden/{stage}.npz": g.to_npz() for stage, g in golden.items()}
    variants: list[Variant] = []
    for stage in fp32:
        forms = _forms(recipe)
        problem = tensorrt_problem(fp32[stage]) if recipe.stages[stage].onnx is not None else None
        if problem is not None and "tensorrt" in recipe.export.targets:
            _log.warning("stage '%s' gets no TensorRT variant and runs on the CPU: %s", stage, problem)
            forms = [form for form in forms if form[0] == "cpu"]
        if not forms:
            raise ConfigError(
                f"TensorRT cannot run this stage: {problem}", where=f"stages.{stage}", fix='add "cpu" to export.targets'
            )
        for target, precision in forms:
            variants.append(_add(members, recipe, by_precision[precision], stage, target, golden[stage]))
    inputs = {name: _seat(members, recipe, name) for name in recipe.inputs}
    tasks: dict[str, Task] = {}
    for name, task in recipe.tasks.items():
        if task.labels:
            members[f"labels/{name}.txt"] = "".join(f"{label}\n" for label in task.labels).encode()
        temperature = known.temperature.get(name, task.temperature)
        tasks[name] = task.in_manifest(f"labels/{name}.txt", temperature=temperature)
    manifest = Manifest(
        schema="mmedge.bundle/1",
        name=recipe.name,
        licence=recipe.licence,
        inputs=inputs,
        stages={name: plain_stage(stage) for name, stage in recipe.stages.items()},
        variants=tuple(variants),
        tasks=tasks,
        missing=recipe.missing,
        validated_masks=known.validated_masks or recipe.validated_masks,
        sync=recipe.sync,
        provenance={
            "mmedge": version("mmedge"),
            "torch": version("torch"),
            "onnx": version("onnx"),
            "opset": recipe.export.opset,
            "recipe_sha256": recipe.sha256,
            "seed": recipe.seed if known.seed is None else known.seed,
            **known.chosen,
        },
        files={name: File(sha256=hashlib.sha256(raw).hexdigest(), bytes=len(raw)) for name, raw in members.items()},
    )
    return write_archive(path, manifest, members)


def _metadata(known: Mapping[str, Any]) -> Metadata:
    try:
        return msgspec.convert(dict(known), Metadata)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"metadata: {error}", where="pack", fix="pass the weights that load_weights returned"
        ) from error


def _forms(recipe: Recipe) -> list[tuple[Literal["cpu", "tensorrt"], Literal["fp32", "int8"]]]:
    """Return target and precision of every file."""
    return [
        (target, precision)
        for target in recipe.export.targets
        for precision in recipe.export.precisions
        if (target, precision) in _FLOOR
    ]


def _seat(members: dict[str, bytes], recipe: Recipe, name: str) -> Input:
    """Return a seat as the manifest has it: a text's tokenizer becomes a member."""
    spec = recipe.inputs[name]
    if not isinstance(spec, TextInput) or spec.tokenizer is None:
        return spec
    member = f"tokenizer/{name}.json"
    members[member] = read_tokenizer(recipe, name)
    return msgspec.structs.replace(spec, tokenizer=member)


def _add(
    members: dict[str, bytes],
    recipe: Recipe,
    models: OnnxModels,
    stage: str,
    target: Literal["cpu", "tensorrt"],
    golden: Golden,
) -> Variant:
    model = models.models[stage]
    raw = target == "tensorrt"
    for tensor, source in recipe.stages[stage].inputs.items():
        if isinstance(recipe.inputs.get(source), TextInput):
            check_vocabulary(model, tensor, load_tokenizer(recipe, source))
    if raw:
        model = merge_prefix(model, seats_of(recipe, stage))
    elif models.precision == "int8":
        model = to_cpu_form(model)
    name = f"{stage}.{'trt' if raw else 'cpu'}.{models.precision}.onnx"
    content = _bytes(model)
    # A stage fed by other stages alone is the same for both targets: one member serves both.
    name = next((other for other, bytes_ in members.items() if bytes_ == content), name)
    members[name] = content
    noise = golden.noise(judge(content, name), raw=raw)
    floor = _FLOOR[target, models.precision]
    kernels = _KERNEL_ROUNDING if target == "cpu" and models.precision == "int8" else 0.0
    for output, value in noise.items():
        if not value * _MARGIN <= 1:
            raise ConfigError(
                f"{models.precision} differs from fp32 by {value:.2g} of its range: a self-test would detect nothing",
                where=f"{stage}.{output}",
                fix='leave the output out if it is always zero, or export precisions = ["fp32"]',
            )
    return Variant(
        stage=stage,
        target=target,
        precision=models.precision,
        file=name,
        golden=f"golden/{stage}.npz",
        tolerance={
            output: float(f"{max(floor, _MARGIN * value, value + kernels):.3g}") for output, value in noise.items()
        },
        quantization=models.quantization.get(stage),
    )


def _bytes(model: ModelProto) -> bytes:
    content: bytes = model.SerializeToString(deterministic=True)
    return content
