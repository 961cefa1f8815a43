"""Check the names in a manifest that refer to other parts of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, NoReturn

from mmedge.bundle.seats import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.bundle.source import Age, Constant, Output, Presence, Seat, Source, State, parse_output, parse_source
from mmedge.bundle.tasks import TASK_KINDS, check_task
from mmedge.errors import BundleError

if TYPE_CHECKING:
    from mmedge.bundle.manifest import Manifest


# A bundle is input from outside: neither one tensor of it nor all together may fill the memory.
MAX_VALUES, MAX_ALL_VALUES = 1 << 27, 1 << 28
# As many as every numpy can have.
MAX_DIMS = 32
MAX_VARIANTS = 1024
# Of all outputs that a result carries, which a ring of 64 results holds.
MAX_TOLD_VALUES = 1 << 20
# A module, a colon, and a plain name in it: neither a way through attributes nor what Python itself put there.
_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!__)[^\W\d]\w*")
# What `on` and `trigger` may say instead of a seat.
TAKEN = ("change", "timer")
UNKNOWN = "correct the name or add what it refers to"
MAX_INPUTS = 62  # what is present is one number, a bit an input: native/graph/moment.hpp


def check_references(manifest: Manifest) -> None:
    """Raise BundleError at the first name in ``manifest`` that points nowhere."""
    stages, files, inputs = manifest.stages, manifest.files, manifest.inputs

    def fail(message: str, path: str, fix: str = UNKNOWN) -> NoReturn:
        raise BundleError(message, where=f"manifest.json: $.{path}", fix=fix)

    if len(inputs) > MAX_INPUTS:
        fail(f"the bundle has {len(inputs)} inputs; {MAX_INPUTS} are possible", "inputs", "join some of them")

    def fail_task(name: str, message: str, key: str, fix: str = UNKNOWN) -> NoReturn:
        fail(message, f"tasks.{name}.{key}", fix)

    def need_file(name: str, path: str) -> None:
        if name not in files:
            fail(f"file '{name}' is not listed in $.files", path)

    def parsed(text: str, path: str) -> Source:
        try:
            return parse_source(text)
        except ValueError as error:
            fail(str(error), path)

    def need_tensor(source: Source, path: str) -> None:
        known = isinstance(source, Output) and source.stage in stages and source.name in stages[source.stage].outputs
        if not known:
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
        shares = getattr(spec, "shares", None)
        if shares is not None and (type(inputs.get(shares)) is not type(spec) or shares == name):
            fail(f"'{shares}' does not name another input of this kind", f"inputs.{name}.shares")
        if shares is not None and getattr(inputs[shares], "shares", None) is not None:
            fail(f"'{shares}' shares a source itself", f"inputs.{name}.shares", "name the input that has the source")
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
        for tensor, text in stage.inputs.items():
            path = f"stages.{name}.inputs.{tensor}"
            source, seat = parsed(text, path), inputs.get(text)
            if isinstance(seat, TextInput) and seat.tokenizer is None:
                fail("a text input that feeds a stage needs a tokenizer", f"inputs.{text}.tokenizer")
            if isinstance(source, State):
                if source.output not in stage.outputs:
                    fail(f"state '{text}' is not an output of this stage", path)
            elif seat is None and not isinstance(source, (Presence, Age, Constant)):
                need_tensor(source, path)
        if stage.on is not None and stage.on != "change" and stage.on not in inputs:
            fail(f"unknown input '{stage.on}'", f"stages.{name}.on")
        if stage.callable is not None and not _CALLABLE.fullmatch(stage.callable):
            what = f"'{stage.callable}' is not the name of a function"
            fail(what, f"stages.{name}.callable", "name it 'pkg.mod:function'")
        if stage.callable is None and not any(v.stage == name for v in manifest.variants):
            fail(f"stage '{name}' has neither a variant nor a callable", f"stages.{name}")
    if len(manifest.variants) > MAX_VARIANTS:
        fail(f"{len(manifest.variants)} variants, the limit is {MAX_VARIANTS}", "variants", "leave some out")
    for index, variant in enumerate(manifest.variants):
        if variant.stage not in stages:
            fail(f"unknown stage '{variant.stage}'", f"variants[{index}].stage")
        need_file(variant.file, f"variants[{index}].file")
        need_file(variant.golden, f"variants[{index}].golden")
    for name, task in manifest.tasks.items():
        need_tensor(parsed(task.output, f"tasks.{name}.output"), f"tasks.{name}.output")
        if task.labels is not None:
            need_file(task.labels, f"tasks.{name}.labels")
        check_task(task, inputs, partial(fail_task, name))
    for index, output in enumerate(manifest.outputs):
        need_tensor(parsed(output, f"outputs[{index}]"), f"outputs[{index}]")
        if output in manifest.outputs[:index]:
            fail(f"'{output}' is there twice", f"outputs[{index}]", "name it once")
    if (values := count_told(manifest)) > MAX_TOLD_VALUES:
        limit = "leave some out, or make a callable of what matters in them"
        fail(f"results carry outputs of {values} values, the limit is {MAX_TOLD_VALUES}", "outputs", limit)
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
    counts: dict[Source, int] = {Seat(name): prod(_sizes(shape_of(spec))) for name, spec in manifest.inputs.items()}
    for name, stage in manifest.stages.items():
        counts |= {Output(name, output): prod(_sizes(dims)) for output, dims in stage.outputs.items()}
    total = sum(counts.values())
    counts |= dict.fromkeys((Presence(), Age()), len(manifest.inputs))
    for name, stage in manifest.stages.items():
        for source in stage.sources.values():
            total += counts.get(Output(name, source.output) if isinstance(source, State) else source, 1)
    return total


def count_told(manifest: Manifest) -> int:
    """Return how many numbers the outputs have that a result tells as they are."""
    tensors = [parse_output(output) for output in manifest.outputs]
    return sum(prod(_sizes(manifest.stages[tensor.stage].outputs[tensor.name])) for tensor in tensors)


def shape_of(spec: Input) -> tuple[int, ...]:
    """Return the shape of the tensor that a seat gives a CPU variant."""
    return tuple(spec.shape) if isinstance(spec, TensorInput) else spec.tensor_shape


def check_label_count(manifest: Manifest, name: str, count: int) -> None:
    """Raise BundleError unless the output of task ``name`` is of ``count`` labels."""
    task = manifest.tasks[name]
    outputs = manifest.stages[task.tensor.stage].outputs
    dims = [1 if isinstance(size, str) else size for size in outputs[task.tensor.name]]

    def fail(message: str, key: str, fix: str = "") -> NoReturn:
        raise BundleError(
            f"{task.output} {dims} {message}" + (f", there are {count} labels" if key == "labels" else ""),
            where=f"manifest.json: $.tasks.{name}.{key}",
            fix=fix or "name every class once, in the network's order, or correct the task's output",
        )

    TASK_KINDS[task.kind].check_output(task, dims, count, fail)
