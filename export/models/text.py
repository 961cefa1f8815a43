"""A small text encoder over token numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import conv


class TextEncoder(nn.Module):
    """int64 [batch, tokens] -> [batch, embedding].

    Two convolutions see five and then three neighbours, so that a word is read with a letter wrong, and the largest
    answer anywhere in the text counts. Padding answers nothing.

    Args:
        vocabulary: Rows of the token table.
        tokens: Length of a text.
        embedding: Length of the embedding.
        pad: Token number of padding.
    """

    def __init__(self, vocabulary: int, tokens: int, embedding: int, pad: int = 0) -> None:
        super().__init__()
        self.pad = pad
        self.token = nn.Embedding(vocabulary, 32)
        self.position = nn.Parameter(torch.zeros(tokens, 32))
        self.near = conv(32, 64, (5, 1), padding=(2, 0))
        self.wide = conv(64, 64, (3, 1), padding=(1, 0))
        self.last = nn.Sequential(nn.Linear(64, embedding), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding of the token numbers ``x``.

        ``x`` is int64 [batch, max_tokens], the embedding float32 [batch, width].
        """
        real = (x != self.pad).unsqueeze(1).unsqueeze(3).to(self.position.dtype)  # batch, 1, tokens, 1
        letters = (self.token(x) + self.position).transpose(1, 2).unsqueeze(3)
        near = self.near(letters * real) * real
        # After a ReLU nothing is below the zeros of the padding.
        found = (self.wide(near) * real).amax((2, 3))
        embedding: Tensor = self.last(found)
        return embedding
