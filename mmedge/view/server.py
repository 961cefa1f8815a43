"""The server of the page: Starlette and uvicorn in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mmedge.errors import ConfigError, MmedgeError
from mmedge.extras import require
from mmedge.learn import learn
from mmedge.view import messages
from mmedge.view.access import Gate, Place, links, make_token
from mmedge.view.feed import Cursor, step_back
from mmedge.view.http import brief_connections

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

log = logging.getLogger("mmedge.view")
_MODULES = ("main", "link", "lanes", "scene", "facts", "palette", "player")
_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _MODULES},
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
VIEWERS = 8  # that look at once
_MOST_BODY = 1024  # bytes of a token, and more than one needs
_MOST_SAID = 16 * 1024  # bytes of one message of a browser: 2,000 characters, escaped
_PATIENCE_S = 20.0  # for a browser that has stopped reading
_LOGIN_S = 0.3  # between two wrong tokens
Scope = MutableMapping[str, Any]


class Feed(Protocol):
    """What the server shows: a live run, or a recording."""

    live: bool
    viewers: int
    on_tick: Callable[[], None]

    def hello(self) -> dict[str, Any]:
        """Return the first header of a connection."""

    def message(self, cursor: Cursor) -> bytes | None:
        """Return what a viewer has not had, and move its cursor; None if there is nothing."""

    def say(self, text: str, name: str | None) -> str | None:
        """Take a typed text; return why not."""


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What a browser may say: that it has drawn, a text, or which trigger of a recording it wants."""

    ack: bool = False
    text: str | None = None
    input: str | None = None
    at: int | None = None
    explain: int | None = None


_said = msgspec.json.Decoder(learn(Said))


