"""Small networks whose groups span tensors, and the digits they learn."""

from __future__ import annotations

import math

import torch
from sklearn.datasets import load_digits
from torch import nn


class Convolutional(nn.Module):
    """A residual stream, a block with batch normalization inside, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.one, self.two = nn.Conv2d(16, 24, 3, 2, 1), nn.Conv2d(24, 16, 3, padding=1, bias=False)
        self.inner, self.outer = nn.BatchNorm2d(24), nn.BatchNorm2d(16)
        self.short = nn.Conv2d(16, 16, 1, 2)
        self.hidden, self.head = nn.Linear(16 * 16, 32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x.unsqueeze(1))))
        y = self.outer(self.two(torch.relu(self.inner(self.one(x)))))
        x = torch.relu(self.short(x) + y)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class Attention(nn.Module):
    """Separate projections; ``kv`` heads of keys and values for four of queries."""

    def __init__(self, dim: int, kv: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 4, kv, dim // 4
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, kv * self.head_dim)
        self.v, self.o = nn.Linear(dim, kv * self.head_dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        if self.num_kv_heads != self.num_heads:
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        y = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.head_dim), dim=-1) @ v
        return self.o(y.transpose(1, 2).reshape(batch, length, -1))


class Encoder(nn.Module):
    """Rows of an image as tokens; with ``rms`` the residual stream itself can lose channels."""

    def __init__(self, kv: int = 4, rms: bool = False) -> None:
        super().__init__()
        kind = nn.RMSNorm if rms else nn.LayerNorm
        self.enter, self.place = nn.Linear(8, 32), nn.Parameter(0.1 * torch.randn(1, 8, 32))
        self.norm1, self.norm2 = kind(32, eps=1e-6), kind(32, eps=1e-6)
        self.attention = Attention(32, kv)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x) + self.place
        x = x + self.attention(self.norm1(x))
        x = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.cell, self.head = kind(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Bag(nn.Module):
    """Pixels as words; the embedding is the output layer as well, and nothing normalizes its dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(17, 24), nn.Linear(24, 24), nn.Linear(24, 17, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).mean(1)
        return self.head(x + torch.relu(self.mix(x)))


NETWORKS = {
    "convolutional": Convolutional,
    "encoder": Encoder,
    "grouped queries": lambda: Encoder(kv=2),
    "root mean square": lambda: Encoder(rms=True),
    "lstm": Recurrent,
    "gru": lambda: Recurrent(nn.GRU),
    "bag": Bag,
}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of (8, 8) in [0, 1] and their classes."""
    features, labels = load_digits(return_X_y=True)
    return torch.tensor(features / 16, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(labels)
