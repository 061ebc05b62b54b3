"""Lower bounds of the explicit regularizer that need only the product, and what any law of masks costs at the least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._core.arrays import Array, numbers
from ..._core.checks import count, fraction
from ...errors import InvalidArgumentError
from .._finite import admit_finite, finite_numbers
from .._norms import nuclear_norm, spectral_k_support_norm
from ._explicit import admit_network
from ._noise import KeepProbabilities
from ._objective import root_and_inverse
from ._rotation import majorizes
from ._strengths import layer_strengths

__all__ = ["MaskBound", "NuclearNormBound", "mask_bound", "nuclear_norm_bound", "schatten_bound", "sliding_block_bound"]


class NuclearNormBound(NamedTuple):
    """``value = strength * ||W C^{1/2}||^2``, and the ``strength`` nu, the effective regularization parameter."""

    value: Array
    strength: float


@dataclass(frozen=True, eq=False)
class MaskBound:
    """Lower bound for one hidden layer with any mask law.

    Attributes
    ----------
    value : scalar
        ``strength * ||M||_*^2``.
    strength : float
        ``1 / sum_i (1/e_i)``.
    diagonal : array (d,)
        ``e > 0`` with ``Cbar - diag(e)`` positive semidefinite.
    attained : bool or None
        For masks that are independent from unit to unit: whether some network attains the bound (its singular values
        majorize the shares ``strength/e_i``). None for other laws, where it is not known.
    """

    value: Array
    strength: float
    diagonal: NDArray[np.float64]
    attained: bool | None


def nuclear_norm_bound(
    weights: Sequence[Array], keep_probability: KeepProbabilities, covariance: Array | None = None
) -> NuclearNormBound:
    """``R >= nu ||W C^{1/2}||_*^2`` with ``nu = prod_l (1 + lam_l/d_l) - 1``.

    The convex envelope of the induced regularizer: Mianjy and Arora (2019) for equal rates; per-layer rates and any
    ``C``: derived, theory note 5.4. Unequal rates in a layer count with ``1/sum_i(1/lam_i)``. With `Blocks` of up to r
    units the norm is the spectral r-support norm and a layer counts with ``lam/K``.

    Parameters
    ----------
    weights : sequence of k + 1 arrays
    keep_probability, covariance
        As in `induced_regularizer`.

    Returns
    -------
    NuclearNormBound
        Named tuple ``(value, strength)``; the value is differentiable in torch weights.

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit or a law has no closed form.
    """
    matrix, widths, back = _product(weights, covariance)
    layers = layer_strengths(keep_probability, widths)
    strength = float(np.expm1(sum(np.log1p(layer.strength) for layer in layers)))
    norm = spectral_k_support_norm(matrix, max((layer.block for layer in layers), default=1))
    return NuclearNormBound(back(strength * norm.square()), strength)


def schatten_bound(
    weights: Sequence[Array], keep_probability: KeepProbabilities, covariance: Array | None = None
) -> Array:
    """``R >= sum over sets S of layers of prod_{l in S} c_l ||W C^{1/2}||^2`` in the Schatten-``2/(|S|+1)`` quasi-norm.

    At least the nuclear-norm bound, equal to it for one hidden layer; not convex. Sets of one size share a norm, so
    the cost is linear in depth. Derived, theory note 5.4.

    Parameters
    ----------
    weights, keep_probability, covariance
        As in `nuclear_norm_bound`, without blocks.

    Returns
    -------
    scalar

    Raises
    ------
    InvalidArgumentError
        As in `nuclear_norm_bound`, and for blocks of more than one unit.
    """
    matrix, widths, back = _product(weights, covariance)
    layers = layer_strengths(keep_probability, widths)
    if any(layer.block > 1 for layer in layers):
        raise InvalidArgumentError("the Schatten bound is for units that are dropped one by one, not for blocks")
    symmetric = np.array([1.0])  # elementary symmetric polynomials of the strengths
    for layer in layers:
        symmetric = np.append(symmetric, 0.0) + np.append(0.0, symmetric) * layer.strength
    values = torch.linalg.svdvals(matrix)
    floor = float(values.detach().max()) * max(matrix.shape) * torch.finfo(matrix.dtype).eps if values.numel() else 0.0
    values = values[values > floor]
    if not values.numel():
        return back(matrix.sum() * 0.0)
    top = values[0]
    terms = [
        coefficient * ((values / top) ** (2 / (size + 1))).sum() ** (size + 1)
        for size, coefficient in enumerate(symmetric)
        if size > 0
    ]
    return back(top.square() * torch.stack(terms).sum() if terms else top * 0.0)


def mask_bound(product: Array, mask_covariance: Array, covariance: Array | None = None) -> MaskBound:
    """Lower bound of ``<Cbar, U'U o H>`` for one hidden layer and masks of any law.

    When ``Cbar >= diag(e)`` in the Loewner order, ``Omega >= ||M||_*^2 / sum_i (1/e_i)`` with ``M = U V' C^{1/2}``
    (derived, theory note 3.7). The diagonal is exact for independent units; otherwise the best of the multiples of
    ``1``, ``diag(Cbar)`` and ``1/diag(Cbar^-1)``, each as large as the order allows. Zero when ``Cbar`` is singular
    (blocks: see `nuclear_norm_bound`; sliding windows: `sliding_block_bound`).

    Parameters
    ----------
    product : array (d_2, d_0)
    mask_covariance : array (d_1, d_1)
        ``Cbar``, the covariance of the normalized mask (`MaskLaw.covariance`).
    covariance : array (d_0, d_0), optional

    Returns
    -------
    MaskBound

    Raises
    ------
    InvalidArgumentError
        When a matrix is not a covariance or shapes do not fit.
    """
    law = finite_numbers("mask_covariance", mask_covariance, squared=True)
    if law.size == 0:
        raise InvalidArgumentError(f"mask_covariance has no units, its shape is {law.shape}")
    root_and_inverse(law)  # refuses what is not positive semidefinite
    matrix, _, back = _product([product], covariance)
    diagonal = np.diag(law).copy()
    independent = not np.any(law - np.diag(diagonal))
    best = diagonal if independent else _loewner_diagonal(law)
    if np.any(best <= 0):
        return MaskBound(back(matrix.sum() * 0.0), 0.0, np.zeros(len(law)), None)
    strength = float(1.0 / (1.0 / best).sum())
    attained = None
    if independent:
        singular = np.asarray(np.linalg.svd(numbers(matrix), compute_uv=False), dtype=np.float64)
        total = float(singular.sum())
        attained = total == 0 or majorizes(singular / total, strength / best)
    return MaskBound(back(strength * nuclear_norm(matrix).square()), strength, best, attained)


def sliding_block_bound(
    product: Array, seed_probability: float, block_size: int, width: int, covariance: Array | None = None
) -> Array:
    """Lower bound for circular sliding blocks on one hidden layer.

    ``(g/(1-g)) (b^2/d) ||M||^2`` in the spectral b-support norm. Every unit is the start of a dropped window of ``b``
    units with probability ``g`` (DropBlock without borders). The single-window part of the regularizer, averaged
    (derived, theory note 3.7).

    Parameters
    ----------
    product : array (d_2, d_0)
    seed_probability : float
        ``g`` in [0, 1).
    block_size, width : int
        ``b`` and the number of hidden units d.
    covariance : array (d_0, d_0), optional

    Returns
    -------
    scalar

    Raises
    ------
    InvalidArgumentError
        When the probability is outside [0, 1) or the block is longer than the layer is wide.
    """
    seed_probability = fraction("seed_probability", seed_probability, one=False)
    block_size = count("block_size", block_size, 1, count("width", width))
    matrix, _, back = _product([product], covariance)
    strength = seed_probability / (1.0 - seed_probability) * block_size**2 / width
    return back(strength * spectral_k_support_norm(matrix, block_size).square())


def _loewner_diagonal(law: NDArray[np.float64]) -> NDArray[np.float64]:
    size = len(law)
    lowest = np.linalg.eigvalsh(law)[0]
    if lowest <= 1e-12 * np.trace(law) / size:
        return np.zeros(size)
    candidates = []
    for shape in (np.ones(size), np.diag(law), 1.0 / np.diag(np.linalg.inv(law))):
        scaled = law / np.sqrt(np.outer(shape, shape))
        candidates.append(max(float(np.linalg.eigvalsh(scaled)[0]), 0.0) * (1 - 1e-12) * shape)
    return max(candidates, key=lambda diagonal: 0.0 if np.any(diagonal <= 0) else float(1 / (1 / diagonal).sum()))


def _product(weights: Sequence[Array], covariance: Array | None) -> tuple[Tensor, list[int], Callable[[Tensor], Array]]:
    """``W C^{1/2}``, the widths of the hidden layers, and the way back to the caller's arrays."""
    matrices, moment, _ = admit_network(weights, covariance)
    _, back = admit_finite(**{f"weight layer {layer}": weight for layer, weight in enumerate(weights, 1)})
    whole = reduce(lambda below, matrix: matrix @ below, matrices)
    if covariance is not None:
        whole = whole @ torch.from_numpy(root_and_inverse(moment)[0]).to(whole)
    return whole, [matrix.shape[0] for matrix in matrices[:-1]], back
