"""Digits from the picture alone: the same image encoder and a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from ..recipe import Recipe
from .av_digits import ImageEncoder
from .staged import StagedModel


class Head(nn.Linear):
    """[batch, embedding] -> logits [batch, classes]."""

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits. ``embedding`` is float32 [batch, width], the logits float32 [batch, classes]."""
        return super().forward(embedding)


def make(recipe: Recipe, embedding: int = 64) -> StagedModel:
    """Return the untrained image classifier.

    Args:
        recipe: With the stages image_encoder and head.
        embedding: Length of the embedding.

    Returns:
        The model.
    """
    classes = len(recipe.tasks["digit"].labels)
    return StagedModel(recipe, {"image_encoder": ImageEncoder(embedding), "head": Head(embedding, classes)})
