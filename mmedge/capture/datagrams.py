"""UDP as a stream of bytes, with what FFmpeg's own receiver does not say: that another sender took over."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import parse_qs, urlsplit

from mmedge._native import core

LARGEST = 65_536  # bytes of a datagram
_SOCKET_BYTES = 1 << 21  # the kernel gives what it allows
_KNOWN = {"localaddr", "buffer_size", "reuse"}


class ProgrammeChanged(OSError):  # noqa: N818  (no error: the stream is read anew)
    """Another codec or another track comes from now on."""


class Datagrams:
    """Receives datagrams in a thread of its own, without Python, for a demuxer that reads them as a file.

    Args:
        url: ``udp://HOST:PORT``, ``HOST`` being the own address, a group to join, or anything else for all addresses.
        silence_s: How long a read waits.

    Raises:
        OSError: If the port cannot be had.
    """

    name = "udp"

    def __init__(self, url: str, silence_s: float) -> None:
        self._silence_s = silence_s
        with _bound(url) as bound:
            self._received = core.Datagrams(bound.fileno())

    @staticmethod
    def takes(url: str) -> bool:
        """Tell whether an address asks for nothing that is not known here."""
        parts = urlsplit(url)
        return parts.scheme == "udp" and set(parse_qs(parts.query, keep_blank_values=True)) <= _KNOWN

    def begin(self) -> Datagrams:
        """Read what comes next as a stream of its own; returns itself."""
        self._received.begin()
        return self

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``.

        Raises:
            TimeoutError: If none came for ``silence_s``.
            ProgrammeChanged: If they belong to another programme; they are read next.
        """
        data = self._received.read(size, round(1000 * self._silence_s))
        if data is None:
            raise TimeoutError(f"no packet for {self._silence_s:g} s")
        if not data:
            raise ProgrammeChanged("another programme is sent now")
        return data

    @property
    def lost(self) -> int:
        """Datagrams that found no room."""
        return self._received.lost

    def end(self) -> None:
        """Give the port back and wake who reads; idempotent."""
        self._received.end()


def _bound(url: str) -> socket.socket:
    parts = urlsplit(url)
    wishes = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    host = (parts.hostname or "").lstrip("@")  # as players write it
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = ipaddress.ip_address("0.0.0.0")  # FFmpeg listens on every interface for what is no address of its own
    own = wishes.get("localaddr") or ("::" if address.version == 6 else "0.0.0.0")
    receiver = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(wishes.get("buffer_size", _SOCKET_BYTES)))
        if address.is_multicast or wishes.get("reuse") == "1":
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind((str(address) if address.is_multicast or address.is_loopback else own, parts.port or 0))
        if address.is_multicast and address.version == 4:
            group = address.packed + socket.inet_aton(own)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        elif address.is_multicast:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, address.packed + bytes(4))
    except BaseException:
        receiver.close()
        raise
    return receiver
