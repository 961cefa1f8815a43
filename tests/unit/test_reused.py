"""Memory that pictures are read into: lent to one at a time, given back once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmedge.recording.reused import PictureMemory

SHAPES = [(6, 4), (12, 8)]


@given(st.lists(st.tuples(st.sampled_from(["lend", "give back", "give back again"]), st.integers(0, 9)), max_size=60))
def test_no_two_pictures_share_memory(steps: list[tuple[str, int]]) -> None:
    memory, held, gone = PictureMemory(), [], []
    for step, number in steps:
        if step == "lend":
            held.append(memory.lend(SHAPES[number // 8]))
            assert held[-1][0].shape == SHAPES[number // 8]
        elif step == "give back" and held:
            lent = held.pop(number % len(held))
            lent[1]()
            gone.append(lent)
        elif gone:
            gone[number % len(gone)][1]()  # its memory may be another picture's by now
        assert len({id(picture) for picture, _ in held}) == len(held)


def test_a_copy_says_whether_the_memory_was_used_again() -> None:
    memory = PictureMemory()
    picture, release = memory.lend((2, 2))
    picture[...] = 7
    out = np.zeros_like(picture)
    assert release.copy(picture, out)
    assert (out == 7).all()
    release()
    assert not release.copy(picture, out)
    assert memory.lend((2, 2))[0] is picture
