"""Three faces of one regularizer on a linear model: noise, a refreshed ridge, and the proximal operator.

    python examples/faces_agree.py [faces_agree.png]

Trains the same regression by all three and draws the paths of the coefficients; they end at one point.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import torch
from torch import nn

from obverse import Sparsifier
from obverse.penalties import LogSum

mpl.use("Agg")
import matplotlib.pyplot as plt

STEPS, RATE, STRENGTH = 3000, 0.02, 0.1


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """200 rows, 8 columns of mean square 1 (then dropout is exactly its penalty), three of which matter."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    x /= x.square().mean(0).sqrt()
    weights = torch.tensor([1.5, -1.0, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64)
    return x, (x @ weights + 0.5 * torch.randn(200, generator=generator, dtype=torch.float64))[:, None]


def path(face: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients after every step, and at the end."""
    x, y = problem()
    model = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    sparsifier = Sparsifier(model, optimizer, LogSum(1.0), face=face, strength=STRENGTH)
    points = []
    for step in range(STEPS):
        # Noise leaves a cloud around the point; a falling rate lets it settle.
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS) if face == "dropout" else RATE
        loss = (model(x) - y).square().mean() / 2 + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
        points.append(model.weight.detach()[0].clone())
    sparsifier.finish()
    return torch.stack(points), model.weight.detach()[0]


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "faces_agree.png")
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    ends = {}
    for axis, face in zip(axes, ("dropout", "reweighted", "proximal"), strict=True):
        points, ends[face] = path(face)
        axis.plot(points.numpy(), linewidth=1.2)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.set(title=face, xlabel="step", xscale="log", xlim=(1, STEPS))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("coefficient")
    figure.savefig(target, dpi=150)
    plt.close(figure)
    print(f"{'face':<11} {'coefficients':<60} {'distance to proximal':>20}")
    for face, end in ends.items():
        distance = float((end - ends["proximal"]).abs().max())
        print(f"{face:<11} {' '.join(f'{w:6.3f}' for w in (end + 0.0).tolist()):<60} {distance:>20.1e}")
    print(f"figure: {target}")


if __name__ == "__main__":
    main()
