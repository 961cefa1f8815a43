"""What a version of a model answers on samples, sample by sample, held against what another one answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
from onnx import ModelProto

from mmedge.bundle.manifest import ImageInput
from mmedge.errors import CheckError
from mmedge.interpret import Interpreter, make_interpreter
from mmedge.preprocess.fit import to_picture
from mmedge.types import AnyArray, Snapshot, TaskResult, Tensors

from ..judge import judge
from ..parts import MIN_SAMPLES
from ..preprocess.onnx_prefix import Preprocessor
from ..recipe import Recipe
from ..recordings import RawSample
from ..report import ratio_db
from ..spool import Spool
from ..stages import Mask, StageGraph, fed_back, masks
from ..tasks import KINDS, Agreement


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task under one presence mask, or an output that no task reads.

    Attributes:
        agreement: Share of samples on which both give the same label, abstentions included; of a task that tells a
            number, 1 minus the mean difference as a share of what it may be; or what ``metric`` says.
        score_difference: Largest difference of the score of the label.
        sqnr_db: Signal to noise of the task's output.
        difference: Mean absolute difference of the numbers told, in the task's unit; None where labels are told.
        metric: What ``agreement`` is: ``label``, ``within`` k bins, ``map`` of boxes at an overlap of 0.5, ``value``,
            ``cosine``, or ``sqnr``, 1 minus the noise's share of the signal's power.
        counted: Whether each sample is right or wrong, so that a few may always differ.
        different: How many of the samples differ from all others; a picture that stands still is one.
        answers: How many different labels the first version gives, or on how many pictures it finds boxes; None where
            ``metric`` looks at neither.
    """

    task: str
    present: Mask
    samples: int
    agreement: float
    score_difference: float
    sqnr_db: float
    difference: float | None = None
    metric: str = "label"
    counted: bool = True
    different: int | None = None
    answers: int | None = None

    @property
    def lost(self) -> float:
        """Percentage points of agreement that were lost."""
        return 100.0 * (1.0 - self.agreement)

    @property
    def enough(self) -> bool:
        """Whether there are enough samples for a verdict: those that are alike count once."""
        return (self.samples if self.different is None else self.different) >= MIN_SAMPLES

    def allowed(self, max_drop_points: float) -> float:
        """Percentage points that may be lost under this mask, if ``max_drop_points`` may over all of them."""
        return allowed_points(self.samples, max_drop_points, counted=self.counted and self.difference is None)


# One mask may lose so many times what is allowed over all of them: of 400 samples, a loss of 2 % shows as up to 4 % by
# chance, and an input alone has no other to lean on. Without a limit of its own, one of seven could lose 14 %. Of few
# samples a single one is more than that already: so many may always differ.
MASK_ALLOWANCE = 3.0
ALWAYS_ALLOWED = 2


def allowed_points(samples: int, max_drop_points: float, *, counted: bool = True) -> float:
    """Return the percentage points that one mask may lose.

    Args:
        samples: How many it is measured on.
        max_drop_points: What may be lost over all masks.
        counted: Whether each answer is right or wrong, so that a few may always differ.
    """
    return max(MASK_ALLOWANCE * max_drop_points, 100.0 * ALWAYS_ALLOWED / samples if counted else 0.0)


def judged_outputs(recipe: Recipe) -> dict[str, str]:
    """Return what is compared: task -> its output, and what results tell as it is; else what no other stage takes."""
    named = {name: task.output for name, task in recipe.tasks.items()} | {told: told for told in recipe.outputs}
    if named:
        return named
    taken = {str(source) for stage in recipe.stages.values() for source in stage.links.values()}
    states = {f"{name}.{own}" for name, stage in recipe.stages.items() for own in stage.states.values()}
    ends = [f"{name}.{out}" for name, stage in recipe.stages.items() for out in stage.outputs]
    return {end: end for end in ends if end not in taken and end not in states}


class Reference:
    """What one version of a model answers on samples, kept so that any number of others can be held against it.

    Args:
        recipe: Gives graph, tasks and masks.
        models: Stage -> network.
        samples: Raw samples, in order of time.
        temperature: Calibrated temperature per task.

    Example:
        >>> reference = Reference(recipe, onnx.models, held_out)  # doctest: +SKIP
        >>> [row.agreement for row in reference.compare(int8.models)]  # doctest: +SKIP
        [0.995]
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Mapping[str, ModelProto],
        samples: Sequence[RawSample],
        temperature: Mapping[str, float] | None = None,
    ) -> None:
        self._recipe, self._models, self._samples = recipe, models, samples
        self._temperature = temperature or {}
        self._outputs = judged_outputs(recipe)
        self._spool = Spool()
        self._keys: list[tuple[str, Mask]] = []
        self._contents: set[bytes] = set()
        for answers in self._answers(models):
            self._keys = list(answers)
            self._spool.add({str(i): array for i, array in enumerate(answers.values())})

    def compare(self, models: Mapping[str, ModelProto]) -> tuple[TaskComparison, ...]:
        """Return one row per task and mask for another version; stages that ``models`` lacks are the reference's."""
        rows = {key: _Row(self._recipe, *key, self._temperature.get(key[0])) for key in self._keys}
        for place, answers in enumerate(self._answers({**self._models, **models})):
            known = self._spool[place]
            for i, key in enumerate(self._keys):
                rows[key].add(known[str(i)], answers[key])
        return tuple(row.result(len(self._contents)) for row in rows.values())

    def _answers(self, models: Mapping[str, ModelProto]) -> Iterator[dict[tuple[str, Mask], AnyArray]]:
        """Yield what is judged of each sample, by name and mask."""
        recipe = self._recipe
        preprocess = Preprocessor(recipe.inputs, recipe.export.opset)
        engines = {stage: judge(model, stage) for stage, model in models.items()}
        graph = StageGraph(recipe, engines)
        everything = tuple(recipe.inputs)
        states: dict[str, AnyArray] = {}
        try:
            last: RawSample | None = None
            for sample in self._samples:
                states, last = states if sample.follows(last) else {}, sample
                self._contents.add(_content(sample.arrays))
                tensors = {**preprocess(sample.arrays), **states}
                full = graph(tensors)
                states = fed_back(recipe, full)
                found: dict[tuple[str, Mask], AnyArray] = {}
                for mask in masks(recipe):
                    known = full if mask == everything else graph(tensors, mask, reuse=full)
                    for name, output in self._outputs.items():
                        task = recipe.tasks.get(name)
                        if task is None or task.kind != "verification" or len(mask) >= 2:
                            found[name, mask] = known[output]
                yield found
        finally:
            for engine in engines.values():
                engine.close()


