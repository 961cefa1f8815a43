"""AV-digits: encoders of image, audio and text, and a fusion network that works with any of them missing."""

from __future__ import annotations

from torch import Tensor, nn

from mmedge.bundle.manifest import TextInput
from mmedge.errors import ConfigError

from ..recipe import Recipe
from ..tokenizer import load_tokenizer
from .blocks import conv
from .fusion import FUSIONS
from .staged import StagedModel
from .text import TextEncoder


class ImageEncoder(nn.Sequential):
    """[batch, 1, 112, 112] -> [batch, embedding], about 9 million multiply-accumulates.

    Multiples of 16 channels fill a vector register: training takes half the time it took with 12, 24, 40 and 56.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__(
            conv(1, 16, 5, stride=2, padding=2),
            conv(16, 32, stride=2),
            nn.MaxPool2d(2),
            conv(32, 32),
            conv(32, 32),
            nn.MaxPool2d(2),
            conv(32, 48),
            conv(48, 32, stride=2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, embedding),
            nn.ReLU(),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of ``x``.

        ``x`` is float32 [batch, 1, height, width], normalised; the embedding float32 [batch, width].
        """
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
            conv(32, 32),
            conv(32, 32),
            nn.MaxPool2d(2),  # 12 x 5
            conv(32, 48, (3, 5), padding=(1, 0)),  # 12 x 1
            conv(48, 48, (3, 1), padding=(1, 0)),
            nn.MaxPool2d((3, 1)),  # 4 x 1
            nn.Flatten(),
            nn.Linear(48 * 4, embedding),
            nn.ReLU(),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of the features ``x``.

        ``x`` is float32 [batch, frames, n_mels], log-mel; the embedding float32 [batch, width].
        """
        embedding: Tensor = self.layers(x.unsqueeze(1))
        return embedding


class Fusion(nn.Module):
    """Digit and agreement from three embeddings and their presence.

    Args:
        block: Takes the embeddings and ``present``, and gives both tasks' logits.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, image: Tensor, audio: Tensor, text: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of digit [batch, classes] and agreement [batch, 1].

        Embeddings are float32 [batch, width]; ``present`` is float32 [batch, inputs]; logits are float32.
        """
        digit, agreement = self.block((image, audio, text), present)
        return digit, agreement


def make(recipe: Recipe, embedding: int = 64, fusion: str = "table") -> StagedModel:
    """Return the untrained AV-digits model.

    Args:
        recipe: With the stages image_encoder, audio_encoder, text_encoder and fusion, and an input ``text``.
        embedding: Length of each embedding.
        fusion: One of ``fusion.FUSIONS``.

    Returns:
        The model.

    Raises:
        ConfigError: If there is no such fusion, or no tokenizer.
    """
    classes, text = len(recipe.tasks["digit"].labels), recipe.inputs["text"]
    assert isinstance(text, TextInput)
    if fusion not in FUSIONS:
        raise ConfigError(
            f"unknown fusion '{fusion}'", where="model.parameters.fusion", fix=f"one of {', '.join(FUSIONS)}"
        )
    vocabulary = load_tokenizer(recipe, "text").size
    stages = {
        "image_encoder": ImageEncoder(embedding),
        "audio_encoder": AudioEncoder(embedding),
        "text_encoder": TextEncoder(vocabulary, text.max_tokens, embedding, text.pad),
        "fusion": Fusion(FUSIONS[fusion](3, embedding, classes)),
    }
    return StagedModel(recipe, stages)
