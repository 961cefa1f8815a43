"""Damage that the units of H.264 (and HEVC) show and a decoder does not: missing numbers, impossible zeros."""

from __future__ import annotations

from collections.abc import Iterator

_START = b"\0\0\1"
_HIGH = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}  # profiles whose headers state the chroma format
_HEAD = 64  # bytes of a slice that hold its number
_SET = 1024  # bytes of a parameter set that are read: real ones have far less, and a stranger's may have any number


class _Bits:
    """The bits of a unit, without the bytes that prevent start codes."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the unit ends early")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def code(self) -> int:
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()  # before a one and as many bits as they
        if 2 * zeros >= self._left:
            raise ValueError("the unit ends early")
        self._left -= 2 * zeros + 1
        return (rest >> self._left) - 1

    def signed(self) -> int:
        code = self.code()
        return (code + 1) // 2 if code % 2 else -(code // 2)


_ILLEGAL = (b"\0\0\0", b"\0\0\1", b"\0\0\2")  # an encoder puts a 3 in between


def zeroed(packet: bytes, extradata: bytes | None, codec: str) -> bool:
    """Tell whether a packet of H.264 or HEVC holds bytes that no unit can: what is lost is often filled with zeros.

    Only where units have their length before them (MP4, Matroska): behind start codes zeros are nothing odd.

    Args:
        packet: The packet.
        extradata: Of the decoder.
        codec: ``h264`` or ``hevc``; of another nothing is known.
    """
    length = _length(extradata or b"", codec)
    if not length or not any(odd in packet for odd in _ILLEGAL):
        return False
    at = 0
    while at + length < len(packet):
        size = int.from_bytes(packet[at : at + length], "big")
        unit = packet[at + length : at + length + size].rstrip(b"\0")  # sloppy muxers leave some behind a unit
        if unit and _of_picture(unit[0], codec) and any(odd in unit for odd in _ILLEGAL):
            return True
        at += length + size
    return False


def _of_picture(head: int, codec: str) -> bool:
    """Tell whether a unit that begins with this byte holds a part of a picture; cameras write notes as they like."""
    return 1 <= head & 31 <= 5 if codec == "h264" else (head >> 1) & 63 < 32


def _length(extradata: bytes, codec: str) -> int:
    """Return how many bytes the length before each unit has; 0 if there is none."""
    at, least = {"h264": (4, 7), "hevc": (21, 23)}.get(codec, (0, 0))
    return (extradata[at] & 3) + 1 if at and extradata[:1] == b"\1" and len(extradata) >= least else 0


class FrameNumbers:
    """Follows ``frame_num`` from picture to picture (ITU-T H.264, 7.4.3).

    Args:
        extradata: Of the decoder; says how packets are divided into units.
    """

    def __init__(self, extradata: bytes | None) -> None:
        data = extradata or b""
        self._length = _length(data, "h264")  # 0: start codes
        self._bits = 0  # of a number; 0: not known, or gaps are allowed
        self._planes = False
        self._before: int | None = None
        if self._length:  # the sets, each behind its length of two bytes
            at = 6
            for _ in range(data[5] & 31):
                size = int.from_bytes(data[at : at + 2], "big")
                self._settle(data[at + 2 : at + 2 + size])
                at += 2 + size
        else:
            self.gap(data)

    def restart(self) -> None:
        """Take what comes next as the first picture."""
        self._before = None

    def gap(self, packet: bytes) -> bool:
        """Take the packet of a picture; tell whether one that it may refer to is missing before it."""
        for unit in self._units(packet):
            kind = unit[0] & 31
            if kind == 7:
                self._settle(unit)
            elif kind in (1, 5):
                return self._slice(unit, fresh=kind == 5)
        return False

    def _units(self, packet: bytes) -> Iterator[bytes]:
        at = 0
        while self._length and at + self._length < len(packet):
            size = int.from_bytes(packet[at : at + self._length], "big")
            at += self._length
            if size:
                yield packet[at : at + size]
            at += size
        at = -1 if self._length else packet.find(_START)
        while at >= 0:
            after = packet.find(_START, at + 3)
            unit = packet[at + 3 : after if after >= 0 else len(packet)]
            if unit:
                yield unit
            at = after

    def _slice(self, unit: bytes, *, fresh: bool) -> bool:
        if not self._bits:
            return False
        try:
            bits = _Bits(unit[1:_HEAD])
            for _ in range(3):  # first macroblock, type, picture parameter set
                bits.code()
            if self._planes:
                bits.take(2)
            number = bits.take(self._bits)
        except ValueError:
            return False  # damaged: the decoder notices that
        before = self._before
        if unit[0] & 0x60 or fresh:  # others may refer to it
            self._before = number
        return not (fresh or before is None or number in (before, (before + 1) % (1 << self._bits)))

    def _settle(self, unit: bytes) -> None:
        try:
            bits = _Bits(unit[1:_SET])
            profile = bits.take(8)
            bits.take(16)
            bits.code()
            self._planes = False
            if profile in _HIGH:
                chroma = bits.code()
                self._planes = chroma == 3 and bool(bits.take(1))
                bits.code()
                bits.code()
                bits.take(1)
                if bits.take(1):
                    for index in range(12 if chroma == 3 else 8):
                        if bits.take(1):
                            _skip_list(bits, 16 if index < 6 else 64)
            length = bits.code() + 4
            order = bits.code()
            if order == 0:
                bits.code()
            elif order == 1:
                bits.take(1)
                for _ in range(2):
                    bits.signed()
                for _ in range(bits.code()):
                    bits.signed()
            bits.code()
            gaps_allowed = bool(bits.take(1))
        except ValueError:
            return
        self._bits = 0 if gaps_allowed or length > 16 else length


def _skip_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
