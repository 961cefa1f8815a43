"""Samples from plain files: pictures, sounds and arrays, as people keep them, in place of recordings.

A folder of pictures is one sample a picture; files of one name belong together: ``a.png`` and ``a.wav`` for a bundle
that sees and hears, ``a.left.png`` and ``a.right.png`` for two image inputs. ``.npy`` and ``.npz`` hold raw arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.engine.arrays import UNREADABLE
from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from .datasets.files import cast_array, fit_array, load_array, read_file, told
from .datasets.problems import UnusableFileError

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
SOUNDS = frozenset((".wav", ".flac"))
ARRAYS = frozenset((".npy", ".npz"))
_FIX = "see docs/recipe.md: Files in place of recordings"
_CHANNELS = 8  # of a sound: an array with so few columns has its samples in rows
_Place: TypeAlias = tuple[Path, str | None, int | None]  # file, name of the array, row


class FileSamples(Sequence[dict[str, AnyArray]]):
    """Samples in plain files, read one at a time when they are asked for.

    Each is input name -> raw array: uint8 [1, H, W, C] of the seat's ``frame``, float32 [1, samples], a tensor as its
    seat has it; of a text there is none.

    Args:
        inputs: The seats.
        path: A picture, an array file, or a folder of such and of sounds.

    Raises:
        ConfigError: If a file fits no input, or an input has no file.

    Attributes:
        files: What is read.
        stems: Of each sample, the name that its files share.

    Example:
        >>> FileSamples(recipe.inputs, Path("pictures"))[0]["image"].shape  # doctest: +SKIP
        (1, 480, 640, 3)
    """

    def __init__(self, inputs: Mapping[str, Input], path: Path) -> None:
        self._inputs = {name: spec for name, spec in inputs.items() if not isinstance(spec, TextInput)}
        self._path = path
        self.files = (path,) if path.is_file() else tuple(sorted(file for file in path.iterdir() if is_plain(file)))
        self._rows: list[dict[str, _Place]] = []
        self.stems: list[str] = []
        for stem, group in sorted(self._grouped().items()):
            if missing := sorted(self._inputs.keys() - group.keys()):
                file = min(places[0][0] for places in group.values())
                raise ConfigError(
                    f"'{file.name}' has nothing beside it for input '{missing[0]}'",
                    where=str(path),
                    fix=f"add '{stem}.{missing[0]}.EXT'; {_FIX}",
                )
            counts = {places[0][0].name: len(places) for places in group.values()}
            if len(set(counts.values())) != 1:
                each = ", ".join(f"'{name}' {count}" for name, count in counts.items())
                raise ConfigError(
                    f"files of one name have different numbers of samples: {each}",
                    where=str(path),
                    fix=f"give as many samples for each input; {_FIX}",
                )
            self._rows += [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)]
            self.stems += [stem] * next(iter(counts.values()))
        if not self._rows:
            raise ConfigError("no samples", where=str(path), fix=_FIX)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, AnyArray]:  # type: ignore[override]
        return {name: self._read(name, *place) for name, place in self._rows[index].items()}

    def __iter__(self) -> Iterator[dict[str, AnyArray]]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """Return what a sample is called in reports: its file, and its row in an array."""
        file, _, row = next(iter(self._rows[index].values()))
        return file.name if row is None else f"{file.name} {row}"

    def _grouped(self) -> dict[str, dict[str, list[_Place]]]:
        """Return the name that files share -> input -> its samples, of files in any order.

        ``NAME.INPUT.EXT`` comes before ``NAME.EXT``, which feeds all inputs of its kind.

        Raises:
            ConfigError: If two files would feed one input of one sample.
        """
        groups: dict[str, dict[str, list[_Place]]] = {}
        own: dict[tuple[str, str, bool], Path] = {}
        found = [(file, *self._places_of(file)) for file in self.files]
        # The named ones last: they are put in place of the others.
        for file, stem, named, places in sorted(found, key=lambda each: each[2]):
            taken = next((own[stem, seat, named] for seat in places if (stem, seat, named) in own), None)
            if taken is not None and places.keys() == self._inputs.keys():
                stem, taken = file.name, None  # a sample by itself: cup.jpg beside cup.png
            if taken is not None:
                raise ConfigError(
                    f"'{taken.name}' and '{file.name}' would both feed input '{next(iter(places))}' of one sample",
                    where=str(self._path),
                    fix=f"rename one of them; {_FIX}",
                )
            groups.setdefault(stem, {}).update(places)
            own.update(dict.fromkeys(((stem, seat, named) for seat in places), file))
        return groups

    def _places_of(self, file: Path) -> tuple[str, bool, dict[str, list[_Place]]]:
        """Return the name that a file shares with others, whether it names its input, and what it holds for which."""
        stem, dot, seat = file.stem.rpartition(".")
        if file.suffix.lower() in ARRAYS:
            held = self._array_places(file)
            named = file.suffix.lower() == ".npy" and seat in held and (bool(dot) or len(self._inputs) > 1)
            return stem if named else file.stem, named, held
        kind = ImageInput if file.suffix.lower() in PICTURES else AudioInput
        seats = [name for name, spec in self._inputs.items() if isinstance(spec, kind)]
        if not seats:
            what = "sees" if kind is ImageInput else "hears"
            raise ConfigError(f"no input {what}", where=str(file), fix=f"remove the file; {_FIX}")
        named = bool(dot) and seat in seats
        places: dict[str, list[_Place]] = {name: [(file, None, None)] for name in ([seat] if named else seats)}
        return stem if named else file.stem, named, places

    def _array_places(self, file: Path) -> dict[str, list[_Place]]:
        """Return input -> its samples in an array file: the first axis, or the array as a whole if it is one sample."""
        arrays = _arrays(file)
        if file.suffix.lower() == ".npy":
            seat = file.stem.rpartition(".")[2]
            seats = list(self._inputs)
            if seat not in seats and len(seats) != 1:
                raise ConfigError(
                    "which input is this array for?", where=str(file), fix=f"call it NAME.INPUT.npy, INPUT of {seats}"
                )
            names: dict[str, str | None] = {seat if seat in seats else seats[0]: None}
        else:
            names = {name: name for name in arrays if name in self._inputs}
        counts = {seat: self._samples_in(arrays[key or ""], seat, file) for seat, key in names.items()}
        samples = {seat: 1 if count is None else count for seat, count in counts.items()}
        if len(set(samples.values())) != 1:
            raise ConfigError(
                f"it has {samples or list(arrays)} samples for the inputs {list(self._inputs)}",
                where=str(file),
                fix="give arrays with one name an input, as many samples each",
            )
        rows = range(next(iter(samples.values())))
        return {
            seat: [(file, key, None if counts[seat] is None else row) for row in rows] for seat, key in names.items()
        }

    def _samples_in(self, array: AnyArray, seat: str, file: Path) -> int | None:
        """Return how many samples an array holds for an input; None where it is one, as a whole."""
        spec = self._inputs[seat]
        shape = raw_shape(spec)
        if isinstance(spec, TensorInput):
            alone = array.shape in (shape, shape[1:] if shape[:1] == (1,) else shape)
        else:
            alone = array.ndim == len(shape) - 1  # files leave the leading 1 out
        few = isinstance(spec, AudioInput) and array.ndim == 2 and array.shape[1] <= _CHANNELS < array.shape[0]
        if few or not (alone or array.ndim):
            wanted = "one row a sample, of mono sound" if few else f"samples of shape {list(shape)}"
            raise ConfigError(
                f"{told(array)}: input '{seat}' takes {wanted}",
                where=str(file),
                fix="average the channels: array.mean(axis=1)" if few else f"give what it takes; {_FIX}",
            )
        return None if alone else len(array)

    def _read(self, name: str, file: Path, key: str | None, row: int | None) -> AnyArray:
        spec = self._inputs[name]
        if file.suffix.lower() not in ARRAYS:
            assert isinstance(spec, (ImageInput, AudioInput))
            with _faults(str(file), "remove the file, or save it as JPEG, PNG or WAV"):
                return read_file(file, spec, file.name)[None]
        array = _arrays(file)[key or ""]
        where = f"{file}: input '{name}'"
        if row is not None:
            where = f"{file}, an array of {list(array.shape)}: row {row}, input '{name}'"
        return fitted(array if row is None else array[row], spec, file.name, where)


def fitted(array: AnyArray, spec: Input, shown: str, where: str) -> AnyArray:
    """Return an array as a seat's raw one; ConfigError, with range and shape, where it is none.

    Args:
        array: A picture or sound as ``fit_array`` takes it, or with a leading 1; a tensor of the seat's shape [...] and
            dtype.
        spec: The seat.
        shown: How messages call the array.
        where: For the message.
    """
    if isinstance(spec, (ImageInput, AudioInput)):
        alone = array[0] if array.ndim == len(spec.raw_shape) and len(array) == 1 else array
        with _faults(where, _FIX):
            return fit_array(alone, spec, shown)[None]
    assert isinstance(spec, TensorInput)
    shape = tuple(spec.shape)
    whole = array[None] if shape[:1] == (1,) and array.shape == shape[1:] else array
    fix = f"give {spec.dtype} {list(shape)}, finite; {_FIX}"
    if whole.shape != shape:
        raise ConfigError(f"{told(array)}: not what the input takes", where=where, fix=fix)
    with _faults(where, fix):
        return cast_array(whole, spec.dtype, shown)


@contextmanager
def _faults(where: str, fix: str) -> Iterator[None]:
    try:
        yield
    except UnusableFileError as error:
        raise ConfigError(str(error), where=where, fix=fix) from error


def raw_shape(spec: Input) -> tuple[int, ...]:
    """Return the shape of a seat's raw array."""
    if isinstance(spec, TensorInput):
        return tuple(spec.shape)
    return spec.tensor_shape if isinstance(spec, TextInput) else spec.raw_shape


