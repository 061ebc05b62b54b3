"""What a training step costs with a Sparsifier, as a ratio to the plain step, per face and network.

    python benchmarks/overhead.py [--json overhead.json] [--rounds 15] [--threads 1]

Plain steps and steps with each Sparsifier are timed in turn, in short bursts within one process, so that a drift of
the machine's speed meets all of them alike; printed is the median over rounds of the ratio of CPU times, with its
quartiles. ``budget`` is a run to 95 % sparsity, timed in its ramp with applications as often as in a run of
``--steps`` steps, and again in its fine-tune; ``strength`` applies the face after every single step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from obverse import Sparsifier
from obverse.penalties import LogSum
from obverse.training import build_model


class Transformer(nn.Module):
    """Two encoder layers over token embeddings."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def networks() -> dict[str, tuple[Callable[[], nn.Module], torch.Tensor]]:
    torch.manual_seed(0)
    return {
        "lenet-300-100, batch 128": (
            lambda: build_model("lenet-300-100", (1, 28, 28), 10),
            torch.randn(128, 1, 28, 28),
        ),
        "lenet-5, batch 128": (lambda: build_model("lenet-5", (1, 28, 28), 10), torch.randn(128, 1, 28, 28)),
        "resnet20, batch 32": (lambda: build_model("resnet20", (3, 32, 32), 10), torch.randn(32, 3, 32, 32)),
        "transformer, 16 x 64 tokens": (Transformer, torch.randint(1000, (16, 64))),
    }


class Loop:
    """One model in training, with or without a Sparsifier."""

    def __init__(
        self, build: Callable[[], nn.Module], inputs: torch.Tensor, optimizer: str, **regularizer: Any
    ) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = build(), inputs
        self.labels = torch.arange(len(inputs)) % 10
        kinds = {
            "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
            "adam": lambda p: torch.optim.Adam(p, lr=1e-4),
        }
        self.optimizer = kinds[optimizer](self.model.parameters())
        self.sparsifier = Sparsifier(self.model, self.optimizer, LogSum(0.1), **regularizer) if regularizer else None

    def run(self, steps: int) -> float:
        """CPU seconds per step."""
        started = time.process_time()
        for _ in range(steps):
            loss = F.cross_entropy(self.model(self.inputs), self.labels)
            if self.sparsifier is not None:
                loss = loss + self.sparsifier.penalty()
            loss.backward()
            self.optimizer.step()
            if self.sparsifier is not None:
                self.sparsifier.step()
            self.optimizer.zero_grad()
        return (time.process_time() - started) / steps


def variants(total: int) -> dict[str, dict[str, Any]]:
    ramp = {"budget": 0.95, "total_steps": total}
    return {
        "proximal, budget": {"face": "proximal", **ramp},
        "reweighted, budget": {"face": "reweighted", **ramp},
        "dropout, budget": {"face": "dropout", **ramp},
        "fine-tune": {"face": "proximal", "budget": 0.95, "total_steps": 1},
        "proximal, strength": {"face": "proximal", "strength": 1e-6},
        "reweighted, strength": {"face": "reweighted", "strength": 1e-6},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=28_000, help="length of the run that a budget is spread over")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {}
    for network, (build, inputs) in networks().items():
        for optimizer in ("sgd", "adam"):
            plain = Loop(build, inputs, optimizer)
            loops = {
                name: Loop(build, inputs, optimizer, **options) for name, options in variants(arguments.steps).items()
            }
            # A burst holds whole applications of the budget, so that their cost is spread as it is in training.
            burst = max(3, min(200, int(0.3 / plain.run(3))))
            ratios: dict[str, list[float]] = {name: [] for name in loops}
            for loop in (plain, *loops.values()):
                loop.run(2)
            for _ in range(arguments.rounds):
                for name, loop in loops.items():
                    before, with_it, after = plain.run(burst), loop.run(burst), plain.run(burst)
                    ratios[name].append(2 * with_it / (before + after))
            print(f"{network}, {optimizer}")
            for name, values in ratios.items():
                low, middle, high = statistics.quantiles(values, n=4)
                print(f"    {name:<22} {middle:5.2f}x   [{low:.2f}, {high:.2f}]", flush=True)
                results[f"{network}, {optimizer}, {name}"] = {"median": middle, "quartiles": [low, high]}
    if arguments.json is not None:
        payload = {"threads": arguments.threads, "torch": torch.__version__, "ratios": results}
        arguments.json.write_text(json.dumps(payload, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
