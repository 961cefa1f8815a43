"""The networks of this project: one for pictures, one for sound, one that joins them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmedge.export import Recipe
from mmedge.export.models.staged import StagedModel


class Encoder(nn.Sequential):
    """[batch, 1, height, width] -> [batch, 16]."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of a picture, or of a spectrogram [batch, frames, bands].

        ``x`` and the embedding [batch, width] are float32.
        """
        x = x if x.ndim == 4 else x.unsqueeze(1)
        for layer in self:
            x = layer(x)
        return x


class Fusion(nn.Module):
    """Two embeddings and which of them are there -> [batch, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(34, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, image: Tensor, audio: Tensor, present: Tensor) -> Tensor:
        """Return logits.

        Embeddings are float32 [batch, width], ``present`` float32 [batch, inputs], logits float32 [batch, classes].
        """
        there = [image * present[:, :1], audio * present[:, 1:], present]
        logits: Tensor = self.layers(torch.cat(there, 1))
        return logits


def make(recipe: Recipe) -> StagedModel:
    """Return the untrained model: a network for every stage of the recipe."""
    classes = len(recipe.tasks["state"].labels)
    stages = {"image_encoder": Encoder(), "audio_encoder": Encoder(), "fusion": Fusion(classes)}
    return StagedModel(recipe, stages)
