"""How strongly each group is regularized: more where labels are noisy, more where rows are few."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError

__all__ = [
    "Normalize",
    "exponent_pair",
    "group_strengths",
    "loss_powers",
    "positive_vector",
    "smoothed",
    "strength_exponents",
    "vector",
]

Normalize = Literal["max", "mean"]

# Powers of the noise measure in H, the mean curvature of the loss, and in S, the variance of its slope.
_LOSSES = {
    "cross-entropy": (1.0, 1.0),  # H = S = p (1 - p), the Fisher information
    "poisson-nll": (1.0, 1.0),  # H = S = the rate, which is the variance of the counts
    "squared": (0.0, 1.0),  # H = 1, S = the noise variance
    "gaussian-nll": (-1.0, -1.0),  # H = S = 1 / variance
    "absolute": (-0.5, 0.0),  # H = twice the noise density at zero, as 1 / deviation; S = 1
}


def strength_exponents(loss: str = "cross-entropy", *, order: int = 1, dimension: float = 1.0) -> tuple[float, float]:
    """Exponents ``(a, b)`` of the optimal strength of a row, ``noise^a density^-b``.

    Parameters
    ----------
    loss : str
        With what ``noise`` stands for: ``"cross-entropy"`` (``p (1 - p)``, for small errors the error),
        ``"poisson-nll"`` of a log-rate (the rate), ``"squared"`` (noise variance), ``"gaussian-nll"`` with the variance
        in the loss (noise variance), ``"absolute"`` (noise variance, for noise of one shape).
    order : int
        Derivative that is penalized, ``m >= 1``.
    dimension : float
        Effective dimension of the inputs, ``0 < d < 4 m``.

    Returns
    -------
    tuple of float
        ``(0.6, 0.4)`` for cross-entropy, first derivatives and one dimension.

    Raises
    ------
    UnknownNameError
        For another loss.
    InvalidArgumentError
        For an order below 1, or a dimension at which the penalty bounds no variance.

    Notes
    -----
    For ``mean loss + sum_i tau_i |D^m f(x_i)|^2 / n``, the solution is locally a kernel smoother of bandwidth
    ``h^2m = tau / H``, with bias ``h^2m D^2m f`` and variance ``S / (n q H^2 h^d)`` up to constants. Their sum is
    least at

        ``tau ~ S^p H^(1 - 2p) q^-p n^-p``,  ``p = 2m / (4m + d)``.

    The more dimensions, the more noise counts and the less density does. With the variance inside the loss
    (``"gaussian-nll"``) ``a`` is negative: such a loss already counts noisy rows less. Derived; at ``m = d = 1`` these
    are the exponents of Cao, Chen, Lu, Arechiga, Gaidon and Ma (2021).
    """
    curvature, spread = loss_powers(loss)
    order = checks.count("order", order)
    if not 0.0 < dimension < 4 * order:
        raise InvalidArgumentError(
            f"dimension must be above 0 and below 4 order = {4 * order}, got {dimension!r}; a higher order allows more"
        )
    p = 2 * order / (4 * order + dimension)
    return curvature * (1 - 2 * p) + spread * p, p


def loss_powers(loss: str) -> tuple[float, float]:
    """Powers of the noise measure in the curvature of a loss and in the variance of its slope."""
    if loss not in _LOSSES:
        raise UnknownNameError("loss", str(loss), _LOSSES)
    return _LOSSES[loss]


def group_strengths(
    error: ArrayLike | Tensor,
    counts: ArrayLike | Tensor,
    exponents: tuple[float, float] = (0.6, 0.4),
    *,
    smoothing: float = 1.0,
    toward: float | None = None,
    trials: ArrayLike | Tensor | None = None,
    normalize: Normalize = "max",
) -> Tensor:
    """Strength of the penalty for each group, ``error^a counts^-b``.

    Parameters
    ----------
    error : array of shape (G,)
        Noise of each group, not negative: held-out share of errors, or another measure of `estimate_group_noise`.
    counts : array of shape (G,)
        Training rows of each group, positive.
    exponents : tuple of two floats
        ``(a, b)``, such as those of `strength_exponents`; the released values by default.
    smoothing : float
        Pseudo-rows that each group has at the noise ``toward``, so that none is without penalty because none of its
        few rows was wrong; 0 turns it off.
    toward : float, optional
        By default the mean noise of all rows. ``smoothing=2, toward=0.5`` is Laplace's ``(wrong + 1) / (rows + 2)``.
    trials : array of shape (G,), optional
        Rows by which the noise was measured; by default ``counts``, as in cross-fitting.
    normalize : {"max", "mean"}
        ``"max"``: the largest is 1. ``"mean"``: the mean over rows, ``sum_g n_g tau_g / sum_g n_g``, is 1, so that a
        coefficient in front means as much as with a uniform penalty.

    Returns
    -------
    Tensor of float64, shape (G,)
        Positive; zero only with ``smoothing=0`` for a group of zero noise.

    Raises
    ------
    InvalidArgumentError
        For values out of range, or where no strength is left to normalize by.

    Warns
    -----
    UserWarning
        A strength is too small for a float64 beside the largest.

    Notes
    -----
    ``v_g = (t_g error_g + s toward) / (t_g + s)`` and ``tau_g = v_g^a n_g^-b`` over its maximum or mean. Where no row
    at all is wrong, all groups count as equally noisy. Source: the rule is that of the code of Cao et al. (2021), which
    does not smooth; smoothing toward the mean is derived.
    """
    noise, rows = vector("error", error), vector("counts", counts)
    if len(noise) != len(rows):
        raise InvalidArgumentError(
            f"error and counts must have one entry for each group, got {len(noise)} and {len(rows)}"
        )
    if (noise < 0).any():
        raise InvalidArgumentError(f"error must not be negative, got {noise.tolist()}")
    if (rows <= 0).any():
        raise InvalidArgumentError(f"every group needs a positive count, got {rows.tolist()}")
    a, b = exponent_pair(exponents)
    smooth = smoothed(noise, rows if trials is None else vector("trials", trials), smoothing, toward)
    if a < 0 and (smooth == 0).any():
        raise InvalidArgumentError(
            f"a negative exponent {a} needs positive noise, got {noise.tolist()}; turn smoothing on"
        )
    # Logarithms, since powers of large counts and tiny variances leave the range of floats.
    with np.errstate(divide="ignore"):
        logarithms = (a * np.log(smooth) if a else np.zeros_like(smooth)) - b * np.log(rows)
    top = logarithms.max()
    if not math.isfinite(top):
        raise InvalidArgumentError("no group has any noise: without smoothing there is no strength to scale")
    strengths = _normalized(np.exp(logarithms - top), rows, normalize)
    vanished = (strengths == 0) & (smooth > 0)
    if vanished.any():
        warnings.warn(
            f"the strengths of groups {', '.join(map(str, np.flatnonzero(vanished)))} are zero though they have noise: "
            f"{a:g} and {b:g} are too extreme as exponents for noise and counts that differ so much",
            stacklevel=2,
        )
    return torch.from_numpy(strengths)


def smoothed(
    noise: NDArray[np.float64], trials: NDArray[np.float64], smoothing: float, toward: float | None
) -> NDArray[np.float64]:
    """Noise with ``smoothing`` pseudo-rows of the noise ``toward``, up to a common factor."""
    if len(trials) != len(noise) or (trials <= 0).any():
        raise InvalidArgumentError(f"trials must be {len(noise)} positive numbers, got {trials.tolist()}")
    smoothing = checks.nonnegative("smoothing", smoothing)
    toward = None if toward is None else checks.positive("toward", toward)
    if smoothing == 0.0:
        return noise
    unit = max(float(noise.max()), toward or 0.0)
    if unit == 0.0:
        return np.ones_like(noise)
    # In units of the largest, since parts of the smallest floats round to zero.
    relative = noise / unit
    pooled = float((trials * relative).sum() / trials.sum()) if toward is None else toward / unit
    return np.asarray((trials * relative + smoothing * pooled) / (trials + smoothing))


def _normalized(strengths: NDArray[np.float64], rows: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """Strengths over their maximum, or over their mean by rows."""
    if how not in ("max", "mean"):
        raise UnknownNameError("normalization", str(how), ("max", "mean"))
    return np.asarray(strengths / (strengths.max() if how == "max" else (strengths * rows).sum() / rows.sum()))


def vector(name: str, values: Any) -> NDArray[np.float64]:
    """Finite numbers, one for each of one or more groups."""
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{name} must be numbers, got {values!r}") from error
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InvalidArgumentError(f"{name} must be finite numbers, one for each group, got {values!r}")
    return array


def positive_vector(name: str, values: Any, count: int) -> NDArray[np.float64]:
    """Positive numbers, one for each of ``count`` groups."""
    array = vector(name, values)
    if len(array) != count or (array <= 0).any():
        raise InvalidArgumentError(f"{name} must be {count} positive numbers, got {array.tolist()}")
    return array


def exponent_pair(exponents: Sequence[float]) -> tuple[float, float]:
    """Two finite numbers."""
    try:
        a, b = (float(value) for value in exponents)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"exponents must be two numbers (a, b), got {exponents!r}") from error
    if not math.isfinite(a) or not math.isfinite(b):
        raise InvalidArgumentError(f"exponents must be finite, got {exponents!r}")
    return a, b
