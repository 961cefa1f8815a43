"""Samples from plain files: pictures, sounds and arrays, as people keep them, in place of recordings.

A folder of pictures is one sample a picture; files of one name belong together: ``a.png`` and ``a.wav`` for a bundle
that sees and hears, ``a.left.png`` and ``a.right.png`` for two image inputs. ``.npy`` and ``.npz`` hold raw arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.engine.arrays import UNREADABLE
from mmedge.errors import ConfigError
from mmedge.types import AnyArray

from .datasets.files import fit_array, load_array, read_file, told
from .datasets.problems import UnusableFileError

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
SOUNDS = frozenset((".wav", ".flac"))
ARRAYS = frozenset((".npy", ".npz"))
_FIX = "see docs/recipe.md: Files in place of recordings"


class FileSamples(Sequence[dict[str, AnyArray]]):
    """Samples in plain files, read one at a time when they are asked for.

    Each is input name -> raw array: uint8 [1, H, W, C] of the seat's ``frame``, float32 [1, samples], a tensor as its
    seat has it; of a text there is none.

    Args:
        inputs: The seats.
        path: A picture, an array file, or a folder of such and of sounds.

    Raises:
        ConfigError: If a file fits no input, or an input has no file.

    Example:
        >>> FileSamples(recipe.inputs, Path("pictures"))[0]["image"].shape  # doctest: +SKIP
        (1, 480, 640, 3)
    """

    def __init__(self, inputs: Mapping[str, Input], path: Path) -> None:
        self._inputs = {name: spec for name, spec in inputs.items() if not isinstance(spec, TextInput)}
        self._path = path
        self.files = (path,) if path.is_file() else tuple(sorted(file for file in path.iterdir() if is_plain(file)))
        self._rows: list[dict[str, tuple[Path, str | None, int | None]]] = []
        groups: dict[str, dict[str, tuple[Path, str | None, int | None]]] = {}
        for file in self.files:
            if file.suffix.lower() in ARRAYS:
                self._rows += self._array_rows(file)
                continue
            stem, seats = self._seats_of(file)
            for seat in seats:
                groups.setdefault(stem, {})[seat] = (file, None, None)
        self._rows += [group for _, group in sorted(groups.items())]
        for row in self._rows:
            if missing := sorted(self._inputs.keys() - row.keys()):
                file = next(iter(row.values()))[0]
                raise ConfigError(
                    f"'{file.name}' has nothing beside it for input '{missing[0]}'",
                    where=str(path),
                    fix=f"add '{file.stem}.{missing[0]}.EXT'; {_FIX}",
                )
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

    def _seats_of(self, file: Path) -> tuple[str, list[str]]:
        """Return the name that a file shares with others, and the inputs it feeds."""
        kind = ImageInput if file.suffix.lower() in PICTURES else AudioInput
        seats = [name for name, spec in self._inputs.items() if isinstance(spec, kind)]
        stem, dot, seat = file.stem.rpartition(".")
        if dot and seat in seats:
            return stem, [seat]
        what = "sees" if kind is ImageInput else "hears"
        if not seats:
            raise ConfigError(f"no input {what}", where=str(file), fix=f"remove the file; {_FIX}")
        return file.stem, seats

    def _array_rows(self, file: Path) -> Iterator[dict[str, tuple[Path, str | None, int | None]]]:
        """Yield a row for each sample of an array file: its first axis, or the only one where it has that rank."""
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
        counts: dict[str, int | None] = {}
        for seat, key in names.items():
            array, rank = arrays[key or ""], len(raw_shape(self._inputs[seat])) - self._batched(seat)
            counts[seat] = None if array.ndim == rank else len(array)
        samples = {seat: 1 if count is None else count for seat, count in counts.items()}
        if len(set(samples.values())) != 1:
            raise ConfigError(
                f"it has {samples or list(arrays)} samples for the inputs {list(self._inputs)}",
                where=str(file),
                fix="give arrays with one name an input, as many samples each",
            )
        for row in range(next(iter(samples.values()))):
            yield {seat: (file, key, None if counts[seat] is None else row) for seat, key in names.items()}

    def _batched(self, seat: str) -> bool:
        """Tell whether a raw array begins with a 1 that files leave out."""
        return not isinstance(self._inputs[seat], TensorInput)

    def _read(self, name: str, file: Path, key: str | None, row: int | None) -> AnyArray:
        spec = self._inputs[name]
        if file.suffix.lower() not in ARRAYS:
            assert isinstance(spec, (ImageInput, AudioInput))
            with _faults(str(file), "remove the file, or save it as JPEG, PNG or WAV"):
                return read_file(file, spec, file.name)[None]
        array = _arrays(file)[key or ""]
        return fitted(array if row is None else array[row], spec, f"{file}: input '{name}'")


def fitted(array: AnyArray, spec: Input, where: str) -> AnyArray:
    """Return an array as a seat's raw one; ConfigError, with range and shape, where it is none.

    Args:
        array: A picture or sound as ``fit_array`` takes it, or with a leading 1; a tensor of the seat's shape [...] and
            dtype.
        spec: The seat.
        where: For the message.
    """
    if isinstance(spec, (ImageInput, AudioInput)):
        alone = array[0] if array.ndim == len(spec.raw_shape) and len(array) == 1 else array
        with _faults(where, _FIX):
            return fit_array(alone, spec, where.rpartition("/")[2])[None]
    assert isinstance(spec, TensorInput)
    wrong = ""
    if array.shape != tuple(spec.shape) or array.dtype != spec.dtype:
        wrong = "not what the input takes"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = "values that are not finite"
    if wrong:
        fix = f"give {spec.dtype} {list(spec.shape)}, finite; {_FIX}"
        raise ConfigError(f"{told(array)}: {wrong}", where=where, fix=fix)
    return np.array(array)


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
