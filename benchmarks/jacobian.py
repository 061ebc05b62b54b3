"""What a training step costs with the Jacobian penalty, in time and memory, as a ratio to the plain step.

    python benchmarks/jacobian.py [--json jacobian.json] [--rounds 10] [--threads 1]

Plain steps and steps with each backend are timed in turn, one by one within one process, so that a drift of the
machine's speed meets all of them alike; printed is the median over rounds of the ratio of CPU times, with its
quartiles. Rounds are added to those that the file has, so that a busy machine can be asked again. Memory is the peak of
what torch allocates during a step beyond what it had before, from its profiler.

The networks are ResNet-20 with ReLU and BatchNorm, the same with SiLU and GroupNorm, and two encoder layers with GELU.
A finite difference is refused for ReLU. ``sum`` adds the penalty to the loss, ``total`` lets the regularizer add them.
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
from torch import Tensor, nn

from obverse.imbalance import HeteroskedasticRegularizer
from obverse.training import build_model


class Block(nn.Module):
    """A residual block of ResNet-20 with SiLU and GroupNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(out)) + self.shortcut(x))


class SmoothResNet20(nn.Module):
    """ResNet-20 with SiLU in place of ReLU and GroupNorm in place of BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, 16)
        sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.blocks(F.silu(self.norm(self.conv(x)))).mean((2, 3)))
        return scores


class Transformer(nn.Module):
    """Two encoder layers over token embeddings."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return scores


FIRST = {
    "resnet20 (ReLU, BatchNorm), batch 32": ["bn"],
    "resnet20 (SiLU, GroupNorm), batch 32": ["norm"],
    "transformer (GELU), 16 x 64 tokens": ["encoder.layers.0.norm1"],
}
"""The norm nearest to the input."""


def networks() -> dict[str, tuple[Callable[[], nn.Module], Tensor, bool]]:
    """Builder, inputs, and whether the network is smooth."""
    torch.manual_seed(0)
    images = torch.randn(32, 3, 32, 32)
    return {
        "resnet20 (ReLU, BatchNorm), batch 32": (lambda: build_model("resnet20", (3, 32, 32), 10), images, False),
        "resnet20 (SiLU, GroupNorm), batch 32": (SmoothResNet20, images, True),
        "transformer (GELU), 16 x 64 tokens": (Transformer, torch.randint(1000, (16, 64)), True),
    }


class Loop:
    """One model in training, with or without the penalty."""

    def __init__(self, build: Callable[[], nn.Module], inputs: Tensor, options: dict[str, Any] | None) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = build(), inputs
        self.labels = torch.arange(len(inputs)) % 10
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        options = None if options is None else dict(options)
        self.shares = options is not None and options.pop("total", False)
        self.period = 1 if options is None else options.get("every", 1)
        strengths = torch.linspace(0.1, 1.0, 10)
        self.regularizer = (
            None if options is None else HeteroskedasticRegularizer(self.model, strengths, strength=0.1, **options)
        )

    def step(self) -> None:
        if self.regularizer is None:
            loss = F.cross_entropy(self.model(self.inputs), self.labels)
        else:
            with self.regularizer.capture():
                scores = self.model(self.inputs)
            loss = F.cross_entropy(scores, self.labels)
            if self.shares:
                loss = self.regularizer.total(loss, scores, self.labels)
            else:
                loss = loss + self.regularizer(scores, self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def run(self, steps: int) -> float:
        """CPU seconds per step."""
        started = time.process_time()
        for _ in range(steps):
            self.step()
        return (time.process_time() - started) / steps

    def peak(self) -> int:
        """Most bytes allocated at once during the steps of a period, beyond those before it."""
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(self.period):
                self.step()
        changes = [
            (event.start_ns(), event.nbytes())
            for event in profiler.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        held = peak = 0
        for _, change in sorted(changes, key=lambda pair: pair[0]):
            held += change
            peak = max(peak, held)
        return peak


def variants(network: str, smooth: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "double backward": {"backend": "double-backward"},
        "double backward, one layer": {"backend": "double-backward", "layers": FIRST[network]},
        "double backward, every 4": {"backend": "double-backward", "every": 4},
        "double backward, subset 1/4": {"backend": "double-backward", "subset": 0.25},
        "last layer": {"backend": "last-layer"},
    }
    if smooth:
        found |= {
            "finite difference, sum": {"backend": "finite-difference"},
            "finite difference, total": {"backend": "finite-difference", "total": True},
            "finite difference, every 4": {"backend": "finite-difference", "total": True, "every": 4},
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+", default=[], help="only those whose names hold one of these words")
    parser.add_argument("--rows", nargs="+", default=[], help="only those whose names hold one of these words")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        stored = json.loads(arguments.json.read_text())
        if (stored["threads"], stored["torch"]) != (arguments.threads, torch.__version__):
            sys.exit(f"{arguments.json} was measured with other threads or another torch; give another --json")
        results = stored["ratios"]
    for network, (build, inputs, smooth) in networks().items():
        if arguments.networks and not any(word in network for word in arguments.networks):
            continue
        plain = Loop(build, inputs, None)
        chosen = {
            name: options
            for name, options in variants(network, smooth).items()
            if not arguments.rows or any(word in name for word in arguments.rows)
        }
        loops = {name: Loop(build, inputs, options) for name, options in chosen.items()}
        for loop in (plain, *loops.values()):
            loop.run(2)
        ratios: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(arguments.rounds):
            before = plain.run(1)
            for name, loop in loops.items():
                with_it, after = loop.run(loop.period), plain.run(1)
                ratios[name].append(2 * with_it / (before + after))
                before = after
        known = all("memory" in results.get(f"{network}, {name}", {}) for name in loops)
        base = 0 if known else plain.peak()
        print(network)
        for name, values in ratios.items():
            key = f"{network}, {name}"
            values = results.get(key, {}).get("values", []) + values
            low, middle, high = statistics.quantiles(values, n=4)
            memory = results[key]["memory"] if known else loops[name].peak() / base
            print(f"    {name:<28} {middle:5.2f}x   [{low:.2f}, {high:.2f}]   memory {memory:.2f}x", flush=True)
            results[key] = {"median": middle, "quartiles": [low, high], "memory": memory, "values": values}
        if arguments.json is not None:
            payload = {"threads": arguments.threads, "torch": torch.__version__, "ratios": results}
            arguments.json.write_text(json.dumps(payload, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
