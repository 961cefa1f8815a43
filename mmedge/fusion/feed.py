"""How one tensor of a stage is filled from a seat: a camera frame, a sound window, a text, an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from mmedge._native import core
from mmedge.bundle.manifest import AudioInput, ImageInput, Input, TextInput
from mmedge.errors import BundleError, ConfigError
from mmedge.preprocess import AudioPreprocessor, ImagePreprocessor, Tokenizer
from mmedge.sync import RingReader
from mmedge.types import AnyArray, FloatArray, Frame, Snapshot, Tensor, Text


class ReadAudio(Protocol):
    """Copies sound: ``Synchronizer.read_audio``."""

    def __call__(self, name: str, snapshot: Snapshot, out: FloatArray, end: int | None = None, /) -> int:
        """Copy the samples before index ``end`` (where the snapshot cuts) into ``out``; return how many are real.

        ``out`` is float32 [n], -1..1.
        """


ReadMember = Callable[[str], bytes]
Fill = Callable[..., None]  # as ``Feed.fill``
_TEXTS, _LETTERS = 32, 1 << 21  # of which the tokens are kept


class Feed(Protocol):
    """Writes one tensor straight into the engine's input array."""

    def fill(self, snapshot: Snapshot, out: AnyArray, read_audio: ReadAudio, end: int | None = None) -> None:
        """Fill ``out`` from the snapshot; the input is present.

        Args:
            snapshot: The trigger.
            out: Of the shape [...] and dtype of the engine's input.
            read_audio: Gives its sound.
            end: Index after the last sample of the window, for a stream; where the snapshot cuts by default.
        """

    @property
    def fill_absent(self) -> Callable[[AnyArray], None]:
        """Fill ``out`` as a black picture or silence would: what an absent input is, for every backend.

        ``out`` has the shape [...] and dtype of the engine's input.
        """

    def fill_raw(self, raw: AnyArray, out: AnyArray) -> None:
        """Fill ``out`` from one recorded raw sample of a golden file.

        ``raw`` has the raw shape [...] and dtype of the input, ``out`` those of the engine's input.
        """


class _Absent:
    """The tensor of an absent input, computed once."""

    def __init__(self, feed: Feed, shape: tuple[int, ...], dtype: str) -> None:
        self._feed, self._raw = feed, np.zeros(shape, dtype)
        self._tensor: AnyArray | None = None

    def __call__(self, out: AnyArray) -> None:
        if self._tensor is None:
            self._tensor = np.empty_like(out)
            self._feed.fill_raw(self._raw, self._tensor)
        np.copyto(out, self._tensor)


class ImageFeed:
    """Raw frame -> float32 tensor, or -> the uint8 frame that enters a TensorRT variant."""

    def __init__(self, name: str, spec: ImageInput, *, raw: bool) -> None:
        self._name, self._spec, self._raw = name, spec, raw
        self._preprocess = ImagePreprocessor(spec)
        self.fill: Fill = self._preprocess.fill(name, raw=raw)
        self.fill_absent = _Absent(self, spec.raw_shape, "uint8")

    def _write(self, frame: Frame, out: AnyArray) -> None:
        (self._preprocess.raw if self._raw else self._preprocess.tensor)(frame, out)

    def fill_raw(self, raw: AnyArray, out: AnyArray) -> None:
        """Preprocess a recorded frame (H, W, C) into ``out``. ``raw`` is uint8."""
        height, width = self._spec.frame
        pixels = np.ascontiguousarray(raw, np.uint8).reshape(height, width, self._spec.channels)
        self._write(recorded_frame(self._name, pixels, self._spec), out)


def recorded_frame(name: str, pixels: AnyArray, spec: ImageInput) -> Frame:
    """Return a frame around recorded pixels (height, width, channels) in the model's own colour.

    Pixels are uint8, 0..255.
    """
    data = pixels[:, :, 0] if spec.channels == 1 else pixels
    kind = {"gray": "gray8", "rgb": "rgb24", "bgr": "bgr24"}[spec.color]
    return Frame(
        stream=name,
        seq=0,
        capture_ns=0,
        arrive_ns=0,
        data=np.ascontiguousarray(data, np.uint8),
        format=kind,  # type: ignore[arg-type]
        width=pixels.shape[1],
        height=pixels.shape[0],
    )


class AudioFeed:
    """The window's samples -> float32 tensor, or as they are into a TensorRT variant."""

    def __init__(self, name: str, spec: AudioInput, *, raw: bool) -> None:
        self._name, self._raw = name, raw or (spec.features is None and spec.gain == 1.0)
        self._preprocess = AudioPreprocessor(spec)
        self._pcm = np.zeros(spec.samples, np.float32)
        self.fill_absent = _Absent(self, spec.raw_shape, "float32")
        self.fill: Fill = self._copy if self._raw else self._preprocess.fill(name, self._ring_of, self._write)

    def _copy(self, snapshot: Snapshot, out: AnyArray, read_audio: ReadAudio, end: int | None = None) -> None:
        """Cut the window into ``out``, float32 [1, samples]."""
        read_audio(self._name, snapshot, out.reshape(-1), snapshot.audio_end[self._name] if end is None else end)

    def _ring_of(self, read_audio: ReadAudio) -> core.SampleRing | None:
        return read_audio.rings.get(self._name) if isinstance(read_audio, RingReader) else None

    def _write(self, snapshot: Snapshot, out: AnyArray, read_audio: ReadAudio, end: int | None = None) -> None:
        """Preprocess the window, out of any reader, into ``out``, float32 [1, samples] or [1, frames, n_mels]."""
        if end is None:
            end = snapshot.audio_end[self._name]
        done = False
        while not done:
            pcm = self._pcm[: self._preprocess.wanted(end)]
            read_audio(self._name, snapshot, pcm, end)
            done = self._preprocess.slide(pcm, end, out)

    def fill_raw(self, raw: AnyArray, out: AnyArray) -> None:
        """Preprocess recorded samples into ``out``. ``raw`` is float32 [1, samples], -1..1."""
        pcm = np.ascontiguousarray(raw, np.float32).reshape(-1)
        if self._raw:
            np.copyto(out.reshape(-1), pcm)
        else:
            self._preprocess.tensor(pcm, out)


