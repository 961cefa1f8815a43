"""HTTP connections of the page: few, and short. Who opens many, or never ends a request, keeps nobody out."""

from __future__ import annotations

import asyncio
from typing import Any

MOST = 32  # connections at once that are not viewers: a browser opens six
LIFE_S = 15.0  # of one: the longest answer, to a wrong token, takes 5 s


def brief_connections(most: int = MOST, life_s: float = LIFE_S) -> type[Any]:
    """Return uvicorn's protocol for HTTP, bounded in number and time: uvicorn accepts whatever comes, for as long.

    A connection too many ends the oldest one. A connection that has become a viewer's WebSocket does not count.

    Args:
        most: Connections at once.
        life_s: After which time one is ended, whatever it does.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    alive: dict[Any, asyncio.TimerHandle] = {}  # the oldest first

    def end(connection: Any) -> None:
        alive.pop(connection).cancel()
        if connection in connection.connections:  # it is no WebSocket by now
            connection.transport.abort()

    class BriefConnection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            alive[self] = self.loop.call_later(life_s, end, self)
            if len(alive) > most:
                end(next(iter(alive)))

        def connection_lost(self, exc: Exception | None) -> None:
            if self in alive:
                alive.pop(self).cancel()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, *given: Any) -> None:
            alive.pop(self).cancel()
            super().handle_websocket_upgrade(*given)

    return BriefConnection
