"""What every data set offers: three splits of raw samples, prepared once, with disjoint groups."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import numpy as np
import torch

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.files import file_hash
from mmedge.types import AnyArray, FloatArray

from ..identity import digest_of
from ..recipe import Recipe
from ..tasks import boxed_tasks, valued_tasks
from .boxes import in_network

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Batch = dict[str, Any]
_DEEPEST, _LONGEST = 6, 1024  # of containers in each other; characters of a path


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One raw sample.

    Attributes:
        inputs: Raw array per input that is there: uint8 [h, w, c], float32 PCM [samples], int64 token numbers
            [max_tokens], a tensor without the leading 1 of its shape; of an input that feeds a stage with a state, a
            sequence of them [steps, ...].
        labels: Per input, the class it shows, a number into the classification task's labels. Inputs that
            name different classes make a conflict.
        age_ms: Per input, how old its data are at the moment of the sample; 0 where nothing is said.
        targets: Per task that answers with a number, that number, in the task's unit; per task with a ``column`` the
            number of its class, of a verification 0 or 1; unknown where nothing is said.
        boxes: Per detection with a ``column``, float32 [n, 5]: class number, x1, y1, x2, y2 in 0..1 of the raw frame;
            unknown where nothing is said, none where the array is empty.
    """

    inputs: dict[str, AnyArray]
    labels: dict[str, int]
    age_ms: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    boxes: dict[str, FloatArray] = field(default_factory=dict)


