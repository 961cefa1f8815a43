"""Raw arrays -> network inputs as torch modules: the same spec and numbers as the runtime's executors, in batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmedge.bundle.manifest import AudioInput, ImageInput, Input
from mmedge.errors import ConfigError
from mmedge.preprocess.geometry import crop_box, reduced_size, target_box
from mmedge.preprocess.reference import hann_window, mel_filters


class ImagePreprocess(nn.Module):
    """Frames uint8 [batch, h, w, c] -> float32 [batch, c, height, width].

    Args:
        spec: The image seat; frames must have its ``frame`` size.

    Example:
        >>> spec = ImageInput(size=(2, 2), color="gray", mean=(0.0,), std=(1.0,), frame=(4, 4), reduce=2)
        >>> ImagePreprocess(spec)(torch.full((1, 4, 4, 1), 255, dtype=torch.uint8)).shape
        torch.Size([1, 1, 2, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        self.spec = spec
        reduced_size(spec)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the normalised planar images, also of sequences [batch, steps, h, w, c].

        ``frames`` are uint8 [batch, h, w, c]; images are float32 [batch, c, h, w].
        """
        if frames.ndim == 5:
            return _each_step(self, frames)
        if tuple(frames.shape[1:]) != self.spec.raw_shape[1:]:
            raise ConfigError(
                f"expected frames of {self.spec.raw_shape[1:]}, got {tuple(frames.shape[1:])}",
                where="inputs",
                fix="resize to 'frame' first",
            )
        x = frames.permute(0, 3, 1, 2).float()
        if self.spec.reduce > 1:
            x = functional.avg_pool2d(x, self.spec.reduce)
        crop, target = crop_box(self.spec), target_box(self.spec)
        x = x[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        x = functional.interpolate(x, (target.height, target.width), mode="bilinear", align_corners=False)
        x = (x / 255.0 - self.mean) / self.std
        height, width = self.spec.size
        right, bottom = width - target.left - target.width, height - target.top - target.height
        return functional.pad(x, (target.left, right, target.top, bottom))


class LogMelPreprocess(nn.Module):
    """PCM float32 [batch, samples] -> log-mel features float32 [batch, frames, n_mels].

    Computes in float64: with float32 spectra, bins 60 dB below a frame's peak would already differ by
    more than the executors may. Without ``features`` in the spec the PCM passes unchanged.

    Args:
        spec: The audio seat.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, spec: AudioInput) -> None:
        super().__init__()
        self.spec = spec
        if spec.features is not None:
            window = torch.from_numpy(hann_window(spec.features.window_samples))
            filters = torch.from_numpy(mel_filters(spec.features, spec.sample_rate_hz)).double()
            self.register_buffer("window", window, persistent=False)
            self.register_buffer("filters", filters, persistent=False)

    def forward(self, pcm: Tensor) -> Tensor:
        """Return the features, or the PCM itself where the seat has none, also of sequences [batch, steps, samples].

        ``pcm`` is float32 [batch, samples], -1..1; features are float32 [batch, frames, n_mels].
        """
        if pcm.ndim == 3:
            return _each_step(self, pcm)
        features = self.spec.features
        if pcm.shape[1] != self.spec.samples:
            raise ConfigError(
                f"expected {self.spec.samples} samples, got {pcm.shape[1]}", where="inputs", fix="pass a whole window"
            )
        if features is None:
            return pcm * self.spec.gain
        frames = self.spec.gain * pcm.double().unfold(1, features.window_samples, features.hop_samples) * self.window
        spectrum = torch.fft.rfft(frames, n=features.n_fft)
        power: Tensor = (spectrum.real.square() + spectrum.imag.square()) @ self.filters
        return ((power.clamp_min(features.floor).log() - features.mean) / features.std).float()


def _each_step(module: nn.Module, x: Tensor) -> Tensor:
    steps: Tensor = module(x.flatten(0, 1))
    return steps.reshape(*x.shape[:2], *steps.shape[1:])


def preprocessors(inputs: Mapping[str, Input]) -> nn.ModuleDict:
    """Return one preprocessing module per input.

    Args:
        inputs: The seats, as in a recipe.

    Returns:
        A module per name; tensors and token numbers pass unchanged.
    """
    modules: dict[str, nn.Module] = {}
    for name, spec in inputs.items():
        if isinstance(spec, ImageInput):
            modules[name] = ImagePreprocess(spec)
        elif isinstance(spec, AudioInput):
            modules[name] = LogMelPreprocess(spec)
        else:
            modules[name] = nn.Identity()
    return nn.ModuleDict(modules)
