"""A learning curve fitted to errors at nested sizes: where it ends, and what more data would bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["LearningCurve", "fit_curve"]

_POWERS = (0.25, 0.35, 0.5, 0.7, 1.0)


@final
@dataclass(frozen=True)
class LearningCurve:
    """``error(s) = plateau + fall s^-power`` at ``s`` times the rows there are.

    Attributes
    ----------
    plateau : float
        Where the curve ends with ever more rows.
    fall : float
        What is above it now, not negative.
    power : float
        How fast that goes.
    """

    plateau: float
    fall: float
    power: float

    def __call__(self, size: float) -> float:
        """The error with ``size`` times the rows."""
        return float(self.plateau + self.fall * size**-self.power)

    @property
    def doubling(self) -> float:
        """By how much twice the rows would lower the error."""
        return self(1.0) - self(2.0)


def fit_curve(sizes: NDArray[np.float64], wrong: NDArray[np.float64], trials: float) -> LearningCurve:
    """Weighted least squares with ``plateau, fall >= 0`` over a few powers.

    Parameters
    ----------
    sizes : ndarray, shape (S,)
        Shares of the rows, increasing, the last 1.
    wrong : ndarray, shape (S,)
        Wrong predictions of ``trials``, averaged over repetitions.
    trials : float
        Predictions at each size.
    """
    errors = wrong / trials
    weights = np.sqrt(trials / ((errors + 1 / trials) * (1 - errors + 1 / trials)))
    best: tuple[float, LearningCurve] | None = None
    for power in _POWERS:
        design = np.stack([np.ones_like(sizes), sizes**-power], axis=1)
        solution, residual = nnls(design * weights[:, None], errors * weights)
        if best is None or residual < best[0] - 1e-12:
            best = residual, LearningCurve(float(solution[0]), float(solution[1]), power)
    assert best is not None
    return best[1]
