"""Training targets of a task, from the class that each present input shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def none_class(labels: tuple[str, ...]) -> int | None:
    """Return the number of the class ``none``, which means that an input shows no class; None if there is none."""
    return labels.index("none") if "none" in labels else None


def classification_target(labels: Tensor, present: Tensor, classes: int, none: int | None) -> Tensor:
    """Return class probabilities [batch, classes]; rows are zero where nothing is known.

    Present inputs that name different classes share the probability, so that the model abstains. Inputs
    that show nothing count only where no other one names a class.

    Args:
        labels: int64 [batch, n_inputs], -1 for unknown.
        present: float32 [batch, n_inputs].
        classes: How many.
        none: Class that means nothing is shown.

    Example:
        >>> classification_target(torch.tensor([[3, 4]]), torch.ones(1, 2), 4 + 1, None)[0].tolist()
        [0.0, 0.0, 0.0, 0.5, 0.5]
    """
    known = (labels >= 0) & (present > 0)
    votes = functional.one_hot(labels.clamp_min(0), classes) * known.unsqueeze(-1)
    total = votes.sum(1).float()
    if none is not None:
        named = total.clone()
        named[:, none] = 0
        total = torch.where(named.sum(1, keepdim=True) > 0, named, total)
    return total / total.sum(1, keepdim=True).clamp_min(1)


def verification_target(labels: Tensor, present: Tensor, none: int | None) -> tuple[Tensor, Tensor]:
    """Return whether all present inputs name the same class [batch], and where that is defined [batch].

    Args:
        labels: int64 [batch, n_inputs], -1 for unknown.
        present: float32 [batch, n_inputs].
        none: Class that means nothing is shown; it agrees with nothing.
    """
    there = present > 0
    defined = (there.sum(1) >= 2) & ((labels >= 0) | ~there).all(1)
    highest = labels.masked_fill(~there, -1).amax(1)
    lowest = labels.masked_fill(~there, torch.iinfo(labels.dtype).max).amin(1)
    same = highest == lowest
    if none is not None:
        same &= highest != none
    return same.float(), defined
