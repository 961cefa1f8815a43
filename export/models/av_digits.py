"""AV-digits: an image encoder, an audio encoder and a fusion network that works with either one missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..recipe import Recipe
from .blocks import conv
from .staged import StagedModel


class ImageEncoder(nn.Sequential):
    """[batch, 1, 112, 112] -> [batch, embedding], about 10 million multiply-accumulates."""

    def __init__(self, embedding: int) -> None:
        super().__init__(
            conv(1, 12, 5, stride=2, padding=2),
            conv(12, 24, stride=2),
            nn.MaxPool2d(2),
            conv(24, 40),
            conv(40, 40),
            nn.MaxPool2d(2),
            conv(40, 56),
            conv(56, 32, stride=2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, embedding),
            nn.ReLU(),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of ``x``."""
        for layer in self:
            x = layer(x)
        return x


class AudioEncoder(nn.Module):
    """[batch, 95, 40] -> [batch, embedding]; four time segments are kept apart, since order makes a word."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(1, 16, 5, stride=2, padding=2),  # 48 x 20
            conv(16, 32),
            nn.MaxPool2d(2),  # 24 x 10
            conv(32, 40),
            conv(40, 40),
            nn.MaxPool2d(2),  # 12 x 5
            conv(40, 56, (3, 5), padding=(1, 0)),  # 12 x 1
            conv(56, 56, (3, 1), padding=(1, 0)),
            nn.MaxPool2d((3, 1)),  # 4 x 1
            nn.Flatten(),
            nn.Linear(56 * 4, embedding),
            nn.ReLU(),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of the features ``x``."""
        embedding: Tensor = self.layers(x.unsqueeze(1))
        return embedding


class Fusion(nn.Module):
    """Digit and agreement from two embeddings and their presence.

    Each head gives the probability of every digit and of ``none``; an absent modality counts as a
    certain ``none``. The digit is then read off the joint table of what the two may have named: the same
    digit, a digit and nothing, or two different ones, with learned weights, plus a learned correction
    from both embeddings together. Heads stay calibrated alone, so that no mask needs another network.

    Args:
        embedding: Length of each embedding.
        classes: Digit classes; the last one is ``none``.
    """

    one_hot_none: Tensor

    def __init__(self, embedding: int, classes: int) -> None:
        super().__init__()
        self.image_head = nn.Linear(embedding, classes)
        self.audio_head = nn.Linear(embedding, classes)
        last = nn.Linear(64, classes + 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.joint = nn.Sequential(nn.Linear(2 * embedding, 64), nn.ReLU(), last)
        # Logarithms of how much likelier agreement and conflict are than if the two were unrelated.
        self.agree_weight = nn.Parameter(torch.tensor(2.0))
        self.conflict_weight = nn.Parameter(torch.tensor(-2.0))
        self.register_buffer("one_hot_none", torch.eye(classes)[-1:], persistent=False)

    def forward(self, image: Tensor, audio: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of digit [batch, classes] and agreement [batch, 1]."""
        has_image, has_audio = present[:, 0:1], present[:, 1:2]
        image, audio = image * has_image, audio * has_audio
        none = self.one_hot_none
        seen = torch.softmax(self.image_head(image), 1) * has_image + none * (1 - has_image)
        said = torch.softmax(self.audio_head(audio), 1) * has_audio + none * (1 - has_audio)
        seen_digit, seen_none = seen[:, :-1], seen[:, -1:]
        said_digit, said_none = said[:, :-1], said[:, -1:]
        same = torch.exp(self.agree_weight) * seen_digit * said_digit
        one = seen_digit * said_none + seen_none * said_digit
        # A conflict leaves each of the two digits as likely as the other.
        either = seen_digit * (1 - said_none - said_digit) + said_digit * (1 - seen_none - seen_digit)
        conflict = torch.exp(self.conflict_weight) * 0.5 * either
        table = torch.cat([same + one + conflict, seen_none * said_none], 1)
        correction = self.joint(torch.cat([image, audio], 1)) * (has_image * has_audio)
        agree = same.sum(1, keepdim=True)
        rest = table.sum(1, keepdim=True) - agree
        digit = torch.log(table.clamp_min(1e-6)) + correction[:, :-1]
        agreement = torch.log(agree.clamp_min(1e-6)) - torch.log(rest.clamp_min(1e-6)) + correction[:, -1:]
        return digit, agreement


def make(recipe: Recipe, embedding: int = 64) -> StagedModel:
    """Return the untrained AV-digits model.

    Args:
        recipe: With the stages image_encoder, audio_encoder and fusion.
        embedding: Length of each embedding.

    Returns:
        The model.
    """
    classes = len(recipe.tasks["digit"].labels)
    stages = {
        "image_encoder": ImageEncoder(embedding),
        "audio_encoder": AudioEncoder(embedding),
        "fusion": Fusion(embedding, classes),
    }
    return StagedModel(recipe, stages)
