"""Pictures that were damaged on the way: decoders conceal that and report success, so every sign of it is looked at."""

from __future__ import annotations

import heapq
import logging
import math
from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from mmedge._native import core
from mmedge.capture.h264 import FrameNumbers, zeroed
from mmedge.extras import require

log = logging.getLogger("mmedge.capture")
# A decoder that gives up at the first error it finds: the others conceal most of what they find without a word.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
# Decoders that give up at what they merely do not know: here, at private tags.
_CHATTY = {"tiff"}
_ODD = 8  # groups of pictures in a row with an error that nothing else explains: the sender breaks its codec's rules
_ODD_KEYS = 3  # the same for key frames in a row
_MUTE = 50  # the same for packets in a row that give no picture
_PATIENCE = 300  # pictures to wait for a first key frame; some codecs mark none
_JPEGS = 16  # pictures by which it is judged what a camera always leaves over


class CheckedDecoder:
    """Decodes a picture track and says which pictures are damaged.

    After a sign of damage (the container lacks packets, the decoder finds an error or conceals one, the codes of a JPEG
    picture do not add up) every picture is suspect until a key frame that was decoded later; H.264 decoders are started
    anew, as they know recovery points without key frames, too. Where every picture stands for itself, only the one is.
    A picture that did not come out at all is replaced by a sign that it came. Nothing is given before the first key
    frame: a stream is joined there.

    Args:
        stream: The PyAV stream; its decoder must not have been opened.
        counters: ``corrupt_packets`` is counted there.
    """

    def __init__(self, stream: Any, counters: Counter[str]) -> None:
        self._av = require("av", "reading media")
        self._time_base = stream.time_base
        self._counters = counters
        self._context = context = stream.codec_context
        self._jpeg = context.name == "mjpeg"
        self._alone = bool(context.codec.intra_only)
        self._restarts = context.name == "h264"
        self._unit_codec = context.name if context.name in ("h264", "hevc") else ""
        self._numbers = FrameNumbers(context.extradata) if self._restarts else None
        self._clean = True  # whether nothing that is damaged was decoded since the decoder was started
        if not self._jpeg and context.name not in _CHATTY:  # the former have a better judge
            context.options = {**context.options, **_STRICT}
        context.copy_opaque = True
        if self._restarts:
            context.thread_count = 1  # with threads for slices FFmpeg's decoder takes errors for pictures
        # FFmpeg's parsers give a packet when the next one begins, with the marks of that next one.
        self._marked_early = stream.container.format.name == "mpegts"
        self._marked = False  # the packet before
        self.remark: str | None = None
        self.failed = 0  # packets that the decoder refused
        self._sent = 0  # packets
        # Numbers of the damaged packets that no key frame followed yet; of very many the newest say the same.
        self._hurt: deque[int] = deque(maxlen=_PATIENCE)
        # Shapes of a pixel, each with the number of the packet that it came with: pictures leave later than they come.
        self._aspects: deque[tuple[int, Fraction | None]] = deque(maxlen=_PATIENCE)
        self._begun = self._alone or self._restarts  # H.264 decoders give nothing before they can
        self._keys: deque[int] = deque(maxlen=_PATIENCE)  # numbers of packets that the container calls key frames
        self._keyed = False  # whether the decoder has called a picture a key frame: some never do
        self._mute = self._odd = self._odd_keys = self._waited = 0
        self._odd_group = False
        self._expected: list[int] = []  # times of the packets that no picture came of yet
        self._whole = False  # whether a JPEG picture has added up
        self._unwhole = 0  # JPEG pictures before that
        self._left: deque[bool] = deque(maxlen=_JPEGS)

    def decode(self, packet: Any) -> Iterator[tuple[Any | None, bool, int | None]]:
        """Yield (frame, whether it is damaged, None), or (None, True, its time in ticks) for one that is lost."""
        if not packet.size and (packet.pts is not None or packet.dts is not None):
            return  # it repeats the picture before; to a decoder it would mean the end
        if not packet.size:
            yield from self._judged(self._send(packet)[0])
            yield from self._lost(math.inf)
            return
        self._sent += 1
        if packet.is_keyframe:
            self._keys.append(self._sent)
        packet.opaque = self._sent
        if packet.pts is not None and not packet.is_discard:
            heapq.heappush(self._expected, packet.pts)
        known = packet.is_corrupt or self._marked or (self._jpeg and self._jpeg_hurt(packet))
        if self._unit_codec:
            data = bytes(packet)
            known |= zeroed(data, self._context.extradata, self._unit_codec)
            known |= self._numbers is not None and self._numbers.gap(data)
        self._marked = self._marked_early and packet.is_corrupt
        if packet.is_keyframe:
            self._odd = self._odd + 1 if self._odd_group else 0
            self._odd_group = False
        frames: list[Any] = []
        broken = False
        if not (known and self._restarts):  # after it the decoder would not know what it lacks
            frames, broken = self._send(packet)
        if known or broken:
            self._hurt.append(self._sent)
            self._clean = False
            self._counters["corrupt_packets"] += 1
        self.failed += broken
        self._odd_group |= broken and not known
        if packet.is_keyframe:
            self._odd_keys = self._odd_keys + 1 if broken and not known else 0
        yield from self._judged(frames)
        if self._restarts and not self._clean:
            yield from self._judged(self._held())
            self._context.flush_buffers()
            self._clean = True
        self._mute = 0 if frames or known else self._mute + broken
        if self._mute >= _MUTE or self._odd >= _ODD or self._odd_keys >= _ODD_KEYS:
            self._be_lenient()
        yield from self._lost()

    def aspect_of(self, frame: Any) -> Fraction | None:
        """Return the sample aspect ratio that the stream stated for a picture; None where it states none."""
        number = self._sent if frame.opaque is None else frame.opaque
        return next((aspect for first, aspect in reversed(self._aspects) if first <= number), None)

    def _send(self, packet: Any) -> tuple[list[Any], bool]:
        try:
            frames = self._context.decode(packet)
            now = self._context.sample_aspect_ratio
            if not self._aspects or self._aspects[-1][1] != now:
                self._aspects.append((self._sent, now))
            return frames, False
        except self._av.error.EOFError:
            return [], False  # a second flush: nothing was left
        except self._av.error.FFmpegError:  # damage also leads to what a decoder does not know, or takes for a misuse
            return [], True

    def _judged(self, frames: list[Any]) -> Iterator[tuple[Any | None, bool, int | None]]:
        for frame in frames:
            yield from self._lost(frame.pts)
            number = self._sent if frame.opaque is None else frame.opaque
            self._keyed |= frame.key_frame
            key = frame.key_frame or (not self._keyed and number in self._keys)
            if frame.is_corrupt and number not in self._hurt:
                self._hurt.append(number)
                self._clean = False
            if self._alone:
                damaged = number in self._hurt
                self._forget(number)
            else:
                if (key and number not in self._hurt) or (self._restarts and self._clean):
                    self._forget(number - 1)
                damaged = bool(self._hurt) and any(first <= number for first in self._hurt)
            self._waited += not self._begun
            self._begun |= key or self._waited > _PATIENCE
            if self._begun:
                yield frame, damaged, None

    def restart(self) -> None:
        """The sender's time begins anew."""
        self._expected.clear()
        if self._numbers is not None:
            self._numbers.restart()

    def _forget(self, number: int) -> None:
        if self._hurt:
            self._hurt = deque((first for first in self._hurt if first > number), maxlen=_PATIENCE)

    def _lost(self, before: float | None = None) -> Iterator[tuple[None, bool, int]]:
        """Yield the times for which no picture can come any more, while it is known that pictures are damaged."""
        most = self._context.reorder_depth + 1 if before is None else 0
        while len(self._expected) > most and (before is None or self._expected[0] <= before):
            time = heapq.heappop(self._expected)
            if self._hurt and self._begun and time != before:
                yield None, True, time

    def _held(self) -> list[Any]:
        """Return what the decoder still holds; it must be started anew."""
        empty = self._av.Packet()
        empty.time_base = self._time_base
        return self._send(empty)[0]

    def _be_lenient(self) -> None:
        """Decode what can be decoded: a sender that breaks its codec's rules all the time is no damage."""
        self._mute = self._odd = self._odd_keys = 0
        if self.remark is not None or self._jpeg:
            return
        self.remark = "the stream breaks its codec's rules, so damaged pictures are noticed only in part"
        old = self._context
        new = self._av.CodecContext.create(old.name, "r")
        new.extradata, new.thread_count, new.flags = old.extradata, old.thread_count, old.flags
        new.width, new.height, new.copy_opaque = old.width, old.height, True
        self._context = new
        self._hurt.clear()
        self._begun = self._alone or self._restarts

    def _jpeg_hurt(self, packet: Any) -> bool:
        left = core.jpeg_unused(np.frombuffer(packet, np.uint8))
        self._whole |= left == 0  # before, it is not known whether this camera's pictures ever do
        self._left.append(left > 0)
        if not self._whole and left == -1:  # damaged if FFmpeg agrees, unless that never ends
            self._unwhole += 1
            return self._unwhole <= _JPEGS and self._refused(packet)
        return self._whole and (left == -1 or (left > 0 and 4 * sum(self._left) < len(self._left)))

    def _refused(self, packet: Any) -> bool:
        """Tell whether a strict decoder gives no picture of a packet."""
        strict = self._av.CodecContext.create(self._context.name, "r")
        strict.options = dict(_STRICT)
        try:
            return not strict.decode(self._av.Packet(bytes(packet)))
        except self._av.error.FFmpegError:
            return True
