"""Microphones by PortAudio (sounddevice): its own thread runs no Python, it copies and stamps; ours does the rest.

Where the samples go to another process at the device's own rate, ours runs no Python either.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from mmedge._native import core
from mmedge.capture.base import Emit, SourceHealth, ThreadSource
from mmedge.capture.channels import Choice, Mixer
from mmedge.capture.direct_sound import DirectSound
from mmedge.capture.sound import PIECE_MS, MonoTrack
from mmedge.capture.stamps import MicrophoneClock, Stamp, say_jump
from mmedge.clock import ClockReport
from mmedge.errors import ConfigError, DeviceError, SourceError
from mmedge.extras import require
from mmedge.types import NS_PER_S, FloatArray

_BLOCKS = 512  # slots between the callback and the reader: five seconds
_MAX_CHANNELS = 64  # that are asked for without need: ALSA's plug offers hundreds of which a device has two
_SILENCE_MS = 5000  # without a block: PortAudio reports no unplugged device


class MicrophoneSource(ThreadSource):
    """Reads a microphone as mono float32 at each input's rate.

    Args:
        target: ``default`` or a part of the PortAudio device name.
        sounds: Names and sample rates of the inputs that take its sound; the device is asked for the
            highest first, as no input loses anything then, and then for its own rate.
        choices: Which channels an input takes, by name. Where none is chosen, the device is asked for mono, for
            stereo and then for all it has, and its mean is taken.

    Raises:
        ConfigError: If it has not the channel that an input chose, or some inputs choose and others do not.
        DeviceError: If there is no such microphone or it cannot be opened.
        MissingDependencyError: If sounddevice or PortAudio is not installed.
    """

    def __init__(self, target: str, *, sounds: Mapping[str, int], choices: Mapping[str, Choice] | None = None) -> None:
        super().__init__(tuple(sounds), name=f"mic://{target}", live=True)
        self._rates_hz = dict(sounds)
        self._mixers = {name: Mixer(self, name, (choices or {}).get(name, Choice())) for name in sounds}
        self._chosen = {name: mixer.choice for name, mixer in self._mixers.items() if mixer.choice.channels}
        self._sd = require("sounddevice", "listening to a microphone")
        self._device = find_microphone(self._sd, target)
        self._blocks: Any = None
        self._stream, self._device_rate_hz = self._open()
        self.nominal_hz = dict.fromkeys(sounds, float(self._device_rate_hz))
        self._clock = MicrophoneClock(self.name, self._device_rate_hz)
        self._direct: DirectSound | None = None
        self._report: ClockReport | None = None  # of the clock of what went directly
        self._lock = threading.Lock()  # guards both

    def _open(self) -> tuple[Any, int]:
        wanted_hz, own_rate_hz = max(self._rates_hz.values()), int(self._device["default_samplerate"])
        counts = self._counts(int(self._device["max_input_channels"]))
        reasons: list[str] = []
        ways = dict.fromkeys((r, c) for r in (wanted_hz, own_rate_hz) for c in counts)
        for rate_hz, count in sorted(ways, key=lambda way: -way[1]) if self._chosen else ways:  # rather another rate
            frames = max(1, rate_hz * PIECE_MS // 1000)
            self._blocks = core.CallbackBlocks(_BLOCKS, frames, count)
            try:
                # What sounddevice's streams are made of, and offers to whoever brings a function that is not Python's.
                stream = self._sd._StreamBase(
                    "input",
                    device=self._device["index"],
                    samplerate=rate_hz,
                    channels=count,
                    dtype="float32",
                    blocksize=frames,
                    latency="low",
                    callback=self._sd._ffi.cast("PaStreamCallback *", self._blocks.function),
                    userdata=self._sd._ffi.cast("void *", self._blocks.data),
                )
            except self._sd.PortAudioError as error:
                reasons.append(f"{rate_hz} Hz x {count}: {error}")
            else:
                if self._chosen and count < counts[0]:
                    what = f"microphone '{self._device['name']}' gives {count} of its {counts[0]} channels"
                    fix = "check that they are not mixed: its driver or sound server makes them of all"
                    self.warn("fewer_channels", SourceError(what, where=self.name, fix=fix))
                return stream, rate_hz
        raise DeviceError(
            f"microphone '{self._device['name']}' cannot be opened: {'; '.join(reasons)}",
            where=self.name,
            fix="close the program that uses it, or choose another (mmedge devices lists them)",
        )

    def _counts(self, offered: int) -> tuple[int, ...]:
        """Return the numbers of channels to try when opening a device that offers this many, the best first."""
        if not self._chosen:
            return 1, min(2, offered), offered  # a sound server offers 32 for one microphone, and makes mono of it
        others = [name for name in self._mixers if name not in self._chosen]
        if others:
            raise ConfigError(
                f"inputs {', '.join(repr(name) for name in self._mixers)} share one microphone, "
                f"and {', '.join(repr(name) for name in others)} chooses no channel of it",
                where=self.name,
                fix="give each address its channels: ?channel=0, or ?channels=0,1 for the mean of these",
            )
        for name, choice in self._chosen.items():
            lack = choice.lack(offered, f"microphone '{self._device['name']}'")
            if lack is not None:
                raise ConfigError(f"input '{name}': {lack[0]}", where=self.name, fix=lack[1])
        # All of them: whoever gives fewer than there are, mixes. A sound server fills up with silence what it lacks.
        need = 1 + max(max(choice.channels) for choice in self._chosen.values())
        return min(offered, max(need, _MAX_CHANNELS)), need

    def _close_impl(self) -> None:
        self._blocks.close()
        self._stream.close(ignore_errors=True)

    def _read_impl(self, emit: Emit, stop: threading.Event) -> None:
        if self.writer is None or any(rate != self._device_rate_hz for rate in self._rates_hz.values()):
            self._read_packets(emit, stop)
            return
        rate_hz, mixers = self._device_rate_hz, list(self._mixers.values())
        self._direct = DirectSound(self, self.writer.sound_writer(self.streams), self._blocks, rate_hz, mixers)
        try:
            self._stream.start()
            self._direct.read(_SILENCE_MS)
        except TimeoutError:
            raise self._silent() from None
        finally:
            with self._lock:
                self._catch_up(self._direct)
                self._direct = None

    def health(self) -> SourceHealth:
        """Return a copy of the present state."""
        with self._lock:
            if self._direct is not None:
                self._catch_up(self._direct)
        return super().health()

    def _catch_up(self, direct: DirectSound) -> None:
        self._report = direct.catch_up()
        if self._blocks.overflows:
            self.counters["overflows"] = self._blocks.overflows

    def _read_packets(self, emit: Emit, stop: threading.Event) -> None:
        self._stream.start()
        rates_hz, clock = self._rates_hz, self._clock
        tracks = {name: MonoTrack(self._device_rate_hz, rate, low_delay=True) for name, rate in rates_hz.items()}
        missing: Counter[str] = Counter()  # samples
        last_ns: Counter[str] = Counter()
        while (item := self._next()) is not None and not stop.is_set():
            rows, stamp, overflow = item
            frames = rows.shape[1]
            if self._blocks.overflows:
                self.counters["overflows"] = self._blocks.overflows
            gap_ns, broken = clock.observe(stamp, overflow=overflow)
            if broken:
                say_jump(self.name, gap_ns)
                self.counters["clock_jumps"] += 1
                self.new_epoch()
                last_ns.clear()
            for name, track in tracks.items():
                missing[name] += round(gap_ns * rates_hz[name] / NS_PER_S)
                samples = self._mixers[name].mix(rows, self._device_rate_hz)
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

    def _next(self) -> tuple[FloatArray, Stamp, bool] | None:
        """Wait for a block, float32 [channels, frames], with its times and whether some was lost before it."""
        try:
            block = self._blocks.take(_SILENCE_MS)
        except TimeoutError:
            raise self._silent() from None
        if block is None:
            return None
        rows, counted, entry_ns, adc_s, current_s, overflow = block
        adc_ns = round(adc_s * NS_PER_S) + rows.shape[1] * NS_PER_S // self._device_rate_hz
        return rows, Stamp(counted, entry_ns, adc_ns, round(current_s * NS_PER_S)), overflow

    def _silent(self) -> SourceError:
        return SourceError(
            f"microphone '{self._device['name']}' has sent no data for {_SILENCE_MS / 1000:g} s",
            where=self.name,
            fix="check that it is still connected: mmedge devices",
        )

    def _clock_reports(self) -> dict[str, ClockReport]:
        return dict.fromkeys(self.streams, self._report or self._clock.report())


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
