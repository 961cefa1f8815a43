"""Names in a manifest that point to other parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan, prod
from typing import TYPE_CHECKING, NoReturn

from mmedge.bundle.seats import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.errors import BundleError

if TYPE_CHECKING:
    from mmedge.bundle.manifest import Manifest, Task


# A bundle is input from outside: neither one tensor of it nor all together may fill the memory.
MAX_VALUES, MAX_ALL_VALUES = 1 << 27, 1 << 28
# As many as every numpy can have.
MAX_DIMS = 32
# What `on` and `trigger` may say instead of a seat.
TAKEN = ("change", "timer")


def check_references(manifest: Manifest) -> None:
    """Raise BundleError at the first name in ``manifest`` that points nowhere."""
    stages, files, inputs = manifest.stages, manifest.files, manifest.inputs

    def fail(message: str, path: str, fix: str = "correct the name or add what it refers to") -> None:
        raise BundleError(message, where=f"manifest.json: $.{path}", fix=fix)

    def need_file(name: str, path: str) -> None:
        if name not in files:
            fail(f"file '{name}' is not listed in $.files", path)

    def need_tensor(source: str, path: str) -> None:
        stage, dot, output = source.partition(".")
        if not dot or stage not in stages or output not in stages[stage].outputs:
            fail(f"unknown tensor '{source}'", path)

    def check_shape(shape: Sequence[int | str], path: str) -> None:
        sizes = _sizes(shape)
        if len(sizes) > MAX_DIMS:
            fail(f"a tensor of {len(sizes)} dimensions, the limit is {MAX_DIMS}", path, "join some of them")
        if prod(sizes) > MAX_VALUES:
            fail(f"a tensor of {list(shape)} is too large", path, f"the limit is {MAX_VALUES} values")

    for name in (*inputs, *stages):
        if not name or "." in name or name.startswith("@"):
            path = f"{'inputs' if name in inputs else 'stages'}.{name}"
            fail(f"'{name}' is empty, has a '.' or begins with '@'", path, "choose another name")
    for name, spec in inputs.items():
        if "=" in name or name in TAKEN:
            fail(f"no input may be called '{name}'", f"inputs.{name}", "choose another name, without a '='")
        check_shape(shape_of(spec), f"inputs.{name}")
        if isinstance(spec, ImageInput) and not len(spec.mean) == len(spec.std) == spec.channels:
            fail(f"color '{spec.color}' needs {spec.channels} values of mean and std", f"inputs.{name}.mean")
        if isinstance(spec, AudioInput) and spec.tensor_shape[1] < 1:
            fail("the window is shorter than one feature window", f"inputs.{name}.window_ms")
        if isinstance(spec, TextInput) and spec.tokenizer is not None:
            need_file(spec.tokenizer, f"inputs.{name}.tokenizer")
        if isinstance(spec, ImageInput) and spec.reduce > min(spec.frame):
            fail("the frame is smaller than 'reduce'", f"inputs.{name}.reduce")
        if isinstance(spec, AudioInput) and spec.features is not None:
            if spec.features.window_samples > spec.features.n_fft:
                fail("window_samples is larger than n_fft", f"inputs.{name}.features.window_samples")
            if spec.features.n_mels > spec.features.n_fft // 2 + 1:
                fail("n_mels is larger than the number of spectrum lines", f"inputs.{name}.features.n_mels")
            if not spec.features.f_min_hz < spec.features.f_max_hz <= spec.sample_rate_hz / 2:
                fail("the mel range is empty or above half the sample rate", f"inputs.{name}.features.f_max_hz")
    for name, stage in stages.items():
        for output, dims in stage.outputs.items():
            check_shape(dims, f"stages.{name}.outputs.{output}")
        for tensor, source in stage.inputs.items():
            path = f"stages.{name}.inputs.{tensor}"
            seat = inputs.get(source)
            if isinstance(seat, TextInput) and seat.tokenizer is None:
                fail("a text input that feeds a stage needs a tokenizer", f"inputs.{source}.tokenizer")
            if seat is not None or source in ("@present", "@age_ms"):
                continue
            if source.startswith("@const:"):
                try:
                    number = float(source[7:])
                except ValueError:
                    number = nan
                if not isfinite(number):
                    fail(f"'{source}' is not a finite number", path)
                continue
            if source.startswith("@state:"):
                if source[7:] not in stage.outputs:
                    fail(f"state '{source}' is not an output of this stage", path)
                continue
            need_tensor(source, path)
        if stage.on is not None and stage.on != "change" and stage.on not in inputs:
            fail(f"unknown input '{stage.on}'", f"stages.{name}.on")
        if stage.callable is None and not any(v.stage == name for v in manifest.variants):
            fail(f"stage '{name}' has neither a variant nor a callable", f"stages.{name}")
    for index, variant in enumerate(manifest.variants):
        if variant.stage not in stages:
            fail(f"unknown stage '{variant.stage}'", f"variants[{index}].stage")
        need_file(variant.file, f"variants[{index}].file")
        need_file(variant.golden, f"variants[{index}].golden")
    for name, task in manifest.tasks.items():
        need_tensor(task.output, f"tasks.{name}.output")
        need_file(task.labels, f"tasks.{name}.labels")
        if (task.detection is not None) != (task.kind == "detection"):
            fail("'detection' belongs to tasks of kind detection, and to no others", f"tasks.{name}.detection")
        if task.detection is not None and not isinstance(inputs.get(task.detection.input), ImageInput):
            fail(f"'{task.detection.input}' is not an image input", f"tasks.{name}.detection.input")
        _check_smoothing(name, task)
    for name, missing in manifest.missing.items():
        if name not in inputs:
            fail(f"unknown input '{name}'", f"missing.{name}")
        if missing.policy == "hold" and missing.max_age_ms is None:
            fail("policy 'hold' needs max_age_ms", f"missing.{name}.max_age_ms")
    for index, mask in enumerate(manifest.validated_masks):
        for name in mask.present:
            if name not in inputs:
                fail(f"unknown input '{name}'", f"validated_masks[{index}].present")
    if manifest.sync.trigger != "timer" and manifest.sync.trigger not in inputs:
        fail(f"unknown trigger '{manifest.sync.trigger}'", "sync.trigger")
    if (values := _count_values(manifest)) > MAX_ALL_VALUES:
        fail(f"all tensors together have {values} values, the limit is {MAX_ALL_VALUES}", "stages", "make them smaller")


def _sizes(shape: Sequence[int | str]) -> list[int]:
    return [1 if isinstance(size, str) else max(size, 0) for size in shape]


def _count_values(manifest: Manifest) -> int:
    """Return how many numbers seats, outputs and the inputs of stages, each with a tensor of its own, hold."""
    counts = {name: prod(_sizes(shape_of(spec))) for name, spec in manifest.inputs.items()}
    for name, stage in manifest.stages.items():
        counts |= {f"{name}.{output}": prod(_sizes(dims)) for output, dims in stage.outputs.items()}
    total = sum(counts.values())
    counts |= dict.fromkeys(("@present", "@age_ms"), len(manifest.inputs))
    for name, stage in manifest.stages.items():
        total += sum(counts.get(source.replace("@state:", f"{name}."), 1) for source in stage.inputs.values())
    return total


def shape_of(spec: Input) -> tuple[int, ...]:
    """Return the shape of the tensor that a seat gives a CPU variant."""
    return tuple(spec.shape) if isinstance(spec, TensorInput) else spec.tensor_shape


def _check_smoothing(name: str, task: Task) -> None:
    def fail(message: str, key: str, fix: str) -> NoReturn:
        raise BundleError(message, where=f"manifest.json: $.tasks.{name}.{key}", fix=fix)

    parts = task.smoothing if isinstance(task.smoothing, tuple) else (task.smoothing,) if task.smoothing else ()
    kinds = [type(part).__name__ for part in parts]
    if task.kind == "detection" and parts:
        fail("boxes are not tracked between frames, so they cannot be smoothed", "smoothing", "leave it out")
    if task.kind == "detection" and (task.top_k or task.temperature != 1.0):
        fail(
            "a detection takes neither temperature nor top_k", "temperature", "leave them out; 'max_boxes' limits boxes"
        )
    if task.scores == "probabilities" and task.temperature != 1.0:
        fail("a temperature calibrates logits, not probabilities", "temperature", "leave one of the two out")
    if kinds != sorted(set(kinds), key=("Ema", "Hysteresis", "Debounce").index):
        fail(
            f"smoothing by {', '.join(kinds).lower()}",
            "smoothing",
            "each at most once, in this order: ema of scores, hysteresis of the choice, debounce of the label",
        )


def check_label_count(manifest: Manifest, name: str, count: int) -> None:
    """Raise BundleError unless the output of task ``name`` is of ``count`` labels."""
    task = manifest.tasks[name]
    stage, _, output = task.output.partition(".")
    dims = [1 if isinstance(size, str) else size for size in manifest.stages[stage].outputs[output]]
    layout = None if task.detection is None else task.detection.layout

    def fail(message: str) -> NoReturn:
        raise BundleError(
            f"{task.output} {dims} {message}, there are {count} labels",
            where=f"manifest.json: $.tasks.{name}.labels",
            fix="name every class once, in the network's order, or correct the task's output",
        )

    if layout is not None and (len(dims) != 3 or dims[0] != 1 or (layout == "boxes" and dims[2] != 6)):
        fail(f"is not of the layout '{layout}'")
    if task.kind == "verification" and (prod(dims), count) != (1, 2):
        fail("is for one score and the labels (no, yes)")
    classes = count
    if task.kind == "classification":
        classes = prod(dims)
    elif layout == "yolo":
        classes = dims[1] - 4
    elif layout == "yolo-objectness":
        classes = dims[2] - 5
    if classes != count:
        fail("has 1 class" if classes == 1 else f"has {max(classes, 0)} classes")
