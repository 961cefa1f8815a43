"""Who may look at the page: hosts, origins, tokens, places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.errors import ConfigError
from mmedge.view.access import TOKEN_VARIABLE, Gate, Place, is_place, links, make_token, parse_place

LOOPBACK, OUTSIDE = Place("127.0.0.1", 8750), Place("0.0.0.0", 8750)
TOKEN = "a-token-of-a-test-1234"


@pytest.mark.parametrize("host", ["127.0.0.1:8750", "localhost:8750", "[::1]:8750", "LOCALHOST", "127.0.0.2:8750"])
def test_the_page_knows_its_own_names(host: str) -> None:
    assert Gate(LOOPBACK, None).knows(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8750", "127.0.0.1.evil.example:8750", "localhost.evil.example", "", None),
        *("192.168.1.5:8750", "127.0.0.1:8750:80", "127.0.0.1@evil.example", "localhost/", "[::1", "0x7f.1.evil"),
    ],
)
def test_a_foreign_name_that_points_here_is_refused(host: str | None) -> None:
    assert not Gate(LOOPBACK, None).knows(host)


@given(st.text(max_size=40))
def test_no_text_but_a_name_of_loopback_is_known(text: str) -> None:
    gate = Gate(LOOPBACK, None)
    if gate.knows(text):
        name = text.rpartition(":")[0] if not text.endswith("]") and text.count(":") == 1 else text
        assert name.lower() in ("localhost", "127.0.0.1") or name.startswith(("127.", "["))


@given(st.text(max_size=60))
def test_only_the_same_origin_may_ask(origin: str) -> None:
    assert Gate(LOOPBACK, None).same_origin(origin, "127.0.0.1:8750") == (origin.lower() == "http://127.0.0.1:8750")


@pytest.mark.parametrize(
    "origin", [None, "null", "https://127.0.0.1:8750", "http://127.0.0.1:8751", "http://evil.example"]
)
def test_other_origins_may_not(origin: str | None) -> None:
    assert not Gate(LOOPBACK, None).same_origin(origin, "127.0.0.1:8750")


def test_beyond_loopback_a_number_is_no_foreign_name() -> None:
    gate = Gate(OUTSIDE, TOKEN)
    assert gate.knows("192.168.1.5:8750")
    assert not gate.knows("evil.example:8750")


@given(st.text(max_size=30))
def test_one_token_opens(text: str) -> None:
    gate = Gate(OUTSIDE, TOKEN)
    assert gate.opens(text) == (text == TOKEN)
    assert gate.opens(TOKEN)
    assert not Gate(LOOPBACK, None).opens(text)


def test_the_cookie_is_one_of_this_server_alone() -> None:
    gate, other = Gate(OUTSIDE, TOKEN), Gate(OUTSIDE, TOKEN)
    pair = gate.cookie.partition(";")[0]
    assert gate.admits(pair)
    assert gate.admits(f"theme=dark; {pair}; more=1")
    assert not other.admits(pair)
    for wrong in (
        None,
        "",
        "mmedge_8750=",
        pair[:-1],
        pair.replace("8750", "8751"),
        f"mmedge_8750={TOKEN}",
        "a\x01=b;;",
    ):
        assert not gate.admits(wrong)
    assert TOKEN not in gate.cookie
    assert {"HttpOnly", "SameSite=Strict"} <= set(gate.cookie.split("; "))


def test_loopback_alone_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert make_token(LOOPBACK) is None
    assert make_token(Place("::1", 1)) is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "board.local"):
        token = make_token(Place(host, 8750))
        assert token is not None
        assert len(token) >= 32
        assert make_token(Place(host, 8750)) != token
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert make_token(LOOPBACK) == make_token(OUTSIDE) == TOKEN
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(ConfigError, match="16 characters"):
        make_token(OUTSIDE)


def test_the_token_stands_behind_the_number_sign() -> None:
    (link,) = links(Place("192.168.1.5", 80), TOKEN)
    assert link == f"http://192.168.1.5:80/#token={TOKEN}"
    assert links(Place("::1", 80), None) == ["http://[::1]:80/"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", LOOPBACK),
        ("8000", Place("127.0.0.1", 8000)),
        (":8000", Place("0.0.0.0", 8000)),
        ("board.local:1", Place("board.local", 1)),
        ("[::]:80", Place("::", 80)),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert not text or is_place(text)


@pytest.mark.parametrize("text", ["x", "host:", "host:99999", "a b:80", "http://x:80", "::1:80", "-1"])
def test_malformed_places(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_place(text)
