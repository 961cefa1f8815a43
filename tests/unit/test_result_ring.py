"""Results on their way into another process, with where their pictures and sounds lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from mmedge._native import core
from mmedge.errors import EngineError, FrameExpiredError
from mmedge.ipc.frame_record import FrameRecords
from mmedge.ipc.frames import FramePool
from mmedge.ipc.wake import Wake
from mmedge.pipeline.answer import Answer
from mmedge.pipeline.sent import Media, Reference, ResultWriter, Sent, SoundReference
from mmedge.types import Frame, Result, Snapshot

SEAT = SimpleNamespace(window=160, rate_hz=16000)


class Line:
    """A control line that keeps what is sent; one that is ``deaf`` sends nothing."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.deaf = False

    def send(self, message: Any, fds: Any = (), *, wait: bool = True) -> bool:
        if not self.deaf:
            self.sent.append(message)
        return not self.deaf


class Border:
    """A writer of results, and what its reader finds."""

    def __init__(self, *, lossless: bool = False, values: int = 0) -> None:
        self.line, self.wake, self.over = Line(), Wake(), SimpleNamespace(set=lambda: None)
        self.writer = ResultWriter(self.line, self.wake, lossless=lossless, values=values, over=self.over)  # type: ignore[arg-type]
        self.samples = core.SampleRing(1024)
        self.sync: Any = SimpleNamespace(heard={"mic": (self.samples, SEAT)})

    def answer(self, snapshot: Snapshot, reason: str = "", **more: Any) -> Answer:
        result = Result(
            t_ns=1, unix_ns=2, status="ok", tasks={}, present={}, age_ms={}, skew_ms=0.0, uncertainty_ms=0.0,
            latency_ms={}, epoch={}, reason=reason,
        )  # fmt: skip
        told = {"outputs": {}, "spans": b"", **more}
        return Answer(message=msgspec.msgpack.encode(result), from_ns=7, snapshot=snapshot, sync=self.sync, **told)

    def read(self) -> Sent:
        found = core.next_message(self.writer._ring, self.wake.fileno(), 0.0, False)
        assert found is not None
        return msgspec.msgpack.decode(found[0], type=Sent)


def frame(release: Any) -> Frame:
    data = np.zeros((2, 3), np.uint8)
    return Frame(
        stream="cam", seq=4, capture_ns=5, arrive_ns=6, data=data, format="gray8", width=3, height=2, release=release
    )


def media(sent: Sent) -> Media:
    return msgspec.msgpack.decode(sent.media, type=Media)


def test_pictures_and_sounds_are_found_where_they_lie() -> None:
    border = Border()
    ring = core.SlotRing(2, 6)
    slot = core.RingSlot(ring, 1, 9)
    record = FrameRecords().encode(frame(None), 3, 1, 9)
    slot.record = record
    snapshot = Snapshot(
        t_ns=1, seq=1, present={}, frames={"cam": frame(slot)}, audio_end={"mic": 480}, audio_end_ns={"mic": 30},
        epoch={"mic": 2},
    )  # fmt: skip
    assert border.writer.put(border.answer(snapshot, spans=b"spans"))
    sent = border.read()
    assert (sent.from_ns, sent.spans, sent.raw_outputs) == (7, b"spans", {})
    rings = {message.stream: message.number for message in border.line.sent if message.number}
    assert media(sent).pictures == {"cam": Reference(rings["cam"], 1, 9, record)}
    assert media(sent).sounds == {"mic": SoundReference(rings["mic"], 480, 30, 160, 16000, 2)}
    border.writer.put(border.answer(snapshot))
    assert sum(message.number > 0 for message in border.line.sent) == 2  # each ring is announced once
    other = core.RingSlot(core.SlotRing(2, 6), 0, 1)
    other.record = record
    border.writer.put(border.answer(Snapshot(t_ns=1, seq=2, present={}, frames={"cam": frame(other)})))
    assert [message.stream for message in border.line.sent if message.number].count("cam") == 2


def test_a_picture_of_this_process_is_held_and_described() -> None:
    border = Border()
    lent = FramePool((2, 3), slots=2).acquire()
    assert lent is not None
    loan = lent[1]
    border.writer.put(border.answer(Snapshot(t_ns=1, seq=1, present={}, frames={"cam": frame(loan)})))
    (place,) = media(border.read()).pictures.values()
    assert place is not None
    assert (place.index, FrameRecords().decode(place.record).seq) == (loan.index, 4)


def test_a_reader_that_is_stopped_gets_results_without_media() -> None:
    border = Border()
    border.line.deaf = True
    slot = core.RingSlot(core.SlotRing(2, 6), 0, 1)
    slot.record = b"record"
    snapshot = Snapshot(
        t_ns=1, seq=1, present={}, frames={"cam": frame(slot)}, audio_end={"mic": 1}, audio_end_ns={"mic": 1}
    )
    border.writer.put(border.answer(snapshot))
    sent = border.read()
    assert media(sent) == Media({"cam": None}, {"mic": None})

    def gone(name: str, place: object, *since: object) -> None:
        assert place is None
        raise FrameExpiredError("gone", where=name, fix="-")

    result = sent.take(SimpleNamespace(picture=gone, sound=gone))  # type: ignore[arg-type]
    with pytest.raises(FrameExpiredError):
        result.frame("cam")
    with pytest.raises(FrameExpiredError):
        result.sound("mic")


def test_outputs_are_the_results_own() -> None:
    border = Border(values=6)
    outputs = {"net.y": np.arange(6, dtype=np.float32).reshape(2, 3), "net.n": np.array([1, 2], np.int64)}
    border.writer.put(border.answer(Snapshot(t_ns=1, seq=1, present={}), outputs=outputs))
    result = border.read().take(SimpleNamespace())  # type: ignore[arg-type]
    for name, array in outputs.items():
        assert np.array_equal(result.outputs[name], array)
        assert result.outputs[name].dtype == array.dtype
    result.outputs["net.y"][0, 0] = 5
    assert result.outputs["net.y"][0, 0] == 5


def test_a_result_that_is_too_large_says_so_and_the_next_one_goes() -> None:
    border = Border()
    empty = Snapshot(t_ns=1, seq=1, present={})
    with pytest.raises(EngineError, match="too large to leave the runtime process"):
        border.writer.put(border.answer(empty, reason="x" * (1 << 18)))
    assert border.writer.put(border.answer(empty, reason="small"))
    told = border.read().told
    assert told is not None
    assert told.reason == "small"


def test_of_results_that_nobody_reads_the_newest_are_kept_or_all_are() -> None:
    border = Border()
    empty = Snapshot(t_ns=1, seq=1, present={})
    for number in range(200):
        assert border.writer.put(border.answer(empty, reason=str(number)))
    newest = border.read().told
    assert newest is not None
    assert int(newest.reason or 0) == border.writer.dropped > 0
    full = Border(lossless=True)
    full.writer.ended.wait = lambda timeout=None: True  # type: ignore[method-assign]
    puts = [full.writer.put(full.answer(empty)) for _ in range(200)]
    assert puts.index(False) == 200 - border.writer.dropped
    assert full.writer.dropped == 0
