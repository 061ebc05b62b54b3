"""What is asked of a solver, besides data and strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..penalties import Penalty
from ._code import encode, resized
from ._scalar import Code, entries

__all__ = ["MOST_ITERATIONS", "Terms"]

# As many as compiled code can count.
MOST_ITERATIONS = 2**31 - 1


@dataclass(frozen=True)
class Terms:
    """The penalty and the conventions of a problem.

    Attributes
    ----------
    penalty : Penalty
    width : {"fixed", "alpha"}
        Whether the penalty is ``alpha * Omega(w)`` or, as is usual for MCP and SCAD, ``alpha**2 * Omega(w / alpha)``.
    fit_intercept, positive, standardize : bool
        With ``standardize`` the penalty applies to coefficients times their columns' standard deviation.
    factor : array of shape (p,)
        Multiplies the penalty of every feature; 0 leaves a feature unpenalized.
    tol : float
        Largest violation of the first-order conditions, relative to the largest gradient at zero.
    max_iter : int
        Passes over the working set for one alpha.
    max_features : int or None
        A path ends at the first solution with more nonzero coefficients.
    """

    penalty: Penalty
    factor: npt.NDArray[np.float64]
    width: Literal["fixed", "alpha"] = "fixed"
    fit_intercept: bool = True
    positive: bool = False
    standardize: bool = False
    tol: float = 1e-6
    max_iter: int = 1000
    max_features: int | None = None

    def codes(self, alphas: npt.NDArray[np.float64]) -> tuple[Code, npt.NDArray[np.float64]]:
        """The code of the penalty, and one row of its parameters for every alpha."""
        code = encode(self.penalty)
        if self.width == "fixed":
            return code, np.repeat(code[1][None], alphas.size, axis=0)
        # At strength 0 there is no penalty, whatever its width.
        return code, np.stack([resized(code, alpha or 1.0, alpha or 1.0)[1] for alpha in alphas])

    def value(self, penalized: npt.NDArray[np.float64], factor: npt.NDArray[np.float64], alpha: float) -> float:
        """The penalty of coefficients, as it sees their magnitudes, in the unit of the objective."""
        if alpha == 0:
            return 0.0
        width = alpha if self.width == "alpha" else 1.0
        return float(alpha * width * (factor @ np.asarray(self.penalty.value(penalized / width))))

    def leaving(self, z: npt.NDArray[np.float64], ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Smallest alpha at which the minimizer of ``(x - z)^2/2`` plus the penalty, of step alpha * ratio, is zero."""
        if self.width == "fixed":
            with np.errstate(over="ignore"):
                return np.asarray(self.penalty.zeroing_step(z)) / ratio
        code, _ = self.codes(np.ones(1))
        # The penalty alpha^2 Omega(w / alpha) has the threshold alpha * entry(ratio).
        return np.asarray(z / entries(code, ratio))