def is_plain(file: Path) -> bool:
    """Tell whether a file is a picture, a sound or an array."""
    return file.suffix.lower() in PICTURES | SOUNDS | ARRAYS and file.is_file() and not file.name.startswith(".")


def holds_plain_files(path: Path) -> bool:
    """Tell whether a path is read by ``FileSamples``: pictures or arrays; sounds alone are a recording each."""
    if path.is_file():
        return path.suffix.lower() in PICTURES | ARRAYS
    return path.is_dir() and any(is_plain(file) and file.suffix.lower() in PICTURES | ARRAYS for file in path.iterdir())


def _arrays(file: Path) -> Mapping[str, AnyArray]:
    """Return the arrays of a file by name; of ``.npy`` the only one, which stays on disk."""
    try:
        info = file.stat()
    except OSError as error:
        raise ConfigError(f"cannot read the arrays: {error.strerror}", where=str(file), fix=_FIX) from error
    return _arrays_of(file, info.st_ino, info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=4)
def _arrays_of(file: Path, *_: int) -> Mapping[str, AnyArray]:
    """Read a file once for as long as it is the same one."""
    if file.suffix.lower() == ".npy":
        with _faults(str(file), "write it by numpy.save"):
            return {"": load_array(file, file.name)}
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (*UNREADABLE, AttributeError) as error:  # the last of a single array that is called .npz
        raise ConfigError(
            f"not an archive of arrays: {error}", where=str(file), fix="write it by numpy.savez"
        ) from error
