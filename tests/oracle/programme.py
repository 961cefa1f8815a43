"""The programme map tables of an MPEG transport stream, read in Python."""

from __future__ import annotations

_PACKET = 188  # bytes


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
