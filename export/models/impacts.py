"""Which of four objects made the click: when each one hit the ground, when it clicked, and how well the two fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmedge.bundle.manifest import AudioInput
from mmedge.errors import ConfigError

from ..recipe import Recipe
from .blocks import conv
from .staged import StagedModel

LANES = 4
_BINS = 8  # of the time between two frames


class ImageEncoder(nn.Module):
    """One frame [batch, 1, 48, 64] and the memory [batch, steps, 4 * features] -> the memory with the frame in it.

    Args:
        features: Numbers per frame and object.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(1, 8, 5, stride=(2, 4), padding=2),  # 24 x 16
            conv(8, 12, stride=(1, 2)),  # 24 x 8
            conv(12, 12, stride=(1, 2)),  # 24 x 4: a column per object
            nn.Conv2d(12, features, (24, 1)),
        )

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """Return the memory of the next step, the newest frame last.

        ``x`` is float32 [batch, 1, height, width], normalised; ``last`` and the memory are float32 of one shape.
        """
        seen = self.layers(x).flatten(1).unsqueeze(1)
        return torch.cat([last[:, 1:], seen], 1)


class AudioEncoder(nn.Module):
    """[batch, frames, n_mels] -> in which feature frame the click began, or in none: [batch, frames + 1].

    It starts from what a click is: a rise of the level. Without that nothing would tell it at first where to look.

    Args:
        mels: Bands of the features.
    """

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(mels, 16, (5, 1), padding=(2, 0)),
            conv(16, 16, (5, 1), padding=(2, 0)),
            nn.Conv2d(16, 1, (5, 1), padding=(2, 0)),
        )
        self.rise = nn.Parameter(torch.tensor(8.0))
        self.none = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities.

        ``x`` is float32 [batch, frames, n_mels], log-mel; probabilities are float32 [batch, steps].
        """
        level = x.mean(2)
        rise = torch.cat([torch.zeros_like(level[:, :1]), level[:, 1:] - level[:, :-1]], 1)
        scores = self.layers(x.transpose(1, 2).unsqueeze(3)).flatten(1) + self.rise * rise
        return torch.softmax(torch.cat([scores, self.none.expand(scores.shape[0], 1)], 1), 1)


class Fusion(nn.Module):
    """The objects' hits against the time of the click.

    From the memory each object gets, with the same weights, a score for every feature frame of the sound: how well a
    click there would fit its flight. The answer is that score where the click is, so neither input alone tells
    anything: equal memories give equal scores, and no click gives none.

    Args:
        features: Numbers per frame and object.
        frames: Feature frames of the sound.
    """

    def __init__(self, features: int, frames: int) -> None:
        super().__init__()
        self.features, self.frames = features, frames
        self.layers = nn.Sequential(
            conv(features, 32, (5, 1), padding=(2, 0)),
            conv(32, 32, (3, 1), padding=(1, 0)),
            conv(32, 32, (3, 1), padding=(1, 0)),
            nn.Conv2d(32, _BINS, 1),
        )
        self.none = nn.Linear(frames + 1, 1)

    def forward(self, memory: Tensor, click: Tensor, present: Tensor) -> Tensor:
        """Return the logits [batch, 5] of the four objects and of ``none``.

        All are float32 [batch, ...], ``present`` among them [batch, inputs].
        """
        memory, click = memory * present[:, 0:1, None], click * present[:, 1:2]
        steps = memory.shape[1]
        lanes = memory.view(-1, steps, self.features, LANES).permute(0, 3, 2, 1)
        hits = self.layers(lanes.reshape(-1, self.features, steps, 1))
        hits = hits.reshape(-1, LANES, _BINS, steps).transpose(2, 3).reshape(-1, LANES, 1, steps * _BINS)
        hits = functional.interpolate(hits, (1, self.frames), mode="bilinear", align_corners=False).squeeze(2)
        fit = (hits * click[:, None, :-1]).sum(2)
        return torch.cat([fit, self.none(click)], 1)


def make(recipe: Recipe, features: int = 6) -> StagedModel:
    """Return the untrained model.

    Args:
        recipe: With the stages image_encoder, audio_encoder and fusion.
        features: Numbers that are remembered per frame and object.

    Returns:
        The model.

    Raises:
        ConfigError: If there is no audio input with features.
    """
    sound = recipe.inputs.get("audio")
    if not isinstance(sound, AudioInput) or sound.features is None:
        raise ConfigError("this model needs audio features", where="inputs.audio", fix="declare log-mel features")
    _, frames, mels = sound.tensor_shape
    stages = {
        "image_encoder": ImageEncoder(features),
        "audio_encoder": AudioEncoder(mels),
        "fusion": Fusion(features, frames),
    }
    return StagedModel(recipe, stages)
