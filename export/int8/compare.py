"""Do two versions of a model give the same answers? Measured end to end on recordings held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
from rich.table import Table

from mmedge.bundle.manifest import ImageInput
from mmedge.errors import CheckError, ConfigError
from mmedge.interpret import Interpreter, make_interpreter
from mmedge.preprocess.fit import to_picture
from mmedge.types import AnyArray, Snapshot, Tensors

from ..onnx.onnx_models import OnnxModels
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Calibration, Recipe
from ..recordings import RawSamples, as_samples, raw_samples
from ..report import sqnr_db
from ..stages import Mask, StageGraph, fed_back, masks, onnx_runners
from ..tasks import KINDS

HELD_OUT = 400
# One mask may lose so many times what is allowed over all of them: of 400 samples, a loss of 2 % shows as up to 4 % by
# chance, and an input alone has no other to lean on. Without a limit of its own, one of seven could lose 14 %. Of few
# samples a single one is more than that already: so many may always differ.
MASK_ALLOWANCE = 3.0
ALWAYS_ALLOWED = 2
ROUNDING = 1e-9


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task under one presence mask.

    Attributes:
        agreement: Share of samples on which both give the same label, abstentions included; of a task that tells a
            number, 1 minus the mean difference as a share of what it may be.
        score_difference: Largest difference of the score of the label.
        sqnr_db: Signal to noise of the task's output.
        difference: Mean absolute difference of the numbers told, in the task's unit; None where labels are told.
    """

    task: str
    present: Mask
    samples: int
    agreement: float
    score_difference: float
    sqnr_db: float
    difference: float | None = None

    @property
    def lost(self) -> float:
        """Percentage points of agreement that were lost."""
        return 100.0 * (1.0 - self.agreement)

    def allowed(self, max_drop_points: float) -> float:
        """Percentage points that may be lost under this mask, if ``max_drop_points`` may over all of them."""
        return allowed_points(self.samples, max_drop_points, counted=self.difference is None)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What ``compare`` measured; one row per task and presence mask."""

    a: str
    b: str
    rows: tuple[TaskComparison, ...]

    @property
    def agreement(self) -> dict[str, float]:
        """Share of equal labels per task, over all masks."""
        names = dict.fromkeys(row.task for row in self.rows)
        return {
            name: float(np.average([r.agreement for r in rows], weights=[r.samples for r in rows]))
            for name in names
            if (rows := [row for row in self.rows if row.task == name])
        }

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
            CheckError: Names the task and the mask that lost most.
        """
        for task, agreement in self.agreement.items():
            rows = [row for row in self.rows if row.task == task]
            over = [row for row in rows if row.lost > row.allowed(max_drop_points) + ROUNDING]
            lost = 100.0 * (1.0 - agreement)
            if lost > max_drop_points + ROUNDING or over:
                worst = max(over or rows, key=lambda row: row.lost)
                differs = f"gives another label than {self.a} on {lost:.2f} % of the samples"
                if worst.difference is not None:
                    differs = f"differs from {self.a} by {lost:.2f} % of the task's range on average"
                raise CheckError(
                    f"{self.b} {differs}, {max_drop_points:g} "
                    f"allowed; worst with {' + '.join(worst.present)}: {worst.lost:.2f} %, "
                    f"{worst.allowed(max_drop_points):.3g} allowed, "
                    f"{worst.sqnr_db:.1f} dB",
                    where=f"task '{task}'",
                    fix='calibrate on recordings like those of use, or with rule = "max", or raise max_drop_points',
                )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document."""
        worst = {
            t: {"present": r.present, "samples": r.samples, "agreement": r.agreement} for t, r in self.worst.items()
        }
        return {
            "schema": "mmedge.comparison/1",
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
                str(row.samples),
                f"{100 * row.agreement:.1f} %",
                f"<= {row.score_difference:.3f}" if row.difference is None else f"{row.difference:.3g} (mean)",
                f"{row.sqnr_db:.1f} dB",
            )
        pooled = self.agreement
        table.caption = "; ".join(
            f"{task}: {100 * pooled[task]:.1f} % over all, {100 * row.agreement:.1f} % with {' + '.join(row.present)}"
            for task, row in self.worst.items()
        )
        return table


def compare(
    a: OnnxModels,
    b: OnnxModels,
    calibration: Calibration | None = None,
    samples: RawSamples | Sequence[Tensors] | None = None,
    *,
    temperature: Mapping[str, float] | None = None,
) -> Comparison:
    """Run two versions of a model through the whole stage graph and compare their labels.

    With all inputs, all but one, and each alone; smoothing is off, so that no sample hides another.

    Args:
        a: The reference.
        b: The other version.
        calibration: Recordings; the recipe's by default.
        samples: Raw samples instead of the recordings.
        temperature: Calibrated temperature per task.

    Returns:
        The comparison on the samples held out.

    Raises:
        ConfigError: If the two have different stages.

    Example:
        >>> export.compare(onnx, int8, recipe.calibration).raise_for_status(max_drop_points=0.3)  # doctest: +SKIP
    """
    if set(a.models) != set(b.models):
        raise ConfigError(
            f"stages {sorted(a.models)} and {sorted(b.models)} differ",
            where="compare",
            fix="pass two precisions of one export",
        )
    recipe = a.recipe if calibration is None else msgspec.structs.replace(a.recipe, calibration=calibration)
    if samples is None:
        # Many: one label in a hundred is already more than most recipes allow to differ.
        samples = raw_samples(recipe, HELD_OUT * 3, held_out_only=True)
    held_out = as_samples(samples, recipe).held_out
    preprocess = Preprocessor(recipe.inputs, recipe.export.opset)
    graphs = [StageGraph(recipe, onnx_runners(version.models)) for version in (a, b)]
    everything = tuple(recipe.inputs)
    seen: dict[tuple[str, Mask], list[tuple[AnyArray, AnyArray]]] = {}
    states: list[dict[str, AnyArray]] = [{} for _ in graphs]
    for sample in held_out:
        tensors = preprocess(sample.arrays)
        both = [{**tensors, **state} for state in states]
        full = [graph(own) for graph, own in zip(graphs, both, strict=True)]
        states = [fed_back(recipe, known) for known in full]
        for mask in masks(recipe):
            known = (
                full
                if mask == everything
                else [g(own, mask, reuse=k) for g, own, k in zip(graphs, both, full, strict=True)]
            )
            for name, task in recipe.tasks.items():
                if task.kind != "verification" or len(mask) >= 2:
                    seen.setdefault((name, mask), []).append((known[0][task.output], known[1][task.output]))
    rows = tuple(_row(recipe, name, mask, pairs, (temperature or {}).get(name)) for (name, mask), pairs in seen.items())
    labels = (a.precision, b.precision) if a.precision != b.precision else ("a", "b")
    return Comparison(a=labels[0], b=labels[1], rows=rows)


def allowed_points(samples: int, max_drop_points: float, *, counted: bool = True) -> float:
    """Return the percentage points that one mask may lose.

    Args:
        samples: How many it is measured on.
        max_drop_points: What may be lost over all masks.
        counted: Whether each answer is right or wrong, so that a few may always differ.
    """
    return max(MASK_ALLOWANCE * max_drop_points, 100.0 * ALWAYS_ALLOWED / samples if counted else 0.0)


def _row(
    recipe: Recipe, name: str, mask: Mask, pairs: Sequence[tuple[AnyArray, AnyArray]], temperature: float | None
) -> TaskComparison:
    if not all(np.isfinite(output).all() for pair in pairs for output in pair):
        raise CheckError(
            f"task '{name}' with {' + '.join(mask) or 'nothing'}: its output has NaN or infinite numbers",
            where=recipe.tasks[name].output,
            fix="compare mean and std of its inputs with what it was trained on, and look at its weights",
        )
    interpret = _interpreter(recipe, name, temperature)
    seen = Snapshot(t_ns=0, seq=0, present={seat: seat in mask for seat in recipe.inputs})
    results = [(interpret(x, seen), interpret(y, seen)) for x, y in pairs]
    agreement = KINDS[recipe.tasks[name].kind].agreement(recipe.tasks[name], results)
    return TaskComparison(
        task=name,
        present=mask,
        samples=len(pairs),
        agreement=agreement.share,
        score_difference=agreement.score_difference,
        difference=agreement.difference,
        sqnr_db=round(sqnr_db(np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])), 2),
    )


def _interpreter(recipe: Recipe, name: str, temperature: float | None) -> Interpreter:
    task = recipe.tasks[name]
    own = task.temperature if temperature is None else temperature
    plain = task.in_manifest("", temperature=own, smoothing=None, top_k=0)
    seat = None if plain.detection is None else recipe.inputs[plain.detection.input]
    back = partial(to_picture, seat) if isinstance(seat, ImageInput) else None  # samples have the size of 'frame'
    return make_interpreter(name, plain, task.labels, back)
