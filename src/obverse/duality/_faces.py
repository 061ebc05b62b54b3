"""Both faces of a penalty as curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._core.checks import count, positive
from ..penalties import Penalty
from ..penalties import penalty as penalty_named

__all__ = ["Faces", "faces"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Faces:
    """Curves of a penalty and of its dropout, for plotting.

    Attributes
    ----------
    w : array of shape (points,)
        Magnitudes from 0.
    value, slope, keep_probability, eta, prox : arrays of shape (points,)
        At ``w``; ``prox`` with the strength as step.
    eta_grid, dual : arrays of shape (points,)
        The dual f over a grid of eta; infinite where it is out of reach.
    strength : float
    """

    w: Floats
    value: Floats
    slope: Floats
    keep_probability: Floats
    eta: Floats
    prox: Floats
    eta_grid: Floats
    dual: Floats
    strength: float


def faces(penalty: Penalty | str, strength: float = 1.0, *, limit: float | None = None, points: int = 801) -> Faces:
    """Curves of a penalty: value, slope, keep probability, eta, dual and proximal operator.

    Parameters
    ----------
    penalty : Penalty or str
        A penalty or its name.
    strength : float, default 1
        Strength of the dropout, and step of the proximal operator.
    limit : float, optional
        Largest magnitude; by default well past the threshold and the width of the penalty.
    points : int, default 801
        At least 2.
    """
    if not isinstance(penalty, Penalty):
        penalty = penalty_named(penalty)
    strength, points = positive("strength", strength), count("points", points, 2)
    limit = _limit(penalty, strength) if limit is None else limit
    limit = positive("limit", limit)
    w = np.linspace(0.0, limit, points)
    eta = np.asarray(penalty.eta(w))
    finite = eta[np.isfinite(eta) & (eta > 0)]
    top = min(float(finite.max()) if finite.size else 1.0, 1e6)
    grid = np.linspace(0.0, 1.25 * top, points)
    return Faces(
        w,
        np.asarray(penalty.value(w)),
        np.asarray(penalty.slope(w)),
        np.asarray(penalty.keep_probability(w, strength)),
        eta,
        np.asarray(penalty.prox(w, strength)),
        grid,
        np.asarray(penalty.dual(grid)),
        strength,
    )


def _limit(penalty: Penalty, strength: float) -> float:
    """A few times the weight at which the keep probability is one half, or the threshold of the proximal operator."""
    w = np.geomspace(1e-6, 1e6, 1201)
    kept = np.flatnonzero(np.asarray(penalty.keep_probability(w, strength)) > 0.5)
    half = float(w[kept[0]]) if kept.size else 1.0
    alive = np.flatnonzero(np.asarray(penalty.prox(w, strength)) > 0)
    threshold = float(w[alive[0]]) if alive.size else 1.0
    largest = 3 * max(half if half > 2e-6 else 1.0, threshold)
    digits = 10 ** math.floor(math.log10(largest))
    return float(math.ceil(largest / digits) * digits)
