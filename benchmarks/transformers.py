"""Transformers as they are met on devices, small and with random weights: a vision transformer, an image-text pair."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and MLP: x [batch, tokens, width] -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mixed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.project(seen.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.narrow(functional.gelu(self.widen(self.mixed(x))))


class ImageTower(nn.Module):
    """x [batch, 3, size, size] -> y [batch, out]: a ViT whose class token answers."""

    def __init__(self, size: int = 64, patch: int = 8, width: int = 128, depth: int = 4, out: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, width // 32) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.place
        answer: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return answer


class TextTower(nn.Module):
    """x int64 [batch, tokens] -> y [batch, out]: the mean over all tokens answers."""

    def __init__(self, vocabulary: int, tokens: int, width: int = 128, depth: int = 2, out: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, width // 32) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.blocks(self.words(x) + self.place)).mean(1))
        return answer
