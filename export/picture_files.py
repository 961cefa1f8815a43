"""Samples from plain files: pictures, sounds and arrays, as people keep them, in place of recordings.

A folder of pictures is one sample a picture; files of one name belong together: ``a.png`` and ``a.wav`` for a bundle
that sees and hears, ``a.left.png`` and ``a.right.png`` for two image inputs. ``.npy`` and ``.npz`` hold raw arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TensorInput, TextInput
from mmedge.errors import ConfigError, SourceError
from mmedge.extras import require
from mmedge.preprocess import ImagePreprocessor
from mmedge.types import AnyArray, ByteArray, FloatArray, Frame

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
SOUNDS = frozenset((".wav", ".flac"))
ARRAYS = frozenset((".npy", ".npz"))
MAX_SIDE = 16_384  # pixels, as of any source
# A small file can be a picture of any size; OpenCV reads this when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_SIDE**2))
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
        if len(set(counts.values())) != 1:
            raise ConfigError(
                f"it has {counts or list(arrays)} samples for the inputs {list(self._inputs)}",
                where=str(file),
                fix="give arrays with one name an input, as many samples each",
            )
        count = next(iter(counts.values()))
        for row in (None,) if count is None else range(count):
            yield {seat: (file, key, row) for seat, key in names.items()}

    def _batched(self, seat: str) -> bool:
        """Tell whether a raw array begins with a 1 that files leave out."""
        return not isinstance(self._inputs[seat], TensorInput)

    def _read(self, name: str, file: Path, key: str | None, row: int | None) -> AnyArray:
        spec = self._inputs[name]
        if file.suffix.lower() not in ARRAYS:
            return _picture(file, spec)[None] if isinstance(spec, ImageInput) else _sound(file, spec)[None]
        array = _arrays(file)[key or ""]
        return fitted(array if row is None else array[row], spec, f"{file}: input '{name}'")


def fitted(array: AnyArray, spec: Input, where: str) -> AnyArray:
    """Return an array as a seat's raw one; ConfigError, with range and shape, where it is none.

    Args:
        array: A picture uint8 [h, w], [h, w, 3] (RGB) or [1, h, w, c] of any size; sound float32 [n] or [1, n], -1..1;
            a tensor of the seat's shape [...] and dtype.
        spec: The seat.
        where: For the message.
    """

    def refuse(what: str, fix: str) -> ConfigError:
        told = f"{array.dtype} {list(array.shape)}"
        if array.size and array.dtype.kind in "iuf":
            told += f" of {array.min():.4g}..{array.max():.4g}"
        return ConfigError(f"{told}: {what}", where=where, fix=fix)

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise refuse("values that are not finite", "clean the data")
    if isinstance(spec, ImageInput):
        picture = array[0] if array.ndim == 4 and len(array) == 1 else array
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or (picture.ndim == 3 and picture.shape[2] not in (1, 3))
        ):
            raise refuse("no raw picture", "give uint8 (h, w) or (h, w, 3) in RGB, 0..255, not what the network takes")
        return _framed(picture[..., 0] if picture.shape[2:] == (1,) else picture, spec, where, "rgb24")[None]
    if isinstance(spec, AudioInput):
        pcm = array.reshape(-1)
        if array.dtype.kind != "f" or array.size != array.shape[-1] or np.abs(pcm).max(initial=0) > 8:
            raise refuse("no raw sound", f"give float32 (samples,), -1..1, at {spec.sample_rate_hz} Hz")
        return _window(pcm.astype(np.float32), spec)[None]
    assert isinstance(spec, TensorInput)
    if array.shape != tuple(spec.shape) or array.dtype != spec.dtype:
        raise refuse("not what the input takes", f"give {spec.dtype} {list(spec.shape)}")
    return np.array(array)


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
        return _arrays_of(file, info.st_ino, info.st_mtime_ns, info.st_size)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(
            f"not an array file: {error}", where=str(file), fix="write it by numpy.save or savez"
        ) from error


@lru_cache(maxsize=4)
def _arrays_of(file: Path, *_: int) -> Mapping[str, AnyArray]:
    """Read a file once for as long as it is the same one."""
    if file.suffix.lower() == ".npy":
        return {"": np.load(file, mmap_mode="r", allow_pickle=False)}
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _picture(file: Path, spec: ImageInput) -> ByteArray:
    cv2 = require("cv2", "reading pictures")
    try:
        picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE if spec.color == "gray" else cv2.IMREAD_COLOR)
    except cv2.error as error:  # of sizes that it does not take
        raise ConfigError(f"cannot read the picture: {error.err}", where=str(file), fix="remove the file") from error
    if picture is None or max(picture.shape) > MAX_SIDE:
        what = "cannot read the picture" if picture is None else f"it has a side of more than {MAX_SIDE} pixels"
        raise ConfigError(what, where=str(file), fix="remove the file, or save it as JPEG or PNG")
    return _framed(picture, spec, str(file), "bgr24")


def _framed(picture: ByteArray, spec: ImageInput, stream: str, kind: str) -> ByteArray:
    """Return a picture [h, w] or [h, w, 3] fitted into the seat's frame, as a TensorRT variant is given it."""
    frame = Frame(
        stream=stream,
        seq=0,
        capture_ns=0,
        arrive_ns=0,
        data=np.ascontiguousarray(picture),
        format="gray8" if picture.ndim == 2 else kind,  # type: ignore[arg-type]
        width=picture.shape[1],
        height=picture.shape[0],
    )
    out = np.empty(spec.raw_shape, np.uint8)
    ImagePreprocessor(spec).raw(frame, out)
    framed: ByteArray = out[0]
    return framed


def _sound(file: Path, spec: Input) -> FloatArray:
    from .datasets.speech import read_audio

    assert isinstance(spec, AudioInput)
    try:
        return _window(read_audio(file, spec.sample_rate_hz), spec)
    except SourceError as error:
        raise ConfigError(error.message, where=error.where, fix=error.fix) from error


def _window(pcm: FloatArray, spec: AudioInput) -> FloatArray:
    """Return the last window of a sound, silence before it where it is shorter."""
    last = pcm[-spec.samples :]
    window: FloatArray = np.pad(last, (spec.samples - len(last), 0)).astype(np.float32)
    return window
