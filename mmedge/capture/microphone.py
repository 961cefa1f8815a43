"""Microphones by PortAudio (sounddevice): the callback copies and stamps, a thread does the rest."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mmedge.capture.base import Emit, ThreadSource, log
from mmedge.capture.sound import PIECE_MS, MonoTrack
from mmedge.capture.stamps import MicrophoneClock, Stamp
from mmedge.clock import ClockReport, now_ns
from mmedge.errors import DeviceError, SourceError
from mmedge.extras import require
from mmedge.types import NS_PER_S

_BLOCKS = 512  # slots between the callback and the reader: five seconds
_SILENCE_S = 5.0  # without a block: PortAudio reports no unplugged device


class MicrophoneSource(ThreadSource):
    """Reads a microphone as mono float32 at each input's rate.

    Args:
        target: ``default`` or a part of the PortAudio device name.
        sounds: Names and sample rates of the inputs that take its sound; the device is asked for the
            highest first, as no input loses anything then, and then for its own rate.

    Raises:
        DeviceError: If there is no such microphone or it cannot be opened.
        MissingDependencyError: If sounddevice or PortAudio is not installed.
    """

    def __init__(self, target: str, *, sounds: Mapping[str, int]) -> None:
        super().__init__(tuple(sounds), name=f"mic://{target}", live=True)
        self._rates_hz = dict(sounds)
        self._ready: queue.SimpleQueue[tuple[int, int, Stamp, bool] | None] = queue.SimpleQueue()
        self._written = self._read = self._counted = 0
        self._sd = require("sounddevice", "listening to a microphone")
        self._device = find_microphone(self._sd, target)
        self._stream, self._device_rate_hz, self._channels = self._open()
        self.nominal_hz = dict.fromkeys(sounds, float(self._device_rate_hz))
        self._clock = MicrophoneClock(self.name, self._device_rate_hz)
        self._slots = np.empty((_BLOCKS, self._stream.blocksize * self._channels), np.float32)

    def _open(self) -> tuple[Any, int, int]:
        wanted_hz, own_rate_hz = max(self._rates_hz.values()), int(self._device["default_samplerate"])
        channels = min(2, int(self._device["max_input_channels"]))
        reasons: list[str] = []
        # A sound server offers 32 channels for one microphone: mono is asked for first.
        for rate_hz, count in dict.fromkeys((r, c) for r in (wanted_hz, own_rate_hz) for c in (1, channels)):
            try:
                stream = self._sd.RawInputStream(
                    device=self._device["index"],
                    samplerate=rate_hz,
                    channels=count,
                    dtype="float32",
                    blocksize=max(1, rate_hz * PIECE_MS // 1000),
                    latency="low",
                    callback=self._callback,
                )
            except self._sd.PortAudioError as error:
                reasons.append(f"{rate_hz} Hz x {count}: {error}")
            else:
                return stream, rate_hz, count
        raise DeviceError(
            f"microphone '{self._device['name']}' cannot be opened: {'; '.join(reasons)}",
            where=self.name,
            fix="close the program that uses it, or choose another (mmedge devices lists them)",
        )

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        # PortAudio's own thread: copy, stamp, wake the reader, nothing else.
        entry_ns = now_ns()
        self._counted += frames
        if status.input_overflow:
            self.counters["overflows"] += 1
        if self._written - self._read >= _BLOCKS:
            return  # the reader sees the hole in the count
        slot = self._written % _BLOCKS
        values = np.frombuffer(data, np.float32)
        self._slots[slot, : len(values)] = values
        adc_ns = round(time.inputBufferAdcTime * NS_PER_S) + frames * NS_PER_S // self._device_rate_hz
        stamp = Stamp(self._counted, entry_ns, adc_ns, round(time.currentTime * NS_PER_S))
        self._written += 1
        self._ready.put((slot, frames, stamp, bool(status.input_overflow)))

    def _close_impl(self) -> None:
        self._ready.put(None)
        self._stream.close(ignore_errors=True)

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        self._stream.start()
        rates_hz, clock = self._rates_hz, self._clock
        tracks = {name: MonoTrack(self._device_rate_hz, rate, low_delay=True) for name, rate in rates_hz.items()}
        missing: Counter[str] = Counter()  # samples
        last_ns: Counter[str] = Counter()
        while (item := self._next()) is not None and not stop.is_set():
            slot, frames, stamp, overflow = item
            samples = self._slots[slot, : frames * self._channels].reshape(frames, self._channels).mean(axis=1)
            self._read += 1
            gap_ns, broken = clock.observe(stamp, overflow=overflow)
            if broken:
                log.warning("%s: its clock jumped (%.0f ms are missing); a new epoch starts", self.name, gap_ns / 1e6)
                self.counters["clock_jumps"] += 1
                self.new_epoch()
                last_ns.clear()
            for name, track in tracks.items():
                missing[name] += round(gap_ns * rates_hz[name] / NS_PER_S)
                for piece in track.feed(samples, clock.stream_ns(stamp.samples - frames)):
                    lost, missing[name] = piece.lost + missing[name], 0
                    last_ns[name] = max(last_ns[name], clock.to_monotonic(piece.end_ns))
                    self.counters["lost_samples"] += lost
                    emit(
                        self.block(
                            name,
                            replace(piece, lost=lost),
                            capture_ns=last_ns[name],
                            uncertainty_ns=clock.uncertainty_ns,
                            quality=clock.quality,
                        )
                    )

    def _next(self) -> tuple[int, int, Stamp, bool] | None:
        try:
            return self._ready.get(timeout=_SILENCE_S)
        except queue.Empty:
            raise SourceError(
                f"microphone '{self._device['name']}' has sent no data for {_SILENCE_S:g} s",
                where=self.name,
                fix="check that it is still connected: mmedge devices",
            ) from None

    def _clock_reports(self) -> dict[str, ClockReport]:
        return dict.fromkeys(self.streams, self._clock.report())


def find_microphone(sounddevice: Any, target: str) -> dict[str, Any]:
    """Return PortAudio's description of an input device.

    Args:
        sounddevice: The module.
        target: ``default``, a name, or a part of a name (the case does not matter).

    Raises:
        DeviceError: If there is none; names those that exist.
    """
    inputs = [dict(device) for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
    if target == "default":
        found = [device for device in inputs if device["index"] == sounddevice.default.device[0]]
    else:
        wanted = target.casefold()
        found = [device for device in inputs if device["name"].casefold() == wanted]
        found = found or [device for device in inputs if wanted in device["name"].casefold()]
    if not found:
        names = ", ".join(f"'{device['name']}'" for device in inputs) or "none at all"
        looked_for = "a default microphone" if target == "default" else f"a microphone named '{target}'"
        raise DeviceError(
            f"{looked_for} was not found; PortAudio knows these inputs: {names}",
            where=f"mic://{target}",
            fix="run `mmedge devices` to list devices; use mic://NAME with one of those names",
        )
    return found[0]


def microphone_numbers(targets: Iterable[str]) -> dict[str, int]:
    """Return PortAudio's number of each microphone: the same for two names of one device.

    Args:
        targets: What ``find_microphone`` takes.

    Raises:
        DeviceError: If one of them is not there.
        MissingDependencyError: If sounddevice or PortAudio is not installed.
    """
    sounddevice = require("sounddevice", "listening to a microphone")
    return {target: int(find_microphone(sounddevice, target)["index"]) for target in targets}
