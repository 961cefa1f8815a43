"""Planes of a picture are packed into its slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge._native import core

SIDES = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5))  # rows, columns, what is left of a line


@given(sides=st.lists(SIDES, max_size=4), more=st.integers(0, 3))
def test_rows_lie_one_after_the_other(sides: list[tuple[int, int, int]], more: int) -> None:
    values = np.random.default_rng(0)
    planes = [values.integers(0, 255, (rows, columns + rest), np.uint8) for rows, columns, rest in sides]
    expected = [plane[:, :columns].ravel() for plane, (_, columns, _) in zip(planes, sides, strict=True)]
    packed = np.concatenate([np.empty(0, np.uint8), *expected])
    out = np.full(len(packed) + more, 7, np.uint8)
    told = [
        (memoryview(plane).cast("B") if plane.size else b"", columns + rest, rows, columns)
        for plane, (rows, columns, rest) in zip(planes, sides, strict=True)
    ]
    core.copy_planes(told, out)
    assert out.tolist() == packed.tolist() + [7] * more


@pytest.mark.parametrize(
    "plane",
    [(bytes(9), 5, 2, 5), (bytes(9), 3, 3, 4), (bytes(20), 5, 4, 5), (bytes(9), 0, 1, 1), (bytes(9), 3, 1 << 62, 3)],
)
def test_what_is_not_there_or_does_not_fit_is_refused(plane: tuple[bytes, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"fit|fewer"):
        core.copy_planes([plane], np.zeros(16, np.uint8))


def test_several_planes_that_fit_only_one_by_one_are_refused() -> None:
    with pytest.raises(ValueError, match="fit"):
        core.copy_planes([(bytes(9), 3, 3, 3)] * 2, np.zeros(16, np.uint8))
