"""The Kullback-Leibler divergence of multiplicative Gaussian noise from the log-uniform prior, exact and fast.

With eta the inverse of the noise's variance and D Dawson's function,

    dK / d(log eta) = x D(x),    x = sqrt(eta / 2),    K(0) = 0

(derived in docs/theory.md, section 5.2). A table of K and of this derivative on an even grid of log eta, joined by
cubic Hermite pieces, is exact to 1e-7; below it K is eta / 2, above it a line in log eta.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

__all__ = ["Divergence"]

_LOW, _HIGH, _PER_UNIT = -12.0, 16.0, 64
_SMALLEST, _LARGEST = math.exp(_LOW), math.exp(_HIGH)
_BLOCK = 1 << 14


class Divergence:
    """K(eta), elementwise on tensors and differentiable.

    Parameters
    ----------
    device, dtype
        Where its table lives.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        dtype = dtype if dtype == torch.float64 else torch.float32
        self._table = torch.from_numpy(_table()).to(device, dtype)

    def __call__(self, eta: torch.Tensor) -> torch.Tensor:
        divergence: torch.Tensor = _Exact.apply(eta, self._table)  # type: ignore[no-untyped-call]
        return divergence


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, eta: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        value = torch.empty(eta.shape, dtype=table.dtype, device=eta.device)
        slope = torch.empty_like(value)
        x = eta.to(table.dtype).contiguous().view(-1)
        if eta.device.type == "cpu" and not torch.compiler.is_compiling():
            # In blocks that stay in the fast cache.
            pieces = zip(*(torch.split(part, _BLOCK) for part in (x, value.view(-1), slope.view(-1))), strict=True)
            for piece, value_piece, slope_piece in pieces:
                _evaluate(piece, table, value_piece, slope_piece)
        else:
            _evaluate(x, table, value.view(-1), slope.view(-1))
        ctx.save_for_backward(slope)
        return value.to(eta.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None


def _evaluate(eta: torch.Tensor, table: torch.Tensor, value: torch.Tensor, slope: torch.Tensor) -> None:
    """Write K and dK/d(eta) of a vector."""
    inside = eta.clamp(_SMALLEST, _LARGEST)
    place = inside.log().sub_(_LOW).mul_(_PER_UNIT)
    piece = place.long().clamp_(0, table.shape[1] - 1)  # as integers, where not-a-number is one too
    t = place.sub_(piece)
    a, b, c, d = table.index_select(1, piece)
    # K by Horner's rule, and its derivative in log eta.
    torch.add(c, d * t, out=value).mul_(t).add_(b).mul_(t).add_(a)
    torch.add(c + c, d.mul_(3) * t, out=slope).mul_(t).add_(b).mul_(_PER_UNIT).div_(inside)
    # Below the table K is eta / 2, its bound, to 1e-6 of itself; above it, rarely, a line in log eta.
    value.copy_(torch.minimum(value, eta / 2))
    if torch.compiler.is_compiling() or float(eta.amax()) > _LARGEST:
        beyond = eta.clamp_min(_LARGEST)
        value.add_((beyond / _LARGEST).log_() / 2)
        slope.mul_(_LARGEST / beyond)


@lru_cache(maxsize=1)
def _table() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Coefficients of the cubic pieces, one column each, in the local variable from 0 to 1."""
    from scipy.special import dawsn

    def slope(log_eta: Any) -> Any:
        x = np.exp(log_eta / 2) / math.sqrt(2)
        return x * dawsn(x)

    count = int((_HIGH - _LOW) * _PER_UNIT)
    nodes = np.linspace(_LOW, _HIGH, count + 1)
    points, weights = np.polynomial.legendre.leggauss(8)
    width = 1 / _PER_UNIT
    pieces = slope(nodes[:-1, None] + (points + 1) / 2 * width) @ weights * (width / 2)
    first = math.exp(_LOW)
    value = first / 2 - first**2 / 12 + np.concatenate([[0.0], np.cumsum(pieces)])
    rise = slope(nodes) * width
    step = np.diff(value)
    return np.stack([value[:-1], rise[:-1], 3 * step - 2 * rise[:-1] - rise[1:], rise[:-1] + rise[1:] - 2 * step])
