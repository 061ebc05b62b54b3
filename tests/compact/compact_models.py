"""Models of several kinds, each at full size and as it is after shrinking."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A convolutional block with a grouped convolution, a normalization of each kind, and a sum."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.group_norm = nn.GroupNorm(width // 4, width)
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.enter(x)).relu()
        x = x + self.group_norm(self.depthwise(x))
        return self.head(self.up(x).mean((2, 3)))


class Attention(nn.Module):
    """Attention written by hand: heads and width are attributes of its own."""

    def __init__(self, width: int = 32, heads: int = 4, head_size: int = 8) -> None:
        super().__init__()
        self.num_heads, self.head_size, self.sizes = heads, head_size, (heads * head_size,) * 3
        self.joint = nn.Linear(width, 3 * heads * head_size)
        self.out = nn.Linear(heads * head_size, width)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.norm = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = self.joint(self.norm(x)).split(self.sizes, -1)
        q, k, v = (part.view(batch, length, self.num_heads, self.head_size).transpose(1, 2) for part in split)
        mixed = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class Language(nn.Module):
    """Embedding and head tied; an LSTM between them."""

    def __init__(self, width: int = 12, hidden: int = 12, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width, padding_idx=0)
        self.lstm = nn.LSTM(width, hidden, layers, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.back = nn.Linear(2 * hidden, width)
        self.head = nn.Linear(width, 20)
        self.head.weight = self.embedding.weight
        self.register_buffer("offset", torch.zeros(20), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.back(self.norm(self.lstm(self.embedding(tokens))[0]))) + self.offset


def perceptron(first: int = 300, second: int = 100) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )


def gru(inputs: int = 8, hidden: int = 16) -> nn.Module:
    return nn.GRU(inputs, hidden, 1)


def fused(width: int = 24, heads: int = 4) -> nn.Module:
    return nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "perceptron": (perceptron, lambda: perceptron(41, 0 + 17), lambda: torch.randn(4, 1, 28, 28)),
    "one unit": (perceptron, lambda: perceptron(1, 1), lambda: torch.randn(4, 1, 28, 28)),
    "residual": (Residual, lambda: Residual(8), lambda: torch.randn(2, 3, 6, 6)),
    "attention": (Attention, lambda: Attention(20, 2, 5), lambda: torch.randn(2, 7, 20)),
    "language": (Language, lambda: Language(7, 5), lambda: torch.randint(20, (2, 6))),
    "gru": (gru, lambda: gru(8, 3), lambda: torch.randn(5, 2, 8)),
    "fused": (fused, lambda: fused(18, 3), lambda: torch.randn(2, 5, 18)),
    "unchanged": (Residual, Residual, lambda: torch.randn(2, 3, 6, 6)),
}


def thinned(model: nn.Module, zeros: float, seed: int = 0) -> nn.Module:
    """With a share of the entries of its matrices zero, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter[torch.rand(parameter.shape, generator=generator) < zeros] = 0
    return model.eval()
