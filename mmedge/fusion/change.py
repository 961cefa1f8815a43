"""``on: change``: whether what would be fed differs from what was fed."""

from __future__ import annotations

from collections.abc import Mapping

from mmedge.types import AnyArray, Snapshot, Tensor, Text


class Change:
    """Compares values and outputs of other stages with what a stage was fed; allocates no array.

    Arrays have any shape and dtype, which stay the same.

    Args:
        fed: Tensor -> the engine's array, which holds what it was fed.
        links: Tensor -> the output of another stage that feeds it.
        seats: Tensor -> the seat that feeds it.
    """

    def __init__(self, fed: Mapping[str, AnyArray], links: Mapping[str, AnyArray], seats: Mapping[str, str]) -> None:
        self._links = tuple((output.data.cast("B"), fed[tensor].data.cast("B")) for tensor, output in links.items())
        self._seats = tuple((seat, fed[tensor]) for tensor, seat in seats.items())
        self._texts: dict[str, str] = {}

    def differs(self, snapshot: Snapshot) -> bool:
        """Tell whether a value or an output is another one; pictures and sound are not looked at."""
        if any(theirs != own for theirs, own in self._links):
            return True
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
