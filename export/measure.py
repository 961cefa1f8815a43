"""Measure the exported networks on validation data under every presence mask, for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
import torch
from rich.table import Table

from mmedge.bundle.manifest import AudioInput, ImageInput
from mmedge.bundle.source import Age
from mmedge.errors import CheckError
from mmedge.types import AnyArray, Tensors

from .datasets.base import Batch, Dataset, class_names
from .int8.compare import ROUNDING, allowed_points
from .models.staged import rank
from .onnx.onnx_models import OnnxModels
from .preprocess.onnx_prefix import Preprocessor
from .recipe import Recipe, RecipeTask
from .stages import Mask, StageGraph, fed_back, onnx_runners, stage_order
from .tasks import KINDS
from .training.evaluate import Predictions, judge
from .training.masks import all_masks, as_tensor
from .training.targets import none_class
from .training.validated_masks import MIN_SAMPLES, Judged

LIMIT = 1000
_AGE = str(Age())
# Task -> output, labels [1, n_inputs], present [1, n_inputs], task -> target [1].
_Part = tuple[dict[str, AnyArray], torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


class MaskAccuracy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task under one presence mask.

    Attributes:
        samples: Those that have all inputs of the mask, and whose target is certain.
        right: Precision -> how many of them are answered rightly.
        error: Precision -> mean error in the task's unit, where answers are not right or wrong.
        span: Of which such an error is a share, in the task's unit.
        spread: Standard deviation of fp32's errors.
    """

    task: str
    present: Mask
    samples: int
    right: dict[str, int] = {}
    error: dict[str, float] = {}
    span: float = 1.0
    spread: float | None = None

    def told(self, precision: str) -> str:
        """Return ``accuracy`` for people."""
        value = self.accuracy(precision)
        return "-" if value is None else f"{value:g}" if self.error else f"{100 * value:.1f} %"

    def accuracy(self, precision: str) -> float | None:
        """Return the share of right answers, or the mean error; None for a precision that is not exported.

        Rounded to four digits.
        """
        if self.error:
            return round(self.error[precision], 4) if precision in self.error else None
        return round(self.right[precision] / self.samples, 4) if precision in self.right else None

    @property
    def judged(self) -> Judged:
        """What the manifest states: fp32."""
        total = self.error["fp32"] * self.samples if self.error else float(self.right["fp32"])
        return Judged(total=total, samples=self.samples, spread=self.spread)

    @property
    def quantised(self) -> tuple[str, ...]:
        """The precisions beside fp32."""
        return tuple(precision for precision in (*self.error, *self.right) if precision != "fp32")

    def lost_in(self, precision: str) -> float:
        """Return the percentage points that a precision loses against fp32; less than nothing where it gains."""
        if self.error:
            return 100.0 * (self.error[precision] - self.error["fp32"]) / self.span
        return 100.0 * (self.right["fp32"] - self.right[precision]) / self.samples

    @property
    def worst(self) -> str | None:
        """The precision that loses most; None where fp32 is alone."""
        return max(self.quantised, key=self.lost_in, default=None)

    @property
    def lost(self) -> float | None:
        """Percentage points that the worst precision loses against fp32."""
        return None if self.worst is None else self.lost_in(self.worst)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What ``measure`` found.

    Attributes:
        samples: How many were run.
        of: How many the validation split has.
        rows: One per task and mask whose target is certain for some sample that has all inputs of the mask.
    """

    samples: int
    of: int
    rows: tuple[MaskAccuracy, ...]

    @property
    def counts(self) -> dict[str, dict[str, Judged]]:
        """Task -> mask (``image+audio``) -> right answers of fp32, as training tells it."""
        found: dict[str, dict[str, Judged]] = {}
        for row in self.rows:
            found.setdefault(row.task, {})["+".join(row.present)] = row.judged
        return found

    @property
    def fp32(self) -> dict[str, dict[str, float]]:
        """Task -> mask (``image+audio``) -> accuracy of fp32, as training tells it."""
        return {task: {mask: judged.mean for mask, judged in masks.items()} for task, masks in self.counts.items()}

    @property
    def worst(self) -> MaskAccuracy | None:
        """The row on which a quantised precision loses most; None without any."""
        return max((row for row in self.rows if row.lost is not None), key=lambda row: row.lost or 0.0, default=None)

    def raise_for_status(self, max_drop_points: float) -> None:
        """Refuse a precision that is less accurate under some mask by more than ``compare`` allows one mask to differ.

        Raises:
            CheckError: Names the precision, the task and the mask that lose most.
        """
        for row in sorted(self.rows, key=lambda row: -(row.lost or 0.0)):
            allowed = allowed_points(row.samples, max_drop_points, counted=not row.error)
            if row.worst is not None and row.lost is not None and row.lost > allowed + ROUNDING:
                reached = (
                    f"{row.worst} errs by {row.told(row.worst)} on {row.samples} validation samples, "
                    f"fp32 by {row.told('fp32')}: {row.lost:.2f} % of the range more"
                    if row.error
                    else f"{row.worst} is right on {100 * (row.accuracy(row.worst) or 0):.2f} % of {row.samples} "
                    f"validation samples, fp32 on {100 * (row.accuracy('fp32') or 0):.2f} %: {row.lost:.2f} points less"
                )
                raise CheckError(
                    f"{reached}, {allowed:.3g} allowed",
                    where=f"task '{row.task}' with {' + '.join(row.present)}",
                    fix='calibrate on recordings like those of use, or with rule = "max", or raise max_drop_points',
                )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document."""
        worst = self.worst
        return {
            "schema": "mmedge.measurement/1",
            "samples": self.samples,
            "of": self.of,
            "rows": [
                {
                    "task": row.task,
                    "present": row.present,
                    "samples": row.samples,
                    "fp32": row.accuracy("fp32"),
                    "fp32_interval": row.judged.interval,
                    "enough": row.judged.enough,
                    "int8": row.accuracy("int8"),
                    **{precision: row.accuracy(precision) for precision in row.quantised},
                    **({"metric": "mae"} if row.error else {}),
                }
                for row in self.rows
            ],
            "largest_drop": None
            if worst is None
            else {
                "task": worst.task,
                "present": worst.present,
                "precision": worst.worst,
                "points": round(worst.lost or 0.0, 2),
            },
        }

    def table(self) -> Table:
        """Return the rows for people."""
        drawn = "" if self.samples == self.of else f", evenly drawn from {self.of}"
        table = Table(title=f"Exported networks on {self.samples} validation samples{drawn}")
        own = list(dict.fromkeys(precision for row in self.rows for precision in row.quantised)) or ["int8"]
        for heading in ("task", "present", "samples", "fp32", "95 %", *own):
            table.add_column(heading, justify="left" if heading in ("task", "present") else "right", overflow="fold")
        for row in self.rows:
            low, high = row.judged.interval
            bounds = f"{low:.4g} to {high:.4g}" if row.error else f"{100 * low:.1f} to {100 * high:.1f}"
            number = str(row.samples) if row.judged.enough else f"{row.samples} (< {MIN_SAMPLES}: not validated)"
            told = map(row.told, own)
            table.add_row(row.task, " + ".join(row.present), number, row.told("fp32"), bounds, *told)
        if (worst := self.worst) is not None:
            at = f"{worst.task} with {' + '.join(worst.present)}"
            table.caption = f"{(worst.worst or '').upper()} loses most on {at}: {worst.lost or 0:.1f} points"
        return table


