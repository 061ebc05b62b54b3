"""Norms that dropout induces: nuclear (single units) and spectral k-support (blocks of k units).

For a vector with magnitudes ``a_1 >= a_2 >= ...`` the k-support norm (Argyriou, Foygel and Srebro, 2012) is

    ||a||^2 = sum_{i<rho} a_i^2 + (sum_{i>=rho} a_i)^2 / (k - rho + 1)

with the one ``rho`` in 1..k for which the mean of the tail lies between ``a_{rho-1}`` and ``a_rho``. It is the l1 norm
for ``k = 1`` and the l2 norm for ``k >= n``. In its box form ``||a||^2 = min sum_i a_i^2 / eta_i`` over
``0 < eta <= 1, sum eta <= k`` (McDonald, Pontil and Stamos, 2016), attained at ``eta = clip(tau a, 0, 1)``; so the
gradient of the square is ``2 a / eta``. The spectral norms are those of the singular values.

Vectors lie on the last axis, matrices on the last two; any axes before them are a batch. Arguments and results are
NumPy arrays or torch tensors; values, gradients and proximal operators are differentiable in torch, where the norm of
a zero (or a zero entry) has the smallest subgradient. Sums run in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.arrays import Array
from .._core.checks import count, nonnegative
from ..errors import InvalidArgumentError
from ._finite import admit_finite, finite_numbers
from ._water import fill

__all__ = [
    "k_support_dual_norm",
    "k_support_gradient",
    "k_support_norm",
    "k_support_prox",
    "nuclear_dual_norm",
    "nuclear_gradient",
    "nuclear_norm",
    "nuclear_prox",
    "spectral_k_support_dual_norm",
    "spectral_k_support_gradient",
    "spectral_k_support_norm",
    "spectral_k_support_prox",
]


def k_support_norm(vector: Array, k: int) -> Array:
    """The k-support norm of ``vector``.

    Parameters
    ----------
    vector : array (..., n)
    k : int
        At least 1 (l1 norm); from n on the l2 norm.

    Returns
    -------
    array (...)

    Raises
    ------
    InvalidArgumentError
        When ``k`` is not a positive integer, or ``vector`` has no axis or is not finite.
    """
    (vector,), back = _vector(vector, k)
    return back(_norm(vector, k))


def k_support_dual_norm(vector: Array, k: int) -> Array:
    """The dual of the k-support norm: the l2 norm of the k entries of largest magnitude; shapes as `k_support_norm`."""
    (vector,), back = _vector(vector, k)
    return back(_dual_norm(vector, k))


def k_support_gradient(vector: Array, k: int) -> Array:
    """Gradient of the *squared* k-support norm, ``2 a_i / eta_i``, shape (..., n); 0 where an entry is 0."""
    (vector,), back = _vector(vector, k)
    return back(_gradient(vector, k))


def k_support_prox(vector: Array, k: int, step: Array) -> Array:
    """Proximal operator of half the squared k-support norm.

    ``argmin_x ||x - v||^2 / 2 + step ||x||^2 / 2``. With ``eta = clip(tau |v| - step, 0, 1)`` and ``tau`` such that
    ``sum eta = k``, the minimizer is ``v eta / (eta + step)``; with at most ``k`` entries other than zero it is
    ``v / (1 + step)`` (derived, theory note 3.4).

    Parameters
    ----------
    vector : array (..., n)
    k : int
    step : float or scalar array
        Strength of the squared norm, nonnegative.

    Returns
    -------
    array (..., n)

    Raises
    ------
    InvalidArgumentError
        When ``k`` is not a positive integer or ``step`` is negative or not finite.
    """
    step = _checked_step(step)
    if not isinstance(step, Tensor):
        # A plain number follows the vector's dtype.
        (vector,), back = _vector(vector, k)
        return back(_prox(vector, k, vector.new_tensor(float(step))))
    (vector, strength), back = _vector(vector, k, step=step)
    return back(_prox(vector, k, strength))


def nuclear_norm(matrix: Array) -> Array:
    """Nuclear norm, the sum of singular values: `spectral_k_support_norm` with ``k = 1``.

    Parameters
    ----------
    matrix : array (..., m, n)

    Returns
    -------
    array (...)
    """
    return spectral_k_support_norm(matrix, 1)


def nuclear_dual_norm(matrix: Array) -> Array:
    """The dual of the nuclear norm: the largest singular value, shape (...)."""
    return spectral_k_support_dual_norm(matrix, 1)


def nuclear_gradient(matrix: Array) -> Array:
    """Gradient of the *squared* nuclear norm, ``2 ||M||_* P Q'`` with ``M = P diag(s) Q'``, shape of ``matrix``."""
    return spectral_k_support_gradient(matrix, 1)


def nuclear_prox(matrix: Array, step: float) -> Array:
    """Proximal operator of half the squared nuclear norm (see `spectral_k_support_prox`), shape of ``matrix``."""
    return spectral_k_support_prox(matrix, 1, step)


def spectral_k_support_norm(matrix: Array, k: int) -> Array:
    """The k-support norm of the singular values of ``matrix``.

    Its square is the convex envelope of the squared Frobenius norm on matrices of rank at most ``k`` and spectral norm
    of that envelope's domain: what dropping blocks of ``k`` units induces on a product of two layers (Pal, Lane, Vidal
    and Haeffele, 2020). The Frobenius norm for ``k >= min(m, n)``, the nuclear norm for ``k = 1``.

    Parameters
    ----------
    matrix : array (..., m, n)
    k : int

    Returns
    -------
    array (...)

    Raises
    ------
    InvalidArgumentError
        When ``k`` is not a positive integer or ``matrix`` has fewer than two axes.
    """
    (matrix,), back = _matrix(matrix, k)
    return back(_norm(_singular_values(matrix), k))


def spectral_k_support_dual_norm(matrix: Array, k: int) -> Array:
    """The dual of the spectral k-support norm: the l2 norm of the k largest singular values, shape (...)."""
    (matrix,), back = _matrix(matrix, k)
    return back(_dual_norm(_singular_values(matrix), k))


def spectral_k_support_gradient(matrix: Array, k: int) -> Array:
    """Gradient of the *squared* spectral k-support norm, ``P diag(2 s / eta) Q'``, shape of ``matrix``."""
    (matrix,), back = _matrix(matrix, k)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return back((left * _gradient(_without_rounding(values, matrix), k).unsqueeze(-2)) @ right)


