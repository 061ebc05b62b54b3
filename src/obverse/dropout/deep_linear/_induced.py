"""What dropout costs a linear map at the least: the explicit regularizer minimized over networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from ..._core.arrays import Array, numbers
from ...errors import InvalidArgumentError
from .._finite import admit_finite
from .._water import fill
from ._noise import KeepProbabilities
from ._objective import root_and_inverse
from ._rotation import majorizes
from ._strengths import LayerStrength, check_widths, layer_strengths

__all__ = ["InducedRegularizer", "allocate", "distinct_rank", "induced_regularizer"]

_ROUNDS = 20_000


@dataclass(frozen=True, eq=False)
class InducedRegularizer:
    """Result of `induced_regularizer`.

    Attributes
    ----------
    value : scalar
        The least explicit regularizer among networks with this product (a lower bound of it when ``is_lower_bound``);
        a tensor with a gradient in the product when that is a torch tensor.
    singular_values : array (n,)
        Singular values ``s`` of ``W C^{1/2}``, decreasing.
    gradient : array (n,)
        Derivative of the value with respect to the singular values; 0 where they are 0.
    allocations : array (k, n)
        Energy ``a^l`` that layer l gives to each singular direction.
    is_lower_bound : bool
        True where no network is known to attain the value: rank above the block size, or unequal rates that the
        allocation does not majorize.
    """

    value: Array
    singular_values: NDArray[np.float64]
    gradient: NDArray[np.float64]
    allocations: NDArray[np.float64]
    is_lower_bound: bool


def induced_regularizer(
    product: Array,
    keep_probability: KeepProbabilities,
    widths: int | Sequence[int],
    covariance: Array | None = None,
    block_size: int | Sequence[int] = 1,
) -> InducedRegularizer:
    """The least of `explicit_regularizer` over all networks of these widths with ``W_{k+1} ... W_1 = product``.

    With ``s`` the singular values of ``W C^{1/2}`` and ``c_l = lam_l/d_l``

        Theta = min over a^1..a^k in the simplex of sum_i s_i^2 (prod_l (1 + c_l/a_i^l) - 1)

    a jointly convex problem (derived, theory note 5.6). One hidden layer: ``c ||W C^{1/2}||_*^2``. Blocks of r units:
    ``c_l = lam_l/K_l`` and ``0 <= a <= 1, sum a = r``; for one hidden layer the squared spectral r-support norm.

    Parameters
    ----------
    product : array (d_{k+1}, d_0)
    keep_probability : float, `Blocks`, law of independent units, or a sequence with one of these per hidden layer
    widths : int or sequence of int
        Width of each hidden layer; an integer means a single hidden layer.
    covariance : array (d_0, d_0), optional
        Default the identity. No gradient flows into it.
    block_size : int or sequence of int
        Units that are dropped together, next to each other.

    Returns
    -------
    InducedRegularizer

    Raises
    ------
    InvalidArgumentError
        When a layer is narrower than the rank of the product, blocks do not divide a width, or a law has no
        closed form.
    """
    widths = check_widths(widths)
    layers = layer_strengths(keep_probability, widths, block_size)
    (matrix,), back = admit_finite(product=product)
    if matrix.ndim != 2:
        raise InvalidArgumentError(f"a product is a matrix, got shape {tuple(matrix.shape)}")
    if covariance is not None:
        root = torch.from_numpy(root_and_inverse(covariance)[0]).to(matrix)
        if root.shape[0] != matrix.shape[1]:
            raise InvalidArgumentError(f"the product has {matrix.shape[1]} inputs, the covariance {root.shape[0]}")
        matrix = matrix @ root
    values = torch.linalg.svdvals(matrix)
    singular = numbers(values)
    rank = distinct_rank(singular, matrix.dtype, max(matrix.shape))
    if rank > min(widths, default=rank):
        raise InvalidArgumentError(f"a product of rank {rank} does not fit through widths {widths}")
    allocations = np.zeros((len(layers), len(singular)))
    allocations[:, :rank] = allocate(singular[:rank], layers)
    factors = np.zeros(len(singular))
    factors[:rank] = _factor(allocations[:, :rank], layers)
    value = (values.square() * torch.from_numpy(factors).to(values)).sum()
    exact = all(_attained(row[:rank], layer) for row, layer in zip(allocations, layers, strict=True))
    return InducedRegularizer(back(value), singular, 2 * singular * factors, allocations, not exact)


def distinct_rank(singular: NDArray[np.float64], dtype: torch.dtype, size: int) -> int:
    """Number of singular values above the rounding of ``dtype``."""
    top = float(singular.max(initial=0.0))
    return int((singular > top * size * torch.finfo(dtype).eps).sum())


def allocate(singular: NDArray[np.float64], layers: Sequence[LayerStrength]) -> NDArray[np.float64]:
    """The minimizing ``a`` (k, n) for positive singular values."""
    result = (
        np.stack([_filled(singular, 0.0, layer.block) for layer in layers]) if layers else np.zeros((0, len(singular)))
    )
    active = [index for index, layer in enumerate(layers) if layer.strength > 0 and layer.block < len(singular)]
    if not active or len(layers) == 1:
        return result
    kinds = {(layer.strength, layer.block) for layer in layers if layer.strength > 0}
    if len(kinds) == 1:
        ((strength, block),) = kinds
        depth = sum(layer.strength > 0 for layer in layers)
        result[active] = _common_allocation(singular, strength, block, depth)
        return result
    strengths = np.array([layer.strength for layer in layers])[:, None]
    for _ in range(_ROUNDS):
        before = result.copy()
        for index in active:
            others = np.delete(1 + strengths / result, index, axis=0).prod(0)
            result[index] = _filled(singular * np.sqrt(others), 0.0, layers[index].block)
        if np.abs(result - before).max() <= 1e-15:
            break
    return result


def _factor(allocations: NDArray[np.float64], layers: Sequence[LayerStrength]) -> NDArray[np.float64]:
    """``prod_l (1 + c_l/a_i^l) - 1`` without cancellation."""
    strengths = np.array([layer.strength for layer in layers])[:, None]
    return np.asarray(np.expm1(np.log1p(strengths / allocations).sum(0)), dtype=np.float64)


def _attained(allocation: NDArray[np.float64], layer: LayerStrength) -> bool:
    if layer.strength == 0 or len(allocation) <= (layer.block if layer.block > 1 else 0):
        return True
    return layer.block == 1 and (layer.equal or majorizes(allocation, layer.shares))


def _common_allocation(singular: NDArray[np.float64], strength: float, block: int, depth: int) -> NDArray[np.float64]:
    """The one ``a`` that all layers of equal strength share, by bisection on the multiplier ``mu``.

    ``depth c s_i^2 (1 + c/a_i)^(depth-1) / a_i^2 = mu`` where ``a_i < 1``; in ``x = -log a_i`` its logarithm is convex
    and increasing, so that Newton's method from above converges for every ``mu``.
    """
    base = np.log(depth * strength) + 2 * np.log(singular)

    def at(log_mu: float) -> NDArray[np.float64]:
        x = (log_mu - base) / 2  # an upper bound: the factor (1 + c/a) is at least 1
        for _ in range(100):
            scaled = strength * np.exp(np.minimum(x, 600.0))
            excess = base + 2 * x + (depth - 1) * np.log1p(scaled) - log_mu
            move = excess / (2 + (depth - 1) * scaled / (1 + scaled))
            x = x - move
            if np.abs(move).max() <= 1e-15 * max(1.0, float(np.abs(x).max())):
                break
        allocation: NDArray[np.float64] = np.exp(np.minimum(-x, 0.0))
        return allocation

    low = float(base.min()) + (depth - 1) * float(np.log1p(strength))  # every a_i reaches 1 here
    high = low + 1.0
    while at(high).sum() > block:
        high += 2 * (high - low)
    log_mu = brentq(lambda value: float(at(value).sum()) - block, low, high, xtol=1e-14, rtol=8.9e-16)
    return at(float(log_mu))


def _filled(slopes: NDArray[np.float64], offset: float, total: int) -> NDArray[np.float64]:
    return numbers(fill(torch.from_numpy(slopes), offset, total))
