"""UDP as a stream of bytes, with what FFmpeg's own receiver does not say: that another sender took over."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import deque
from urllib.parse import parse_qs, urlsplit

LARGEST = 65_536  # bytes of a datagram
_WAITING = 8 << 20  # bytes that may wait to be read, two seconds at 32 Mbit/s; FFmpeg keeps 5 MB
_MOST = 1 << 16  # datagrams that may wait: a stranger may send very small ones
_SOCKET_BYTES = 1 << 21  # the kernel gives what it allows
_KNOWN = {"localaddr", "buffer_size", "reuse"}
_PACKET, _SYNC = 188, 0x47  # of MPEG-TS


class ProgrammeChanged(OSError):  # noqa: N818  (no error: the stream is read anew)
    """Another codec or another track comes from now on."""


class Programme:
    """Which tracks a transport stream says that it has: the type and number of each, from its program map tables."""

    def __init__(self) -> None:
        self._tables: dict[int, object] = {}  # by packet identifier
        self._maps: set[int] = set()

    def changed(self, data: bytes) -> bool:
        """Take whole packets of a transport stream; tell whether a table differs from what it was."""
        if len(data) % _PACKET or data[:1] != b"G":
            return False
        changed = False
        for at, (high, low) in enumerate(zip(data[1::_PACKET], data[2::_PACKET], strict=True)):
            number = (high & 0x1F) << 8 | low
            if high & 0x40 and (number == 0 or number in self._maps):
                changed |= self._table(number, data[at * _PACKET : (at + 1) * _PACKET])
        return changed

    def _table(self, number: int, packet: bytes) -> bool:
        start = 5 + packet[4] if packet[3] & 0x20 else 4
        section = packet[start + 1 + packet[start] :] if start < _PACKET else b""
        length = ((section[1] & 0x0F) << 8 | section[2]) + 3 if len(section) > 12 else 0
        if not 12 <= length <= len(section) or section[0] != (0 if number == 0 else 2):
            return False  # in several packets, or not whole
        body = section[8 : length - 4]
        if number and len(body) < 4:
            return False
        table: object
        if number == 0:
            table = self._maps = {
                (body[i + 2] & 0x1F) << 8 | body[i + 3] for i in range(0, len(body) - 3, 4) if body[i] or body[i + 1]
            }
        else:
            tracks, at = [], 4 + ((body[2] & 0x0F) << 8 | body[3])
            while at + 5 <= len(body):
                tracks.append((body[at], (body[at + 1] & 0x1F) << 8 | body[at + 2]))
                at += 5 + ((body[at + 3] & 0x0F) << 8 | body[at + 4])
            table = tuple(tracks)
        return self._tables.setdefault(number, table) != table


class Datagrams:
    """Receives datagrams in a thread of its own, for a demuxer that reads them as a file.

    Args:
        url: ``udp://HOST:PORT``, ``HOST`` being the own address, a group to join, or anything else for all addresses.
        silence_s: How long a read waits.

    Raises:
        OSError: If the port cannot be had.
    """

    name = "udp"

    def __init__(self, url: str, silence_s: float) -> None:
        self._silence_s = silence_s
        self._socket = _bound(url)
        self._socket.settimeout(0.2)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._ended = False
        self._programme = Programme()
        self.lost = 0
        self._thread = threading.Thread(target=self._receive, name="mmedge-udp", daemon=True)
        self._thread.start()

    @staticmethod
    def takes(url: str) -> bool:
        """Tell whether an address asks for nothing that is not known here."""
        parts = urlsplit(url)
        return parts.scheme == "udp" and set(parse_qs(parts.query, keep_blank_values=True)) <= _KNOWN

    def begin(self) -> Datagrams:
        """Read what comes next as a stream of its own; returns itself."""
        self._programme = Programme()
        return self

    def _receive(self) -> None:
        while not self._ended:
            try:
                data = self._socket.recv(LARGEST)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:  # it would read as the end of the stream
                continue
            with self._change:
                if self._bytes + len(data) > _WAITING or len(self._waiting) >= _MOST:
                    self.lost += 1
                    continue
                self._waiting.append(data)
                self._bytes += len(data)
                self._change.notify()

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``.

        Raises:
            TimeoutError: If none came for ``silence_s``.
            ProgrammeChanged: If they belong to another programme; they are read next.
        """
        with self._change:
            if not self._change.wait_for(lambda: self._waiting or self._ended, self._silence_s) or self._ended:
                raise TimeoutError(f"no packet for {self._silence_s:g} s")
            data = self._waiting[0]
            if self._programme.changed(data):
                raise ProgrammeChanged("another programme is sent now")
            self._waiting.popleft()
            if len(data) > size:
                self._waiting.appendleft(data[size:])
            self._bytes -= min(size, len(data))
        return data[:size]

    def end(self) -> None:
        """Give the port back and wake who reads; idempotent."""
        with self._change:
            self._ended = True
            self._change.notify_all()
        self._socket.close()


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