class TextFeed:
    """A text -> token numbers; those of the newest texts are kept, so that one seen before is not tokenised again."""

    def __init__(self, name: str, spec: TextInput, tokenizer: bytes) -> None:
        self._name, self._spec = name, spec
        self._tokenizer = Tokenizer(tokenizer, spec)
        self._seen: list[tuple[str, AnyArray]] = []  # the newest first

    def fill(self, snapshot: Snapshot, out: AnyArray, read_audio: ReadAudio, end: int | None = None) -> None:
        """Write the token numbers of the text that is valid at the trigger. ``out`` is int64 [1, max_tokens]."""
        value = snapshot.values[self._name]
        assert isinstance(value, Text)
        out[...] = self._ids(value.text)

    def _ids(self, text: str) -> AnyArray:
        seen = self._seen
        # Compared one by one: to hash a long text takes longer than to see that it is another one.
        for place, (known, ids) in enumerate(seen):
            if known == text:
                if place:
                    seen.insert(0, seen.pop(place))
                return ids
        ids = np.empty(self._spec.tensor_shape, np.int64)
        self._tokenizer.ids(text, ids)
        seen.insert(0, (text, ids))
        del seen[_TEXTS:]
        while len(seen) > 1 and sum(len(known) for known, _ in seen) > _LETTERS:
            seen.pop()
        return ids

    def fill_absent(self, out: AnyArray) -> None:
        """Write padding. ``out`` is int64 [1, max_tokens]."""
        out.fill(self._spec.pad)

    def fill_raw(self, raw: AnyArray, out: AnyArray) -> None:
        """Copy recorded token numbers. Both are int64 [1, max_tokens]."""
        if raw.dtype != np.int64 or raw.size != out.size:
            raise ConfigError(
                f"expected int64 with {out.size} values, got {raw.dtype} {list(raw.shape)}",
                where=f"input '{self._name}'",
                fix="give the token numbers of the text",
            )
        np.copyto(out.reshape(-1), raw.reshape(-1))


class ValueFeed:
    """A pushed tensor, checked and copied."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fill(self, snapshot: Snapshot, out: AnyArray, read_audio: ReadAudio, end: int | None = None) -> None:
        """Copy the value that is valid at the trigger. ``out`` has the manifest's shape [...] and dtype."""
        value = snapshot.values[self._name]
        assert isinstance(value, Tensor)
        self.fill_raw(value.data, out)

    def fill_absent(self, out: AnyArray) -> None:
        """Write zeros. ``out`` has the manifest's shape [...] and dtype."""
        out.fill(0)

    def fill_raw(self, raw: AnyArray, out: AnyArray) -> None:
        """Copy an array of exactly the tensor's size and dtype. Both have the manifest's shape [...]."""
        if raw.dtype != out.dtype or raw.size != out.size:
            raise ConfigError(
                f"expected {out.dtype} with {out.size} values, got {raw.dtype} {list(raw.shape)}",
                where=f"input '{self._name}'",
                fix="push arrays of the manifest's shape and dtype",
            )
        np.copyto(out.reshape(-1), raw.reshape(-1))


def no_members(name: str) -> bytes:
    """Read a member where there is no bundle."""
    raise BundleError(f"'{name}' cannot be read without a bundle", where=name, fix="load the stage from its bundle")


def make_feed(name: str, spec: Input, *, raw: bool, read: ReadMember = no_members) -> Feed:
    """Return the feed of an input seat, for raw (TensorRT) or preprocessed (CPU) variants.

    Args:
        name: The seat.
        spec: What it takes.
        raw: Whether the variant takes raw frames and PCM.
        read: Gives a member of the bundle: a text needs its tokenizer.
    """
    if isinstance(spec, ImageInput):
        return ImageFeed(name, spec, raw=raw)
    if isinstance(spec, AudioInput):
        return AudioFeed(name, spec, raw=raw)
    if isinstance(spec, TextInput):
        assert spec.tokenizer is not None, "the manifest was checked"
        return TextFeed(name, spec, read(spec.tokenizer))
    return ValueFeed(name)


def expected_shape(spec: Input, *, raw: bool) -> tuple[int, ...]:
    """Return the shape that an engine's tensor must have for this seat."""
    if isinstance(spec, (ImageInput, AudioInput)):
        return spec.raw_shape if raw else spec.tensor_shape
    return spec.tensor_shape if isinstance(spec, TextInput) else spec.shape
