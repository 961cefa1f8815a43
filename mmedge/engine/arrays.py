"""Inputs of a network out of files of arrays: ``.npz`` by name, ``.npy`` named after its input."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from mmedge.errors import ConfigError
from mmedge.types import AnyArray, Tensors

_FIX = "save NAME.npy for each input, or .npz files with an array per input: one sample, or several along axis 0"
UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, OverflowError, MemoryError, NotImplementedError),
    *(RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error),
)  # what NumPy and its archives raise of files that are damaged


def array_feeds(folder: Path, inputs: Tensors, limit: int | None = None) -> Iterator[dict[str, AnyArray]]:
    """Yield the samples of a folder (or one file), each input an array of the network's shape [...] and dtype.

    An ``.npz`` file is one sample or several along axis 0, its arrays named as the inputs are (``in.NAME`` as in golden
    files will do). ``.npy`` files are named after their inputs.

    Args:
        folder: Where they lie.
        inputs: The network's inputs.
        limit: So many samples at most.

    Raises:
        ConfigError: If there are none, an input has none, or an array does not fit; names file, shape and range.
    """
    count = 0
    for where, arrays in _files(folder, inputs):
        samples = {name: _split(arrays[name], own, f"{where}: {name}") for name, own in inputs.items()}
        sizes = {name: len(found) for name, found in samples.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"the inputs have different numbers of samples: {sizes}", where=where, fix=_FIX)
        for index in range(next(iter(sizes.values()), 0)):
            if limit is not None and count >= limit:
                return
            yield {name: found[index, ...] for name, found in samples.items()}
            count += 1
    if not count:
        raise ConfigError("no samples were found", where=str(folder), fix=_FIX)


def has_arrays(folder: Path) -> bool:
    """Tell whether a path is a file of arrays, or a folder with some."""
    return any(path.suffix in (".npz", ".npy") for path in ([folder] if folder.is_file() else sorted(folder.glob("*"))))


def array_bytes(folder: Path) -> int:
    """Return how many bytes the arrays of a path take in memory, as their files say; what cannot be read takes none."""
    total = 0
    for path in [folder] if folder.is_file() else folder.glob("*"):
        try:
            if path.suffix == ".npy":
                total += path.stat().st_size
            elif path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    total += sum(member.file_size for member in archive.infolist())
        except UNREADABLE:  # whoever reads the arrays says what is wrong
            continue
    return total


def sample_bytes(folder: Path) -> int:
    """Return how many bytes the largest sample of a path takes, if all of its arrays have samples along axis 0."""
    largest = 0
    for path in [folder] if folder.is_file() else folder.glob("*"):
        try:
            if path.suffix == ".npy":
                with path.open("rb") as file:
                    largest = max(largest, _first(file))
            elif path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    sizes = []
                    for name in archive.namelist():
                        with archive.open(name) as member:
                            sizes.append(_first(member))
                largest = max(largest, sum(sizes))
        except UNREADABLE:  # whoever reads the arrays says what is wrong
            continue
    return largest


def _first(file: IO[bytes]) -> int:
    """Return the bytes of the first row of an array file, by its header."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return math.prod(shape[1:]) * int(dtype.itemsize)


def _files(folder: Path, inputs: Tensors) -> Iterator[tuple[str, dict[str, AnyArray]]]:
    paths = [folder] if folder.is_file() else sorted(folder.glob("*"))
    for path in (p for p in paths if p.suffix == ".npz"):
        found = _load(path)
        missing = [name for name in inputs if name not in found and f"in.{name}" not in found]
        if missing:
            fix = f"it has {sorted(found)}; {_FIX}"
            raise ConfigError(f"there is not an array of input '{missing[0]}'", where=str(path), fix=fix)
        yield str(path), {name: found[name] if name in found else found[f"in.{name}"] for name in inputs}
    single = {p.stem: p for p in paths if p.suffix == ".npy"}
    if not single:
        return
    if len(inputs) == 1 and set(single).isdisjoint(inputs):  # of one input, whatever they are called
        (name,) = inputs
        for path in single.values():
            yield str(path), {name: _load(path)[""]}
        return
    missing = [name for name in inputs if name not in single]
    if missing:
        raise ConfigError(f"there is no file {missing[0]}.npy", where=str(folder), fix=_FIX)
    yield str(folder), {name: _load(single[name])[""] for name in inputs}


def _load(path: Path) -> dict[str, AnyArray]:
    try:
        # What lies in a file of its own stays there: only the samples that are taken are read.
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            if path.suffix == ".npy":
                raise ValueError("it is a .npz archive")
            arrays = {name: loaded[name] for name in loaded.files}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise ValueError(f"its member '{name}' is not an array")
            return arrays
    except UNREADABLE as error:
        fix = "save it with numpy.save or numpy.savez, without objects"
        raise ConfigError(f"the arrays cannot be read: {error}", where=str(path), fix=fix) from error


def _split(array: AnyArray, own: AnyArray, where: str) -> AnyArray:
    """Return an array as [samples, *own.shape], a view: itself, along axis 0, or along the network's batch axis."""
    if array.dtype != own.dtype and not (own.dtype == np.object_ and array.dtype.kind == "U"):
        raise ConfigError(
            f"the array is {array.dtype}{_range(array)}, the network takes {own.dtype}",
            where=where,
            fix="save what the network takes, preprocessed as it wants it",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError("the array has values that are not finite", where=where, fix="remove these samples")
    if array.shape == own.shape:
        return array[np.newaxis]
    if array.ndim == own.ndim + 1 and array.shape[1:] == own.shape:
        return array
    if array.ndim == own.ndim and own.ndim and own.shape[0] == 1 and array.shape[1:] == own.shape[1:]:
        return array[:, np.newaxis]
    raise ConfigError(
        f"the array is {list(array.shape)}{_range(array)}, the network takes {list(own.shape)}", where=where, fix=_FIX
    )


def _range(array: AnyArray) -> str:
    if array.dtype.kind not in "fiu" or not array.size:
        return ""
    return f" in {array.min():.4g}..{array.max():.4g}"
