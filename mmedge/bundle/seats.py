"""The seats of a bundle: what each input is, and how it is preprocessed."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Positive: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=1 << 20)]
PositiveFloat: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
# A bundle is input from outside: sizes and times are bounded so that it can neither fill memory nor spin.
Side: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=16_384)]
Milliseconds: TypeAlias = Annotated[float, msgspec.Meta(ge=1, le=600_000)]
Tolerance: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
# The axes of a network's pictures: batch, channels, height, width.
PictureLayout: TypeAlias = Literal["nchw", "nhwc", "ncwh", "nwhc"]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything in a manifest: unknown keys are errors, defaults are not written."""


class ImageInput(Strict, frozen=True, kw_only=True, tag_field="modality", tag="image"):
    """An image seat: raw frame -> float32 [1, channels, height, width].

    Attributes:
        size: Height and width of the network's input.
        color: What the channels mean; ``gray`` has one.
        fit: ``stretch`` to size, centre ``crop`` to its aspect, or ``letterbox`` with the mean colour; of the camera's
            picture as it is displayed.
        mean: Per channel, in units of 0..1, subtracted before the division by ``std``.
        std: Per channel, in units of 0..1.
        frame: Height and width of the raw frame that enters a TensorRT engine.
        reduce: Integer-factor area reduction of the frame before the bilinear resize; of a camera of another size it
            is larger or smaller by as much, if it is not 1.
        layout: How the axes of the networks lie that are brought along for it. Each gets a Transpose in front at
            export; what the seat gives is [1, channels, height, width] always.
        shares: Another image input, whose source feeds this one too unless it is given one of its own.
    """

    size: tuple[Side, Side]
    color: Literal["gray", "rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "crop", "letterbox"] = "stretch"
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    frame: tuple[Side, Side] = (480, 640)
    reduce: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    layout: PictureLayout = "nchw"
    shares: str | None = None

    @property
    def channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the uint8 frame that enters a TensorRT variant: [1, h, w, c]."""
        return (1, *self.frame, self.channels)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the float32 tensor that enters a CPU variant: [1, c, h, w]."""
        return (1, self.channels, *self.size)


class LogMel(Strict, frozen=True, kw_only=True, tag_field="kind", tag="log_mel"):
    """Log-mel features: periodic Hann window, no padding, power, HTK mel, ``ln(max(p, floor))``."""

    n_fft: Annotated[int, msgspec.Meta(gt=1, le=65_536)]
    window_samples: Positive
    hop_samples: Positive
    n_mels: Annotated[int, msgspec.Meta(gt=0, le=1024)]
    f_min_hz: Annotated[float, msgspec.Meta(ge=0)]
    f_max_hz: PositiveFloat
    floor: PositiveFloat = 1e-6
    mean: float = 0.0
    std: PositiveFloat = 1.0


class AudioInput(Strict, frozen=True, kw_only=True, tag_field="modality", tag="audio"):
    """An audio seat: the last ``window_ms`` of mono sound -> float32 [1, frames, n_mels] (or [1, samples]).

    Attributes:
        sample_rate_hz: Of what the network hears.
        window_ms: How much it hears at once.
        features: What is made of the sound; None for its samples.
        gain: By which samples of -1..1 are multiplied: 32768 for a network that takes the numbers of int16.
        shares: Another audio input, whose source feeds this one too unless it is given one of its own.
    """

    sample_rate_hz: Annotated[int, msgspec.Meta(ge=1000, le=384_000)]
    window_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)]
    features: LogMel | None = None
    gain: PositiveFloat = 1.0
    shares: str | None = None

    @property
    def samples(self) -> int:
        """Samples in one window."""
        return round(self.window_ms * self.sample_rate_hz / 1000)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the float32 PCM that enters a TensorRT variant: [1, samples]."""
        return (1, self.samples)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the float32 tensor that enters a CPU variant: [1, frames, n_mels]."""
        if self.features is None:
            return self.raw_shape
        frames = (self.samples - self.features.window_samples) // self.features.hop_samples + 1
        return (1, frames, self.features.n_mels)


class TextInput(Strict, frozen=True, kw_only=True, tag_field="modality", tag="text"):
    """A text seat: token numbers int64 [1, max_tokens], padded with ``pad``.

    Attributes:
        max_tokens: Length; longer texts are cut.
        tokenizer: Member of the bundle, the ``tokenizer.json`` of ``tokenizers``; recordings have none.
        pad: Token number behind the end of a text, and of a text that is absent.
        ttl_ms: A text is valid for so long; None: until the next.
    """

    max_tokens: Annotated[int, msgspec.Meta(gt=0, le=8192)]
    tokenizer: str | None = None
    pad: Annotated[int, msgspec.Meta(ge=0)] = 0
    ttl_ms: Milliseconds | None = None

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the int64 tensor: [1, max_tokens]."""
        return (1, self.max_tokens)


class TensorInput(Strict, frozen=True, kw_only=True, tag_field="modality", tag="tensor"):
    """Any array with a rate, pushed by the user."""

    shape: tuple[Positive, ...]
    dtype: Literal["float32", "float16", "int32", "int64", "uint8"] = "float32"
    rate_hz: Annotated[float, msgspec.Meta(ge=1e-3, le=1e6)] | None = None


Input: TypeAlias = ImageInput | AudioInput | TextInput | TensorInput
