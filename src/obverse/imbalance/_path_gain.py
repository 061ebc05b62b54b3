"""What adaptive strengths can still gain, measured on runs that had one strength for all rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InvalidArgumentError
from ._strengths import positive_vector, vector

__all__ = ["PathGain", "gain_along_path"]

Values = NDArray[np.float64]
STEPS = 400
"""Coefficients tried for given strengths, evenly spaced along the path."""


@final
@dataclass(frozen=True)
class PathGain:
    """What a path of runs with one strength for all rows says about a strength for every group.

    Attributes
    ----------
    coefficient : float
        The best one for all groups, by the weighted mean of their errors.
    group_coefficients : tuple of float
        The best one for each group alone.
    bias_limited : tuple of bool
        Groups that a smaller coefficient than the common one serves better. Without any, and without groups that want a
        larger one, adaptive strengths have nothing to gain.
    error, adaptive_error : float
        Weighted mean of the groups' errors at the common coefficient, and at each group's own.
    gain : float
        ``error / adaptive_error``: the most that any strengths along this path can gain.
    at_end : bool
        Whether the common coefficient or that of a group is the last one of the path, so that a larger one may be
        better still; or the first one, where that is not 0.
    """

    coefficient: float
    group_coefficients: tuple[float, ...]
    bias_limited: tuple[bool, ...]
    error: float
    adaptive_error: float
    gain: float
    at_end: bool
    _coefficients: Values = field(repr=False, compare=False)
    _errors: Values = field(repr=False, compare=False)
    _weights: Values = field(repr=False, compare=False)

    def of(self, strengths: ArrayLike | Tensor) -> float:
        """The gain of given positive strengths, shape (G,), with the best coefficient; their scale does not matter.

        The largest strength stays on the path, errors between its runs are interpolated along the logarithm of the
        coefficient, and a strength below the smallest run counts as that run.
        """
        given = positive_vector("strengths", strengths, len(self._weights))
        places = _places(self._coefficients, self._coefficients)
        fine = np.interp(np.linspace(0, 1, STEPS), np.linspace(0, 1, len(places)), self._coefficients)
        fine = np.unique(np.concatenate([fine, self._coefficients]))
        wanted = _places(fine[:, None] * (given / given.max()), self._coefficients)
        between = np.stack(
            [
                np.stack([np.interp(wanted[:, g], places, one[:, g]) for g in range(len(given))], axis=1)
                for one in self._errors
            ]
        )
        return self.error / _chosen_together(between, self._weights)[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}

    def __str__(self) -> str:
        own = ", ".join(f"{value:g}" for value in self.group_coefficients)
        limited = [str(group) for group, is_limited in enumerate(self.bias_limited) if is_limited]
        return "\n".join(
            (
                f"best for all groups        {self.coefficient:g}, error {self.error:.4g}",
                f"best for each group        {own}, error {self.adaptive_error:.4g}",
                f"limited by bias            {'group ' + ', '.join(limited) if limited else 'no group'}",
                f"gain of adaptive strengths {self.gain:.2f} at most",
                *(["the best coefficients lie at an end of the path: extend it"] if self.at_end else []),
            )
        )


def gain_along_path(
    coefficients: ArrayLike | Tensor, errors: ArrayLike | Tensor, *, weights: ArrayLike | Tensor | None = None
) -> PathGain:
    """What adaptive strengths can gain, from the errors of groups along a path of one strength for all.

    The path is what tuning a uniform penalty leaves behind. `predicted_gain` supposes that in every group bias and
    variance balance; where the frequent groups have no bias to lose at any strength, it promises too much, and this
    says so.

    Parameters
    ----------
    coefficients : array of shape (P,)
        Strengths of the uniform penalty, at least two, increasing, nonnegative.
    errors : array of shape (P, G) or (R, P, G)
        Error of each group at each coefficient, on rows held out from training; with R repetitions, such as seeds or
        folds, the coefficients are chosen on the others and the error is that of the one left out, so that noise
        chooses nothing and the gain may come out below 1. Without repetitions the lowest error of each group is taken
        as it is, and the gain is at least 1.
    weights : array of shape (G,), optional
        What the error of each group counts, positive; by default the same, as in a balanced error.

    Returns
    -------
    PathGain

    Raises
    ------
    InvalidArgumentError
        For shapes that do not fit, coefficients that do not increase, or errors that are negative or not finite.

    Notes
    -----
    With ``e_g(c)`` the error of group ``g`` under the uniform coefficient ``c``, and weights ``w`` that add up to 1,

        ``gain = min_c sum_g w_g e_g(c) / sum_g w_g min_c e_g(c)``

    It supposes that a group's error depends on its own strength alone; where a strong penalty on one group harms its
    neighbors, as at the border of two regions of the inputs, the gain is larger than this says. Errors against noisy
    labels contain the noise, which no strength removes: then look at the difference of the two errors rather than at
    the ratio.
    """
    path = vector("coefficients", coefficients)
    if len(path) < 2 or (path < 0).any() or (np.diff(path) <= 0).any():
        raise InvalidArgumentError(f"coefficients must be two or more, increasing and not negative, got {path}")
    values = np.asarray(errors.detach().cpu() if isinstance(errors, Tensor) else errors, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[1] != len(path) or 0 in values.shape:
        raise InvalidArgumentError(
            f"errors must have the shape ({len(path)}, groups) or (repetitions, {len(path)}, groups), "
            f"got {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise InvalidArgumentError("errors must be finite and not negative")
    groups = values.shape[2]
    counted = np.ones(groups) if weights is None else positive_vector("weights", weights, groups)
    counted = counted / counted.sum()
    mean = values.mean(0)
    common = int((mean @ counted).argmin())
    own = mean.argmin(0)
    error = _chosen_together(values, counted)[1]
    adaptive = sum(counted[g] * _chosen_together(values[:, :, g : g + 1], np.ones(1))[1] for g in range(groups))
    return PathGain(
        float(path[common]),
        tuple(path[own].tolist()),
        tuple((own < common).tolist()),
        error,
        float(adaptive),
        float(error / adaptive) if adaptive > 0 else (1.0 if error == 0 else float("inf")),
        bool({common, *own.tolist()} & {len(path) - 1, *([0] if path[0] > 0 else [])}),
        path,
        values,
        counted,
    )


def _chosen_together(values: Values, weights: Values) -> tuple[int, float]:
    """Place of the lowest weighted error over all repetitions, and the error of each where the others choose."""
    totals = values @ weights
    place = int(totals.mean(0).argmin())
    if len(totals) == 1:
        return place, float(totals[0, place])
    others = (totals.sum(0) - totals) / (len(totals) - 1)
    return place, float(np.mean([one[rest.argmin()] for one, rest in zip(totals, others, strict=True)]))


def _places(values: Values, path: Values) -> Values:
    """Logarithms, continued by a straight line below the smallest positive coefficient so that 0 has a place."""
    smallest = path[path > 0][0]
    shares = values / smallest
    places: Values = np.where(shares < 1, shares - 1, np.log(np.maximum(shares, 1)))
    return places
