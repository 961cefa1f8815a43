"""A time that is not known exactly: between what it lies, and what is known of the middle."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A time in ms.

    Attributes:
        low: It takes no less.
        middle: What is to be expected; None where only bounds are known.
        high: It takes no more; None where nothing bounds it.
    """

    low: float
    middle: float | None = None
    high: float | None = None

    def times(self, share: float) -> Span:
        """Return a share of it."""
        return Span(self.low * share, _by(self.middle, share), _by(self.high, share))

    def holds(self, value: float) -> bool:
        """Tell whether a value lies in it."""
        return self.low <= value and (self.high is None or value <= self.high)

    def told(self) -> str:
        """Return it as text, with the unit if anything is known.

        Example:
            >>> Span(1.5, 2, 3).told(), Span(0, None, 4.57).told(), Span(2).told(), Span(0).told()
            ('2 (1.5..3) ms', 'at most 4.57 ms', 'at least 2 ms', 'unknown')
        """
        if self.high is None:
            return f"at least {self.low:.3g} ms" if self.low else "unknown"
        if self.middle is None:
            return f"{self.low:.3g}..{self.high:.3g} ms" if self.low else f"at most {self.high:.3g} ms"
        return f"{self.middle:.3g} ({self.low:.3g}..{self.high:.3g}) ms"


def about(middle: float, factor: float) -> Span:
    """Return the span of a time that may be wrong by a factor either way.

    Example:
        >>> about(2.0, 2.0)
        Span(low=1.0, middle=2.0, high=4.0)
    """
    return Span(middle / factor, middle, middle * factor)


def added(spans: Iterable[Span]) -> Span:
    """Return the span of a sum; whatever is open in one of them is open in it."""
    total = Span(0.0, 0.0, 0.0)
    for span in spans:
        total = Span(total.low + span.low, _sum(total.middle, span.middle), _sum(total.high, span.high))
    return total


def _by(value: float | None, share: float) -> float | None:
    return None if value is None else value * share


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
