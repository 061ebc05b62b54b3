"""Widths of penalties to choose from, and alphas that suit each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ..penalties import L0, MCP, SCAD, CappedL1, Lasso, LogSum, Penalty, Rescaled
from ..penalties import penalty as penalty_named
from ._code import makes_zeros
from ._path import log_alphas
from ._problem import Problem
from ._terms import Terms

__all__ = ["candidates", "natural_width", "path_alphas", "reference_size", "resized_penalty"]

Floats = npt.NDArray[np.float64]

# Natural widths relative to the largest coefficient that any feature has on its own, and relative to alpha.
_WIDTHS = (0.04, 0.12, 0.4, 1.2, 4.0)
_ALPHA_WIDTHS = (0.8, 1.0, 4 / 3, 2.0, 4.0)
_KNOTS = 7


def candidates(penalty: Any, shapes: Any, problem: Problem, terms: Terms) -> list[Penalty]:
    """The penalties to choose from.

    Parameters
    ----------
    penalty : str, Penalty or list of them
    shapes : None, "auto" or sequence of float
        No other widths than the penalties' own; five, by the data; or these multiples of the penalties' own.
    problem : Problem
    terms : Terms
        The penalty in them does not matter.
    """
    listed = list(penalty) if isinstance(penalty, list | tuple) else [penalty]
    if not listed:
        raise InvalidArgumentError("penalty is an empty list; give at least one penalty")
    named = [penalty_named(one) for one in listed]
    for one in named:
        if not makes_zeros(one):
            raise InvalidArgumentError(
                f"{one!r} makes no exact zeros, so that it has no path of supports; choose the alpha of "
                "SparseRegressor or SparseClassifier with GridSearchCV"
            )
    if shapes is None:
        return named
    if isinstance(shapes, str):
        if shapes != "auto":
            raise InvalidArgumentError(f"shapes must be None, 'auto' or a sequence of positive numbers, got {shapes!r}")
        size = reference_size(problem, terms) if terms.width == "fixed" else 1.0
        relative: Sequence[float] = _WIDTHS if terms.width == "fixed" else _ALPHA_WIDTHS
    else:
        relative, size = [float(value) for value in shapes], math.nan
        if not relative or not all(0 < value < math.inf for value in relative):
            raise InvalidArgumentError(f"shapes must hold positive, finite numbers, got {shapes!r}")
    found: list[Penalty] = []
    for one in named:
        width = natural_width(one)
        if width is None:
            found.append(one)
        else:
            unit = size / width if isinstance(shapes, str) else 1.0
            found += [resized_penalty(one, unit * value) for value in relative]
    return found


def natural_width(penalty: Penalty) -> float | None:
    """Where a penalty changes from its shape near zero to that far away; None where it has one shape throughout.

    The elasticity ``w Omega'(w) / Omega(w)`` is 1 for a lasso, p for a power, 0 where the penalty is flat. The width
    is where it is half way between its values at very small and very large coefficients.
    """
    w = np.geomspace(1e-12, 1e12, 481)
    with np.errstate(all="ignore"):
        value, slope = (np.asarray(part, dtype=np.float64) for part in (penalty.value(w), penalty.slope(w)))
        elasticity = w * slope / value
    finite = np.isfinite(elasticity)
    w, elasticity = w[finite], elasticity[finite]
    if w.size < 2 or abs(elasticity[0] - elasticity[-1]) < 0.05:
        return None
    middle = (elasticity[0] + elasticity[-1]) / 2
    first = int(np.argmax((elasticity <= middle) if elasticity[0] > elasticity[-1] else (elasticity >= middle)))
    a, b = elasticity[first - 1], elasticity[first]
    share = (a - middle) / (a - b)
    return float(w[first - 1] ** (1 - share) * w[first] ** share)


def resized_penalty(penalty: Penalty, factor: float) -> Penalty:
    """A penalty ``factor`` times as wide, as high as keeps its slope at zero where that is finite.

    Penalties whose parameter is a width, with the same class and another parameter; others as `Rescaled`.
    """
    if isinstance(penalty, LogSum):
        return LogSum(epsilon=penalty.epsilon * factor)
    if isinstance(penalty, MCP):
        return MCP(kappa=penalty.kappa * factor)
    if isinstance(penalty, SCAD):
        return replace(penalty, threshold=penalty.threshold * factor)
    if isinstance(penalty, CappedL1):
        return CappedL1(threshold=penalty.threshold * factor)
    height = factor if penalty.slope_at_zero < math.inf else 1.0
    return Rescaled(penalty, width=factor, height=height)


def reference_size(problem: Problem, terms: Terms) -> float:
    """Size of the coefficient that the strongest feature has on its own, as the penalty sees it.

    A penalty that counts keeps it out from ``gram z^2 / 2`` on, a lasso from ``gram z``; the quotient is z.
    """
    counted = problem.largest_alpha(replace(terms, penalty=L0(), width="fixed"))
    linear = problem.largest_alpha(replace(terms, penalty=Lasso(), width="fixed"))
    size = 2 * counted / linear if linear > 0 else 1.0
    return size if 0 < size < math.inf else 1.0


def path_alphas(problem: Problem, terms: Terms, count: int, ratio: float) -> Floats:
    """Descending alphas whose entry thresholds are evenly spaced in their logarithm, down to ``ratio`` of the largest.

    The threshold is the size that a coefficient on its own must have to be let in. It is proportional to alpha for a
    lasso and to its root for a penalty that counts, so that one ratio suits all penalties. It is the largest alpha
    for data ``ratio`` times as large, which is that of the penalty ``1/ratio`` times as wide, times ``ratio**2``.
    """
    largest = problem.largest_alpha(terms)
    if terms.width == "alpha" or not 0 < largest < math.inf:
        return log_alphas(largest, count, ratio)
    knots = np.geomspace(1.0, ratio, _KNOTS)
    values = [largest]
    for knot in knots[1:]:
        wide = replace(terms, penalty=Rescaled(terms.penalty, width=1 / float(knot)))
        values.append(float(knot) ** 2 * problem.largest_alpha(wide))
    if not all(0 < value < math.inf for value in values) or np.any(np.diff(values) >= 0):
        return log_alphas(largest, count, ratio)
    places = np.linspace(0, _KNOTS - 1, count)
    grid = np.exp(np.interp(places, np.arange(_KNOTS), np.log(values)))
    grid[0] = largest
    return np.asarray(grid)