class _Row:
    """Counts, sample by sample, how two versions of one task agree under one mask."""

    def __init__(self, recipe: Recipe, name: str, mask: Mask, temperature: float | None) -> None:
        self._recipe, self._name, self._mask = recipe, name, mask
        self._task = task = recipe.tasks.get(name)
        self._seen = Snapshot(t_ns=0, seq=0, present={seat: seat in mask for seat in recipe.inputs})
        self._metric = recipe.calibration.metric if task is None else task.metric or KINDS[task.kind].agrees_by
        self._read: list[Interpreter] = []
        if task is not None:
            self._read = [_interpreter(recipe, name, temperature, loose=x) for x in (False, self._metric == "map")]
        self._results: list[tuple[TaskResult, TaskResult]] = []
        self._count = 0
        self._power = self._noise = self._cosine = self._near = 0.0

    def add(self, want: AnyArray, got: AnyArray) -> None:
        """Take up one sample's outputs, of one shape [...] and dtype."""
        if not (np.isfinite(want).all() and np.isfinite(got).all()):
            raise CheckError(
                f"'{self._name}' with {' + '.join(self._mask) or 'nothing'}: its output has NaN or infinite numbers",
                where=self._name if self._task is None else self._task.output,
                fix="compare mean and std of its inputs with what it was trained on, and look at its weights",
            )
        x, y = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        self._count += 1
        self._power += float(x @ x)
        self._noise += float((x - y) @ (x - y))
        if x.size == 1 and self._metric == "cosine":
            self._metric = "sqnr"  # one number always points where another does
        norms = float(np.sqrt((x @ x) * (y @ y)))
        self._cosine += float(x @ y) / norms if norms else float(not x.any() and not y.any())
        if self._metric == "within":
            assert self._task is not None
            distance = np.abs(want.argmax(axis=-1) - got.argmax(axis=-1))
            self._near += float((distance <= self._task.within).mean())
        if self._read:
            self._results.append((self._read[0](want, self._seen), self._read[1](got, self._seen)))

    def _answers(self) -> int | None:
        if self._task is None or self._metric not in ("label", "map"):
            return None
        if self._metric == "map":
            sure = self._task.threshold
            return sum(any(box.score >= sure for box in want.boxes) for want, _ in self._results)
        return len({want.label for want, _ in self._results if want.label is not None})

    def result(self, different: int) -> TaskComparison:
        """Return the row.

        Args:
            different: How many of the samples differ from all others.
        """
        noise = self._noise / max(self._power, 1e-30)
        sqnr_db = ratio_db(self._power, self._noise)
        agreement = Agreement(share=0.0)
        if self._task is not None and self._results:
            agreement = KINDS[self._task.kind].agreement(self._task, self._results)
        share = {
            "cosine": self._cosine / max(self._count, 1),
            "sqnr": max(1.0 - noise, 0.0),
            "within": self._near / max(self._count, 1),
        }.get(self._metric, agreement.share)
        return TaskComparison(
            task=self._name,
            present=self._mask,
            samples=self._count,
            agreement=share,
            score_difference=agreement.score_difference,
            difference=agreement.difference if self._metric == "value" else None,
            sqnr_db=round(sqnr_db, 2),
            metric=self._metric,
            counted=self._metric in ("label", "within"),
            different=min(different, self._count),
            answers=self._answers(),
        )


def _content(arrays: Tensors) -> bytes:
    """Return a hash of one sample."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()


def _interpreter(recipe: Recipe, name: str, temperature: float | None, *, loose: bool) -> Interpreter:
    """Return what reads a task's output; a ``loose`` one also sees boxes of half the score, which rank last."""
    task = recipe.tasks[name]
    own = task.temperature if temperature is None else temperature
    threshold = task.threshold / 2 if loose else task.threshold
    plain = task.in_manifest("", temperature=own, smoothing=None, top_k=0, threshold=threshold)
    seat = None if plain.detection is None else recipe.inputs[plain.detection.input]
    back = partial(to_picture, seat) if isinstance(seat, ImageInput) else None  # samples have the size of 'frame'
    return make_interpreter(name, plain, task.labels, back)
