"""DropBlock: does it drop what it says, without a bias by position, and what does a call cost?

    python benchmarks/dropblock.py [--json benchmarks/results/dropblock.json] [--draws 20000] [--threads 1]

For the maps, blocks and rates of the table: the share that is really dropped and the mean multiplier at the center
and at the corner of the map, over masks that are drawn, beside a transcription of the published rule (seeds on valid
positions, published gamma, division by the realized share of the whole batch) and of the variant with seeds anywhere
and that same gamma, which a popular model library uses. Then CPU time of forward and backward per call, as a ratio to
the published rule's plain transcription, calls taking turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from obverse.dropout import DropBlock2d

ROWS = [(14, 7, 0.10), (7, 7, 0.10), (28, 7, 0.10), (14, 7, 0.25), (8, 3, 0.10)]
SPEED = [((32, 64, 28, 28), 7), ((32, 64, 28, 28), 3), ((128, 32, 16, 16), 5), ((16, 256, 14, 14), 7)]
RATE = 0.1


class Published(nn.Module):
    """Ghiasi et al. (2018), as their text describes it: seeds, maximum pooling, division by the share kept."""

    def __init__(self, p: float, block: int, anywhere: bool = False) -> None:
        super().__init__()
        self.p, self.block, self.anywhere = p, block, anywhere

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        b = min(self.block, height, width)
        inside = (height - b + 1) * (width - b + 1)
        gamma = self.p * height * width / (b * b * inside)
        if self.anywhere:
            seeds = torch.bernoulli(torch.full_like(x, gamma))
            dropped = F.max_pool2d(seeds, b, stride=1, padding=b // 2)[..., :height, :width]
        else:
            seeds = torch.bernoulli(x.new_full((*x.shape[:2], height - b + 1, width - b + 1), gamma))
            dropped = F.max_pool2d(F.pad(seeds, [b - 1] * 4), b, stride=1)
        keep = 1 - dropped
        return x * keep * (keep.numel() / keep.sum())


def layers(block: int, p: float) -> dict[str, nn.Module]:
    return {
        "published": Published(p, block),
        "seeds anywhere": Published(p, block, anywhere=True),
        "obverse, published": DropBlock2d(p, block, gamma="published", scale="count"),
        "obverse": DropBlock2d(p, block),
    }


def moments(layer: nn.Module, side: int, draws: int) -> dict[str, float]:
    """Share dropped, and mean multiplier at center and corner."""
    torch.manual_seed(0)
    total, zeros, count = torch.zeros(side, side, dtype=torch.float64), 0.0, 0
    while count < draws:
        # Batches of the usual size: the published scale looks at all of a batch.
        out = layer(torch.ones(32, 16, side, side))
        total += out.sum((0, 1), dtype=torch.float64)
        zeros += float((out == 0).double().mean()) * 512
        count += 512
    mean = total / count
    middle = side // 2
    return {"dropped": zeros / count, "center": float(mean[middle, middle]), "corner": float(mean[0, 0])}


def ratios(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds per call, calls taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            spent[name].append(time.process_time() - start)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "dropblock.json")
    parser.add_argument("--draws", type=int, default=20000, help="maps that are drawn for each row")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rates = []
    print(f"{'map':>4} {'block':>5} {'p':>5}  {'layer':<20} {'dropped':>8} {'center':>8} {'corner':>8}")
    for side, block, p in ROWS:
        for name, layer in layers(block, p).items():
            row = {"side": side, "block": block, "p": p, "layer": name, **moments(layer, side, options.draws)}
            rates.append(row)
            print(
                f"{side:>4} {block:>5} {p:>5}  {name:<20} {row['dropped']:>8.4f} {row['center']:>8.3f} "
                f"{row['corner']:>8.3f}"
            )

    speeds = []
    print(f"\nforward and backward, p = {RATE}", end="")
    print(f"\n{'input':<20} {'block':>5}  {'layer':<20} {'ms per call':>12} {'ratio':>7}")
    for shape, block in SPEED:
        x = torch.randn(shape, requires_grad=True)
        chosen: dict[str, nn.Module] = {"published": Published(RATE, block), "obverse": DropBlock2d(RATE, block)}
        chosen["torch.nn.Dropout2d"] = nn.Dropout2d(RATE)

        def call(layer: nn.Module, x: Tensor = x) -> None:
            torch.autograd.grad(layer(x).sum(), x)

        spent = ratios({name: lambda layer=layer: call(layer) for name, layer in chosen.items()}, options.rounds)
        for name, times in spent.items():
            pairs = sorted(t / base for t, base in zip(times, spent["published"], strict=True))
            row = {"shape": list(shape), "block": block, "layer": name, "ratio": statistics.median(pairs)}
            row |= {"quartiles": [pairs[len(pairs) // 4], pairs[3 * len(pairs) // 4]]}
            speeds.append(row)
            size = "x".join(str(n) for n in shape)
            print(f"{size:<20} {block:>5}  {name:<20} {1e3 * statistics.median(times):>12.2f} {row['ratio']:>7.2f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"threads": options.threads, "rates": rates, "speed": speeds}, indent=1) + "\n")
    print(f"\nwrote {options.json}")


if __name__ == "__main__":
    main()
