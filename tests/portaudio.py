"""What stands in for sounddevice: microphones that say what a test wants, through the function that PortAudio calls."""

from __future__ import annotations

import sys
import threading
from ctypes import CFUNCTYPE, c_int, c_ulong, c_void_p
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmedge.clock import now_ns
from mmedge.types import FloatArray

S = 1_000_000_000
# portaudio.h: PaStreamCallback
CALLBACK = CFUNCTYPE(c_int, c_void_p, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p)


class PortAudio:
    """Stands in for sounddevice: two microphones, of which one sends a tone of 1 kHz and loses some when told to.

    Args:
        rates_hz: What they offer besides their own 48 kHz.
        channels: What each has.
        all_only: They give all of their channels or none, as a device without a driver's plug-in does.
    """

    class PortAudioError(Exception):
        """As sounddevice has it."""

    def __init__(self, *rates_hz: int, channels: int = 1, all_only: bool = False) -> None:
        self.rates_hz = (*rates_hz, 48000)
        self.channels, self.all_only = channels, all_only
        self.asked: list[dict[str, Any]] = []
        self.default = SimpleNamespace(device=(1, 0))
        self._ffi = SimpleNamespace(cast=lambda kind, address: address)

    def query_devices(self) -> list[dict[str, Any]]:
        names = {"HDMI": 0, "USB Audio": self.channels, "Headset": self.channels}
        return [
            {"index": index, "name": name, "max_input_channels": channels, "default_samplerate": 48000.0}
            for index, (name, channels) in enumerate(names.items())
        ]

    def _StreamBase(self, kind: str, **options: Any) -> SimpleNamespace:
        assert kind == "input"
        self.asked.append(options)
        if options["samplerate"] not in self.rates_hz:
            raise self.PortAudioError("Invalid sample rate")
        if options["channels"] > self.channels or (self.all_only and options["channels"] < self.channels):
            raise self.PortAudioError("Invalid number of channels")
        return SimpleNamespace(blocksize=options["blocksize"], start=lambda: None, close=lambda **_: None)

    def send(self, seconds: float, *, lost_s: float = 0.0) -> None:
        """Deliver blocks as they come in; ``lost_s`` of sound is missing before the first."""
        options, began_ns = self.asked[-1], now_ns()
        count, rate_hz = options["blocksize"], options["samplerate"]
        for number in range(round(seconds * rate_hz / count)):
            due_ns = began_ns + round(lost_s * S) + (number + 1) * count * S // rate_hz
            threading.Event().wait(max(0, due_ns - now_ns()) / S)
            tone = np.sin(2 * np.pi * 1000 * (np.arange(count) + number * count) / rate_hz)
            levels = 0.5 ** (1 + np.arange(options["channels"]))
            self.deliver(np.outer(tone, levels), due_ns - count * S // rate_hz, lost=lost_s > 0 and number == 0)

    def deliver(self, sound: FloatArray, adc_ns: int, *, lost: bool = False) -> None:
        """Deliver one block to the stream that was opened last.

        Args:
            sound: float32 or float64 [samples, channels].
            adc_ns: When its first sample was converted.
            lost: Some are missing before it.
        """
        options = self.asked[-1]
        times = np.array([adc_ns / S, now_ns() / S, 0.0])
        rows = np.ascontiguousarray(sound, np.float32)
        flags = 2 if lost else 0  # paInputOverflow
        call = CALLBACK(options["callback"])
        assert call(rows.ctypes.data, None, len(rows), times.ctypes.data, flags, options["userdata"]) == 0


def portaudio(monkeypatch: pytest.MonkeyPatch, *rates_hz: int, **options: Any) -> PortAudio:
    module = PortAudio(*rates_hz, **options)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module
