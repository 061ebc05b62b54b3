"""The optimum seen through singular values alone: which directions survive dropout, and how much of each.

    maximize F(a) = sum_i m_i^2 prod_l a_i^l / (a_i^l + c_l)   over allocations a^l of every layer

with ``m`` the singular values of ``C_yx C^{-1/2}``; then ``s_i = m_i prod_l a_i^l/(a_i^l + c_l)`` (derived in
docs/theory.md, sections 9.6 and 9.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._water import fill
from ._strengths import LayerStrength

__all__ = ["Spectrum", "best_spectrum", "relaxed_spectrum"]

_SEARCH_ROUNDS = 3000
_REFINING_ROUNDS = 20_000


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values ``kept`` (n,) of the best network, allocations (k, n), and the loss ``cost = ||m||^2 - F``."""

    kept: NDArray[np.float64]
    allocations: NDArray[np.float64]
    cost: float

    @property
    def rank(self) -> int:
        return int(np.count_nonzero(self.kept))


def best_spectrum(wanted: NDArray[np.float64], layers: Sequence[LayerStrength]) -> Spectrum:
    """The best allocation for decreasing singular values ``wanted`` (n,), searched from 2 n starts.

    Every step maximizes exactly over one layer, so F never falls. For one hidden layer the first step is the answer.
    """
    count = min([int(np.count_nonzero(wanted)), *(layer.width for layer in layers)])
    strengths = torch.tensor([layer.strength for layer in layers], dtype=torch.float64).reshape(-1, 1)
    active = [index for index, layer in enumerate(layers) if layer.strength > 0]
    leading = torch.from_numpy(wanted[:count].copy())
    if not count or not active:
        kept = wanted.copy()
        kept[count:] = 0.0
        allocations = np.zeros((len(layers), len(wanted)))
        allocations[:, :count] = [np.minimum(layer.block / max(count, 1), 1.0) * np.ones(count) for layer in layers]
        return Spectrum(kept, allocations, float((wanted[count:] ** 2).sum()))
    scale = leading[0]
    energy = (leading / scale).square()
    state = _starts(leading, layers, many=len(active) > 1)
    reached = torch.full(state.shape[:1], -1.0, dtype=torch.float64)
    running = torch.arange(len(state))
    for _ in range(_SEARCH_ROUNDS if len(active) > 1 else 1):
        moved = _sweep(state[running], energy, strengths, layers, active)
        value = _retained(moved, strengths).mul(energy).sum(-1)
        state[running] = moved
        grew = value > reached[running] * (1 + 1e-15)
        reached[running] = torch.maximum(value, reached[running])
        running = running[grew]
        if not len(running):
            break
    best = state[int(reached.argmax())].unsqueeze(0)
    for _ in range(_REFINING_ROUNDS if len(active) > 1 else 0):
        moved = _sweep(best, energy, strengths, layers, active)
        change = float((moved - best).abs().max())
        best = moved
        if change <= 1e-15:
            break
    retained = _retained(best, strengths)[0].numpy()
    kept = np.zeros(len(wanted))
    kept[:count] = wanted[:count] * retained
    allocations = np.zeros((len(layers), len(wanted)))
    allocations[:, :count] = best[0].numpy()
    lost = 1.0 - retained
    return Spectrum(kept, allocations, float((wanted[:count] ** 2 * lost).sum() + (wanted[count:] ** 2).sum()))


def relaxed_spectrum(wanted: NDArray[np.float64], layers: Sequence[LayerStrength]) -> Spectrum:
    """Minimizer of the convex relaxation ``||m - s||^2 + nu ||s||^2`` with the nuclear (or k-support) norm.

    Its cost is never above that of any network; equal to it when the solution has rank one, and for one hidden layer.
    """
    count = min([int(np.count_nonzero(wanted)), *(layer.width for layer in layers)])
    strength = float(np.expm1(sum(np.log1p(layer.strength) for layer in layers)))
    block = max((layer.block for layer in layers), default=1)
    eta = np.ones(count)
    if strength > 0 and count:
        eta = fill(torch.from_numpy(wanted[:count].copy()), strength, block).numpy()
    kept = np.zeros(len(wanted))
    kept[:count] = wanted[:count] * eta / (eta + strength)
    allocations = np.zeros((len(layers), len(wanted)))
    allocations[:, :count] = eta
    cost = float((wanted[:count] ** 2 * strength / (eta + strength)).sum() + (wanted[count:] ** 2).sum())
    return Spectrum(kept, allocations, cost)


def _starts(leading: Tensor, layers: Sequence[LayerStrength], *, many: bool) -> Tensor:
    """(starts, k, n): for every rank, the leading directions evenly and in proportion to their singular values."""
    count = len(leading)
    triangle = torch.ones(count, count, dtype=torch.float64).tril()
    shapes = torch.cat([triangle, triangle * leading]) if many else triangle[-1:]
    return torch.stack([fill(shapes, 0.0, layer.block) for layer in layers], 1)


def _retained(allocations: Tensor, strengths: Tensor) -> Tensor:
    return _shares(allocations, strengths).prod(-2)


def _shares(allocations: Tensor, strengths: Tensor) -> Tensor:
    """``a/(a + c)`` per layer; a layer without dropout keeps all."""
    return torch.where(strengths > 0, allocations / torch.where(strengths > 0, allocations + strengths, 1.0), 1.0)


def _sweep(
    state: Tensor, energy: Tensor, strengths: Tensor, layers: Sequence[LayerStrength], active: Sequence[int]
) -> Tensor:
    state = state.clone()
    shares = _shares(state, strengths)
    for index in active:
        others = shares[:, [other for other in active if other != index]].prod(1)
        state[:, index] = fill((energy * others).sqrt(), strengths[index], layers[index].block)
        shares[:, index] = _shares(state[:, index : index + 1], strengths[index : index + 1])[:, 0]
    return state
