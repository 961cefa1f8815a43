"""Boxes of a picture: read from a cell of the index or a file, and mapped to where the network sees them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle.manifest import ImageInput
from mmedge.preprocess.fit import Axis, Seen, frame_fit, tensor_fit
from mmedge.types import PLAIN, FloatArray

from .problems import UnusableFileError

_FORM = "'x y w h class; ...', a JSON list of [x, y, w, h, class], or a .txt or .json file of the same"
_MAX_BYTES = 1_000_000  # of a file of boxes


def read_boxes(cell: str, labels: Sequence[str], folder: Path) -> FloatArray:
    """Return the boxes that a cell names.

    Args:
        cell: ``x y w h class`` in pixels of the picture file as it is shown, from its left top; several are parted by
            ``;``. Or JSON: a list of such lists, or of objects with these keys. Or a ``.txt`` (one a line) or ``.json``
            file. ``[]`` says that there is none.
        labels: Names of the classes.
        folder: Files are relative to it.

    Returns:
        float32 [n, 5]: class number, x1, y1, x2, y2 in pixels of the file.

    Raises:
        UnusableFileError: If it cannot be read, names an unknown class, or a box has no size.
    """
    text = cell.strip()
    if (path := box_file(cell, folder)) is not None:
        text = _read(path, text).strip() or "[]"
    if text.startswith(("[", "{")):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnusableFileError(f"the boxes are not JSON: {error}") from error
    else:
        rows = [line.split(maxsplit=4) for line in text.replace("\n", ";").split(";") if line.strip()]
    if not isinstance(rows, list):
        raise UnusableFileError(f"the boxes are not a list; write {_FORM}")
    return np.array([_box(row, labels) for row in rows], np.float32).reshape(-1, 5)


def check_boxes(boxes: FloatArray, shape: tuple[int, int]) -> None:
    """See that boxes are in their picture, be it in part, and in its pixels.

    They are float32 [n, 5]: class, x1, y1, x2, y2.

    Args:
        boxes: In pixels of the file.
        shape: Rows and columns of the file's picture as it is shown.

    Raises:
        UnusableFileError: Names the first box that is not.
    """
    sizes = boxes[:, 3:5] - boxes[:, 1:3]
    if len(boxes) and (boxes[:, 1:] <= 2).all() and (sizes <= 1).all():
        raise UnusableFileError("all boxes are smaller than a pixel: write pixels, not shares of the picture")
    inside = np.minimum(boxes[:, 3:5], shape[::-1]) - np.maximum(boxes[:, 1:3], 0)
    for number in np.flatnonzero((inside <= 0).any(axis=1))[:1]:
        x, y, right, bottom = boxes[number, 1:].tolist()
        raise UnusableFileError(
            f"the box '{x:g} {y:g} {right - x:g} {bottom - y:g}' lies outside the picture of {shape[1]}x{shape[0]} "
            "pixels: x and y are its left top corner"
        )


def _read(path: Path, shown: str) -> str:
    name = Path(shown)
    if name.is_absolute() or ".." in name.parts:
        raise UnusableFileError(f"the file of boxes {shown!r} is not in the folder of the data; move it there")
    try:
        if path.exists() and not path.is_file():
            raise UnusableFileError(f"the boxes {shown!r} are no regular file")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise UnusableFileError(f"the file of boxes {shown!r} is larger than {_MAX_BYTES} bytes")
        return raw.decode()
    except (OSError, ValueError) as error:  # a name with NUL, bytes that are not UTF-8
        raise UnusableFileError(f"cannot read the boxes {shown!r}: {error}") from error


def box_file(cell: str, folder: Path) -> Path | None:
    """Return the file that a cell names; None of a cell that holds the boxes itself."""
    text = cell.strip()
    return folder / text if text.lower().endswith((".json", ".txt")) else None


def _box(row: Any, labels: Sequence[str]) -> list[float]:
    if isinstance(row, dict):
        row = [row.get(key) for key in ("x", "y", "w", "h", "class")]
    if not isinstance(row, list) or len(row) != 5:
        raise UnusableFileError(f"'{row}' is not a box; write {_FORM}")
    try:
        x, y, w, h = (float(value) for value in row[:4])
    except (TypeError, ValueError, OverflowError):
        x = y = w = h = math.nan
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
        raise UnusableFileError(f"'{row}' is not a box: x, y, w and h are numbers, w and h above 0")
    if str(row[4]) not in labels:
        raise UnusableFileError(f"unknown class '{row[4]}' of a box, one of {', '.join(labels)}")
    return [float(list(labels).index(str(row[4]))), x, y, x + w, y + h]


def in_frame(boxes: FloatArray, spec: ImageInput, shape: tuple[int, int]) -> FloatArray:
    """Return boxes of a picture file as shares of the raw frame that it is fitted into.

    Both are float32 [n, 5]: class, x1, y1, x2, y2; in pixels of the file, and in 0..1 of the frame.

    Args:
        boxes: In pixels of the file.
        spec: The seat.
        shape: Rows and columns of the file's picture as it is shown.
    """
    fit = frame_fit(spec, Seen(*shape, PLAIN))
    out: FloatArray = boxes.copy()
    for axis, places in ((0, out[:, 2::2]), (1, out[:, 1::2])):
        places[...] = _place(fit[axis], places / shape[axis]) / spec.frame[axis]  # type: ignore[arg-type]
    return out


def in_network(boxes: FloatArray, spec: ImageInput) -> FloatArray:
    """Return boxes of a raw frame in pixels of the network's input, cut to it; those that are outside are gone.

    Both are float32 [n, 5]: class, x1, y1, x2, y2; in 0..1 of the frame, and in pixels of the network's input.

    Example:
        >>> spec = ImageInput(size=(8, 8), color="gray", mean=(0.0,), std=(1.0,), frame=(16, 32))
        >>> in_network(np.array([[1, 0, 0, 0.5, 1]], np.float32), spec).tolist()
        [[1.0, 0.0, 0.0, 4.0, 8.0]]
    """
    fit = tensor_fit(spec, Seen(*spec.frame, PLAIN))
    out = boxes.copy()
    for axis, places in ((0, out[:, 2::2]), (1, out[:, 1::2])):
        places[...] = np.clip(_place(fit[axis], places), 0, spec.size[axis])  # type: ignore[arg-type]
    solid = (out[:, 3] - out[:, 1] > 0.5) & (out[:, 4] - out[:, 2] > 0.5)
    found: FloatArray = out[solid]
    return found


def _place(axis: Axis, share: FloatArray) -> FloatArray:
    """Return where shares of a picture are in its output: the inverse of ``Axis.to_picture``, which is affine."""
    begin, end = axis.to_picture(np.array([0.0, 1.0])).tolist()
    place: FloatArray = ((share - begin) / (end - begin)).astype(np.float32)
    return place
