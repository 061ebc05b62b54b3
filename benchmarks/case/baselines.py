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
    """A random mask of the target density in every layer, from the start."""

    def __init__(self, model: nn.Module, target: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = matrices(model)
        self.masks = []
        for weight in self.weights:
            kept = torch.randperm(weight.numel(), generator=generator)[: round((1 - target) * weight.numel())]
            self.masks.append(torch.zeros(weight.numel()).index_fill_(0, kept, 1.0).reshape(weight.shape))
        self.step()

    @torch.no_grad()
    def step(self) -> None:
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)

    def finish(self) -> None:
        pass
