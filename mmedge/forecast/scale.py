"""Times of a network on a board where nobody has measured it, from times on other boards or of other networks.

How wrong that may be is not chosen but taken from what is public: the same is done with networks of which the answer
is known (``hindcast``), and its errors are the interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mmedge.forecast.boards import Known, known_boards, known_networks
from mmedge.forecast.span import Span, about

SHARE = 0.9  # of the known errors that lie within the factor
_LEAST = 3  # networks that a line is drawn through


class Told(NamedTuple):
    """A time and how it is known."""

    span: Span
    how: str


def speed(board: str, other: str) -> float:
    """Return how many times as fast ``other`` is: the geometric mean of peak and bandwidth, both relative.

    A network is bound by either, layer by layer, and by neither where its layers are small.
    """
    boards = known_boards()
    one, two = boards[board], boards[other]
    return math.sqrt(two.fp16_tflops / one.fp16_tflops * two.bandwidth_gb_s / one.bandwidth_gb_s)


def nearest(boards: Iterable[str], target: str) -> str | None:
    """Return the board that is most nearly as fast as the target, which is not one of them; None without any."""
    others = (board for board in boards if board != target)
    return min(others, key=lambda board: abs(math.log(speed(board, target))), default=None)


def from_board(ms: float, board: str, target: str, networks: Sequence[Known] | None = None) -> Told:
    """Return the time on a board of a network that takes ``ms`` on another.

    Args:
        ms: What it takes there.
        board: Where.
        target: The board that is asked for.
        networks: What is known of other networks; all that is public, if left out.
    """
    known = known_networks() if networks is None else networks
    factor, n = widened(_board_errors(known))
    names = known_boards()
    how = (
        f"scaled from {names[board].name} by {1 / speed(board, target):.2f}; "
        f"of {n} public cases {SHARE:.0%} were within a factor of {factor:.2f}"
    )
    return Told(about(ms / speed(board, target), factor), how)


def by_work(gmacs: float, precision: str, target: str, networks: Sequence[Known] | None = None) -> Told | None:
    """Return the time of a network on a board by its work alone; None where too little is public.

    A line through log time over log work of the public networks. Networks of less work than any of these take no
    longer than the smallest of them, but how little they take is not known: their layers decide, not their work.

    Args:
        gmacs: Multiply-adds of a run, in 10^9.
        precision: In which it runs.
        target: The board.
        networks: As ``from_board`` has it.
    """
    known = known_networks() if networks is None else networks
    points = _points(known, precision, target)
    factor, _ = widened(_family_errors(known), whole=True)
    if len(points) < _LEAST or math.isinf(factor):
        return None
    least, most = min(points), max(points)
    if gmacs > most[0]:
        return None
    if gmacs < least[0]:
        high = least[1] * factor
        return Told(Span(0.0, None, high), f"less work ({gmacs:.2g} GMAC) than any public network ({least[0]:.3g})")
    ms = _line(points, gmacs)
    return Told(about(ms, factor), f"by its work, {gmacs:.3g} GMAC; another family was off by a factor of {factor:.2f}")


def widened(errors: Iterable[float], *, whole: bool = False) -> tuple[float, int]:
    """Return the factor within which errors lie, and how many there are: 90 % of them, or ``whole``, all.

    Args:
        errors: Logarithms of what was over what was expected.
        whole: Where they are too few for a share of them.
    """
    sizes = sorted(abs(error) for error in errors)
    if not sizes:
        return math.inf, 0
    # The rank of a prediction interval for one more value, not of the quantile of those that are known.
    rank = len(sizes) if whole else min(len(sizes), math.ceil(SHARE * (len(sizes) + 1)))
    return math.exp(sizes[rank - 1]), len(sizes)


def _board_errors(networks: Iterable[Known]) -> Iterator[float]:
    for network in networks:
        for target, ms in network.ms.items():
            board = nearest(network.ms, target)
            if board is not None:
                yield math.log(ms * speed(board, target) / network.ms[board])


def _family_errors(networks: Sequence[Known]) -> Iterator[float]:
    for network in networks:
        others = [other for other in networks if other.family != network.family]
        for board, ms in network.ms.items():
            points = _points(others, network.precision, board)
            if network.gmacs is not None and len(points) >= _LEAST:
                yield math.log(ms / _line(points, network.gmacs))


def _points(networks: Iterable[Known], precision: str, board: str) -> list[tuple[float, float]]:
    return [(n.gmacs, n.ms[board]) for n in networks if n.gmacs and n.precision == precision and board in n.ms]


def _line(points: Sequence[tuple[float, float]], gmacs: float) -> float:
    logs = [(math.log(work), math.log(ms)) for work, ms in points]
    x, y = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    spread = sum((one - x) ** 2 for one, _ in logs)
    slope = sum((one - x) * (other - y) for one, other in logs) / spread if spread else 0.0
    return math.exp(y + slope * (math.log(gmacs) - x))
