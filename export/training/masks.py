"""Presence masks: which inputs a model is trained and measured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor


def all_masks(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every set of present inputs but the empty one, the largest first.

    Example:
        >>> list(all_masks(("image", "audio")))
        [('image', 'audio'), ('image',), ('audio',)]
    """
    for size in range(len(names), 0, -1):
        yield from combinations(names, size)


def as_tensor(mask: Sequence[str], names: Sequence[str]) -> Tensor:
    """Return a mask as float32 [n_inputs]."""
    return torch.tensor([float(name in mask) for name in names])


def modality_dropout(present: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Return ``present`` with inputs taken away at random, never the last one.

    Args:
        present: float32 [batch, n_inputs].
        probability: Of each row to lose one of its inputs.
        generator: Source of chance.
    """
    rows = torch.rand(len(present), 1, generator=generator) < probability
    # The input with the largest random number among those present is the one to lose.
    draw = torch.rand(present.shape, generator=generator).to(present.device) * present
    lost = (draw == draw.amax(1, keepdim=True)) & (present > 0)
    spare = present.sum(1, keepdim=True) > 1
    return torch.where(lost & spare & rows.to(present.device), torch.zeros_like(present), present)
