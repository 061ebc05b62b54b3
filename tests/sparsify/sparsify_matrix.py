"""The models and the methods of the matrix: small, but of every kind the library promises to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from obverse import Budget, Sparsifier
from obverse.sparsify import VariationalNoise

STEPS = 30


class Residual(nn.Module):
    """A small convolutional network with batch normalization and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head((x + torch.relu(self.block(x))).mean((2, 3)))


class Convolutions(nn.Module):
    """One- and three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 6, 3, padding=1)
        self.cube = nn.Conv3d(1, 4, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.line(x)).reshape(len(x), 1, 3, 4, 4)
        return self.head(torch.relu(self.cube(x)).mean((2, 3, 4)))


class Recurrent(nn.Module):
    """A tied embedding (input and output) around a recurrent layer."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.cell = cell(8, 8, batch_first=True)
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(self.embedding(tokens))[0][:, -1])


class Attention(nn.Module):
    """An encoder layer of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(tokens)).mean(1))


def _images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 6, 6)


def _tokens(count: int) -> torch.Tensor:
    return torch.randint(0, 12, (count, 5))


def _vectors(count: int) -> torch.Tensor:
    return torch.randn(count, 10)


def _lines(count: int) -> torch.Tensor:
    return torch.randn(count, 2, 8)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor], int]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3)), _vectors, 3),
    "residual": (Residual, _images, 3),
    "convolutions": (Convolutions, _lines, 3),
    "lstm": (lambda: Recurrent(nn.LSTM), _tokens, 12),
    "gru": (lambda: Recurrent(nn.GRU), _tokens, 12),
    "transformer": (Attention, _tokens, 3),
}

METHODS: dict[str, dict[str, Any]] = {
    "proximal": {"face": "proximal"},
    "reweighted": {"face": "reweighted"},
    "dropout": {"face": "dropout"},
    "dropout-bernoulli": {"face": "dropout", "law": "bernoulli"},
    "variational": {"face": "variational-dropout"},
    "variational-multiplicative": {"face": VariationalNoise("multiplicative")},
    "variational-weights": {"face": VariationalNoise(local=False)},
    "hard-concrete": {"face": "hard-concrete"},
    "concrete-dropout": {"face": "concrete-dropout"},
    "learned-eta": {"face": "learned-eta"},
    "standout": {"face": "standout"},
    "targeted-dropout": {"face": "targeted-dropout"},
    "magnitude": {"face": "magnitude"},
    "random": {"face": "random"},
}


@dataclass
class Run:
    """A training run that can be driven step by step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    sparsifier: Sparsifier
    inputs: torch.Tensor
    labels: torch.Tensor

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.model.train()
            loss = F.cross_entropy(self.model(self.inputs), self.labels) + self.sparsifier.penalty()
            loss.backward()
            self.optimizer.step()
            self.sparsifier.step()
            self.optimizer.zero_grad()


def start(model: str, method: str, optimizer: str = "adam", seed: int = 0, **options: Any) -> Run:
    """A run of a method on a model, before its first step."""
    torch.manual_seed(seed)
    build, draw, classes = MODELS[model]
    network = build()
    generator = torch.Generator().manual_seed(1)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    inputs = draw(16)
    torch.set_rng_state(state)
    labels = torch.randint(0, classes, (16,), generator=generator)
    trainer: torch.optim.Optimizer
    if optimizer == "adam":
        trainer = torch.optim.Adam(network.parameters(), lr=1e-2)
    else:
        trainer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    arguments: dict[str, Any] = {"budget": Budget(0.7), "total_steps": STEPS, **METHODS[method], **options}
    if arguments.get("strength") is not None:
        arguments["budget"] = None
    sparsifier = Sparsifier(network, trainer, **arguments)
    sparsifier.join()
    return Run(network, trainer, sparsifier, inputs, labels)
