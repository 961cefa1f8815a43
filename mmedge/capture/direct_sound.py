"""A microphone's sound on its way to another process without Python: what is said of it, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmedge._native import core
from mmedge.capture.base import ThreadSource
from mmedge.capture.channels import Mixer
from mmedge.capture.stamps import FLOORS_NS, QUALITIES, clock_report, say_jump, say_quality
from mmedge.clock import ClockReport
from mmedge.types import Arrival


class DirectSound:
    """Reads blocks of PortAudio's thread into rings, each input's mono at the rate of the device.

    Args:
        source: Whose sound it is; its first epoch is that of the source.
        writer: The native writer of the rings of its streams.
        blocks: The native blocks.
        rate_hz: Of the device.
        mixers: What each stream takes of it.
    """

    def __init__(self, source: ThreadSource, writer: Any, blocks: Any, rate_hz: int, mixers: Sequence[Mixer]) -> None:
        self._source, self._writer, self._mixers = source, writer, mixers
        channels = [mixer.choice.channels for mixer in mixers]
        self._reader = core.MicrophoneReader(blocks, writer, rate_hz, *FLOORS_NS, channels, source.epoch)
        self._seen_ns = 0

    def read(self, silence_ms: int) -> None:
        """Read until the blocks are closed.

        Raises:
            TimeoutError: If none came for that long.
        """
        name = self._source.name
        while (told := self._reader.run(silence_ms)) is not None:
            (gap_ns, broken, change), before, now, mixes = told
            if broken:
                say_jump(name, gap_ns)
            if change:
                say_quality(name, change, QUALITIES[before], QUALITIES[now])
            for stream, weak in mixes:
                self._mixers[stream].say(*weak)

    def catch_up(self) -> ClockReport:
        """Let the source count what was read up to now; return how the clock is."""
        source = self._source
        epoch, blocks, lost, jumps, arrive_ns, streams, report = self._reader.state
        source.counters["blocks"], source.counters["lost_samples"] = blocks, lost
        if jumps:
            source.counters["clock_jumps"] = jumps
        for number, (stream, (seq, capture_ns)) in enumerate(zip(source.streams, streams, strict=True)):
            if source.writer is not None and (dropped := self._writer.dropped(number)):
                source.writer.dropped[stream] = dropped
            if arrive_ns > self._seen_ns:
                newest = Arrival(
                    stream=stream,
                    seq=seq - 1,
                    epoch=epoch,
                    capture_ns=capture_ns,
                    arrive_ns=arrive_ns,
                    quality=QUALITIES[report[0]],
                )
                source.went_by(newest)
        self._seen_ns = arrive_ns
        return clock_report(report)
