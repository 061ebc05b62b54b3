"""Noise and its regularizer lead to the same optimum: Dropout, DropBlock and DropConnect on a linear network.

    python examples/dropout_convergence.py [dropout_convergence.png]

Trains a network with one hidden layer by stochastic gradients of the noisy loss and draws, along the same iterates, the
noisy loss (a running mean), the deterministic objective with the exact regularizer, and the closed-form
global optimum. The fourth panel has the singular values that come out beside those that the theory predicts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from obverse.dropout import Blocks, Connect, deep_linear

mpl.use("Agg")
import matplotlib.pyplot as plt

INPUTS, HIDDEN, OUTPUTS, BLOCK, KEEP = 12, 12, 8, 3, 0.5
STEPS, BATCH, RATE, WINDOW = 8000, 64, 0.02, 200


def targets() -> Tensor:
    """A linear map with singular values from 3 down to 0.25; the inputs are white."""
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((OUTPUTS, OUTPUTS)))[0]
    right = np.linalg.qr(rng.standard_normal((INPUTS, INPUTS)))[0][:, :OUTPUTS]
    return torch.from_numpy(left * np.geomspace(3.0, 0.25, OUTPUTS) @ right.T)


def unit_masks(generator: torch.Generator) -> Tensor:
    return torch.bernoulli(torch.full((BATCH, HIDDEN), KEEP, dtype=torch.float64), generator=generator) / KEEP


def block_masks(generator: torch.Generator) -> Tensor:
    return Blocks(KEEP, BLOCK).sample((BATCH, HIDDEN), generator, dtype=torch.float64)


def noisy_outputs(kind: str, first: Tensor, second: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    if kind == "DropConnect":
        # One mask of the second layer's weights for every example.
        masks = torch.bernoulli(torch.full((BATCH, OUTPUTS, HIDDEN), KEEP, dtype=torch.float64), generator=generator)
        return torch.einsum("noh,oh,nh->no", masks / KEEP, second, x @ first.T)
    masks = unit_masks(generator) if kind == "Dropout" else block_masks(generator)
    return (masks * (x @ first.T)) @ second.T


def objective(kind: str) -> Callable[[list[Tensor]], Tensor]:
    """The deterministic loss: squared error of the clean network plus the exact regularizer."""
    wanted = targets()
    noise = {"Dropout": [KEEP], "DropBlock": [Blocks(KEEP, BLOCK)], "DropConnect": [1.0, Connect(KEEP)]}[kind]

    def value(weights: list[Tensor]) -> Tensor:
        clean = (weights[1] @ weights[0] - wanted).square().sum()
        result: Tensor = clean + deep_linear.explicit_regularizer(weights, noise)
        return result

    return value


def optimum(kind: str) -> deep_linear.GlobalOptimum:
    # Independent masks on the last layer's weights cost what masks on its inputs cost: both see only single units.
    block = BLOCK if kind == "DropBlock" else 1
    return deep_linear.global_optimum(None, targets(), keep_probability=KEEP, widths=HIDDEN, block_size=block)


def train(kind: str, seed: int = 0) -> tuple[list[float], list[float], Tensor]:
    """Noisy and deterministic loss at the same iterates, and the singular values of the product at the end."""
    generator = torch.Generator().manual_seed(seed)
    wanted, deterministic = targets(), objective(kind)
    draw = {"generator": generator, "dtype": torch.float64}
    first = (0.3 * torch.randn(HIDDEN, INPUTS, **draw)).requires_grad_()  # type: ignore[call-overload]
    second = (0.3 * torch.randn(OUTPUTS, HIDDEN, **draw)).requires_grad_()  # type: ignore[call-overload]
    noisy, exact = [], []
    for step in range(STEPS):
        x = torch.randn(BATCH, INPUTS, **draw)  # type: ignore[call-overload]
        loss = (noisy_outputs(kind, first, second, x, generator) - x @ wanted.T).square().sum(1).mean()
        gradients = torch.autograd.grad(loss, (first, second))
        with torch.no_grad():
            noisy.append(float(loss))
            exact.append(float(deterministic([first, second])))
            rate = RATE / 2 * (1 + np.cos(np.pi * step / STEPS))  # noise leaves a cloud; a falling rate lets it settle
            for weight, gradient in zip((first, second), gradients, strict=True):
                weight -= rate * gradient
    with torch.no_grad():
        return noisy, exact, torch.linalg.svdvals(second @ first)


def running_mean(values: list[float]) -> np.ndarray:
    """Means over the last WINDOW values, and over the last fifth while there are fewer."""
    sums, end = np.concatenate([[0.0], np.cumsum(values)]), np.arange(1, len(values) + 1)
    length = np.clip(end // 5, 1, WINDOW)
    return (sums[end] - sums[end - length]) / length


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "dropout_convergence.png")
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    print(f"{'noise':<12} {'optimum':>9} {'exact, last':>12} {'noisy, last':>12} {'excess':>8}   {'singular values'}")
    for number, kind in enumerate(("Dropout", "DropBlock", "DropConnect")):
        noisy, exact, values = train(kind)
        best = optimum(kind)
        smooth = running_mean(noisy)
        axis = axes[number]
        axis.plot(np.arange(1, STEPS + 1), noisy, color="0.85", linewidth=0.4, zorder=0)
        axis.plot(np.arange(1, STEPS + 1), smooth, color="tab:orange", label="noisy loss, running mean")
        axis.plot(np.arange(1, STEPS + 1), exact, color="tab:blue", label="loss plus exact regularizer")
        axis.axhline(best.value, color="black", linestyle="--", linewidth=1, label="global optimum")
        axis.set(title=kind, xlabel="step", xscale="log", yscale="log", xlim=(1, STEPS))
        color = f"C{number + 2}"
        axes[3].plot(range(1, OUTPUTS + 1), values, "o", color=color, markersize=4, label=kind)
        predicted = np.zeros(OUTPUTS)
        predicted[: len(best.singular_values)] = best.singular_values
        axes[3].plot(range(1, OUTPUTS + 1), predicted, color=color, linewidth=1)
        excess = exact[-1] / best.value - 1
        print(
            f"{kind:<12} {best.value:>9.4f} {exact[-1]:>12.4f} {smooth[-1]:>12.4f} {excess:>8.2%}   "
            f"{' '.join(f'{v:.2f}' for v in values.tolist())}"
        )
    axes[0].set_ylabel("loss")
    axes[0].legend(frameon=False, fontsize="small")
    axes[3].set(title="singular values", xlabel="index")
    axes[3].plot([], [], color="0.3", linewidth=1, label="predicted")
    axes[3].legend(frameon=False, fontsize="small")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