class ViewServer:
    """Serves one feed until it is closed.

    Args:
        feed: What to show.
        place: Where; the port may be 0.

    Attributes:
        links: Addresses to open.
        polite: Whether its thread leaves the cores to others; set before ``start``.

    Raises:
        ConfigError: If the port is taken or the address is not this machine's.
        MissingDependencyError: If the extra ``web`` is not installed.
    """

    def __init__(self, feed: Feed, place: Place) -> None:
        self._uvicorn = require("uvicorn", "the live page")
        require("websockets", "the live page")
        require("starlette", "the live page")
        token = make_token(place)
        self._socket = _bound(place)
        self.place = Place(place.host, self._socket.getsockname()[1])
        self.links = links(self.place, token)
        self._feed, self._gate = feed, Gate(self.place, token)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._viewers: set[_Viewer] = set()
        self._ready = threading.Event()
        self._next_login_s = 0.0
        self.polite = False
        config = self._uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            http=brief_connections(),
            ws="websockets-sansio",
            ws_max_size=_MOST_SAID,
            ws_max_queue=4,
            limit_concurrency=8 * VIEWERS,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
        )
        self._server = self._uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="mmedge-view-server", daemon=True)

    def start(self) -> ViewServer:
        """Serve; the links work on return."""
        self._thread.start()
        if not self._ready.wait(10.0) or not self._thread.is_alive():
            raise MmedgeError("the page's server did not start", where=self.links[0], fix="run with -v for its log")
        return self

    def show(self, feed: Feed) -> None:
        """Show ``feed`` from now on; who looks at another one is sent away, and comes back by itself."""
        before, self._feed = self._feed, feed
        if before is not feed:
            before.on_tick = lambda: None
            feed.on_tick = self._tick
            self._tick()

    def close(self) -> None:
        """End all connections and the server; idempotent."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._socket.close()

    def _serve(self) -> None:
        if self.polite:
            step_back()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._feed.on_tick = self._tick
            self._ready.set()
            await self._server.serve(sockets=[self._socket])

        try:
            asyncio.run(main())
        except Exception:
            log.exception("the page's server has ended")
        finally:
            self._feed.on_tick = lambda: None
            self._ready.set()

    def _tick(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        """Wake every viewer's task; runs in the loop."""
        for viewer in self._viewers:
            viewer.news.set()

    def _app(self) -> Callable[[Scope, Any, Any], Awaitable[None]]:
        from starlette.applications import Starlette
        from starlette.routing import Route, WebSocketRoute

        app = Starlette(
            routes=[
                Route("/enter", self._enter, methods=["POST"]),
                Route("/{name:path}", self._page, methods=["GET"]),
                WebSocketRoute("/feed", self._watch),
            ]
        )

        async def checked(scope: Scope, receive: Any, send: Any) -> None:
            """Refuse whoever calls this page by another name; add the headers to every answer."""
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
            host, origin = headers.get("host"), headers.get("origin")
            foreign = origin is not None or scope["type"] == "websocket" or scope.get("method") == "POST"
            if not self._gate.knows(host) or (foreign and not self._gate.same_origin(origin, host)):
                await _refuse(scope, receive, send)
                return

            async def with_headers(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                    message["headers"] = [*message.get("headers", ()), *extra]
                await send(message)

            await app(scope, receive, with_headers)

        return checked

    async def _page(self, request: Request) -> Response:
        from starlette.responses import Response

        found = _PAGE.get(request.path_params["name"])
        if found is None:
            return Response("there is no such page\n", status_code=404, media_type="text/plain")
        name, kind = found
        return Response(
            files("mmedge.view").joinpath("page").joinpath(name).read_bytes(), headers={"content-type": kind}
        )

    async def _enter(self, request: Request) -> Response:
        """Exchange the token for a cookie."""
        from starlette.responses import Response

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BODY:
                return Response(status_code=413)
        if not self._gate.opens(body.decode(errors="replace")):
            now_s = asyncio.get_running_loop().time()
            self._next_login_s = max(now_s, self._next_login_s) + _LOGIN_S
            await asyncio.sleep(min(self._next_login_s - now_s, 5.0))
            return Response(status_code=403)
        return Response(status_code=204, headers={"set-cookie": self._gate.cookie})

    async def _watch(self, socket: WebSocket) -> None:
        if not self._gate.admits(socket.headers.get("cookie")):
            await socket.close(1008)
            return
        if len(self._viewers) >= VIEWERS:
            await socket.accept()
            await socket.close(1013, f"{VIEWERS} viewers look already")
            return
        await socket.accept()
        feed = self._feed
        viewer = _Viewer(feed, socket, lambda: self._feed is feed)
        self._viewers.add(viewer)
        feed.viewers += 1
        try:
            await viewer.run()
        finally:
            feed.viewers -= 1
            self._viewers.discard(viewer)


class _Viewer:
    """One browser. It gets the next state when it has drawn the one before: nothing queues up for a slow one."""

    def __init__(self, feed: Feed, socket: WebSocket, current: Callable[[], bool]) -> None:
        self._feed, self._socket, self._current = feed, socket, current
        self._cursor = Cursor()
        self._wanted = Said()  # what it asked for since the last message
        self.news = asyncio.Event()
        self.news.set()  # a run that is over has something to say, and no news
        self._drawn = asyncio.Event()
        self._notices: list[str] = []

    async def run(self) -> None:
        """Serve it until it leaves, says what it may not, or stops reading."""
        from starlette.websockets import WebSocketDisconnect

        listening = asyncio.create_task(self._listen())
        telling = asyncio.create_task(self._tell())
        try:
            done, _ = await asyncio.wait((listening, telling), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, (msgspec.MsgspecError, UnicodeError, KeyError)):
                    await self._socket.close(1008)
                elif error is not None and not isinstance(error, (WebSocketDisconnect, TimeoutError, RuntimeError)):
                    log.warning("a viewer was lost: %s", error)
        finally:
            for task in (listening, telling):
                task.cancel()
            await asyncio.gather(listening, telling, return_exceptions=True)

    async def _tell(self) -> None:
        await self._send(messages.packed(self._feed.hello()))
        while True:
            await self.news.wait()
            self.news.clear()
            if not self._current():
                await self._socket.close(1012, "another run is shown")
                return
            self._drawn.clear()
            notices, self._notices = self._notices, []  # others may come while these are sent
            for notice in notices:
                await self._send(messages.packed({"kind": "notice", "text": notice}))
            message = await self._make()
            if message is None:
                continue
            await self._send(message)
            await asyncio.wait_for(self._drawn.wait(), _PATIENCE_S)
            if not self._feed.live:
                self.news.set()  # it may have asked for two things

    async def _make(self) -> bytes | None:
        cursor = self._cursor
        if self._feed.live:
            return self._feed.message(cursor)
        wanted, self._wanted = self._wanted, Said()
        if wanted.at is not None:
            cursor.at, cursor.had, cursor.explain = wanted.at, None, None
        if wanted.explain is not None:
            cursor.explain = wanted.explain
        return await asyncio.to_thread(self._feed.message, cursor)  # it reads files

    async def _send(self, message: bytes) -> None:
        await asyncio.wait_for(self._socket.send_bytes(message), _PATIENCE_S)

    async def _listen(self) -> None:
        while True:
            said = _said.decode((await self._socket.receive_text()).encode())
            if said.ack:
                self._drawn.set()
            elif said.at is not None or said.explain is not None:
                # Another trigger makes the question about the one before void, not the other way round.
                self._wanted = Said(at=self._wanted.at if said.at is None else said.at, explain=said.explain)
                self.news.set()
            elif said.text is not None:
                refused = self._feed.say(said.text, said.input)
                self._notices.append(f"not taken: {refused}" if refused else "taken")
                del self._notices[:-4]


async def _refuse(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b"open the page by the link that was printed\n"})


def _bound(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((place.host, place.port))
        found.listen(64)
    except OSError as error:
        found.close()
        taken = f"the port {place.port} is taken" if error.errno == 98 else f"cannot serve there: {error.strerror}"
        raise ConfigError(
            taken, where=f"address of the page, {place.host}:{place.port}", fix=f"{place.host}:0 takes a free port"
        ) from error
    return found
