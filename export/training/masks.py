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
    """Return ``present`` with inputs taken away at random: one, two..., all but one are equally likely.

    Args:
        present: float32 [batch, n_inputs].
        probability: Of each row to lose any.
        generator: Source of chance.
    """
    rows, share = torch.rand(2, len(present), 1, generator=generator).to(present.device)
    draw = torch.rand(present.shape, generator=generator).to(present.device)
    # Those that are absent come last; the first so many of the others are lost.
    rank = (draw - 2 * (1 - present)).argsort(1, descending=True).argsort(1)
    lost = 1 + torch.floor(share * (present.sum(1, keepdim=True) - 1))
    spare = present.sum(1, keepdim=True) > 1
    return torch.where((rank < lost) & spare & (rows < probability), torch.zeros_like(present), present)