def spectral_k_support_prox(matrix: Array, k: int, step: float) -> Array:
    """Proximal operator of half the squared spectral k-support norm.

    ``argmin_X ||X - M||_F^2 / 2 + step ||X||^2 / 2``: the singular vectors of ``M`` with the singular values of
    `k_support_prox`. Differentiable in torch with respect to ``matrix``, also where singular values are tied.

    Parameters
    ----------
    matrix : array (..., m, n)
    k : int
    step : float

    Returns
    -------
    array (..., m, n)

    Raises
    ------
    InvalidArgumentError
        As in `k_support_prox`, or when ``matrix`` has fewer than two axes.
    """
    (matrix,), back = _matrix(matrix, k)
    return back(_SpectralProx.apply(matrix, k, float(_checked_step(step))))  # type: ignore[no-untyped-call]


def _checked_step(step: Array) -> Array:
    value = finite_numbers("step", step)
    if value.ndim:
        raise InvalidArgumentError(f"step must be one number, got an array of shape {value.shape}")
    nonnegative("step", float(value))
    return step


def _vector(vector: Array, k: int, **more: Array) -> tuple[list[Tensor], Any]:
    count("k", k)
    tensors, back = admit_finite(vector=vector, **more)
    if tensors[0].ndim == 0:
        raise InvalidArgumentError("expected a vector or a batch of vectors, got a single number")
    return tensors, back


def _matrix(matrix: Array, k: int) -> tuple[list[Tensor], Any]:
    count("k", k)
    tensors, back = admit_finite(matrix=matrix)
    if tensors[0].ndim < 2:
        raise InvalidArgumentError(f"expected a matrix or a batch of them, got shape {tuple(tensors[0].shape)}")
    return tensors, back


def _norm(vector: Tensor, k: int) -> Tensor:
    magnitudes = vector.double().abs().sort(-1, descending=True).values
    n = magnitudes.shape[-1]
    if n == 0:
        return magnitudes.sum(-1).to(vector.dtype)
    k = min(k, n)
    # In units of the largest entry, so that squares neither overflow nor vanish.
    unit = magnitudes[..., :1].detach()
    unit = torch.where((unit > 0) & unit.isfinite(), unit, 1.0)
    magnitudes = magnitudes / unit
    room = torch.arange(k, 0, -1, device=vector.device, dtype=torch.float64)  # k - rho + 1 for rho = 1..k
    with torch.no_grad():
        tails = magnitudes.flip(-1).cumsum(-1).flip(-1)[..., :k]
        rho = (tails >= room * magnitudes[..., :k]).int().argmax(-1, keepdim=True)
        if k > 1:  # the condition always holds at rho = k, whatever the rounding
            rho = torch.where((tails >= room * magnitudes[..., :k])[..., :-1].any(-1, keepdim=True), rho, k - 1)
        tail = torch.arange(n, device=vector.device) >= rho
    head_squared = torch.where(tail, 0.0, magnitudes).square().sum(-1)
    tail_sum = torch.where(tail, magnitudes, 0.0).sum(-1)
    squared = head_squared + tail_sum.square() / room[rho[..., 0]]
    return (_root(squared) * unit[..., 0]).to(vector.dtype)