def measure(
    models: Sequence[OnnxModels],
    dataset: Dataset,
    *,
    limit: int = LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Run exported networks over the validation split under every presence mask, as the runtime does.

    A mask is measured on the samples that have all its inputs; their other inputs are masked away.
    Where a stage has a state, samples are sequences: it starts from zeros, and what the last step gives counts.

    Args:
        models: fp32, and what is quantised.
        dataset: Prepared; gives raw samples.
        limit: If there are more samples, so many are drawn evenly.
        progress: Called with how many samples are done, and of how many.

    Returns:
        How often each task is right under each mask, or by how much it errs. A detection has no accuracy here.

    Example:
        >>> measure([onnx, int8], dataset).fp32["digit"]["image+audio"]  # doctest: +SKIP
        0.97
    """
    recipe, samples = models[0].recipe, dataset.split("validation")
    names, count = tuple(recipe.inputs), min(len(samples), limit)
    tasks = {name: task for name, task in recipe.tasks.items() if KINDS[task.kind].trained}
    steps_of = _Steps(dataset, recipe)
    graphs = {version.precision: _Graph(recipe, version) for version in models}
    found: dict[str, dict[Mask, list[_Part]]] = {precision: {} for precision in graphs}
    for done in range(count):
        batch = dataset.collate([samples[done * len(samples) // count]])
        steps = steps_of(batch)
        there = tuple(name for name, on in zip(names, batch["present"][0], strict=True) if on)
        for precision, graph in graphs.items():
            if not there:
                continue
            full = graph(steps, there)
            for mask in all_masks(there):
                known = full if mask == there else graph(steps, mask, full)
                answers = {name: np.ravel(known[task.output]) for name, task in tasks.items()}
                kept = as_tensor(mask, names)[None]
                found[precision].setdefault(mask, []).append((answers, batch["labels"], kept, batch.get("targets", {})))
        if progress is not None:
            progress(done + 1, count)
    none = none_class(class_names(recipe))
    rows = []
    for name, task in tasks.items():
        for mask in filter(found["fp32"].__contains__, all_masks(names)):
            told = {precision: _predictions(tasks, by_mask[mask]) for precision, by_mask in found.items()}
            judged = {precision: judge(task, name, part, none) for precision, part in told.items()}
            if not (certain := len(judged["fp32"])):
                continue
            row = partial(MaskAccuracy, task=name, present=mask, samples=certain)
            if KINDS[task.kind].counted:
                rows.append(row(right={precision: int(each.sum()) for precision, each in judged.items()}))
                continue
            rows.append(
                row(
                    error={precision: float(each.mean()) for precision, each in judged.items()},
                    spread=float(judged["fp32"].std(correction=0)),
                    span=KINDS[task.kind].span(task, told["fp32"].values[name].tolist()),
                )
            )
    return Measurement(samples=count, of=len(samples), rows=tuple(rows))


def _predictions(tasks: Mapping[str, RecipeTask], parts: Sequence[_Part]) -> Predictions:
    even = {name: KINDS[task.kind].even(task) for name, task in tasks.items()}
    return Predictions(
        logits={name: torch.from_numpy(np.stack([part[0][name] for part in parts])) - even[name] for name in tasks},
        labels=torch.cat([part[1] for part in parts]),
        present=torch.cat([part[2] for part in parts]),
        values={name: torch.cat([part[3][name] for part in parts]) for name in parts[0][3]},
    )


def measure_key(dataset: Dataset) -> str:
    """Return the hash of the data that a measurement depends on."""
    return hashlib.sha256(dataset.digest("validation")).hexdigest()[:16]


class _Steps:
    """Turns a batch of one raw sample into preprocessed tensors, a set of them for each step, the newest last."""

    def __init__(self, dataset: Dataset, recipe: Recipe) -> None:
        self._preprocess = {n: Preprocessor({n: s}, recipe.export.opset) for n, s in dataset.inputs.items()}
        self._ranks = {
            name: len(spec.raw_shape) if isinstance(spec, (ImageInput, AudioInput)) else rank(spec)
            for name, spec in dataset.inputs.items()
        }

    def __call__(self, batch: Batch) -> list[dict[str, AnyArray]]:
        moving: dict[str, list[AnyArray]] = {}
        for name, raw in batch["inputs"].items():
            array = raw.numpy()
            steps = [array] if array.ndim == self._ranks[name] else [array[:, k] for k in range(array.shape[1])]
            moving[name] = [self._preprocess[name]({name: step})[name] for step in steps]
        count = max(map(len, moving.values()))
        ages = {_AGE: batch["age_ms"].numpy()} if "age_ms" in batch else {}
        # What is no sequence, or a shorter one, is there from the first step on.
        return [{n: x[max(k - count, -len(x))] for n, x in moving.items()} | ages for k in range(count)]


class _Graph:
    """All stages of one version; those with a state, and those ahead of them, are unrolled over the steps."""

    def __init__(self, recipe: Recipe, version: OnnxModels) -> None:
        runners = onnx_runners(version.models)
        self._recipe, self._all = recipe, StageGraph(recipe, runners)
        needed: set[str] = set()
        for name in reversed(stage_order(recipe)):
            stage = recipe.stages[name]
            if name in needed or stage.states:
                needed |= {name, *(source.stage for source in stage.links.values())}
        stages = {name: stage for name, stage in recipe.stages.items() if name in needed}
        self._unrolled = StageGraph(msgspec.structs.replace(recipe, stages=stages), runners) if stages else None
        ages = any(Age() in stage.sources.values() for stage in recipe.stages.values())
        # An age is another when its input is absent, and states are others when one was absent before.
        self._reusable = not ages and self._unrolled is None

    def __call__(self, steps: Sequence[Tensors], mask: Mask, reuse: Tensors | None = None) -> dict[str, AnyArray]:
        present = np.array([[name in mask for name in self._recipe.inputs]], np.float32)
        steps = [{**step, _AGE: step[_AGE] * present} if _AGE in step else step for step in steps]
        states: dict[str, AnyArray] = {}
        if self._unrolled is not None:
            for step in steps[:-1]:
                states = fed_back(self._recipe, self._unrolled({**step, **states}, mask))
        return self._all({**steps[-1], **states}, mask, reuse if self._reusable else None)
