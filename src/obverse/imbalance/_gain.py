"""What adaptive strengths can gain over one strength for all rows, before anything is trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InvalidArgumentError
from ._noise import GroupNoise
from ._strengths import loss_powers, positive_vector, smoothed, strength_exponents, vector

__all__ = ["PredictedGain", "predicted_gain"]

Values = NDArray[np.float64]


@final
@dataclass(frozen=True)
class PredictedGain:
    """Test errors with one strength for all rows over those with adaptive strengths; above 1 the latter are lower.

    Only the part of the error that noise and regularization cause is compared, each way at its best coefficient.

    Attributes
    ----------
    density_only : float
        With ``density^-b``.
    noise_only : float
        With ``noise^a``.
    adaptive : float
        With both, as `group_strengths` does.
    best : float
        With the best strengths there are; the same as ``adaptive`` unless curvatures were given.
    strengths : tuple of float
        These best strengths, the largest 1.
    """

    density_only: float
    noise_only: float
    adaptive: float
    best: float
    strengths: tuple[float, ...]
    _bias: Values = field(repr=False, compare=False)
    _variance: Values = field(repr=False, compare=False)
    _decay: float = field(repr=False, compare=False)

    def of(self, strengths: ArrayLike | Tensor) -> float:
        """The gain of any positive strengths, shape (G,); their scale does not matter."""
        given = positive_vector("strengths", strengths, len(self._bias))
        return _gain(np.log(given) - np.log(given.max()), self._bias, self._variance, self._decay)

    def to_dict(self) -> dict[str, Any]:
        """Gains and strengths as plain values, for a JSON file."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}

    def __str__(self) -> str:
        return "\n".join(
            f"{name:<28} {value:.2f}"
            for name, value in (
                ("density only", self.density_only),
                ("noise only", self.noise_only),
                ("noise and density", self.adaptive),
                ("noise, density, curvature", self.best),
            )
        )


def predicted_gain(
    noise: ArrayLike | Tensor | GroupNoise,
    density: ArrayLike | Tensor | None = None,
    *,
    curvature: ArrayLike | Tensor | None = None,
    weights: ArrayLike | Tensor | None = None,
    loss: str | None = None,
    order: int = 1,
    dimension: float = 1.0,
) -> PredictedGain:
    """By what factor adaptive strengths can lower the test error, against one strength for all rows.

    Parameters
    ----------
    noise : array of shape (G,), or GroupNoise
        Positive noise of each group, in the measure of ``loss`` (`strength_exponents`). What `estimate_group_noise`
        found is smoothed as by `group_strengths`.
    density : array of shape (G,), optional
        Rows of each group; over the extents of the groups where these differ. Only ratios matter. By default the
        counts of a `GroupNoise`.
    curvature : array of shape (G,), optional
        Mean square of the ``2 order``-th derivative of what is learned, positive; only ratios matter. By default equal.
    weights : array of shape (G,), optional
        What the error of each group counts; by default the same, as in a balanced error.
    loss : str, optional
        By default cross-entropy, or what fits the measure of a `GroupNoise`.
    order, dimension
        Of the penalty and the inputs, as for `strength_exponents`.

    Returns
    -------
    PredictedGain

    Raises
    ------
    InvalidArgumentError
        For values that are not positive, lengths that differ, or a gain beyond the range of floats.

    Notes
    -----
    With ``s = d / 2m`` a group at the strength ``tau`` of a row has the error ``alpha tau^2 + beta tau^-s``, where
    ``alpha = curvature / H^2`` and ``beta ~ S H^(s - 2) / (n q)``. Each side at its best coefficient, the gain is

        ``(sum w alpha)^(s/(2+s)) (sum w beta)^(2/(2+s)) / sum w alpha^(s/(2+s)) beta^(2/(2+s)) >= 1``

    by Hoelder's inequality, and 1 where ``alpha / beta`` is the same for all groups. It is large only where groups that
    are limited by bias stand beside groups that are limited by variance. Derived; asymptotic, for smooth functions,
    groups that are wide against the bandwidth, and a coefficient that is chosen without error. It supposes that every
    group has a bias to lose; `gain_along_path` measures whether that is so.
    """
    if isinstance(noise, GroupNoise):
        counts = noise.counts.astype(float)
        level = smoothed(noise.noise, counts, 1.0, None)
        rows = counts if density is None else vector("density", density)
        loss = noise.loss if loss is None else loss
    else:
        if density is None:
            raise InvalidArgumentError("density must be given: the rows of each group")
        level, rows = vector("noise", noise), vector("density", density)
    ones = np.ones_like(level)
    bent = ones if curvature is None else vector("curvature", curvature)
    counted = ones if weights is None else vector("weights", weights)
    for name, values in (("noise", level), ("density", rows), ("curvature", bent), ("weights", counted)):
        if len(values) != len(level):
            raise InvalidArgumentError(f"{name} must have one entry for each of {len(level)} groups, got {len(values)}")
        if (values <= 0).any():
            raise InvalidArgumentError(f"{name} must be positive, got {values.tolist()}")
    loss = "cross-entropy" if loss is None else loss
    a, b = strength_exponents(loss, order=order, dimension=dimension)
    curved, spread = loss_powers(loss)
    s = dimension / (2 * order)
    noisy, dense = np.log(level), np.log(rows / rows.max())
    # Logarithms of weight times alpha and of weight times beta.
    bias = np.log(counted) + np.log(bent) - 2 * curved * noisy
    variance = np.log(counted) + (spread + (s - 2) * curved) * noisy - dense
    optimal = (variance - bias) / (2 + s)
    return PredictedGain(
        _gain(-b * dense, bias, variance, s),
        _gain(a * noisy, bias, variance, s),
        _gain(a * noisy - b * dense, bias, variance, s),
        _gain(optimal, bias, variance, s),
        tuple(np.exp(optimal - optimal.max()).tolist()),
        bias,
        variance,
        s,
    )


def _gain(log_strengths: Values, bias: Values, variance: Values, decay: float) -> float:
    """Error at the best coefficient of equal strengths over that of these, all from logarithms."""

    def least(strengths: Values) -> float:
        squared = np.logaddexp.reduce(bias + 2 * strengths)
        noisy = np.logaddexp.reduce(variance - decay * strengths)
        return float((decay * squared + 2 * noisy) / (2 + decay))

    with np.errstate(over="ignore"):
        gain = float(np.exp(least(np.zeros_like(bias)) - least(log_strengths)))
    if not 0.0 < gain < math.inf:
        raise InvalidArgumentError(
            f"the gain of these groups is {gain}, beyond the range of floats: noise, density, curvature, weights and "
            "strengths must not differ by hundreds of orders of magnitude"
        )
    return gain
