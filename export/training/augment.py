"""Changes of features that only training sees."""

from __future__ import annotations

import torch
from torch import Tensor


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
