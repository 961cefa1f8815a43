"""``on: change``: whether the values that would be fed differ from those that were fed."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.types import AnyArray, Snapshot, Tensor, Text


class Change:
    """Compares values with what a stage was fed; outputs of other stages are compared by C++. Allocates no array.

    Arrays have any shape and dtype, which stay the same.

    Args:
        fed: Tensor -> the engine's array, which holds what it was fed.
        seats: Tensor -> the seat that feeds it.
        before: What another engine of the same stage was compared by.
    """

    def __init__(self, fed: Mapping[str, AnyArray], seats: Mapping[str, str], before: Change | None = None) -> None:
        self._seats = tuple((seat, fed[tensor]) for tensor, seat in seats.items())
        self._texts: dict[str, str] = {} if before is None else before._texts

    def differs(self, snapshot: Snapshot) -> bool:
        """Tell whether a value is another one; pictures and sound are not looked at."""
        for seat, fed in self._seats:
            value = snapshot.values.get(seat) if snapshot.present[seat] else None
            if isinstance(value, Text):
                if value.text != self._texts.get(seat):
                    return True
            elif isinstance(value, Tensor):
                data = value.data
                if data.dtype != fed.dtype or data.size != fed.size or not data.flags.c_contiguous:
                    return True
                if data.data.cast("B") != fed.data.cast("B"):
                    return True
        return False

    def note(self, snapshot: Snapshot) -> None:
        """Remember the texts that are fed; tensors are where the engine has them."""
        self._texts.update((seat, v.text) for seat, v in snapshot.values.items() if isinstance(v, Text))
