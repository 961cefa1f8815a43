"""The one way to a terminal: what is printed is text and nothing else, whoever has written it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mmedge.plain import printable


class PlainConsole(Console):
    """A console that takes strings as they are (no markup, no emoji codes) and escapes what would steer a terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a string, cells of tables included: made safe before its width is measured."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of whatever is printed: all of it comes by here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


out, err = PlainConsole(), PlainConsole(stderr=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return text of parts, each a string or (string, style).

    Example:
        >>> styled(("fix:", "bold"), " [red] is no colour").plain
        'fix: [red] is no colour'
    """
    return Text.assemble(
        *((printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)
    )