class Samples(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Dataset(ABC):
    """Base of all data sets.

    Args:
        recipe: Names the inputs and tasks.

    Attributes:
        inputs: The seats as the samples fill them: a recipe's own, or with a smaller ``frame`` where a
            data set yields frames that are area-reduced already.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.inputs: dict[str, Input] = dict(recipe.inputs)

    @abstractmethod
    def prepare(self) -> None:
        """Clean, convert, normalise and cache; a second call does nothing."""

    @abstractmethod
    def split(self, name: Split, *, epoch: int = 0) -> Samples:
        """Return the samples of a split; ``epoch`` varies random pairs of the train split."""

    @abstractmethod
    def groups(self, name: Split) -> frozenset[str]:
        """Return the groups (speakers, sites...) whose samples are in a split."""

    def conditions(self) -> Mapping[str, Samples]:
        """Return what the test table has a row for; by default the whole test split."""
        return {"test": self.split("test")}

    def digest(self, name: Split) -> bytes:
        """Return what is another when the samples of a split are, as far as it can be told without reading them.

        Here the source of the data set's module, what its attributes hold (arrays, texts, numbers), and the files
        that these or its options name, relative to the recipe.
        """
        file = getattr(sys.modules[type(self).__module__], "__file__", None)
        held = {key: value for key, value in vars(self).items() if key not in ("recipe", "inputs") and _is_data(value)}
        named = [path for part in (held, self.recipe.data.options) for path in _named_files(part, self.recipe.folder)]
        hashes = [file_hash(path) for path in dict.fromkeys(named)]
        own = digest_of(held, hashes, folder=self.recipe.folder)
        return own if file is None else Path(file).read_bytes() + own

    def check(self) -> None:
        """Raise ConfigError if groups are in more than one split; names them all, up to a dozen."""
        found = [
            f"group '{group}' is in both {one} and {other}"
            for index, one in enumerate(SPLITS)
            for other in SPLITS[index + 1 :]
            for group in sorted(self.groups(one) & self.groups(other))
        ]
        if found:
            more = [f"and {len(found) - 12} more"] if len(found) > 12 else []
            raise ConfigError(
                "; ".join([*found[:12], *more]), where="data", fix="put every sample of a group into one split"
            )

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return a batch: absent inputs are zeros (texts padding), their label is -1 and their presence 0.

        An absent sequence is as long as those of the other samples; where none of them has one, it is one step.

        Args:
            samples: What ``split(...)`` yielded.

        Returns:
            ``inputs`` (name -> raw tensor), ``labels`` int64, ``present`` float32 and ``age_ms`` float32
            [batch, n_inputs]; ``targets`` (task -> float32 [batch], NaN for unknown) for ``valued_tasks``; ``boxes``
            (task -> of each sample float32 [n, 5]: class, corners in pixels of the network's input; None for unknown).

        Raises:
            ConfigError: If an array does not fit its input, is a sequence of an input that feeds no stage with a
                state, or the sequences of a batch have several lengths; if an age is not a time.
        """
        for sample in samples:
            for what, given in (("array", sample.inputs), ("age", sample.age_ms)):
                unknown = sorted(given.keys() - self.inputs.keys())
                if unknown:
                    raise ConfigError(
                        f"a sample has an {what} for '{unknown[0]}', the recipe's inputs are {list(self.inputs)}",
                        where="data",
                        fix="use the recipe's names",
                    )
            for name, age in sample.age_ms.items():
                if not 0 <= age < math.inf:
                    raise ConfigError(
                        f"the age of a sample is {age} ms", where=f"input '{name}'", fix="give an age of 0 ms or more"
                    )
        moving = {source for stage in self.recipe.stages.values() if stage.states for source in stage.inputs.values()}
        inputs: dict[str, torch.Tensor] = {}
        labels = torch.full((len(samples), len(self.inputs)), -1)
        present = torch.zeros(len(samples), len(self.inputs))
        age_ms = torch.zeros(len(samples), len(self.inputs))
        for column, (name, spec) in enumerate(self.inputs.items()):
            arrays = [sample.inputs.get(name) for sample in samples]
            inputs[name] = torch.from_numpy(_stacked(name, spec, arrays, sequences=name in moving))
            for row, sample in enumerate(samples):
                if name in sample.inputs:
                    present[row, column] = 1
                    labels[row, column] = sample.labels.get(name, -1)
                    age_ms[row, column] = sample.age_ms.get(name, 0.0)
        batch = {"inputs": inputs, "labels": labels, "present": present, "age_ms": age_ms}
        if valued := valued_tasks(self.recipe):
            batch["targets"] = {n: torch.tensor([s.targets.get(n, math.nan) for s in samples]) for n in valued}
        if boxed := boxed_tasks(self.recipe):
            batch["boxes"] = {name: [self._boxes(name, sample) for sample in samples] for name in boxed}
        return batch

    def _boxes(self, task: str, sample: Sample) -> torch.Tensor | None:
        boxes, detection = sample.boxes.get(task), self.recipe.tasks[task].detection
        if boxes is None or detection is None or detection.input not in sample.inputs:
            return None
        spec = self.inputs[detection.input]
        assert isinstance(spec, ImageInput)
        return torch.from_numpy(in_network(np.asarray(boxes, np.float32).reshape(-1, 5), spec))


def _stacked(name: str, spec: Input, arrays: Sequence[AnyArray | None], *, sequences: bool) -> AnyArray:
    def refuse(message: str, fix: str) -> NoReturn:
        raise ConfigError(message, where=f"input '{name}'", fix=fix)

    if isinstance(spec, TensorInput) and spec.shape[0] != 1:
        refuse(
            f"the tensor's shape is {list(spec.shape)}, its first dimension is that of the batch",
            "begin the shape with 1",
        )
    empty = _empty(spec)
    rank = empty.ndim
    found = [array for array in arrays if array is not None]
    wanted = f"expected {empty.dtype} {list(empty.shape)}" + (", or sequences of these" if sequences else "")
    for array in found:
        if not isinstance(array, (np.ndarray, np.generic)):
            refuse(f"a sample has a {type(array).__name__}, {wanted}", f"give numpy.asarray(x, numpy.{empty.dtype})")
        ranks = (rank, rank + 1) if sequences else (rank,)
        fits = array.size > 0 and array.ndim in ranks and array.shape[array.ndim - rank :] == empty.shape
        if not fits or array.dtype != empty.dtype:
            fix = "give what the recipe's input is, or correct the recipe"
            if not sequences and array.shape[1:] == empty.shape:
                only = "a sequence is for an input that feeds a stage with a state"
                fix = "leave the leading 1 out" if array.shape[0] == 1 else only
            refuse(f"a sample has {array.dtype} {list(array.shape)}, {wanted}", fix)
    forms = Counter(array.shape for array in found).most_common()
    if len(forms) > 1:
        refuse(
            f"a sample has {empty.dtype} {list(forms[-1][0])}, another of its batch {list(forms[0][0])}, {wanted}",
            "give sequences of one length, or no sequences",
        )
    if found:
        empty = np.broadcast_to(empty, found[0].shape)
    return np.stack([empty if array is None else array for array in arrays])


def _empty(spec: Input) -> AnyArray:
    if isinstance(spec, ImageInput):
        return np.zeros(spec.raw_shape[1:], np.uint8)
    if isinstance(spec, AudioInput):
        return np.zeros(spec.samples, np.float32)
    if isinstance(spec, TextInput):
        return np.full(spec.max_tokens, spec.pad, np.int64)
    return np.zeros(spec.shape[1:], spec.dtype)


def _is_data(value: object, depth: int = 0) -> bool:
    """Tell whether a value is arrays, tensors, texts and numbers through and through."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, Path, np.ndarray, np.generic, torch.Tensor)):
        return True
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return isinstance(parts, (list, tuple)) and depth < _DEEPEST and all(_is_data(part, depth + 1) for part in parts)


def _named_files(value: object, folder: Path) -> list[Path]:
    """Return the files that texts and paths in a value name, those inside of folders included."""
    if isinstance(value, (dict, list, tuple)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return [path for part in parts for path in _named_files(part, folder)]
    if not isinstance(value, (str, Path)) or len(str(value)) > _LONGEST or str(value) in ("", ".", "/"):
        return []
    try:
        path = folder / value
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [file for file in found if file.is_file()]
    except (OSError, ValueError):  # no name of a file
        return []


def class_labels(recipe: Recipe) -> tuple[str, ...]:
    """Return the class names of the recipe's classification tasks without a ``column``, which must share them.

    Raises:
        ConfigError: If there is no such task, or two with different labels.
    """
    names = {task.labels for task in recipe.tasks.values() if task.kind == "classification" and task.column is None}
    if len(names) != 1:
        raise ConfigError(
            "a data set needs one classification task, whose classes it labels",
            where="tasks",
            fix="declare one classification task, or several with the same labels; give others a column of their own",
        )
    return names.pop()


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the class names of the first classification task whose classes are those that inputs show."""
    tasks = recipe.tasks.values()
    return next((task.labels for task in tasks if task.kind == "classification" and task.column is None), ())
