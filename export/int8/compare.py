"""Do two versions of a model give the same answers? Measured end to end on recordings held out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from onnx import ModelProto
from rich.table import Table

from mmedge.errors import CheckError, ConfigError
from mmedge.types import Tensors

from ..onnx.onnx_models import OnnxModels
from ..parts import MIN_SAMPLES
from ..recipe import Calibration
from ..recordings import RawSamples, as_samples, raw_samples
from .answers import Reference, TaskComparison, allowed_points
from .emulated import as_tensorrt_computes

__all__ = ["HELD_OUT", "ROUNDING", "Comparison", "TaskComparison", "allowed_points", "compare"]

HELD_OUT = 400
ROUNDING = 1e-9
# Percentage points of agreement: where nothing is checked for want of samples, losing more is an error all the same.
PLAINLY_WRONG = 50.0
_log = logging.getLogger(__name__)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What ``compare`` measured; one row per task and presence mask.

    Attributes:
        a: The reference's precision.
        b: The other's.
        rows: Of each task under each mask.
        worst_layers: Those that cost ``b`` most, where that is known.
        required: Whether too few samples are an error: ``[calibration] gate = "required"``.
        chosen_on: Whether ``b`` was chosen on the same samples, since there were too few to split them.
    """

    a: str
    b: str
    rows: tuple[TaskComparison, ...]
    worst_layers: tuple[str, ...] = ()
    required: bool = False
    chosen_on: bool = False

    @property
    def note(self) -> str | None:
        """Say that the figures are optimistic, where the samples that judge have chosen as well; None otherwise."""
        if not self.chosen_on or not self.enough:
            return None
        return (
            f"{self.b} was chosen on the samples that judge it, so the figures are optimistic: with {2 * MIN_SAMPLES} "
            "or more held out, one half chooses and the other judges; give more files or longer recordings"
        )

    @property
    def enough(self) -> bool:
        """Whether every row has enough samples for a verdict, and every task an answer: else nothing was checked."""
        return bool(self.rows) and all(row.enough for row in self.rows) and not self._unanswered

    @property
    def _unanswered(self) -> list[str]:
        """The tasks of which the first version tells nothing on any sample: two silences agree."""
        found: dict[str, list[int]] = {}
        for row in self.rows:
            if row.answers is not None:
                found.setdefault(row.task, []).append(row.answers)
        return [task for task, answers in found.items() if not any(answers)]

    @property
    def doubts(self) -> list[str]:
        """What was checked and says little: tasks that give one and the same label on all samples, with all inputs."""
        full = max((row.present for row in self.rows), key=len, default=())
        alike = [row.task for row in self.rows if row.present == full and row.metric == "label" and row.answers == 1]
        return [
            f"task '{task}': {self.a} gives the same label on all samples held out, so nothing is known of the others; "
            "end the recordings with all that is to be told apart"
            for task in alike
        ]

    @property
    def warning(self) -> str | None:
        """Say that nothing was checked, where there are too few samples; None otherwise."""
        if self.enough:
            return None
        row = min(self.rows, key=lambda row: row.different or row.samples, default=None)
        if row is not None and row.enough:
            return (
                f"not checked: {self.a} finds nothing in any sample held out for task "
                f"{' and '.join(map(repr, self._unanswered))}; end the recordings with what it should find"
            )
        fewest = "0" if row is None else str(row.samples)
        if row is not None and row.different is not None and row.different < row.samples:
            fewest = f"{row.different} different ones of {row.samples}"
        noun = "sample held out is" if fewest == "1" else "samples held out are"
        return (
            f"not checked: {fewest} {noun} too few "
            f"to compare {self.a} and {self.b}, {MIN_SAMPLES} are the least; give more files or longer recordings"
        )

    @property
    def agreement(self) -> dict[str, float]:
        """Share of equal labels per task, over all masks."""
        names = dict.fromkeys(row.task for row in self.rows)
        return {name: _pooled(rows) for name in names if (rows := [row for row in self.rows if row.task == name])}

    @property
    def worst(self) -> dict[str, TaskComparison]:
        """Per task, the mask with the smallest share of equal labels."""
        worst: dict[str, TaskComparison] = {}
        for row in self.rows:
            if row.task not in worst or row.agreement < worst[row.task].agreement:
                worst[row.task] = row
        return worst

    def raise_for_status(self, max_drop_points: float = 0.3) -> None:
        """Refuse a version that answers differently too often, over all masks or with one of them.

        Args:
            max_drop_points: Percentage points of agreement that may be lost per task over all masks; three times as
                many with any one of them, and two samples in any case.

        Raises:
            CheckError: Names the task and the mask that lost most, and the layers that cost most; or says that there
                are too few samples, where the recipe requires a verdict. Else a warning says so, and only a version
                that loses more than half of its agreement is refused.
        """
        if (warning := self.warning) is not None:
            if self.required:
                raise CheckError(
                    warning, where="calibration.recordings", fix='record more, or set calibration.gate = "warn"'
                )
            _log.warning("%s", warning)
        if (note := self.note) is not None:
            _log.warning("%s", note)
        for doubt in self.doubts if warning is None else ():
            _log.warning("%s", doubt)
        if (failure := self.failure(max_drop_points)) is not None:
            raise failure

    def failure(self, max_drop_points: float) -> CheckError | None:
        """Return what ``raise_for_status`` would raise for what is lost; None where little is."""
        for task in self.agreement:
            rows = [row for row in self.rows if row.task == task]
            checked = [row for row in rows if row.enough and task not in self._unanswered]
            least = 0.0 if checked else PLAINLY_WRONG  # a verdict on few samples would be one of chance
            over = [
                row
                for row in rows
                if row.lost > max(row.allowed(max_drop_points), 0.0 if row in checked else PLAINLY_WRONG) + ROUNDING
            ]
            lost = 100.0 * (1.0 - _pooled(checked or rows))
            if lost > max(max_drop_points, least) + ROUNDING or over:
                worst = max(over or rows, key=lambda row: row.lost)
                differs = _DIFFERS[worst.metric if worst.difference is None else "value"].format(
                    a=self.a, lost=f"{lost:.2f}"
                )
                layers = f"; most is lost in {', '.join(self.worst_layers)}" if self.worst_layers else ""
                return CheckError(
                    f"{self.b} {differs}, {max_drop_points:g} "
                    f"allowed; worst with {' + '.join(worst.present)}: {worst.lost:.2f} %, "
                    f"{worst.allowed(max_drop_points):.3g} allowed, "
                    f"{worst.sqnr_db:.1f} dB{layers}",
                    where=f"task '{task}'",
                    fix='calibrate on recordings like those of use, or with rule = "auto", or raise max_drop_points, '
                    "or train with its rounding: [train] qat_epochs",
                )
        return None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document."""
        worst = {
            t: {"present": r.present, "samples": r.samples, "agreement": r.agreement} for t, r in self.worst.items()
        }
        return {
            "schema": "mmedge.comparison/1",
            "checked": self.enough,
            **({} if self.warning is None else {"warning": self.warning}),
            **({} if self.note is None else {"note": self.note}),
            "agreement": self.agreement,
            "worst": worst,
            **msgspec.to_builtins(self),
        }

    def table(self) -> Table:
        """Return the rows for people."""
        table = Table(title=f"{self.a} and {self.b} on recordings held out")
        for heading in ("task", "present", "samples", "agreement", "differs by", "SQNR"):
            table.add_column(heading, justify="left" if heading in ("task", "present") else "right", overflow="fold")
        for row in self.rows:
            table.add_row(
                row.task,
                " + ".join(row.present),
                str(row.samples) if row.enough else f"{_counted(row)} (< {MIN_SAMPLES}: not checked)",
                f"{100 * row.agreement:.1f} %",
                f"<= {row.score_difference:.3f}" if row.difference is None else f"{row.difference:.3g} (mean)",
                f"{row.sqnr_db:.1f} dB",
            )
        pooled = self.agreement
        table.caption = "; ".join(
            f"{task}: {100 * pooled[task]:.1f} % over all, {100 * row.agreement:.1f} % with {' + '.join(row.present)}"
            for task, row in self.worst.items()
        )
        for text in (self.note, self.warning):
            if text is not None:
                table.caption = f"WARNING: {text}\n{table.caption}"
        return table


def _pooled(rows: Sequence[TaskComparison]) -> float:
    return float(np.average([row.agreement for row in rows], weights=[row.samples for row in rows]))


def _counted(row: TaskComparison) -> str:
    is_all = row.different is None or row.different == row.samples
    return str(row.samples) if is_all else f"{row.samples}, {row.different} different"


# What lies behind percentage points that were lost, by metric.
_DIFFERS = {
    "label": "gives another label than {a} on {lost} % of the samples",
    "within": "is further from {a}'s answer than the task allows on {lost} % of the samples",
    "map": "loses {lost} points of mAP at 0.5 against {a}'s boxes",
    "value": "differs from {a} by {lost} % of the task's range on average",
    "cosine": "points elsewhere than {a}: 1 - cosine is {lost} % on average",
    "sqnr": "differs from {a} by {lost} % of its power",
}


def compare(
    a: OnnxModels,
    b: OnnxModels,
    calibration: Calibration | None = None,
    samples: RawSamples | Iterable[Tensors] | None = None,
    *,
    temperature: Mapping[str, float] | None = None,
) -> Comparison:
    """Run two versions of a model through the whole stage graph and compare their labels.

    With all inputs, all but one, and each alone; smoothing is off, so that no sample hides another.

    Args:
        a: The reference.
        b: The other version; stages that it lacks are those of ``a``.
        calibration: Recordings; the recipe's by default.
        samples: Raw samples instead of the recordings.
        temperature: Calibrated temperature per task.

    Returns:
        The comparison on the samples held out: on those that did not choose ``b``, where there are enough.

    Raises:
        ConfigError: If the other has stages that the reference lacks.

    Example:
        >>> export.compare(onnx, int8, recipe.calibration).raise_for_status(max_drop_points=0.3)  # doctest: +SKIP
    """
    labels = (a.precision, b.precision) if a.precision != b.precision else ("a", "b")
    (found,) = _compared(a, [(labels[1], b, b.models)], calibration, samples, temperature)
    return msgspec.structs.replace(found, a=labels[0])


def compare_all(
    fp32: OnnxModels,
    quantised: Sequence[OnnxModels],
    calibration: Calibration | None = None,
    samples: RawSamples | Iterable[Tensors] | None = None,
    *,
    temperature: Mapping[str, float] | None = None,
) -> tuple[Comparison, ...]:
    """Compare quantised versions with fp32 as their targets get them.

    INT8 is compared as CPUs get it, and as TensorRT does where that is another network (``int8 with fp16``); FP8 and
    INT4 as TensorRT does.

    Args:
        fp32: The reference.
        quantised: The versions.
        calibration: Recordings; the recipe's by default.
        samples: Raw samples instead of the recordings, of the shapes [...] and dtypes of the recipe's inputs.
        temperature: Calibrated temperature per task.

    Returns:
        The comparisons on the samples held out; none for a version without networks.

    Raises:
        ConfigError: If a version has stages that the reference lacks.
    """
    forms: list[tuple[str, OnnxModels, Mapping[str, ModelProto]]] = []
    for version in (version for version in quantised if version.models):
        if version.precision == "int8":
            forms.append((version.precision, version, version.models))
        if version.half or version.precision != "int8":
            label = f"{version.precision} with fp16" if version.half else version.precision
            forms.append((label, version, as_tensorrt_computes(version)))
    return _compared(fp32, forms, calibration, samples, temperature) if forms else ()


def _compared(
    a: OnnxModels,
    forms: Sequence[tuple[str, OnnxModels, Mapping[str, ModelProto]]],
    calibration: Calibration | None,
    samples: RawSamples | Iterable[Tensors] | None,
    temperature: Mapping[str, float] | None,
) -> tuple[Comparison, ...]:
    for _, b, models in forms:
        if not set(models) <= set(a.models):
            raise ConfigError(
                f"stages {sorted(a.models)} and {sorted(b.models)} differ",
                where="compare",
                fix="pass two precisions of one export",
            )
    recipe = a.recipe if calibration is None else msgspec.structs.replace(a.recipe, calibration=calibration)
    if samples is None:
        # Many: one label in a hundred is already more than most recipes allow to differ.
        samples = raw_samples(recipe, HELD_OUT * 3, held_out_only=True)
    given = as_samples(samples, recipe)
    judging = given.judging if any(b.quantization for _, b, _ in forms) else given.held_out  # nothing was chosen
    if judging is None or len(judging) < MIN_SAMPLES <= len(given.held_out):
        judging = given.held_out
    reference = Reference(recipe, a.models, judging, temperature)
    return tuple(
        Comparison(
            a=a.precision,
            b=label,
            rows=reference.compare(models),
            worst_layers=tuple(layer for notes in b.quantization.values() for layer in notes.worst)[:3],
            required=recipe.calibration.gate == "required",
            chosen_on=judging is given.held_out and bool(b.quantization),
        )
        for label, b, models in forms
    )
