"""The expected squared loss of a deep linear network under dropout, and its gradient in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._core.arrays import Array, numbers
from ...errors import InvalidArgumentError
from .._finite import finite_numbers
from ._explicit import admit_problem, inner_moments, last_dropped, outer_moments
from ._noise import KeepProbabilities, Noise, layer_noises

__all__ = ["excess_loss", "gradient", "objective", "root_and_inverse", "second_moments", "slopes", "target_energy"]


def second_moments(inputs: Array, targets: Array, *, center: bool = False) -> tuple[Array, Array, Array]:
    """Second moments of data, in the order in which `objective` and `global_optimum` take them.

    Parameters
    ----------
    inputs : array (N, d_0)
        One example per row.
    targets : array (N, d) or (N,)
    center : bool
        Subtract the means: what remains when every layer has a free bias.

    Returns
    -------
    covariance (d_0, d_0), cross_covariance (d, d_0), target_second_moment (d, d)
        ``C = X'X/N``, ``C_yx = Y'X/N``, ``C_yy = Y'Y/N``, float64; torch tensors when ``inputs`` is one.

    Raises
    ------
    InvalidArgumentError
        When there is no example, or inputs and targets differ in number.
    """
    x, y = finite_numbers("inputs", inputs), finite_numbers("targets", targets)
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise InvalidArgumentError(f"inputs and targets are (N, features) with one N > 0, got {x.shape} and {y.shape}")
    if center:
        x, y = x - x.mean(0), y - y.mean(0)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = (x.T @ x / len(x), y.T @ x / len(x), y.T @ y / len(x))
    if not all(np.isfinite(moment).all() for moment in moments):
        raise InvalidArgumentError("the second moments overflow float64: scale inputs and targets down")
    if isinstance(inputs, Tensor):
        return tuple(torch.from_numpy(moment).to(inputs.device) for moment in moments)  # type: ignore[return-value]
    return moments


def objective(
    weights: Sequence[Array],
    keep_probability: KeepProbabilities,
    covariance: Array | None,
    cross_covariance: Array,
    target_second_moment: Array | None = None,
) -> Array:
    """Expected squared loss under dropout, ``E ||y - f_z(x)||^2`` (sum over outputs), over data and masks.

    ``tr((W - W*) C (W - W*)') + R + const`` with ``W* = C_yx C^+`` and ``const = tr(C_yy) - tr(W* C_yx')``: residual
    and regularizer are sums of nonnegative terms, so small losses keep their digits.

    Parameters
    ----------
    weights, keep_probability, covariance
        As in `explicit_regularizer`.
    cross_covariance : array (d_{k+1}, d_0)
        ``C_yx = E y x'``.
    target_second_moment : array (d_{k+1}, d_{k+1}) or float, optional
        ``C_yy = E y y'`` or its trace. Default: targets without noise, ``const = 0``.

    Returns
    -------
    scalar
        NumPy or torch as the weights, differentiable in them.

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit, or the moments cannot belong to any data (``C_yx`` outside the range of ``C``).
    """
    matrices, moment, cross, back = admit_problem(weights, covariance, cross_covariance)
    _, inverse = root_and_inverse(moment)
    best = torch.from_numpy(_least_squares(numbers(moment), numbers(cross), inverse)).to(cross)
    energy = target_energy(moment, cross, target_second_moment)
    return back(excess_loss(matrices, layer_noises(keep_probability, matrices), moment, best) + energy)


def gradient(
    weights: Sequence[Array],
    keep_probability: KeepProbabilities,
    covariance: Array | None,
    cross_covariance: Array,
) -> list[Array]:
    """Gradient of `objective` with respect to every weight, in closed form.

    ``dL/dW_l = 2 P_l W_l G_{l-1} - 2 W_{k+1->l+1}' C_yx W_{l-1->1}'`` with ``P_l = Q_l + Cbar_l o Q_l`` and ``Q_l`` the
    energy of the outputs per unit of second moment behind layer l (derived, theory note 5.2).

    Parameters
    ----------
    weights, keep_probability, covariance, cross_covariance
        As in `objective`.

    Returns
    -------
    list of k + 1 arrays, shaped as the weights

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit or a keep probability is outside (0, 1].
    """
    matrices, moment, cross, back = admit_problem(weights, covariance, cross_covariance)
    return [back(slope) for slope in slopes(matrices, layer_noises(keep_probability, matrices), moment, cross)]


def excess_loss(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor, best: Tensor) -> Tensor:
    """The loss beyond what no linear map can explain, given the least-squares map ``best``."""
    difference = reduce(lambda below, matrix: matrix @ below, matrices) - best
    return ((difference @ moment) * difference).sum() + last_dropped(matrices, noises, moment).sum()


def slopes(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor, cross: Tensor) -> list[Tensor]:
    """Derivatives of the loss with respect to the weights."""
    inner, _ = inner_moments(matrices, noises, moment)
    outer = outer_moments(matrices, noises)
    # From the output down: C_yx seen through the layers above; from the input up: the product of the layers below.
    above = [cross]
    for matrix in reversed(matrices[1:]):
        above.append(matrix.mT @ above[-1])
    below = torch.eye(moment.shape[0], dtype=cross.dtype, device=cross.device)
    result = []
    for layer, (matrix, noise) in enumerate(zip(matrices, noises, strict=True)):
        half = outer[layer + 1] @ matrix @ inner[layer] - above[-1 - layer] @ below.mT
        if noise is not None:
            half = half + noise.weight_gradient(matrix, inner[layer], outer[layer + 1])
        result.append(2 * half)
        below = matrix @ below
    return result


def target_energy(covariance: Array | None, cross_covariance: Array, target_second_moment: Array | None) -> float:
    """What no linear map can explain, ``tr(C_yy) - tr(C_yx C^+ C_yx')``, checked to be possible; 0 without ``C_yy``."""
    cross = finite_numbers("cross_covariance", cross_covariance, squared=True)
    if cross.ndim != 2:
        raise InvalidArgumentError(f"cross_covariance is (outputs, inputs), got shape {cross.shape}")
    moment = np.eye(cross.shape[1]) if covariance is None else numbers(covariance)
    _, inverse = root_and_inverse(moment)
    best = _least_squares(moment, cross, inverse)
    if _unreachable(cross, best @ moment, _precision(covariance, cross_covariance)):
        raise InvalidArgumentError(
            "cross_covariance is not in the range of covariance: no data has these second moments"
        )
    if target_second_moment is None:
        return 0.0
    given = finite_numbers("target_second_moment", target_second_moment)
    if given.ndim and given.shape != (len(cross), len(cross)):
        raise InvalidArgumentError(
            f"target_second_moment must be a number or {(len(cross), len(cross))}, got shape {given.shape}"
        )
    total = float(given if given.ndim == 0 else np.trace(given))
    rest = total - float((best * cross).sum())
    if not rest >= -1e-6 * max(abs(total), 1e-300):
        raise InvalidArgumentError(
            f"target_second_moment has trace {total}, the explained part alone is {total - rest}"
        )
    return max(rest, 0.0)


def root_and_inverse(covariance: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``C^{1/2}`` and its pseudo-inverse, symmetric, in float64; an error when ``C`` is not a second moment."""
    matrix = finite_numbers("covariance", covariance)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidArgumentError(f"a covariance is a finite square matrix, got shape {matrix.shape}")
    scale = float(np.abs(matrix).max(initial=0.0))
    precision = _precision(covariance)
    if not np.allclose(matrix, matrix.T, rtol=0.0, atol=scale * precision**0.75):
        raise InvalidArgumentError("a covariance is symmetric, this one is not")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = len(values) * precision * max(float(values.max(initial=0.0)), 0.0)
    if values.min(initial=0.0) < -max(floor, scale * precision**0.75):
        raise InvalidArgumentError(f"a covariance has no negative eigenvalue, this one has {values.min():.6g}")
    kept = values > floor
    roots = np.sqrt(np.where(kept, values, 0.0))
    inverses = np.where(kept, 1.0 / np.where(kept, roots, 1.0), 0.0)
    return (vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T


def _precision(*arrays: Any) -> float:
    single = any(str(getattr(array, "dtype", "")).endswith(("float32", "float16")) for array in arrays)
    return float(np.finfo(np.float32 if single else np.float64).eps)


def _least_squares(
    moment: NDArray[np.float64], cross: NDArray[np.float64], inverse: NDArray[np.float64]
) -> NDArray[np.float64]:
    if cross.ndim != 2 or cross.shape[1] != moment.shape[0]:
        raise InvalidArgumentError(f"cross_covariance is (outputs, {moment.shape[0]}), got {cross.shape}")
    return np.asarray((cross @ inverse) @ inverse, dtype=np.float64)


def _unreachable(cross: NDArray[np.float64], reached: NDArray[np.float64], precision: float) -> bool:
    return bool(np.linalg.norm(cross - reached) > precision**0.4 * np.linalg.norm(cross))
