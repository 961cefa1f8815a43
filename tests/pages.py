"""What tests of the page share: runs that are shown, viewers that speak its protocol, a real browser."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mmedge
from mmedge.address import Address
from mmedge.bundle import Bundle
from mmedge.pipeline import Pipeline
from mmedge.privacy import Privacy
from mmedge.view.live import LivePage, with_typed

ASSETS = Path(mmedge.__file__).parent / "assets" / "digits"
DIGITS, CLIP = ASSETS / "digits.mmedge", ASSETS / "clips" / "clean.mp4"
SIMULATED = "test://?width=160&height=120&fps=30"
DESKTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
TICKED = "() => mmedge.ticks > 3 && mmedge.rows.length > 3"


@dataclass
class Shown:
    """A run that is shown."""

    pipe: Pipeline
    page: LivePage

    @property
    def port(self) -> int:
        """Where it is."""
        return self.page.port

    @property
    def url(self) -> str:
        """Its link."""
        return self.page.links[0]


@contextmanager
def shown_run(
    bundle: Bundle | Path,
    inputs: dict[str, str],
    *,
    place: str = "127.0.0.1:0",
    privacy: Privacy = "picture",
    typed: bool = False,
    **options: Any,
) -> Iterator[Shown]:
    """Run a bundle in a thread of its own and serve its page."""
    opened = bundle if isinstance(bundle, Bundle) else mmedge.load(bundle)
    addresses = {name: Address(uri) for name, uri in inputs.items()}
    with LivePage(place, privacy) as page:
        given = with_typed(opened, addresses) if typed else addresses
        with Pipeline(opened, given, sinks=[page.sink], **options) as pipe:
            page.open(pipe)
            runner = threading.Thread(target=pipe.run)
            runner.start()
            try:
                yield Shown(pipe, page)
            finally:
                pipe.close()
                runner.join()
    if opened is not bundle:
        opened.close()


def read(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a message."""
    size = int.from_bytes(message[:4], "little")
    return json.loads(message[4 : 4 + size]), message[4 + size :]


def viewer(port: int, *, origin: str | None = None, headers: dict[str, str] | None = None) -> Any:
    """Connect as a browser does; raise as ``websockets`` does if it is refused."""
    from websockets.sync.client import connect

    return connect(
        f"ws://127.0.0.1:{port}/feed",
        origin=origin if origin is not None else f"http://127.0.0.1:{port}",  # type: ignore[arg-type]
        additional_headers=headers or {},
        open_timeout=60,
        compression=None,
    )


def upgraded(port: int, **headers: str) -> bytes:
    """Ask for the feed with these headers alone; return the first bytes of the answer."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        own = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        raw.sendall("\r\n".join(["GET /feed HTTP/1.1", *lines, *own, "Sec-WebSocket-Version: 13", "", ""]).encode())
        return raw.recv(4096)


def follow(socket: Any, count: int, within_s: float = 60) -> list[tuple[dict[str, Any], bytes]]:
    """Return the next messages; all but the first one of a connection are acknowledged."""
    found: list[tuple[dict[str, Any], bytes]] = []
    while len(found) < count:
        found.append(read(socket.recv(timeout=within_s)))
        if found[-1][0]["kind"] != "hello":
            socket.send('{"ack":true}')
    return found


def need_chromium() -> str:
    """Return Debian's chromium; skip the test, with the line to type, where it is missing."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium missing; type: apt-get install chromium")
    return found


@contextmanager
def chromium(**options: Any) -> Iterator[Any]:
    """Start a browser."""
    path = need_chromium()
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"], **options)
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that is open, and what it complained of."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url, timeout=60_000)

    def wait(self, what: str, within_s: float = 60.0) -> Any:
        """Wait until an expression of the page is true; return its value."""
        return self.page.wait_for_function(what, timeout=1000 * within_s, polling=20).json_value()
