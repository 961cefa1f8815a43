"""The arrays of a stage that cannot be copied byte by byte: numpy converts them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmedge.fusion.tensors import age_limit
from mmedge.types import AnyArray

Pair = tuple[AnyArray, AnyArray]


def is_plain(array: AnyArray) -> bool:
    """Tell whether C++ can copy and zero an array, [...] of any dtype: numbers that lie next to each other."""
    return array.dtype.kind in "biuf" and array.dtype.isnative and array.flags.c_contiguous


def same(pair: Pair) -> bool:
    """Tell whether the first array, [...] of any dtype, is copied into the second one byte by byte."""
    source, target = pair
    return is_plain(source) and is_plain(target) and source.dtype == target.dtype and source.size == target.size


class Odd:
    """Does with odd arrays what native/graph/tensors.hpp does with the others. Arrays are [...] of any dtype.

    Args:
        links: Outputs of other stages, and the tensors that they are copied to.
        rows: Tensors [1, seats] of presence (True) or age.
        states: Outputs, and the tensors that they are fed back to.
        copies: The engine's outputs, and where others read them.
        shown: What others read.

    Attributes:
        linked: Whether an output of another stage is converted.
        needed: Whether there are such arrays.
    """

    def __init__(
        self,
        links: Sequence[Pair],
        rows: Sequence[tuple[AnyArray, bool]],
        states: Sequence[Pair],
        copies: Sequence[Pair],
        shown: Sequence[AnyArray],
    ) -> None:
        self._links, self._states, self._copies, self._shown = links, states, copies, shown
        self._rows = [(tensor[0], is_presence, age_limit(tensor.dtype)) for tensor, is_presence in rows]
        self.linked = bool(links)
        self.needed = any((links, rows, states, copies, shown))

    def feed(self, ages_ms: Sequence[float], bits: int) -> None:
        """Copy what other stages gave, and the presence or the age of each seat."""
        _copy(self._links)
        for row, is_presence, limit in self._rows:
            for index, age_ms in enumerate(ages_ms):
                there = bits >> index & 1
                row[index] = there if is_presence else min(age_ms, limit) if there else 0

    def carry(self) -> None:
        """Feed the states back."""
        _copy(self._states)

    def forget(self) -> None:
        """Zero the states."""
        for _, state in self._states:
            state.fill(0)

    def publish(self) -> None:
        """Copy the engine's outputs to where others read them."""
        _copy(self._copies)

    def clear(self) -> None:
        """Zero what others read."""
        for array in self._shown:
            array.fill(0)


def _copy(pairs: Sequence[Pair]) -> None:
    for source, target in pairs:
        np.copyto(target, source, casting="unsafe")
