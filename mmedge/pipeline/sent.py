"""Results on their way out of the runtime process: through a ring of shared memory, with where their media lie."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Protocol

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import EngineError, MmedgeError
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.frame_record import FrameRecords
from mmedge.ipc.frames import Loan
from mmedge.ipc.wake import Wake
from mmedge.learn import learn
from mmedge.pipeline.answer import Answer
from mmedge.pipeline.spec import RESULTS
from mmedge.sound_cut import Sound
from mmedge.sync import Synchronizer
from mmedge.types import AnyArray, Frame, Result

REPORT_S = 0.5  # between two reports of the runtime
_RESULT_BYTES = 1 << 18  # of one encoded result, a slot of its ring


class MediaReader(Protocol):
    """Copies what a result was made from, while it lasts."""

    def picture(self, name: str, place: Reference | None, /) -> Frame:
        """Return a copy of a picture, or raise FrameExpiredError."""

    def sound(self, name: str, place: SoundReference | None, since: int | None, /) -> Sound:
        """Return a copy of a window of sound, or of all from an index on, or raise FrameExpiredError."""


class Report(msgspec.Struct, frozen=True):
    """What the runtime says twice a second: how its sources are, and the run's figures."""

    health: dict[str, dict[str, Any]]
    statistics: bytes


class Reference(msgspec.Struct, frozen=True, array_like=True):
    """Where a picture lies: in which slot of which ring, as long as that slot still holds ``seq``.

    ``record`` is as ``FrameRecords`` encodes it, but for the number of its ring.
    """

    ring: int
    index: int
    seq: int
    record: bytes


class SoundReference(msgspec.Struct, frozen=True, array_like=True):
    """Where a window of sound lies: before which index of which ring; the rest as in ``SoundCut``."""

    ring: int
    end: int
    end_ns: int
    window: int
    rate_hz: int
    epoch: int


class Media(msgspec.Struct, frozen=True, array_like=True):
    """What a result was made from."""

    pictures: dict[str, Reference | None]
    sounds: dict[str, SoundReference | None]


class Sent(msgspec.Struct, array_like=True, eq=False):
    """What crosses the border, as native/bindings/result_ring.cpp writes it; the ``Origin`` of its result.

    Attributes:
        told: The result; ``take`` takes it out.
        from_ns: From when its latency counts.
        media: Where its pictures and sounds lie.
        raw_outputs: Name -> dtype, shape and bytes of an output.
        spans: As those of a ``Result``.
        reader: Copies pictures and sounds.
        arrays: Its outputs, once they were asked for.
    """

    told: Result | None
    from_ns: int
    media: msgspec.Raw
    raw_outputs: dict[str, tuple[str, tuple[int, ...], bytes]]
    spans: bytes
    reader: MediaReader | None = None
    arrays: dict[str, AnyArray] | None = None

    def take(self, reader: MediaReader) -> Result:
        """Return the result, whose media ``reader`` copies."""
        result, self.told, self.reader = self.told, None, reader  # none holds the other for ever
        assert result is not None
        return result.made_from(self)

    @property
    def frames(self) -> dict[str, Callable[[], Frame]]:
        """Input -> what copies its picture."""
        assert self.reader is not None
        return {name: partial(self.reader.picture, name, place) for name, place in self._media().pictures.items()}

    @property
    def sounds(self) -> dict[str, Callable[[int | None], Sound]]:
        """Input -> what copies its sound."""
        assert self.reader is not None
        return {name: partial(self.reader.sound, name, place) for name, place in self._media().sounds.items()}

    def _media(self) -> Media:
        return msgspec.msgpack.decode(self.media, type=learn(Media))

    @property
    def outputs(self) -> dict[str, AnyArray]:
        """Name -> output, [...] in the network's dtype; its own."""
        if self.arrays is None:
            told = self.raw_outputs.items()
            self.arrays = {n: np.frombuffer(raw, kind).reshape(shape).copy() for n, (kind, shape, raw) in told}
        return self.arrays


_NO_OUTPUTS = msgspec.msgpack.encode({})


class ResultWriter:
    """Takes results in the runtime process; the newest are kept for the reader, or all of them.

    Args:
        control: To the user's process.
        wake: Wakes its reader.
        lossless: Keep all of them.
        values: Numbers of the outputs that each tells as they are.
        over: Set when it takes no more.
    """

    def __init__(self, control: Control, wake: Wake, *, lossless: bool, values: int, over: threading.Event) -> None:
        self._control = control
        self._over = over
        self._largest = _RESULT_BYTES + 8 * values
        self._ring = core.SlotRing(RESULTS, self._largest)
        self._rings: dict[str, tuple[int, Any]] = {}  # input -> the ring its pictures or sound lie in, and its number
        self._numbers = count(1)
        self._frames = FrameRecords()
        self._native = core.ResultRing(
            self._ring, wake.fileno(), steal=not lossless, announce=self._announce, refer=self._refer
        )
        self._wake = wake  # stays open as long as it is set
        self._heard: Synchronizer | None = None
        self.ended = threading.Event()
        self.error: MmedgeError | None = None
        control.send(Ring(0, "slots"), [self._ring.fd])

    @property
    def dropped(self) -> int:
        """Results that were not read in time."""
        return int(self._ring.dropped)

    def put(self, answer: Answer) -> bool:
        """Hand a result over; False when no more are wanted."""
        native = self._native
        if answer.sync is not self._heard:
            self._heard = answer.sync
            for name, (ring, seat) in answer.sync.heard.items():
                native.hear(name, ring, seat.window, seat.rate_hz)
        told = _NO_OUTPUTS
        if answer.outputs:
            outputs = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in answer.outputs.items()}
            told = msgspec.msgpack.encode(outputs)
        size = native.pack(answer.message, answer.from_ns, answer.snapshot, told, answer.spans)
        if size > self._largest:
            raise EngineError(
                f"a result of {size} bytes is too large to leave the runtime process",
                where="results",
                fix=f"limit the bundle's tasks (top_k) to {self._largest} bytes, or use isolation='thread'",
            )
        while not native.send():
            if self.ended.wait(0.002):
                return False
        return True

    def _refer(self, frame: Frame) -> tuple[Any, int, int, bytes]:
        slot = frame.release
        if isinstance(slot, Loan):  # of a file, which is read in this process
            ring, seq = slot.pool.ring, slot.hold()
        else:  # its record says the time that its writer knew
            assert isinstance(slot, core.RingSlot)
            ring, seq = slot.ring, slot.seq
        return ring, slot.index, seq, self._frames.encode(frame, 0, slot.index, seq)

    def _announce(self, stream: str, ring: Any, kind: Any) -> int | None:
        """Return the number of a ring that the reader has; None if it is stopped: it will not ask for what is there."""
        number, known = self._rings.get(stream, (0, None))
        if known is not ring:
            number = next(self._numbers)
            if not self._control.send(Ring(number, kind, stream), [ring.fd], wait=False):
                return None
            self._rings[stream] = number, ring
        return number

    def close(self, error: MmedgeError | None = None) -> None:
        """Take no more results; idempotent."""
        if not self.ended.is_set():
            self.error = error
            self.ended.set()
            self._over.set()
