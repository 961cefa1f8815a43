"""What an input takes of a source that has several tracks and channels, and the plain mean that makes one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge._native import core
from mmedge.errors import ConfigError, SourceError
from mmedge.extras import require
from mmedge.types import FloatArray

if TYPE_CHECKING:
    from mmedge.capture.base import ThreadSource

CHOICE = ("track", "channel", "channels")
"""Parameters by which each input chooses of what a source has: they do not make it another device."""
_NUMBER = r"(?:0|[1-9][0-9]{0,2})"
_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
_AV_PLANES = 8  # pointers in an AVFrame itself


class Choice(msgspec.Struct, frozen=True, kw_only=True):
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


def check_choice(params: Mapping[str, str]) -> None:
    """Check the parameters of ``CHOICE`` among those of an address.

    Raises:
        ConfigError: If one has no such value, or two of them contradict each other.
    """
    wrong = None
    for name in ("track", "channel"):
        if name in params and not re.fullmatch(_NUMBER, params[name]):
            wrong = f"parameter '{name}' must be a whole number from 0 to 999"
    numbers = params.get("channels", "0").split(",")
    if len(set(numbers)) < len(numbers) or not all(re.fullmatch(_NUMBER, number) for number in numbers):
        wrong = "parameter 'channels' must be different whole numbers as 0,2"
    if "channel" in params and "channels" in params:
        wrong = "parameters 'channel' and 'channels' are given at once"
    if wrong is not None:
        raise ConfigError(wrong, fix="write ?channel=N for one channel or ?channels=N,M for the mean, from 0")


def split_choice(text: str, *, query: bool = False) -> tuple[str, str]:
    """Take the parameters of ``CHOICE`` off the end of an address that may hold a ``?`` of its own.

    Args:
        text: The address.
        query: What stands after its first ``?`` are parameters, of which ours are the last; otherwise all that stand
            after its last ``?`` are ours, or none.

    Returns:
        The address without them, and they.

    Example:
        >>> split_choice("rtsp://cam/live?token=1&channel=2", query=True)
        ('rtsp://cam/live?token=1', 'channel=2')
        >>> split_choice("who?.wav")
        ('who?.wav', '')
    """
    head, _, tail = text.partition("?") if query else text.rpartition("?")
    pairs = tail.split("&")
    others = len(pairs)
    while others and re.match(r"(?:track|channels?)=[^/]*\Z", pairs[others - 1]):
        others -= 1
    if not head or others == len(pairs) or (others and not query):
        return text, ""
    return "?".join((head, "&".join(pairs[:others]))) if others else head, "&".join(pairs[others:])


def channel_count(stream: Any) -> int:
    """Return how many channels a sound track has, 0 if unknown; ask before anything else looks at its layout.

    PyAV copies layouts without what they point to, and each copy frees it: a layout that is a list of its own, as
    cameras' MOV files have it, ends the process. The one copy made here becomes the only owner of that list, and the
    decoder gives sound without a layout.

    Args:
        stream: The ``av.audio.stream.AudioStream``, not yet decoded.
    """
    context = stream.codec_context
    layout = context.layout
    count = int(layout.nb_channels)
    if "(" in layout.name and not context.is_open:
        context.layout = f"{count} channels"
    return count


class RowReader:
    """Reads the samples of ``av.AudioFrame``s, of any sample format and layout, which may change from one to the next.

    Example:
        >>> av = require("av", "this example")
        >>> RowReader().read(av.AudioFrame(format="s16", layout="5.1", samples=160)).shape
        (6, 160)
    """

    def __init__(self) -> None:
        self._kind: tuple[str, str, int] | None = None
        self._packer: Any = None

    def read(self, frame: Any) -> FloatArray:
        """Return a copy of a frame's samples; its ``pts`` may be lost.

        Returns:
            float32 [channels, samples]; integers as shares of their full scale (-1..1), floats as they are: what
            float32 cannot hold is infinite.

        Raises:
            SourceError: If the sample format is unknown.
        """
        name, count, samples = frame.format.packed.name, frame.layout.nb_channels, frame.samples
        if name not in _TYPES:
            what = f"sound of the sample format '{name}' cannot be read"
            raise SourceError(what, fix="convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav")
        kind = np.dtype(_TYPES[name])
        if frame.format.is_planar and count < _AV_PLANES:
            raw = np.stack([np.frombuffer(plane, kind, count=samples) for plane in frame.planes])
        else:
            packed = self._packed(frame) if frame.format.is_planar else frame
            raw = np.frombuffer(packed.planes[0], kind, count=samples * count).reshape(-1, count).T
        with np.errstate(over="ignore", invalid="ignore"):
            rows = raw.astype(np.float32, order="C")
        if kind.kind == "f":
            return rows
        bits = 8 * kind.itemsize - 1
        if kind.kind == "u":
            rows -= np.float32(2**bits)
        rows *= np.float32(2.0**-bits)
        return rows

    def _packed(self, frame: Any) -> Any:
        """Return the frame with all channels in one plane: of eight and more, PyAV's list reads beyond its end."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            resampler = require("av", "reading media").AudioResampler
            self._packer = resampler(format=frame.format.packed.name, layout=frame.layout, rate=frame.sample_rate)
            self._kind = kind
        frame.pts = None
        (packed,) = self._packer.resample(frame)
        return packed


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
        self._mixer = core.Mixer(choice.channels)

    def mix(self, rows: FloatArray, rate_hz: int) -> FloatArray:
        """Return a new float32 array [samples]: one channel as it is, or the mean of several.

        Args:
            rows: float32 [channels, samples] with every channel of the choice.
            rate_hz: Samples per second.
        """
        mixed = np.empty(rows.shape[1], np.float32)
        weak = self._mixer.mix(rows, rate_hz, mixed)
        if weak is not None:
            self.say(*weak)
        return mixed

    def say(self, silent: bool, channels: int, decibels: float, loudest: int) -> None:
        """Report a weak mix, of which the native mixer tells this."""
        what = "has been silent for 2 s in the chosen channel, while others were not"
        if not silent:
            below = f"{decibels:.0f} dB weaker than the loudest of them"
            what = f"is the mean of {channels} channels and {below}: they cancel each other, or few of them sound"
        self._source.warn(
            f"weak_mix_{self._name}",
            SourceError(
                f"sound of input '{self._name}' {what}",
                where=self._source.name,
                fix=f"choose a channel: ?channel={loudest} is the loudest",
            ),
        )