def _dual_norm(vector: Tensor, k: int) -> Tensor:
    largest = vector.double().abs().topk(min(k, vector.shape[-1]), -1).values
    norm: Tensor = torch.linalg.vector_norm(largest, dim=-1).to(vector.dtype)
    return norm


def _gradient(vector: Tensor, k: int) -> Tensor:
    wide = vector.double()
    eta = fill(wide.abs(), 0.0, k)
    return torch.where(eta > 0, 2.0 * wide / torch.where(eta > 0, eta, 1.0), 0.0).to(vector.dtype)


def _prox(vector: Tensor, k: int, step: Tensor | float) -> Tensor:
    wide = vector.double()
    step = torch.as_tensor(step, device=vector.device).double()
    eta = fill(wide.abs(), step, k)
    return (wide * torch.where(eta > 0, eta / torch.where(eta > 0, eta + step, 1.0), 0.0)).to(vector.dtype)


def _root(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    inside = squared > 0
    return torch.where(inside, torch.where(inside, squared, 1.0).sqrt(), 0.0)


def _singular_values(matrix: Tensor) -> Tensor:
    return _without_rounding(torch.linalg.svdvals(matrix), matrix)


def _without_rounding(values: Tensor, matrix: Tensor) -> Tensor:
    """Singular values that are rounding errors of 0 become 0, so that no norm has a gradient along them."""
    if values.shape[-1] == 0:
        return values
    floor = values.detach()[..., :1] * (torch.finfo(matrix.dtype).eps * max(matrix.shape[-2:]))
    return torch.where(values > floor, values, 0.0)


class _SpectralProx(torch.autograd.Function):
    """The proximal operator on singular values, with the derivative of a spectral operator (Ding et al., 2018)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, k: int, step: float) -> Tensor:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        shrunk = _prox(values, k, step)
        ctx.save_for_backward(left, values, right, shrunk)
        ctx.k, ctx.step = k, step
        product: Tensor = (left * shrunk.unsqueeze(-2)) @ right
        return product

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        left, values, right, shrunk = ctx.saved_tensors
        direction = upstream[0]
        jacobian = _prox_jacobian(values, ctx.k, ctx.step)
        slope = jacobian.diagonal(dim1=-2, dim2=-1)
        inner = left.mT @ direction @ right.mT
        even, odd = (inner + inner.mT) / 2, (inner - inner.mT) / 2
        differences, sums = _differences(values), values.unsqueeze(-1) + values.unsqueeze(-2)
        close = differences.abs() <= 1e-7 * sums
        even_factor = torch.where(
            close, slope.unsqueeze(-1) - jacobian, _differences(shrunk) / torch.where(close, 1.0, differences)
        )
        ratio = torch.where(values > 0, shrunk / torch.where(values > 0, values, 1.0), slope)
        both = shrunk.unsqueeze(-1) + shrunk.unsqueeze(-2)
        odd_factor = torch.where(sums > 0, both / torch.where(sums > 0, sums, 1.0), ratio.unsqueeze(-1))
        diagonal = (jacobian @ inner.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)).squeeze(-1)
        square = even_factor * even + odd_factor * odd
        square = square - torch.diag_embed(square.diagonal(dim1=-2, dim2=-1)) + torch.diag_embed(diagonal)
        outside_left = direction @ right.mT - left @ inner
        outside_right = left.mT @ direction - inner @ right
        result = left @ square @ right
        result = result + (outside_left * ratio.unsqueeze(-2)) @ right + (left * ratio.unsqueeze(-2)) @ outside_right
        return result, None, None


def _differences(values: Tensor) -> Tensor:
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def _prox_jacobian(values: Tensor, k: int, step: float) -> Tensor:
    """Jacobian of the proximal operator at nonnegative ``values`` (..., n), shape (..., n, n)."""
    with torch.enable_grad():
        flat = values.detach().reshape(-1, values.shape[-1])
        columns = []
        for i in range(flat.shape[-1]):
            point = flat.clone().requires_grad_()
            (row,) = torch.autograd.grad(_prox(point, k, step)[:, i].sum(), point)
            columns.append(row)
    return torch.stack(columns, -2).reshape(*values.shape, values.shape[-1])
