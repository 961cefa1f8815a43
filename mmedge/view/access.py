"""Who may look: the host and origin that a browser names, and the token of a page that is not on loopback alone."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

from mmedge.errors import ConfigError

DEFAULT = "127.0.0.1:8750"
TOKEN_VARIABLE = "MMEDGE_VIEW_TOKEN"
_SHORTEST_TOKEN = 16
_FORM = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):)?(?P<port>\d{1,5})")
_WILD = {"0.0.0.0", "::", ""}


class Place(NamedTuple):
    """Where the page is served: an address of this machine and a port; port 0 takes a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def is_place(text: str) -> bool:
    """Tell whether ``text`` has the form ``HOST:PORT``, ``:PORT`` or ``PORT``.

    Example:
        >>> is_place("0.0.0.0:8000"), is_place("digits.mmedge")
        (True, False)
    """
    return _FORM.fullmatch(text) is not None


def parse_place(text: str) -> Place:
    """Return the place that ``text`` names; an empty one is the default, on loopback.

    Raises:
        ConfigError: If it has another form.

    Example:
        >>> parse_place("8000"), parse_place("[::1]:80").host
        (Place(host='127.0.0.1', port=8000), '::1')
    """
    match = _FORM.fullmatch(text or DEFAULT)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(
            f"'{text}' is not HOST:PORT", where="address of the page", fix=f"for example {DEFAULT}, or 0.0.0.0:8750"
        )
    host = match["host"]
    if host is None:
        host = "127.0.0.1"
    return Place(host.strip("[]") or "0.0.0.0", int(match["port"]))


def make_token(place: Place) -> str | None:
    """Return the token that the page asks for: None on loopback, else that of the environment, or a new one.

    Raises:
        ConfigError: If the environment's is too short.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return None if place.loopback else secrets.token_urlsafe(24)
    if len(given) < _SHORTEST_TOKEN or not given.isascii() or not given.isprintable():
        raise ConfigError(
            f"the token must have at least {_SHORTEST_TOKEN} characters of ASCII",
            where=TOKEN_VARIABLE,
            fix="leave the variable out, and a new one is made",
        )
    return given


class Gate:
    """Decides about requests.

    Args:
        place: Where the page is served, with its real port.
        token: What is asked for; None lets everybody in who reaches the place.
    """

    def __init__(self, place: Place, token: str | None) -> None:
        self._place, self._token = place, token
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"mmedge_{place.port}"  # cookies are shared between the ports of a host
        names = {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        self._hosts = {"localhost", place.host.lower()} if place.loopback else names | {place.host.lower(), "localhost"}

    def knows(self, host: str | None) -> bool:
        """Tell whether a Host header names this page, and not a foreign name that was made to point here.

        A page of another site reaches this one under its own name only (DNS rebinding). A number is no such name.
        """
        name = _host_name(host)
        if name is None:
            return False
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback if self._place.loopback else True

    def same_origin(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a request comes from this page itself."""
        return origin is not None and host is not None and origin.lower() == f"http://{host.lower()}"

    def opens(self, token: str) -> bool:
        """Tell whether ``token`` is the right one, in a time that does not depend on it."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    @property
    def cookie(self) -> str:
        """The Set-Cookie header of a browser that had the token."""
        return f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def admits(self, cookies: str | None) -> bool:
        """Tell whether a Cookie header is one of a browser that had the token, where there is one."""
        if self._token is None:
            return True
        try:
            found = SimpleCookie(cookies or "").get(self._cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._session.encode())


def _host_name(host: str | None) -> str | None:
    """Return the name of a Host header without its port; None if it is malformed."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?", host or "")
    return match[1].strip("[]").lower() if match else None


def links(place: Place, token: str | None) -> list[str]:
    """Return the addresses to open, the token behind ``#``: a browser sends that part to nobody.

    Example:
        >>> links(Place("127.0.0.1", 8750), None)
        ['http://127.0.0.1:8750/']
    """
    hosts = [place.host]
    if place.host in _WILD:
        hosts = [_own_address() or "127.0.0.1"]
    end = "" if token is None else f"#token={token}"
    return [f"http://{f'[{host}]' if ':' in host else host}:{place.port}/{end}" for host in hosts]


def _own_address() -> str | None:
    """Return this machine's address in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no network at all
        except OSError:
            return None
        return str(probe.getsockname()[0])
