"""From gradients at hidden tensors to one penalty: squared norms of rows, their sum or root, and the mean over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .._core.arrays import wide
from ._jacobian_layers import Caught

__all__ = ["Aggregate", "Formula", "Scale", "row_squares"]

Aggregate = Literal["sum", "root-sum-square"]
Scale = Literal["sample", "batch_mean"]


class _Squares(torch.autograd.Function):
    """Sums of squares over the axes ``reduced``: one pass over the numbers forward and one backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, reduced: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(values)
        ctx.reduced = reduced
        dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
        norms: Tensor = torch.linalg.vector_norm(values, dim=reduced, dtype=dtype)
        return norms.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        for axis in ctx.reduced:
            slope = slope.unsqueeze(axis)
        return (2.0 * slope).to(values.dtype) * values, None


def row_squares(gradient: Tensor, caught: Caught, axis: int) -> Tensor:
    """Squared norm of every row of the gradient before a norm's scale, shape (N,), with a graph.

    Parameters
    ----------
    gradient : Tensor
        At the tensor that was caught, N rows along ``axis``.
    """
    kept = {axis, *caught.own}
    reduced = tuple(i for i in range(gradient.ndim) if i not in kept)
    if reduced:
        squares: Tensor = _Squares.apply(gradient, reduced)  # type: ignore[no-untyped-call]
    else:
        squares = wide(gradient).square()
    if caught.weight is None:
        return squares if squares.ndim == 1 else squares.movedim(axis, 0).flatten(1).sum(1)
    # What is left are the rows and the axes of the scale, in their order.
    rows = sum(i < axis for i in kept)
    squares = squares.movedim(rows, 0).flatten(1)
    return squares @ wide(caught.weight).reshape(-1).to(squares.dtype).square()


@dataclass(frozen=True)
class Formula:
    """``sum_i tau_i A_i / n``, with ``A_i`` from the squared norms of row i at every place.

    Attributes
    ----------
    aggregate : {"sum", "root-sum-square"}
        ``A = sum_j |g_j|^power``, or ``(sum_j |g_j|^2)^(power/2)``; the same for ``power`` 2.
    scale : {"sample", "batch_mean"}
        Gradients of a row's own loss, or of the mean over the batch, smaller by the factor n.
    """

    aggregate: Aggregate
    power: int
    scale: Scale

    def rows(self, squares: Tensor) -> Tensor:
        """``A``, shape (N,), from squared norms of shape (J, N)."""
        if self.power == 2:
            return squares.sum(0)
        if self.aggregate == "sum":
            return _root(squares).sum(0)
        return _root(squares.sum(0))

    def __call__(self, squares: Tensor, tau: Tensor, counted: Tensor) -> Tensor:
        """The penalty, a scalar; ``counted`` is the number of rows that are not ignored."""
        total = (tau.to(squares.dtype) * self.rows(squares)).sum()
        count = counted.to(squares.dtype).clamp_min(1)
        return total / count ** (1 + self.power if self.scale == "batch_mean" else 1)


def _root(values: Tensor) -> Tensor:
    """The square root, with slope zero at zero, where a norm has none: rows that fit stay as they are."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, torch.ones_like(values)).sqrt(), 0.0)
