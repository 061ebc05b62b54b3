"""The best deep linear network under dropout, in closed form up to one-dimensional problems, with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ..._core.arrays import Array, numbers
from ._noise import KeepProbabilities, layer_noises
from ._objective import excess_loss, objective, root_and_inverse, slopes, target_energy
from ._rotation import spreading_frame
from ._spectrum import Spectrum, best_spectrum, relaxed_spectrum
from ._strengths import LayerStrength, check_widths, layer_strengths

__all__ = ["GlobalOptimum", "global_optimum"]

_TOLERANCE = 1e-9  # of the targets' energy: gaps below it are rounding
_LARGEST_FRAME = 128  # units up to which frames of blocks are searched and weights polished

Matrices = list[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class GlobalOptimum:
    """Result of `global_optimum`.

    Attributes
    ----------
    value : float
        Expected squared loss at the optimum; with ``is_lower_bound`` a lower bound of it.
    singular_values : array (n,)
        Singular values of ``W C^{1/2}`` at the optimum, decreasing; 0 for directions that dropout removes.
    target_singular_values : array (n,)
        Those of ``C_yx C^{-1/2}``, what least squares would give.
    rank : int
    weights : tuple of k + 1 arrays
        A network that attains ``value`` (the best one found, ``gap`` above it, when ``attained`` is not True).
    allocations : array (k, n)
        Energy that layer l gives to each direction.
    is_lower_bound : bool
        Whether ``value`` is only known as a lower bound: blocks smaller than the rank, or unequal rates in a layer.
    attained : bool or None
        Whether the returned weights attain ``value``. False means that none were found that do, by projection and
        local optimization; None that a layer was too wide to search.
    gap : float
        Loss of the returned weights minus ``value``, at least 0.
    relaxation_value : float
        Loss of the convex relaxation, a proven lower bound for any network.
    proven : bool
        Whether ``value`` is the global minimum by proof; otherwise by a search that no test has beaten.
    certificate : str
        What is known, in words.
    """

    value: float
    singular_values: NDArray[np.float64]
    target_singular_values: NDArray[np.float64]
    rank: int
    weights: tuple[Array, ...]
    allocations: NDArray[np.float64]
    is_lower_bound: bool
    attained: bool | None
    gap: float
    relaxation_value: float
    proven: bool
    certificate: str


def global_optimum(
    covariance: Array | None,
    cross_covariance: Array,
    target_second_moment: Array | None = None,
    *,
    keep_probability: KeepProbabilities,
    widths: int | Sequence[int],
    block_size: int | Sequence[int] = 1,
) -> GlobalOptimum:
    """The minimum of `objective` over all networks of these widths, for every rate, depth and covariance.

    With ``m`` the singular values of ``C_yx C^{-1/2}`` and ``c_l = lam_l/d_l`` it is ``tr(C_yy) - F`` for ``F = max
    sum_i m_i^2 prod_l a_i^l/(a_i^l + c_l)`` over ``a^l`` in the simplex (derived, theory note 5.7; one hidden layer:
    Cavazza et al., 2018, and for blocks Pal, Lane, Vidal and Haeffele, 2020). Blocks of r: ``c_l = lam_l/K_l``, ``0 <=
    a <= 1, sum a = r``. A layer narrower than the rank keeps the leading directions.

    For data: ``global_optimum(*second_moments(X, y), keep_probability=..., widths=...)``.

    Parameters
    ----------
    covariance : array (d_0, d_0) or None
        ``C``; None is the identity. Where singular, its pseudo-inverse counts.
    cross_covariance : array (d_{k+1}, d_0)
        ``C_yx``.
    target_second_moment : array (d_{k+1}, d_{k+1}) or float, optional
        ``C_yy`` or its trace. Default: targets without noise.
    keep_probability : float, `Blocks`, law of independent units, or a sequence with one of these per hidden layer
    widths : int or sequence of int
        Width of every hidden layer; an integer means a single hidden layer.
    block_size : int or sequence of int

    Returns
    -------
    GlobalOptimum
        Weights in the kind of ``cross_covariance``, in float64.

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit, moments are impossible, blocks do not divide a width, or a law has no closed form.
    """
    layers = layer_strengths(keep_probability, check_widths(widths), block_size)
    rest = target_energy(covariance, cross_covariance, target_second_moment)
    cross = numbers(cross_covariance)
    inverse = np.eye(cross.shape[1]) if covariance is None else root_and_inverse(covariance)[1]
    left, wanted, right = np.linalg.svd(cross @ inverse, full_matrices=False)
    precision = np.finfo(np.float64).eps * max(cross.shape)
    wanted = np.where(wanted > precision * wanted.max(initial=0.0), wanted, 0.0)
    spectrum, relaxed = best_spectrum(wanted, layers), relaxed_spectrum(wanted, layers)
    value = rest + spectrum.cost

    weights, missing = _weights(spectrum, layers, left, right @ inverse)
    noises = [layer.noise for layer in layers]
    moment = np.eye(cross.shape[1]) if covariance is None else numbers(covariance)
    reached = float(objective(weights, noises, moment, cross)) + rest
    tolerance = _TOLERANCE * max(float(wanted @ wanted), np.finfo(np.float64).tiny)
    searchable = all(layer.width <= _LARGEST_FRAME for layer in layers)
    if missing and searchable and reached - value > tolerance:
        weights, reached = _polished(weights, noises, moment, cross, reached - rest)
        reached += rest
    gap = max(reached - value, 0.0)
    attained = True if gap <= tolerance else (False if searchable or not _has_blocks(layers) else None)
    proven, certificate = _certificate(spectrum, relaxed, layers, attained)
    return GlobalOptimum(
        value=value,
        singular_values=spectrum.kept,
        target_singular_values=wanted,
        rank=spectrum.rank,
        weights=tuple(_like(weight, cross_covariance) for weight in weights),
        allocations=spectrum.allocations,
        is_lower_bound=attained is not True,
        attained=attained,
        gap=gap,
        relaxation_value=rest + relaxed.cost,
        proven=proven,
        certificate=certificate,
    )


def _weights(
    spectrum: Spectrum, layers: Sequence[LayerStrength], left: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[Matrices, bool]:
    """Weights that realize the allocations, and whether some layer's frame is only a random stand-in.

    ``W_1 = Q_1 sqrt(a^1) V' C^{-1/2}``, ``W_l = Q_l sqrt(a^l/(a^{l-1} + c_{l-1})) Q_{l-1}'`` and ``W_{k+1} = P
    diag(s/gain) Q_k'`` with frames ``Q_l`` that spread ``a^l`` evenly over the masks of layer l; then all layers are
    scaled to one norm.
    """
    rank, missing = spectrum.rank, False
    below, spread, gain, weights = right[:rank], np.ones(rank), np.ones(rank), []
    for layer, allocation in zip(layers, spectrum.allocations[:, :rank], strict=True):
        frame = spreading_frame(allocation, layer) if layer.width <= _LARGEST_FRAME or layer.block == 1 else None
        if frame is None:
            missing = True
            frame = np.linalg.qr(np.random.default_rng(0).standard_normal((layer.width, rank)))[0]
        factor = np.sqrt(allocation / spread)
        weights.append((frame * factor) @ below)
        gain, spread, below = gain * factor, allocation + layer.strength, frame.T
    weights.append((left[:, :rank] * (spectrum.kept[:rank] / gain)) @ below)
    norms = np.array([_norm(weight) for weight in weights])
    if rank:
        common = np.exp(np.log(norms).mean())
        weights = [weight * (common / norm) for weight, norm in zip(weights, norms, strict=True)]
    return weights, missing


def _norm(weight: NDArray[np.float64]) -> float:
    """Frobenius norm of a weight whose squares may vanish."""
    largest = float(np.abs(weight).max(initial=0.0))
    return largest * float(np.linalg.norm(weight / largest)) if largest > 0 else 0.0


def _polished(
    weights: Matrices,
    noises: KeepProbabilities,
    covariance: NDArray[np.float64],
    cross: NDArray[np.float64],
    reached: float,
) -> tuple[Matrices, float]:
    """The best of a few local descents from ``weights`` and random perturbations of it."""
    shapes = [weight.shape for weight in weights]
    ends = np.cumsum([weight.size for weight in weights])[:-1]

    def unpacked(flat: NDArray[np.float64]) -> Matrices:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]

    moment, target = torch.from_numpy(covariance), torch.from_numpy(cross)
    inverse = root_and_inverse(covariance)[1]
    best_map = torch.from_numpy(cross @ inverse @ inverse)
    masks = layer_noises(noises, [torch.from_numpy(weight) for weight in weights])

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        current = [torch.from_numpy(weight) for weight in unpacked(flat)]
        down = slopes(current, masks, moment, target)
        return float(excess_loss(current, masks, moment, best_map)), torch.cat(
            [slope.ravel() for slope in down]
        ).numpy()

    generator = np.random.default_rng(0)
    start = np.concatenate([weight.ravel() for weight in weights])
    best, lowest = start, reached
    for noise in (0.0, 0.3, 0.3):
        jitter = noise * np.sqrt(np.mean(start**2)) * generator.standard_normal(len(start))
        found = minimize(
            loss,
            start + jitter,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-10},
        )
        if found.fun < lowest:
            best, lowest = np.asarray(found.x), float(found.fun)
    return unpacked(best), lowest


def _certificate(
    spectrum: Spectrum, relaxed: Spectrum, layers: Sequence[LayerStrength], attained: bool | None
) -> tuple[bool, str]:
    dropped = sum(layer.strength > 0 for layer in layers)
    if attained is not True:
        source = "convex envelope, proven" if dropped <= 1 else "search over allocations, not proven"
        return False, f"lower bound ({source}); no network found that attains it, the best one is returned"
    if dropped <= 1:
        return True, "global minimum, proven: the convex relaxation of one dropped layer is attained by the weights"
    scale = max(spectrum.cost, float((spectrum.kept**2).sum()), np.finfo(np.float64).tiny)
    if spectrum.cost - relaxed.cost <= 1e-12 * scale:
        return True, "global minimum, proven: the convex relaxation is attained by the weights"
    return False, (
        "attained by the weights; the best of all starts of a monotone ascent, not proven globally optimal "
        "(the minimum lies between relaxation_value and value)"
    )


def _has_blocks(layers: Sequence[LayerStrength]) -> bool:
    return any(layer.block > 1 for layer in layers)


def _like(weight: NDArray[np.float64], model: Array) -> Array:
    return torch.from_numpy(np.ascontiguousarray(weight)).to(model.device) if isinstance(model, Tensor) else weight
