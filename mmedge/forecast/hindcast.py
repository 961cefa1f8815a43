"""What the method would have said of figures that are public, had it not known them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import structs

from mmedge.forecast.boards import Known, known_networks
from mmedge.forecast.scale import Told, from_board, nearest


class Case(NamedTuple):
    """A figure that was known, and what would have been said of it.

    Attributes:
        network: Its name and precision.
        board: Where it runs.
        origin: The board that it is scaled from.
        told: What would have been said.
        ms: What is public.
    """

    network: str
    board: str
    origin: str
    told: Told
    ms: float

    @property
    def hit(self) -> bool:
        """Whether it lies in the interval."""
        return self.told.span.holds(self.ms)


def hindcast() -> Iterator[Case]:
    """Yield each public figure of a network that is known on two boards, as it is said without times of its board.

    No time on the target is used, neither this network's nor any other's: its peak and bandwidth alone. The interval is
    that of the other boards among themselves.

    Example:
        >>> cases = list(hindcast())
        >>> 0 < sum(case.hit for case in cases) <= len(cases)
        True
    """
    networks = known_networks()
    for network in networks:
        for board, ms in network.ms.items():
            origin = nearest(network.ms, board)
            if origin is not None:
                told = from_board(network.ms[origin], origin, board, [_without(known, board) for known in networks])
                yield Case(f"{network.name} {network.precision}", board, origin, told, ms)


def _without(known: Known, board: str) -> Known:
    return structs.replace(known, ms={key: ms for key, ms in known.ms.items() if key != board})
