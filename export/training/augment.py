"""Changes of preprocessed inputs that only training sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mmedge.bundle.manifest import AudioInput, ImageInput, Input


def augment(x: Tensor, spec: Input) -> Tensor:
    """Return a batch as another camera or another voice might have given it.

    Float32 in and out.

    Args:
        x: Preprocessed: images [batch, c, h, w] or [batch, steps, c, h, w], all steps changed alike, log-mel
            features [batch, frames, n_mels], anything else.
        spec: The seat.

    Returns:
        A new tensor; what is neither image nor features stays as it is.
    """
    if isinstance(spec, ImageInput):
        if x.ndim == 5:
            return augment(x.flatten(1, 2), spec).view_as(x)
        x = warp(x, turn=math.radians(8), scale=0.15, shift=0.06)
        gain, offset = (torch.rand(len(x), 1, 1, 1, device=x.device) * 2 - 1 for _ in range(2))
        return x * (1 + 0.25 * gain) + 0.3 * offset
    if isinstance(spec, AudioInput) and spec.features is not None:
        # Along the mel axis this is the length of a vocal tract, along time the tempo.
        return spec_augment(warp(x.unsqueeze(1), turn=0.0, scale=0.1, shift=0.03).squeeze(1))
    return x


def warp(x: Tensor, *, turn: float, scale: float, shift: float) -> Tensor:
    """Return planes turned, scaled (each axis apart) and shifted at random, borders repeated.

    Float32 in and out.

    Args:
        x: [batch, channels, rows, columns].
        turn: Largest angle, in radians.
        scale: Largest change of size of each axis.
        shift: Largest displacement as a share of each axis.
    """
    draw = torch.rand(5, len(x), device=x.device) * 2 - 1
    angle, wide, high = turn * draw[0], torch.exp(scale * draw[1]), torch.exp(scale * draw[2])
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [torch.stack([cosine * wide, -sine * wide, 2 * shift * draw[3]], 1)]
    rows += [torch.stack([sine * high, cosine * high, 2 * shift * draw[4]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def spec_augment(features: Tensor, *, time: int = 12, mel: int = 6) -> Tensor:
    """Return log-mel features with one random band of time and one of frequency replaced by the mean (SpecAugment).

    Args:
        features: float32 [batch, frames, n_mels].
        time: Widest band of frames.
        mel: Widest band of mel channels.

    Returns:
        A new tensor.
    """
    batch, frames, mels = features.shape
    hidden = _band(batch, frames, time, features.device)[:, :, None] | _band(batch, mels, mel, features.device)[:, None]
    return torch.where(hidden, features.mean((1, 2), keepdim=True), features)


def _band(batch: int, length: int, widest: int, device: torch.device) -> Tensor:
    width = torch.randint(0, min(widest, length) + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (length - width + 1)).long()
    at = torch.arange(length, device=device)[None]
    return (at >= start) & (at < start + width)
