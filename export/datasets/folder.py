"""A folder with ``index.csv``: one sample a line, its targets, what each input was given, and how old that was."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, TensorInput, TextInput
from mmedge.errors import ConfigError
from mmedge.files import file_hash
from mmedge.types import AnyArray, FloatArray

from ..recipe import Recipe
from ..tasks import valued_tasks
from ..tokenizer import load_tokenizer
from .base import SPLITS, Dataset, Sample, Samples, Split
from .boxes import box_file, check_boxes, in_frame, read_boxes
from .decoded import DecodedCache, decoded_bytes, decoded_key
from .files import MAX_SIDE, picture_shape, read_file
from .index import Index, Row
from .problems import TOLD, Problems, UnusableFileError

__all__ = ["MAX_SIDE", "Folder", "Row"]

_log = logging.getLogger("mmedge.export")
_T = TypeVar("_T")


class Folder(Dataset):
    """Your own data. An empty cell means that the input is absent; file names are relative to the folder.

    Pictures are what OpenCV reads, sounds what FFmpeg reads, arrays of either and of tensors ``.npy``; a column of a
    text input holds the text itself. Several inputs of one modality have columns of their own names.

    Args:
        recipe: Its inputs and the columns of its tasks.
        folder: Where ``index.csv`` lies.
        **options: There are none yet.

    Raises:
        ConfigError: Names the lines of ``index.csv`` that cannot be used.
    """

    def __init__(self, recipe: Recipe, folder: Path, **options: object) -> None:
        super().__init__(recipe)
        if options:
            name = next(iter(options))
            raise ConfigError(
                f"unknown option '{name}' of a folder data set", where=f"data.options.{name}", fix="remove it"
            )
        self.folder = folder
        index = Index(recipe, folder)
        self.labels, self._index = index.labels, index.path
        self._tokenizers = {n: load_tokenizer(recipe, n) for n, s in recipe.inputs.items() if isinstance(s, TextInput)}
        self.rows = index.read()
        self._hashes: dict[Path, str] = {}
        self._boxed = {name: d.input for name in index.detections if (d := recipe.tasks[name].detection) is not None}
        self._shapes: dict[Path, tuple[int, int]] = {}  # of pictures with boxes
        self._cache = DecodedCache(round(recipe.data.cache_gb * 1e9))
        self._versions = tuple(_versions(recipe))

    def prepare(self) -> None:
        """See that every file is there, and decide which of them are kept decoded; they are read when needed."""
        problems = Problems(self._index)
        for row in self.rows:
            for path in row.files.values():
                if path in self._hashes:
                    continue
                if not _is_file(path):
                    problems.add(row.line, f"there is no file '{self._shown(path)}'")
                elif not os.access(path, os.R_OK):
                    problems.add(row.line, f"no permission to read the file '{self._shown(path)}'")
        problems.raise_any()
        files = {path for row in self.rows for path in row.files.values()} - self._hashes.keys()
        self._hashes |= _in_parallel(file_hash, files)
        order = {split: number for number, split in enumerate(SPLITS)}
        rows = sorted(self.rows, key=lambda row: order[row.split])
        decoded = [(row, n, s) for row in rows for n in row.files if not isinstance(s := self.inputs[n], TensorInput)]
        sizes = {self._key(row, name): decoded_bytes(spec) for row, name, spec in decoded}
        boxed = {row.files[seat] for row in rows for task, seat in self._boxed.items() if task in row.boxes}
        self._cache.plan({**{self._shape_key(path): 16 for path in boxed & self._hashes.keys()}, **sizes})

    def check(self) -> None:
        """Decode every file that is not kept yet, and look at the splits; what cannot be used is told all at once.

        Raises:
            ConfigError: If a group is in two splits, or files cannot be used: names their lines.
        """
        super().check()
        self.prepare()
        wanted: dict[tuple[Path, str], Row] = {}
        for row in self.rows:
            for name, path in row.files.items():
                wanted.setdefault((path, name), row)
        pending = [key for key, row in wanted.items() if self._key(row, key[1]) not in self._cache]
        if pending:
            _log.info("decoding %d files", len(pending))
        bad = _in_parallel(self._fault, pending)
        problems = Problems(self._index)
        for row in self.rows:
            for name, path in row.files.items():
                if fault := bad.get((path, name)):
                    problems.add(row.line, fault)
        for row in self.rows:
            if row.line not in problems:
                try:
                    self._boxes_of(row)
                except UnusableFileError as error:
                    problems.add(row.line, str(error))
        problems.raise_any()
        for column, task, splits in self._targets():
            if "train" not in splits:
                raise ConfigError(
                    f"no sample of split 'train' has a {column}, so task '{task}' would learn nothing",
                    where=str(self._index),
                    fix="fill the column, or leave the task out of the recipe",
                )
        for warning in self.doubts():
            _log.warning("%s: %s", self._index, warning)

    def _fault(self, key: tuple[Path, str]) -> str | None:
        try:
            self._decoded(*key)
        except UnusableFileError as error:
            return str(error)
        return None

    def doubts(self) -> list[str]:
        """Return what can be trained with, but is hardly meant: classes that no sample shows, files in two splits."""
        found = []
        for column, task, splits in self._targets():
            if "validation" not in splits:
                found.append(f"no sample of split 'validation' has a {column}, so task '{task}' is not judged")
        for what, names, of in self._classes():
            seen = {split: Counter(of(row) for row in self.rows if row.split == split) for split in SPLITS}
            unseen = [name for number, name in enumerate(names) if seen["train"][number] == 0]
            if unseen:
                found.append(f"no sample of split 'train' has the {what} {_listed(unseen)}")
            for split in SPLITS[1:]:
                new = [name for name in unseen if seen[split][names.index(name)]]
                if new:
                    found.append(f"split '{split}' has the {what} {_listed(new)}, which training never sees")
        where: dict[tuple[str, str], dict[Split, Row]] = defaultdict(dict)
        for row in self.rows:
            for name, path in row.files.items():
                if path in self._hashes:
                    where[name, self._hashes[path]].setdefault(row.split, row)
        shared = [(name, rows) for (name, _), rows in where.items() if len(rows) > 1]
        if shared:
            name, rows = shared[0]
            lines = " and ".join(f"line {row.line} ({split})" for split, row in rows.items())
            more = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
            found.append(f"the same file is in several splits: '{name}' of {lines}{more}")
        return found

    def _targets(self) -> list[tuple[str, str, set[str]]]:
        """Return column and task, and the splits that have a sample with a target of it."""
        found: list[tuple[str, str, set[str]]] = []
        for name, task in self.recipe.tasks.items():
            if task.kind == "detection":
                if task.column:
                    found.append((task.column, name, {row.split for row in self.rows if name in row.boxes}))
            elif name in valued_tasks(self.recipe):
                found.append((task.column or "label", name, {row.split for row in self.rows if name in row.targets}))
            elif self.labels:
                found.append(("label", name, {row.split for row in self.rows if row.label >= 0}))
        return found

    def _classes(self) -> list[tuple[str, tuple[str, ...], Callable[[Row], int]]]:
        columns: list[tuple[str, tuple[str, ...], Callable[[Row], int]]] = []
        if self.labels:
            columns.append(("label", self.labels, lambda row: row.label))
        for name, task in self.recipe.tasks.items():
            if task.column is not None and task.labels and task.kind != "detection":
                columns.append((task.column, task.labels, partial(_class_of, name)))
        return columns

    def split(self, name: Split, *, epoch: int = 0) -> Samples:
        """Return the samples of a split, in the order of the index."""
        return _Rows(self, [row for row in self.rows if row.split == name])

    def groups(self, name: Split) -> frozenset[str]:
        """Return the groups of a split."""
        return frozenset(row.group for row in self.rows if row.split == name)

    def digest(self, name: Split) -> bytes:
        """Return the hashes of the index and of all files of a split, those of boxes among them."""
        rows = [row for row in self.rows if row.split == name]
        boxes = (box_file(cell, self.folder) for row in rows for cell in row.boxes.values())
        files = [self._index, *(path for row in rows for path in row.files.values()), *filter(None, boxes)]
        there = [path for path in files if path in self._hashes or _is_file(path)]
        return b"".join(bytes.fromhex(self._hashes.get(path) or file_hash(path)) for path in there)

    def load(self, row: Row) -> Sample:
        """Return one sample: images fitted into ``frame``, sound cut to its last window or padded in front, tokens.

        Raises:
            ConfigError: If a file cannot be used; names the line.
        """
        inputs: dict[str, AnyArray] = {}
        for name, path in row.files.items():
            try:
                inputs[name] = self._decoded(path, name)
            except UnusableFileError as error:
                raise ConfigError(str(error), where=f"{self._index}:{row.line}", fix="correct this line") from error
        for name, text in row.texts.items():
            ids = np.empty(self.recipe.inputs[name].tensor_shape, np.int64)  # type: ignore[union-attr]
            self._tokenizers[name].ids(text, ids)
            inputs[name] = ids[0]
        labels = dict.fromkeys(inputs, row.label)
        boxes = self._boxes_of(row)
        return Sample(inputs=inputs, labels=labels, age_ms=row.age_ms, targets=dict(row.targets), boxes=boxes)

    def _boxes_of(self, row: Row) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for task, cell in row.boxes.items():
            seat = self._boxed[task]
            spec, path = self.recipe.inputs[seat], row.files.get(seat)
            if path is None:
                raise UnusableFileError(f"there are boxes of '{task}', but no picture '{seat}'")
            assert isinstance(spec, ImageInput)
            if path not in self._shapes:
                kept = self._cache.get(self._shape_key(path)) if path in self._hashes else None
                if kept is None:
                    kept = np.array(picture_shape(path, spec, str(self._shown(path))))
                    if path in self._hashes:
                        self._cache.put(self._shape_key(path), kept)
                self._shapes[path] = (int(kept[0]), int(kept[1]))
            boxes = read_boxes(cell, self.recipe.tasks[task].labels, self.folder)
            check_boxes(boxes, self._shapes[path])
            found[task] = in_frame(boxes, spec, self._shapes[path])
        return found

    def _shape_key(self, path: Path) -> str:
        return decoded_key(self._hashes[path], path.suffix, TensorInput(shape=(2,)), ("shape", *self._versions))

    def _decoded(self, path: Path, name: str) -> AnyArray:
        spec = self.recipe.inputs[name]
        assert isinstance(spec, (ImageInput, AudioInput, TensorInput))
        key = self._key_of(path, name)
        kept = None if key is None else self._cache.get(key)
        if kept is not None:
            return kept
        array = read_file(path, spec, str(self._shown(path)))
        if key is not None:
            self._cache.put(key, array)
        return array

    def _key(self, row: Row, name: str) -> str:
        key = self._key_of(row.files[name], name)
        assert key is not None, "it was prepared"
        return key

    def _key_of(self, path: Path, name: str) -> str | None:
        content = self._hashes.get(path)
        spec = self.recipe.inputs[name]
        return None if content is None else decoded_key(content, path.suffix, spec, self._versions)

    def _shown(self, path: Path) -> Path:
        return path.relative_to(self.folder) if path.is_relative_to(self.folder) else path


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises where a name is too long


def _class_of(task: str, row: Row) -> int:
    return int(row.targets.get(task, -1))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(f"'{name}'" for name in names[:TOLD]) + more


def _versions(recipe: Recipe) -> Iterable[str]:
    """Yield the versions of what decodes the files of a recipe's inputs."""
    for kind, module in ((ImageInput, "cv2"), (AudioInput, "av")):
        if any(isinstance(spec, kind) for spec in recipe.inputs.values()):
            try:
                yield f"{module} {import_module(module).__version__}"
            except ImportError:  # a file says so when it is read
                yield f"{module} -"


_K = TypeVar("_K")


def _in_parallel(work: Callable[[_K], _T], items: Iterable[_K]) -> dict[_K, _T]:
    """Return item -> what ``work`` gives; the decoders leave Python's lock."""
    items = list(items)
    if not items:
        return {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))


class _Rows:
    def __init__(self, folder: Folder, rows: list[Row]) -> None:
        self._folder, self._rows = folder, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._folder.load(self._rows[index])
