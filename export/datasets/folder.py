"""A folder with ``index.csv``: ``split,group,label,image,audio,text``, one sample a line, and how old its data are."""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, TextInput
from mmedge.errors import ConfigError
from mmedge.extras import require
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import AnyArray, ByteArray, FloatArray, Frame

from ..recipe import Recipe
from ..tasks import valued_tasks
from ..tokenizer import load_tokenizer
from .base import SPLITS, Dataset, Sample, Samples, Split, class_labels, class_names
from .speech import read_audio

MAX_SIDE = 16_384  # pixels, as of any source
# A small file can be a picture of any size; OpenCV reads this when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_SIDE**2))
_COLUMNS = ("split", "group", "label", "image", "audio", "text")
_AGES = ("image_age_ms", "audio_age_ms", "text_age_ms")  # may follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the index: its class, or the number that it is of; what is there, by input name."""

    line: int
    split: Split
    group: str
    label: int
    value: float | None
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    age_ms: dict[str, float] = field(default_factory=dict)


class Folder(Dataset):
    """Your own data. An empty cell means that the input is absent; file names are relative to the folder.

    The column ``label`` holds a class, or the number that a regression should answer. The column ``text``
    holds the text itself; ``image_age_ms``, ``audio_age_ms`` and ``text_age_ms`` may follow.

    Args:
        recipe: With at most one image, one audio and one text input.
        folder: Where ``index.csv`` lies.
        **options: There are none yet.

    Raises:
        ConfigError: Names the line of ``index.csv`` that cannot be used.
    """

    def __init__(self, recipe: Recipe, folder: Path, **options: object) -> None:
        super().__init__(recipe)
        if options:
            name = next(iter(options))
            raise ConfigError(
                f"unknown option '{name}' of a folder data set", where=f"data.options.{name}", fix="remove it"
            )
        self.folder = folder
        self.valued = valued_tasks(recipe)
        self.labels = class_labels(recipe) if not self.valued or class_names(recipe) else ()
        if self.valued and self.labels:
            raise ConfigError(
                "the label of a folder's sample is a class or a number, not both",
                where=f"tasks.{self.valued[0]}",
                fix="write a data set class: its samples have 'labels' and 'targets'",
            )
        self.seats: dict[str, str] = {}
        for name, spec in recipe.inputs.items():
            kind = spec.__struct_config__.tag
            if kind not in _COLUMNS or kind in self.seats:
                raise ConfigError(
                    "a folder fills one image, one audio and one text input",
                    where=f"inputs.{name}",
                    fix="remove the input",
                )
            self.seats[kind] = name
        self._tokenizers = {n: load_tokenizer(recipe, n) for n, s in recipe.inputs.items() if isinstance(s, TextInput)}
        self.rows = tuple(self._read())
        for split in SPLITS:
            if not any(row.split == split for row in self.rows):
                raise ConfigError(
                    f"there are no samples of split '{split}'", where=str(self._index), fix="add samples of this split"
                )

    @property
    def _index(self) -> Path:
        return self.folder / "index.csv"

    def prepare(self) -> None:
        """Check that every file is there; they are read when needed."""
        for row in self.rows:
            for path in row.files.values():
                if not path.is_file():
                    raise self._error(f"there is no file '{self._shown(path)}'", row.line)

    def split(self, name: Split, *, epoch: int = 0) -> Samples:
        """Return the samples of a split, in the order of the index."""
        return _Rows(self, [row for row in self.rows if row.split == name])

    def groups(self, name: Split) -> frozenset[str]:
        """Return the groups of a split."""
        return frozenset(row.group for row in self.rows if row.split == name)

    def digest(self, name: Split) -> bytes:
        """Return the hashes of the index and of all files of a split."""
        files = [self._index, *(path for row in self.rows if row.split == name for path in row.files.values())]
        return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files if path.is_file())

    def load(self, row: Row) -> Sample:
        """Return one sample: images fitted into ``frame``, sound cut to its last window or padded in front, tokens."""
        inputs: dict[str, AnyArray] = {}
        for name, path in row.files.items():
            spec = self.recipe.inputs[name]
            assert isinstance(spec, (ImageInput, AudioInput))
            inputs[name] = self._image(path, spec, row) if isinstance(spec, ImageInput) else _sound(path, spec)
        for name, text in row.texts.items():
            ids = np.empty(self.recipe.inputs[name].tensor_shape, np.int64)  # type: ignore[union-attr]
            self._tokenizers[name].ids(text, ids)
            inputs[name] = ids[0]
        targets = {} if row.value is None else dict.fromkeys(self.valued, row.value)
        return Sample(inputs=inputs, labels=dict.fromkeys(inputs, row.label), age_ms=row.age_ms, targets=targets)

    def _image(self, path: Path, spec: ImageInput, row: Row) -> ByteArray:
        cv2 = require("cv2", "reading images")
        try:
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if spec.color == "gray" else cv2.IMREAD_COLOR)
        except cv2.error as error:  # of sizes that it does not take
            raise self._error(f"cannot read the image '{self._shown(path)}': {error.err}", row.line) from error
        if picture is None:
            raise self._error(f"cannot read the image '{self._shown(path)}'", row.line)
        if max(picture.shape) > MAX_SIDE:
            raise self._error(f"the image '{self._shown(path)}' has a side of more than {MAX_SIDE} pixels", row.line)
        # As a TensorRT variant is given it: fitted from its own aspect. OpenCV has turned it as its EXIF says.
        height, width = picture.shape[:2]
        frame = Frame(
            stream=str(path),
            seq=0,
            capture_ns=0,
            arrive_ns=0,
            data=picture,
            format="gray8" if picture.ndim == 2 else "bgr24",
            width=width,
            height=height,
        )
        out = np.empty(spec.raw_shape, np.uint8)
        ImagePreprocessor(spec).raw(frame, out)
        result: ByteArray = out[0]
        return result

    def _read(self) -> Iterator[Row]:
        try:
            with self._index.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                header = next(reader, [])
                ages = header[len(_COLUMNS) :]
                if tuple(header[: len(_COLUMNS)]) != _COLUMNS or len({*ages} & {*_AGES}) != len(ages):
                    expected = f"{','.join(_COLUMNS)}, and after them any of {','.join(_AGES)}"
                    raise self._error(f"expected the columns {expected}, got {','.join(header)}", 1)
                for cells in reader:
                    yield self._row(header, cells, reader.line_num)
        except OSError as error:
            raise ConfigError(
                f"cannot read the index: {error.strerror}", where=str(self._index), fix="check data.folder"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"not a CSV file in UTF-8: {error}", where=str(self._index), fix="save it as UTF-8"
            ) from error

    def _row(self, header: list[str], cells: list[str], line: int) -> Row:
        if len(cells) != len(header):
            raise self._error(f"expected {len(header)} cells, got {len(cells)}", line)
        cell = dict(zip(header, cells, strict=True))
        if cell["split"] not in SPLITS:
            raise self._error(f"unknown split '{cell['split']}', one of {', '.join(SPLITS)}", line)
        if not cell["group"]:
            raise self._error("the group is empty; name the speaker, site or session", line)
        value = self._value(cell["label"], line) if self.valued else None
        if value is None and cell["label"] not in self.labels:
            raise self._error(f"unknown label '{cell['label']}', one of {', '.join(self.labels)}", line)
        there = {name: cell[kind] for kind, name in self.seats.items() if cell[kind].strip()}
        texts = {name: there.pop(name) for name in self._tokenizers if name in there}
        files = {name: self.folder / file for name, file in there.items()}
        if not files and not texts:
            raise self._error("the sample has nothing for any input of the recipe", line)
        label = self.labels.index(cell["label"]) if value is None else -1
        ages = {name: self._age(cell.get(f"{kind}_age_ms") or "0", line) for kind, name in self.seats.items()}
        split, group = cell["split"], cell["group"]
        return Row(line=line, split=split, group=group, label=label, value=value, files=files, texts=texts, age_ms=ages)

    def _value(self, cell: str, line: int) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._error(f"the label '{cell}' is not a number", line)
        return value

    def _age(self, cell: str, line: int) -> float:
        try:
            age = float(cell)
        except ValueError:
            age = math.nan
        if not 0 <= age < math.inf:
            raise self._error(f"'{cell}' is not an age in ms", line)
        return age

    def _shown(self, path: Path) -> Path:
        return path.relative_to(self.folder) if path.is_relative_to(self.folder) else path

    def _error(self, message: str, line: int) -> ConfigError:
        return ConfigError(message, where=f"{self._index}:{line}", fix="correct this line")


class _Rows:
    def __init__(self, folder: Folder, rows: list[Row]) -> None:
        self._folder, self._rows = folder, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._folder.load(self._rows[index])


def _sound(path: Path, spec: AudioInput) -> FloatArray:
    sound = read_audio(path, spec.sample_rate_hz)[-spec.samples :]
    return np.pad(sound, (spec.samples - len(sound), 0)).astype(np.float32)
