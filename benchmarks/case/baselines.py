"""The rivals, written without Obverse: gradual magnitude pruning and random pruning."""

from __future__ import annotations

import torch
from torch import nn

from .harness import matrices

__all__ = ["Magnitude", "Random"]


class Magnitude:
    """Gradual magnitude pruning (Zhu and Gupta, 2017) with one threshold for the whole network.

    The smallest weights are zeroed along a cubic ramp and re-decided at every application, so that a weight comes back
    when its gradient lifts it; after ramp and hold the mask is final.
    """

    def __init__(self, model: nn.Module, target: float, steps: int, ramp: float, hold: float, every: int) -> None:
        self.weights = matrices(model)
        self.target, self.steps, self.every = target, steps, every
        self.ramp, self.freeze = ramp, round((ramp + hold) * steps)
        self.step_count = 0
        self.masks: list[torch.Tensor] | None = None

    @torch.no_grad()
    def step(self) -> None:
        self.step_count += 1
        if self.masks is None and (self.step_count % self.every == 0 or self.step_count == self.freeze):
            progress = min(1.0, self.step_count / (self.ramp * self.steps))
            sparsity = self.target * (1 - (1 - progress) ** 3)
            magnitudes = torch.cat([w.abs().flatten() for w in self.weights])
            count = round(sparsity * magnitudes.numel())
            threshold = magnitudes.kthvalue(count).values if count else magnitudes.new_zeros(())
            masks = [(w.abs() > threshold).to(w.dtype) for w in self.weights]
            for weight, mask in zip(self.weights, masks, strict=True):
                weight.mul_(mask)
            if self.step_count == self.freeze:
                self.masks = masks
        elif self.masks is not None:
            for weight, mask in zip(self.weights, self.masks, strict=True):
                weight.mul_(mask)

    def finish(self) -> None:
        pass


class Random:
    """A random mask from the start, with Erdős–Rényi densities (Mocanu et al., 2018; Evci et al., 2020).

    A matrix keeps weights in proportion to the sum of its sizes, which serves small layers better than equal shares.
    """

    def __init__(self, model: nn.Module, target: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = matrices(model)
        self.masks = []
        for weight, count in zip(self.weights, _counts(self.weights, target), strict=True):
            kept = torch.randperm(weight.numel(), generator=generator)[:count]
            self.masks.append(torch.zeros(weight.numel()).index_fill_(0, kept, 1.0).reshape(weight.shape))
        self.step()

    @torch.no_grad()
    def step(self) -> None:
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)

    def finish(self) -> None:
        pass


def _counts(weights: list[nn.Parameter], target: float) -> list[int]:
    """How many weights every matrix keeps; one whose part exceeds it is kept whole."""
    remaining = (1 - target) * sum(weight.numel() for weight in weights)
    counts: dict[int, int] = {}
    while True:
        free = [i for i in range(len(weights)) if i not in counts]
        factor = remaining / max(1, sum(sum(weights[i].shape) for i in free))
        full = [i for i in free if factor * sum(weights[i].shape) > weights[i].numel()]
        counts |= {i: weights[i].numel() if i in full else round(factor * sum(weights[i].shape)) for i in full or free}
        if not full:
            return [counts[i] for i in range(len(weights))]
        remaining -= sum(weights[i].numel() for i in full)
