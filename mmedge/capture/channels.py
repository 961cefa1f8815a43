"""What an input takes of a source that has several tracks and channels, and the plain mean that makes one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.errors import SourceError
from mmedge.types import FloatArray

if TYPE_CHECKING:
    from mmedge.capture.base import ThreadSource

_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
_WATCHED_S = 2  # of sound, over which a mix is compared with its channels
_WEAK = 10**-1.5  # 15 dB: two channels of opposite phase, unless one is 4 dB louder; one channel of six that sounds
_AUDIBLE = 1e-6  # mean square, -60 dB of full scale: what is quieter is the noise of the microphone


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What an input takes; all numbers count from 0.

    Attributes:
        track: Number among the tracks of its own modality; None takes the one that the container calls the default,
            else the first.
        channels: The channels of which it takes the mean; empty takes all.
    """

    track: int | None = None
    channels: tuple[int, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, str]) -> Choice:
        """Return the choice that the parameters of an address state; they were checked.

        Example:
            >>> Choice.of({"channels": "0,2"})
            Choice(track=None, channels=(0, 2))
        """
        channels = params.get("channel", params.get("channels", ""))
        return cls(
            track=int(params["track"]) if "track" in params else None,
            channels=tuple(int(number) for number in channels.split(",") if number),
        )

    def lack(self, count: int, what: str) -> tuple[str, str] | None:
        """Return what is wrong with the choice for sound of ``count`` channels, and the fix; None if nothing is.

        Example:
            >>> Choice(channels=(5,)).lack(2, "the sound")
            ('there is no channel 5: the sound has 2 channels', 'use ?channel=0 to ?channel=1')
        """
        beyond = max(self.channels, default=0)
        if beyond < count or not self.channels:
            return None
        channels, fix = ("1 channel", "") if count == 1 else (f"{count} channels", f" to ?channel={count - 1}")
        return f"there is no channel {beyond}: {what} has {channels}", f"use ?channel=0{fix}"


def channel_rows(frame: Any) -> FloatArray:
    """Return a copy of the samples of an ``av.AudioFrame``, of any sample format and layout.

    Returns:
        float32 [channels, samples]; integers as shares of their full scale (-1..1), floats as they are: what
        float32 cannot hold is infinite.

    Raises:
        SourceError: If the sample format is unknown.
    """
    name, count = frame.format.packed.name, frame.layout.nb_channels
    if name not in _TYPES:
        raise SourceError(
            f"sound of the sample format '{name}' cannot be read", fix="convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav"
        )
    kind = np.dtype(_TYPES[name])
    if frame.format.is_planar:
        raw = np.stack([np.frombuffer(plane, kind, count=frame.samples) for plane in frame.planes])
    else:
        raw = np.frombuffer(frame.planes[0], kind, count=frame.samples * count).reshape(-1, count).T
    with np.errstate(over="ignore", invalid="ignore"):
        rows = raw.astype(np.float32, order="C")
    if kind.kind == "f":
        return rows
    bits = 8 * kind.itemsize - 1
    if kind.kind == "u":
        rows -= np.float32(2**bits)
    rows *= np.float32(2.0**-bits)
    return rows


class Mixer:
    """Makes one input's mono of a source's channels: their mean in float, without gains for loudspeakers or clipping.

    A mix that is far weaker than its channels (they cancel each other), and a choice that is silent beside channels
    which are not, are reported once by the source.

    Args:
        source: Whose sound it is.
        name: The input.
        choice: What it takes.
    """

    def __init__(self, source: ThreadSource, name: str, choice: Choice) -> None:
        self.choice = choice
        self._source = source
        self._name = name
        self._samples = 0
        self._mixed = 0.0
        self._each: Any = np.zeros(0)

    def mix(self, rows: FloatArray, rate_hz: int) -> FloatArray:
        """Return a new float32 array [samples]: one channel as it is, or the mean of several.

        Args:
            rows: float32 [channels, samples] with every channel of the choice.
            rate_hz: Samples per second.
        """
        chosen = rows[list(self.choice.channels)] if self.choice.channels else rows
        # Row after row, in float64: the sum of integers is exact, and the same on every CPU.
        mixed: FloatArray = chosen[0].copy()
        if len(chosen) > 1:
            mixed = chosen.mean(axis=0, dtype=np.float64).astype(np.float32)
        if len(rows) > 1:
            self._watch(rows, mixed, rate_hz)
        return mixed

    def _watch(self, rows: FloatArray, mixed: FloatArray, rate_hz: int) -> None:
        each = np.einsum("cn,cn->c", rows, rows)
        power = float(np.dot(mixed, mixed))
        if not np.isfinite(each).all() or not np.isfinite(power):
            return
        if len(each) != len(self._each):
            self._samples, self._mixed, self._each = 0, 0.0, np.zeros(len(each))
        self._samples += len(mixed)
        self._mixed += power
        self._each += each
        if self._samples < _WATCHED_S * rate_hz:
            return
        mean, channels = self._mixed / self._samples, self._each / self._samples
        own = channels[list(self.choice.channels)] if self.choice.channels else channels
        if len(own) > 1 and own.max() > _AUDIBLE and mean < _WEAK * own.max():
            below = f"{10 * np.log10(own.max() / mean):.0f} dB weaker than the loudest of them" if mean else "silent"
            self._say(f"is the mean of {len(own)} channels and {below}: they cancel each other, or few of them sound")
        elif not mean and channels.max() > _AUDIBLE:
            self._say(f"has been silent for {_WATCHED_S} s in the chosen channel, while others were not")
        self._samples, self._mixed, self._each = 0, 0.0, np.zeros(len(each))

    def _say(self, what: str) -> None:
        loudest = int(self._each.argmax())
        self._source.warn(
            f"weak_mix_{self._name}",
            SourceError(
                f"sound of input '{self._name}' {what}",
                where=self._source.name,
                fix=f"choose a channel: ?channel={loudest} is the loudest",
            ),
        )
