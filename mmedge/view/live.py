"""The page of a live run."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from mmedge.address import Address
from mmedge.bundle import Bundle
from mmedge.bundle.manifest import TextInput
from mmedge.bundle.masks import validated_masks
from mmedge.pipeline import Pipeline
from mmedge.pipeline.spec import PUSH
from mmedge.privacy import Privacy
from mmedge.view.access import parse_place
from mmedge.view.feed import LiveFeed
from mmedge.view.server import ViewServer


class LivePage:
    """Serves what a run sees, hears and concludes; the run does not wait for it.

    Args:
        place: ``HOST:PORT``, ``:PORT`` or ``PORT``; empty for the default, on loopback.
        privacy: What of pictures and sound may be shown.

    Raises:
        ConfigError: If the place is malformed or taken.
        MissingDependencyError: If the extra ``web`` is not installed.

    Example:
        >>> with LivePage("8750") as page, Pipeline(bundle, inputs, sinks=[page.sink]) as pipe:  # doctest: +SKIP
        ...     page.open(pipe)
        ...     pipe.run()
    """

    def __init__(self, place: str = "", privacy: Privacy = "picture") -> None:
        self.sink = LiveFeed(privacy)
        self._privacy: Privacy = privacy
        self._server = ViewServer(self.sink, parse_place(place))
        self._open = False

    @property
    def links(self) -> list[str]:
        """Addresses to open in a browser."""
        return self._server.links

    @property
    def port(self) -> int:
        """Where it is served."""
        return self._server.place.port

    def open(self, pipe: Pipeline, title: str | None = None) -> None:
        """Show ``pipe``, which has started and has ``sink`` among its sinks, under a title: by default its bundle's."""
        self.sink.attach(pipe, title)
        self._server.show(self.sink)
        if not self._open:
            self._server.polite = pipe.isolation == "process"
            self._server.start()
            self._open = True

    def again(self) -> LiveFeed:
        """Return the sink for another run, which takes the place of the one before when it is opened."""
        self.sink = LiveFeed(self._privacy)
        return self.sink

    def close(self) -> None:
        """End the page; idempotent."""
        self.sink.close()
        self._server.close()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def with_typed(bundle: Bundle, inputs: Mapping[str, Address]) -> dict[str, Address]:
    """Return the sources of a run, and ``push://`` for texts without one that can be typed into the page.

    They are added where the bundle was measured with them.
    """
    texts = [name for name, spec in bundle.inputs.items() if isinstance(spec, TextInput) and name not in inputs]
    typed = {**inputs, **dict.fromkeys(texts, PUSH)}
    return typed if texts and frozenset(typed) in validated_masks(bundle.manifest) else dict(inputs)
