"""Results on their way out of the runtime process: through a ring of shared memory, with where their media lie."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any, Literal, TypeAlias

import msgspec

from mmedge._native import core
from mmedge.errors import EngineError, MmedgeError
from mmedge.ipc.control import Control, Ring
from mmedge.ipc.frame_record import FrameRecords
from mmedge.ipc.frames import Loan
from mmedge.ipc.wake import Wake
from mmedge.pipeline.spec import RESULTS
from mmedge.sound_cut import SoundCut
from mmedge.types import Frame, Result

REPORT_S = 0.5  # between two reports of the runtime
_RESULT_BYTES = 1 << 18  # of one encoded result, a slot of its ring


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


# What crosses the border: a result, its pictures, its sounds, from when its latency counts, its outputs, its spans.
Sent: TypeAlias = tuple[
    Result,
    dict[str, Reference | None],
    dict[str, SoundReference | None],
    int,
    dict[str, tuple[str, tuple[int, ...], bytes]],
    bytes,
]


class ResultWriter:
    """Takes results in the runtime process; the newest are kept for the reader, or all of them.

    Args:
        control: To the user's process.
        wake: Wakes its reader.
        lossless: Keep all of them.
        values: Numbers of the outputs that each tells as they are.
    """

    def __init__(self, control: Control, wake: Wake, *, lossless: bool, values: int = 0) -> None:
        self._control = control
        self._largest = _RESULT_BYTES + 8 * values
        self._ring = core.SlotRing(RESULTS, self._largest)
        self._rings: dict[str, tuple[int, Any]] = {}  # input -> the ring its pictures or sound lie in, and its number
        self._numbers = count(1)
        self._frames = FrameRecords()
        self._wake = wake
        self._lossless = lossless
        self.ended = threading.Event()
        self.error: MmedgeError | None = None
        control.send(Ring(0, "slots"), [self._ring.fd])

    @property
    def dropped(self) -> int:
        """Results that were not read in time."""
        return int(self._ring.dropped)

    def put(self, result: Result) -> bool:
        """Hand a result over; False when no more are wanted."""
        copies: dict[str, Any] = vars(result).get("frames", {})
        references = {name: self._refer(copy.__self__) for name, copy in copies.items()}
        cuts: dict[str, SoundCut] = vars(result).get("sounds", {})
        sounds = {name: self._refer_sound(name, cut) for name, cut in cuts.items()}
        outputs = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in result.outputs.items()}
        data = msgspec.msgpack.encode((result, references, sounds, vars(result)["from_ns"], outputs, result.spans))
        if len(data) > self._largest:
            raise EngineError(
                f"a result of {len(data)} bytes is too large to leave the runtime process",
                where="results",
                fix=f"limit the bundle's tasks (top_k) to {self._largest} bytes, or use isolation='thread'",
            )
        while not core.put_message(self._ring, self._wake.fileno(), data, steal=not self._lossless):
            if self.ended.wait(0.002):
                return False
        return True

    def _refer(self, frame: Frame) -> Reference | None:
        slot = frame.release
        if isinstance(slot, Loan):  # of a file, which is read in this process
            ring, seq = slot.pool.ring, slot.hold()
            record = self._frames.encode(frame, 0, slot.index, seq)
        else:
            assert isinstance(slot, core.RingSlot)
            ring, seq = slot.ring, slot.seq
            record = slot.record or self._frames.encode(frame, 0, slot.index, seq)
        number = self._announce(frame.stream, ring, "slots")
        return None if number is None else Reference(number, slot.index, seq, record)

    def _refer_sound(self, name: str, cut: SoundCut) -> SoundReference | None:
        number = self._announce(name, cut.ring, "samples")
        if number is None:
            return None
        return SoundReference(number, cut.end, cut.end_ns, cut.window, cut.rate_hz, cut.epoch)

    def _announce(self, stream: str, ring: Any, kind: Literal["slots", "samples"]) -> int | None:
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
