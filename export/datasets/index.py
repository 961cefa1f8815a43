"""``index.csv`` of a folder: its columns, and its lines, each checked before any is used."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmedge.bundle.manifest import TextInput
from mmedge.errors import ConfigError

from ..recipe import Recipe, RecipeTask
from ..tasks import KINDS, valued_tasks
from .base import SPLITS, Split, class_labels, class_names
from .problems import Problems

_COLUMNS = ("split", "group", "label", "image", "audio", "text")
_AGES = ("image_age_ms", "audio_age_ms", "text_age_ms")  # may follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the index.

    Attributes:
        line: Its number.
        split: Where it belongs.
        group: Whose it is.
        label: The class that its inputs show, -1 where the index has no ``label`` of this kind.
        targets: Task -> number, for the tasks of ``valued_tasks`` that it knows.
        boxes: Detection -> its cell, of those that it knows.
        files: Input name -> file.
        texts: Input name -> text.
        age_ms: Input name -> age.
    """

    line: int
    split: Split
    group: str
    label: int
    targets: dict[str, float] = field(default_factory=dict)
    boxes: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    age_ms: dict[str, float] = field(default_factory=dict)


class Index:
    """Reads the index of a folder.

    ``split`` and ``group`` come first in every index. Each input has a column of its name; where it is the only one of
    its modality, of that of the modality. A task with ``column`` has that one; all others share ``label``.

    Args:
        recipe: Inputs and tasks.
        folder: Where ``index.csv`` lies.

    Attributes:
        path: The file.
        labels: The classes of ``label``; none where it holds numbers or no task reads it.
        detections: The detections that have a column.

    Raises:
        ConfigError: If tasks cannot share ``label``.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder, self.path = recipe, folder, folder / "index.csv"
        valued = valued_tasks(recipe)
        self._own = {name: task for name in valued if (task := recipe.tasks[name]).column is not None}
        self._plain = tuple(name for name in valued if name not in self._own)
        self.detections = {
            name: task.column for name, task in recipe.tasks.items() if task.kind == "detection" and task.column
        }
        compared = any(task.kind == "verification" and task.column is None for task in recipe.tasks.values())
        shown = bool(class_names(recipe)) or not (self._plain or self._own or self.detections)
        self.labels = class_labels(recipe) if shown or (compared and not self._plain) else ()
        if self._plain and (class_names(recipe) or len(self._plain) > 1):
            raise ConfigError(
                "the label of a folder's sample is a class or a number, not both"
                if class_names(recipe)
                else f"the label of a folder's sample is one number, not those of {' and '.join(self._plain)}",
                where=f"tasks.{self._plain[0]}",
                fix='give the task a column of its own in index.csv: column = "NAME"',
            )
        self._problems = Problems(self.path)

    def read(self) -> tuple[Row, ...]:
        """Return the rows.

        Raises:
            ConfigError: If the file cannot be read, or lines cannot be used; names them all.
        """
        rows: list[Row] = []
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file)
                header = next(reader, [])
                seats = self._seats(header)
                for cells in reader:
                    try:
                        rows.append(self._row(header, cells, reader.line_num, seats))
                    except ValueError as error:
                        self._problems.add(reader.line_num, str(error))
        except OSError as error:
            raise ConfigError(
                f"cannot read the index: {error.strerror}", where=str(self.path), fix="check data.folder"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"not a CSV file in UTF-8: {error}", where=str(self.path), fix="save it as UTF-8"
            ) from error
        self._problems.raise_any()
        for split in SPLITS:
            if not any(row.split == split for row in rows):
                raise ConfigError(
                    f"there are no samples of split '{split}'", where=str(self.path), fix="add samples of this split"
                )
        return tuple(rows)

    def _seats(self, header: Sequence[str]) -> dict[str, str]:
        """Return input -> column, or raise ConfigError that names what is wrong with the header."""
        modalities = {name: str(spec.__struct_config__.tag) for name, spec in self.recipe.inputs.items()}
        # A seat that shares another one's source is filled from the same column, unless it has its own.
        sharing = {name: getattr(spec, "shares", None) or name for name, spec in self.recipe.inputs.items()}
        kinds = [modalities[name] for name in dict.fromkeys(sharing.values())]
        seats: dict[str, str] = {}
        for name, kind in modalities.items():
            column = name if name in header else sharing[name]
            seats[name] = kind if column not in header and kinds.count(kind) == 1 else column
        targets = [str(task.column) for task in self._own.values()] + list(self.detections.values())
        if self.labels or self._plain:
            targets.append("label")
        needed = ["split", "group", *targets, *seats.values()]
        ages = [*_AGES, *(f"{column}_age_ms" for column in seats.values() if column not in _COLUMNS)]
        own = [column for column in needed if column not in _COLUMNS]
        wrong = [column for column in header if column not in (*_COLUMNS, *own, *ages)]
        if wrong or len(set(header)) != len(header) or not set(needed) <= set(header):
            expected = f"{','.join(dict.fromkeys((*_COLUMNS, *own)))}, and after them any of {','.join(ages)}"
            missing = [column for column in dict.fromkeys(needed) if column not in header]
            told = f" (there is no {', '.join(missing)})" if missing else ""
            raise ConfigError(
                f"expected the columns {expected}, got {','.join(header)}{told}",
                where=f"{self.path}:1",
                fix="correct this line; each input has a column of its name or of its modality",
            )
        return seats

    def _row(self, header: list[str], cells: list[str], line: int, seats: Mapping[str, str]) -> Row:
        """Return a row, or raise ValueError that says what is wrong with it."""
        if len(cells) != len(header):
            raise ValueError(f"expected {len(header)} cells, got {len(cells)}")
        cell = dict(zip(header, cells, strict=True))
        cell |= {column: cell[column].strip() for column in ("split", "group", "label") if column in cell}
        if cell["split"] not in SPLITS:
            raise ValueError(f"unknown split '{cell['split']}', one of {', '.join(SPLITS)}")
        if not cell["group"]:
            raise ValueError("the group is empty; name the speaker, site or session")
        label = -1
        if self.labels and cell["label"]:
            if cell["label"] not in self.labels:
                raise ValueError(f"unknown label '{cell['label']}', one of {', '.join(self.labels)}")
            label = self.labels.index(cell["label"])
        targets = {name: _number(cell["label"], "label") for name in self._plain if cell["label"]}
        for name, task in self._own.items():
            if text := cell[str(task.column)].strip():
                targets[name] = _target(task, text)
        there = {name: cell[column] for name, column in seats.items() if cell[column].strip()}
        texts = {n: there.pop(n) for n, s in self.recipe.inputs.items() if isinstance(s, TextInput) and n in there}
        files = {name: self.folder / file for name, file in there.items()}
        if not files and not texts:
            raise ValueError("the sample has nothing for any input of the recipe")
        return Row(
            line=line,
            split=cell["split"],
            group=cell["group"],
            label=label,
            targets=targets,
            boxes={name: cell[column] for name, column in self.detections.items() if cell[column].strip()},
            files=files,
            texts=texts,
            age_ms={name: _age(cell.get(f"{column}_age_ms") or "0") for name, column in seats.items()},
        )


def _target(task: RecipeTask, text: str) -> float:
    if KINDS[task.kind].valued:
        return _number(text, str(task.column))
    if text not in task.labels:
        raise ValueError(f"unknown {task.column} '{text}', one of {', '.join(task.labels)}")
    return float(task.labels.index(text))


def _number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the {column} '{text}' is not a number")
    return value


def _age(text: str) -> float:
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age < math.inf:
        raise ValueError(f"'{text}' is not an age in ms")
    return age
