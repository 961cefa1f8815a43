"""Measure what a live device delivers: rate, time stamps, queue, jitter, latency, losses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np

from mmedge.address import Address
from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.capture import KINDS, Source, SourceHealth, open_sources, parse
from mmedge.clock import now_ns
from mmedge.errors import ConfigError, DeviceError, MmedgeError
from mmedge.pipeline import values_needed
from mmedge.types import NS_PER_S, Block, ClockQuality, EndOfStream, Frame, Packet

RATE_HZ = 48_000
SETTLED_S = 20.0
"""A shorter measurement says little about a clock's drift."""
_FIRST_S = 8.0  # for the first packet of a device that has opened
_SETTLING = 0.4  # of the time, which is not counted for the rate
_INPUTS: dict[str, Input] = {
    "image": ImageInput(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "audio": AudioInput(sample_rate_hz=RATE_HZ, window_ms=1000),
}
_FLUSHED = ("flushed_frames", "flushed_blocks")

Progress = Callable[[str, float], None]


class StreamProbe(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of a device.

    Attributes:
        modality: Of what.
        picture: Size and pixel format, ``"640x480 yuv420p"``; None for sound.
        rate_hz: Frames or samples per second, by capture time.
        nominal_hz: What the device claims.
        quality: Class of the latest stamps (A driver, B stream, C arrival).
        jitter_p50_ms: How much the time between two arrivals differs from what was due, at the median.
        jitter_p99_ms: The same at the 99th percentile; None for fewer packets than show it.
        clock_jitter_ms: 99 % of the packets came within this of the earliest possible time; None without a clock.
        ppm: How much slower than CLOCK_MONOTONIC the device's clock runs; None without a clock.
        ppm_settled: Whether it was measured for long enough.
        uncertainty_ms: Bound on the error of the latest capture time.
        latency_p50_ms: From capture to arrival, as far as it can be seen.
        packets: Frames or blocks that arrived.
    """

    modality: Literal["image", "audio"]
    picture: str | None
    rate_hz: float | None
    nominal_hz: float | None
    quality: ClockQuality
    jitter_p50_ms: float | None
    jitter_p99_ms: float | None
    clock_jitter_ms: float | None
    ppm: float | None
    ppm_settled: bool
    uncertainty_ms: float
    latency_p50_ms: float
    packets: int


class DeviceProbe(msgspec.Struct, frozen=True, kw_only=True):
    """One device; either it has streams or an error.

    Attributes:
        uri: Its address, as it may be shown.
        error: Why nothing came, as ``MmedgeError.to_dict``.
        streams: What it delivers.
        first_packet_ms: From the wish to open it to its first packet.
        queue_depth: Frames and blocks that were already waiting when it was opened; None where that cannot be seen.
        lost: Everything that was lost or went wrong, by cause.
        trouble: What was wrong with it at the end, None if nothing.
    """

    uri: str
    error: dict[str, object] | None = None
    streams: tuple[StreamProbe, ...] = ()
    first_packet_ms: float | None = None
    queue_depth: int | None = None
    lost: dict[str, int] = {}
    trouble: str | None = None


def probe_devices(
    uris: Sequence[str | Address], *, seconds: float = 5.0, progress: Progress | None = None
) -> list[DeviceProbe]:
    """Open devices one after the other, each in a worker process, and measure what they deliver.

    One after the other, because a machine lists one microphone under several names (its card, ``default``,
    the sound server), which would shut each other out, and because each is to be seen undisturbed.

    Args:
        uris: Addresses of live devices.
        seconds: How long each is measured, from its first packet on.
        progress: Told what is going on and the share that is done.

    Returns:
        One entry for each device; one that fails has the reason, and the others go on.

    Raises:
        ConfigError: If an address is malformed or is none of a live device; nothing was opened then.

    Example:
        >>> (device,) = probe_devices(["test://?fps=30"], seconds=1)  # doctest: +SKIP
        >>> device.streams[0].picture  # doctest: +SKIP
        '640x480 yuv420p'
    """
    for uri in uris:
        if not parse(uri).live:
            raise ConfigError(
                f"'{Address(uri)}' is not a live device",
                where=str(Address(uri)),
                fix="only devices can be probed: mmedge devices lists them",
            )
    found: list[DeviceProbe] = []
    for number, uri in enumerate(uris):

        def tell(share: float, number: int = number, uri: str | Address = uri) -> None:
            if progress is not None:
                progress(f"{number + 1} of {len(uris)}: {Address(uri)}", (number + share) / len(uris))

        tell(0)
        try:
            found.append(_probe(uri, seconds, tell))
        except MmedgeError as error:
            found.append(DeviceProbe(uri=str(Address(uri)), error=error.to_dict()))
    return found


class _Listener:
    """Keeps the packets, without their data."""

    def __init__(self) -> None:
        self.packets: dict[str, list[tuple[Packet, int]]] = {}
        self.pictures: dict[str, str] = {}
        self.first_ns = 0
        self.change = threading.Event()

    def __call__(self, packet: Packet) -> None:
        """Take a packet, on the source's own thread."""
        if isinstance(packet, EndOfStream):
            return
        size = 1
        if isinstance(packet, Frame):
            self.pictures[packet.stream] = f"{packet.width}x{packet.height} {packet.format}"
            if packet.release is not None:
                packet.release()
        elif isinstance(packet, Block):
            size = len(packet.samples) + packet.lost
        stamp = Packet(**packet.stamp())
        self.packets.setdefault(packet.stream, []).append((stamp, size))
        self.first_ns = self.first_ns or packet.arrive_ns
        self.change.set()


def _probe(uri: str | Address, seconds: float, tell: Callable[[float], None]) -> DeviceProbe:
    kind = KINDS[parse(uri).kind]
    streams: list[str] = [name for name in kind.feeds if name in _INPUTS]
    began_ns = now_ns()
    (source,) = open_sources(
        {name: _INPUTS[name] for name in streams}, dict.fromkeys(streams, Address(uri)), workers=True
    )
    listener = _Listener()
    try:
        opened_ns = now_ns()
        source.start(listener)
        while not listener.change.wait(0.05):
            if source.error is not None:
                raise source.error
            if now_ns() - opened_ns > _FIRST_S * NS_PER_S:
                raise _silent(source)
        passed_s = 0.0
        while passed_s < seconds and source.error is None:
            tell(passed_s / seconds)
            time.sleep(min(0.1, seconds - passed_s))
            passed_s = (now_ns() - listener.first_ns) / NS_PER_S
        health = source.health()
    finally:
        source.stop()
    counters = dict(health.counters)
    flushed = sum(counters.pop(name, 0) for name in _FLUSHED)
    for name in ("frames", "blocks"):
        counters.pop(name, None)
    if source.error is not None:
        trouble: str | None = source.error.message
    else:
        trouble = None if health.state == "OK" else health.reason
    return DeviceProbe(
        uri=str(Address(uri)),
        streams=tuple(
            _stream(name, listener, health, passed_s >= SETTLED_S) for name in streams if name in listener.packets
        ),
        first_packet_ms=round((listener.first_ns - began_ns) / 1e6, 1),
        queue_depth=flushed if kind.queue_seen else None,
        lost={cause: count for cause, count in sorted(counters.items()) if count},
        trouble=trouble,
    )


def _silent(source: Source) -> DeviceError:
    reason = source.health().reason
    return DeviceError(
        f"no data arrived within {_FIRST_S:g} s: {reason}",
        where=" ".join(source.streams),
        fix="check that it is switched on, plugged in and sends; that no other program uses it",
    )


def _stream(name: str, listener: _Listener, health: SourceHealth, settled: bool) -> StreamProbe:
    everything = listener.packets[name]
    last = everything[-1][0]
    packets = [(packet, size) for packet, size in everything if packet.epoch == last.epoch]
    capture_ns = np.array([packet.capture_ns for packet, _ in packets])
    arrive_ns = np.array([packet.arrive_ns for packet, _ in packets])
    sizes = np.array([size for _, size in packets])
    sound = name == "audio"
    nominal_hz = health.nominal_hz.get(name)
    rate_hz: float | None = None
    p50 = p99 = None
    if len(packets) > 2 and capture_ns[-1] > capture_ns[0]:
        counted = arrive_ns >= arrive_ns[0] + _SETTLING * (arrive_ns[-1] - arrive_ns[0])
        slope, _ = np.polyfit((capture_ns - capture_ns[0])[counted] / NS_PER_S, np.cumsum(sizes)[counted], 1)
        rate_hz = float(slope)
        if sound and nominal_hz:  # it was resampled: what the device itself does
            rate_hz *= nominal_hz / RATE_HZ
        gaps = np.diff(arrive_ns)
        due = sizes[1:] * NS_PER_S / RATE_HZ if sound else np.median(gaps)
        off_ns = np.abs(gaps - due)
        p50, p99 = (
            round(float(np.percentile(off_ns, percent)) / 1e6, 3) if len(off_ns) >= values_needed(percent) else None
            for percent in (50, 99)
        )
    clock = health.clocks.get(name)
    return StreamProbe(
        modality="audio" if sound else "image",
        picture=listener.pictures.get(name),
        rate_hz=None if rate_hz is None else round(rate_hz, 2),
        nominal_hz=nominal_hz,
        quality=last.quality,
        jitter_p50_ms=p50,
        jitter_p99_ms=p99,
        clock_jitter_ms=None if clock is None else round(clock.jitter_ns / 1e6, 3),
        ppm=None if clock is None else clock.ppm,
        ppm_settled=settled and clock is not None,
        uncertainty_ms=round(last.uncertainty_ns / 1e6, 3),
        latency_p50_ms=round(float(np.median(arrive_ns - capture_ns)) / 1e6, 3),
        packets=len(everything),
    )
