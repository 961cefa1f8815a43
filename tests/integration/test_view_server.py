"""The server of the page, spoken to as a browser would and as none should."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmedge
from mmedge.errors import ConfigError, MissingDependencyError
from mmedge.pipeline import Pipeline
from mmedge.view import server
from mmedge.view.access import TOKEN_VARIABLE
from mmedge.view.feed import MOST_TEXT
from mmedge.view.http import MOST, brief_connections
from mmedge.view.live import LivePage
from mmedge.view.server import HEADERS, VIEWERS
from tests.conftest import WriteClip
from tests.pages import CLIP, DIGITS, SIMULATED, Shown, follow, read, shown_run, upgraded, viewer
from tests.processes import until
from tests.tiny import tiny_bundle

exceptions = pytest.importorskip("websockets.exceptions")
pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("page") / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED, "audio": SIMULATED}, isolation="thread") as shown:
        yield shown


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None, body: str = "") -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body or None, headers or {})
    answer = connection.getresponse()
    answer.data = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def test_every_answer_has_the_strict_headers(run: Shown) -> None:
    for path in ("/", "/main.js", "/style.css", "/nothing", "/../access.py", "/%2e%2e/access.py"):
        answer = ask(run.port, "GET", path)
        assert answer.status == (200 if path in ("/", "/main.js", "/style.css") else 404)
        for name, value in HEADERS.items():
            assert answer.getheader(name) == value
        assert answer.getheader("server") is None
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_asks_no_other_host_and_has_nothing_inline() -> None:
    folder = Path(mmedge.__file__).parent / "view" / "page"
    for path in folder.iterdir():
        text = path.read_text()
        assert "http" not in text.replace("`ws://${location.host}/feed`", ""), path.name
        for risky in (
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "onclick=",
            "style=",
        ):
            assert risky not in text, (path.name, risky)
    assert "<script>" not in (folder / "index.html").read_text()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_hostile_host_gets_nothing(run: Shown, host: str) -> None:
    answer = ask(run.port, "GET", "/", {"Host": host})
    assert answer.status in (400, 403)
    assert b"<html" not in answer.data
    assert upgraded(run.port, Host=host, Origin=f"http://{host}").startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_a_hostile_origin_gets_nothing(run: Shown, origin: str) -> None:
    with pytest.raises(exceptions.InvalidStatus, match="403"):
        viewer(run.port, origin=origin)
    assert ask(run.port, "POST", "/enter", {"Origin": origin}, "x").status == 403
    assert ask(run.port, "GET", "/", {"Origin": origin}).status == 403


def test_without_an_origin_there_is_no_feed(run: Shown) -> None:
    own = f"127.0.0.1:{run.port}"
    assert upgraded(run.port, Host=own).startswith(b"HTTP/1.1 403")
    assert upgraded(run.port, Host=own, Origin=f"http://{own}").startswith(b"HTTP/1.1 101")


def test_a_viewer_gets_what_the_run_says(run: Shown) -> None:
    with viewer(run.port) as socket_:
        found = follow(socket_, 25)
    hello, ticks = found[0][0], found[1:]
    assert hello["schema"] == "mmedge.view/1"
    assert hello["inputs"]["audio"] == {"modality": "audio", "window_ms": 100, "rate_hz": 8000}
    assert set(hello["tasks"]) == {"scene", "same"}
    rows = [row for header, _ in ticks for row in header["rows"]]
    numbers = [row["n"] for row in rows]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(set(row["tasks"]) == {"scene", "same"} for row in rows)
    pictures = 0
    for header, data in ticks:
        at = 0
        for told in header["pictures"]:
            assert data[at : at + 2] == b"\xff\xd8"
            pictures += 1
            at += told["bytes"]
        at += sum(told["bytes"] for told in header["sound"])
        assert at == len(data)
    assert pictures
    assert any(header["sound"] for header, _ in ticks)
    figures = next(header["figures"] for header, _ in ticks if "figures" in header)
    assert figures["state"] in ("READY", "DEGRADED")
    cut = ticks[-1][0]["cut"]["audio"]
    assert cut[1] - cut[0] == pytest.approx(100)


def test_two_viewers_each_get_all(run: Shown) -> None:
    with viewer(run.port) as one, viewer(run.port) as two:
        first, second = follow(one, 8), follow(two, 8)
    shared = {row["n"] for header, _ in first[1:] for row in header["rows"]} & {
        row["n"] for header, _ in second[1:] for row in header["rows"]
    }
    assert shared


def test_a_viewer_too_many_is_sent_away_and_the_others_stay(run: Shown) -> None:
    assert until(lambda: run.page.sink.viewers == 0, 60)
    with ExitStack() as stack:
        sockets = [stack.enter_context(viewer(run.port)) for _ in range(VIEWERS)]
        for each in sockets:
            follow(each, 2)
        with viewer(run.port) as late, pytest.raises(exceptions.ConnectionClosedError) as refused:
            late.recv(timeout=60)
        assert refused.value.rcvd.code == 1013
        assert read(sockets[0].recv(timeout=60))[0]["kind"] == "tick"
    assert until(lambda: run.page.sink.viewers == 0, 60)


@pytest.mark.parametrize("said", ["{", '{"ack":1}', '{"do":"rm"}', "[]", '"' + "x" * 20000 + '"', '{"text":5}'])
def test_what_no_page_says_ends_its_connection_alone(run: Shown, said: str) -> None:
    with viewer(run.port) as socket_:
        follow(socket_, 2)
        socket_.send(said)
        with pytest.raises(exceptions.ConnectionClosedError):
            list(socket_)
    assert ask(run.port, "GET", "/").status == 200


def test_a_browser_that_stops_reading_gets_no_queue(run: Shown) -> None:
    before = run.pipe.statistics.results
    with viewer(run.port) as stuck:
        read(stuck.recv(timeout=60))
        read(stuck.recv(timeout=60))  # and says no more
        told = run.pipe.statistics.results
        with pytest.raises(TimeoutError):
            stuck.recv(timeout=1.5)
        assert until(lambda: run.pipe.statistics.results > told + 30, 60)
        stuck.send('{"ack":true}')
        header, _ = read(stuck.recv(timeout=60))
        # What came meanwhile: rows are told, of the pictures the newest alone.
        assert len(header["rows"]) > 20
        assert len(header["pictures"]) == 1
    assert run.pipe.statistics.results > before + 20


def test_a_browser_that_never_reads_again_is_let_go(run: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE_S", 0.5)
    assert until(lambda: run.page.sink.viewers == 0, 60)
    before = run.pipe.statistics.results
    with viewer(run.port) as stuck:
        read(stuck.recv(timeout=60))
        assert until(lambda: run.page.sink.viewers == 1, 60)
        assert until(lambda: run.page.sink.viewers == 0, 60)
    assert until(lambda: run.pipe.statistics.results > before + 20, 60)


def test_connections_that_ask_for_nothing_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "brief_connections", lambda: brief_connections(MOST, 3.0))
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED}, isolation="thread") as shown, ExitStack() as stack:
        watching = stack.enter_context(viewer(shown.port))
        follow(watching, 2)
        idle = []
        for _ in range(200):
            idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", shown.port), timeout=60)))
            idle[-1].sendall(b"POST /enter HTTP/1.1\r\nHost: ")
        assert ask(shown.port, "GET", "/").status == 200
        follow(stack.enter_context(viewer(shown.port)), 2)
        follow(watching, 1)
        watching.send('{"ack":true}')
        alive = shown.page._server._server.server_state.connections
        assert len(alive) <= MOST + VIEWERS
        assert until(lambda: len(alive) == 2, 60)  # those who look
        assert read(watching.recv(timeout=60))[0]["kind"] == "tick"


def test_a_token_opens_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "the-token-of-this-test")
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with shown_run(bundle, {"image": SIMULATED}, isolation="thread") as shown:
        port, own = shown.port, {"Origin": f"http://127.0.0.1:{shown.port}"}
        assert shown.url.endswith("/#token=the-token-of-this-test")
        with pytest.raises(exceptions.InvalidStatus, match="403"):
            viewer(port)
        for wrong in ("", "the-token-of-this-tesT", "x" * 900):
            refused = ask(port, "POST", "/enter", own, wrong)
            assert refused.status == 403
            assert refused.getheader("set-cookie") is None
        assert ask(port, "POST", "/enter", own, "x" * 5000).status == 413
        entered = ask(port, "POST", "/enter", own, "the-token-of-this-test")
        assert entered.status == 204
        cookie = entered.getheader("set-cookie")
        assert "SameSite=Strict" in cookie
        assert "HttpOnly" in cookie
        with viewer(port, headers={"Cookie": cookie.partition(";")[0]}) as socket_:
            assert follow(socket_, 2)[1][0]["kind"] == "tick"


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            LivePage(f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match="cannot serve there"):
        LivePage("192.0.2.77:0")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "websockets"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError) as missing:
        LivePage("127.0.0.1:0")
    assert missing.value.fix == "pip install 'mmedge[web]'"


def test_typed_text_is_answered_and_bounded() -> None:
    with (
        shown_run(DIGITS, {"image": str(CLIP), "audio": str(CLIP)}, typed=True) as shown,
        viewer(shown.port) as socket_,
    ):
        assert follow(socket_, 2)[0][0]["typed"] == ["text"]
        socket_.send(json.dumps({"text": "it is a four", "input": "text"}))
        assert until(lambda: shown.pipe.health()["text"]["state"] == "OK", 60)
        found: list[dict[str, Any]] = []
        for _ in range(40):
            header, _ = read(socket_.recv(timeout=60))
            found.append(header)
            if header["kind"] == "tick":
                socket_.send('{"ack":true}')
        assert [h["text"] for h in found if h["kind"] == "notice"] == ["taken"]
        assert any(row["present"]["text"] for h in found for row in h.get("rows", ()))
        feed = shown.page.sink
        assert "longer" in str(feed.say("x" * (MOST_TEXT + 1), "text"))
        assert "text inputs are" in str(feed.say("x", "image"))
        refused = [feed.say("four", "text") for _ in range(60)]
        assert refused[0] is None
        assert any("10 texts" in str(reason) for reason in refused)


@pytest.mark.parametrize("privacy", ["none", "blur"])
def test_no_pixel_and_no_sample_leaves(privacy: Any, write_clip: WriteClip, tmp_path: Path) -> None:
    """Two worlds that differ in pictures and sound alone look the same on the wire, byte for byte."""
    rng = np.random.default_rng(3)
    seen: list[list[tuple[list[Any], list[Any], bytes]]] = []
    for world in range(2):
        noise = (0.5 * rng.uniform(-1, 1, (1, 16000))).astype(np.float32)
        clip = write_clip(
            f"{world}.nut", picture=lambda t, w=world: 100 + w, sound=noise, times_s=[k / 25 for k in range(50)]
        )
        bundle = tiny_bundle(tmp_path / f"{world}.mmedge")
        told = []
        inputs = {"image": str(clip), "audio": str(clip)}
        with shown_run(bundle, inputs, privacy=privacy) as shown, viewer(shown.port) as socket_:
            hello = read(socket_.recv(timeout=60))[0]
            assert hello["privacy"] == privacy
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                message = socket_.recv(timeout=60)
                header, data = read(message)
                told.append((header["pictures"], header["sound"], data))
                assert b"JFIF" not in message or privacy == "blur"
                socket_.send('{"ack":true}')
        seen.append(told)
    if privacy == "none":
        for told in seen:
            assert all(not pictures and not sound and not data for pictures, sound, data in told)
            assert told
    else:
        for told in seen:
            for pictures, sound, data in told:
                at = sum(each["bytes"] for each in pictures)
                # Of sound its loudness alone: two bytes a column, of one size.
                for each in sound:
                    column = np.frombuffer(data[at : at + each["bytes"]], np.int8).reshape(-1, 2)
                    assert len(column) == len(each["t"])
                    assert (column[:, 0] == -column[:, 1]).all()
                    at += each["bytes"]


def test_a_run_needs_no_viewer_and_who_comes_late_sees_how_it_ended(tmp_path: Path, write_clip: WriteClip) -> None:
    bundle = tiny_bundle(tmp_path / "tiny.mmedge")
    with LivePage("127.0.0.1:0") as page:
        with Pipeline(bundle, {"image": str(write_clip())}, sinks=[page.sink], latency="offline") as pipe:
            page.open(pipe)
            assert pipe.run().results == 25
        with viewer(page.port) as late:
            header = follow(late, 2)[1][0]
    assert [row["n"] for row in header["rows"]] == list(range(1, 26))
    assert header["figures"]["state"] == "STOPPED"
