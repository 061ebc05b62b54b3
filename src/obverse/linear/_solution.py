"""Solutions along a path, as solvers return them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Solution"]


@dataclass(frozen=True)
class Solution:
    """One problem at one alpha, in the units of the data.

    Attributes
    ----------
    index : integer array of shape (k,)
        Features with nonzero coefficients, ascending.
    coef : array of shape (k,) or (k, m)
        Their coefficients; one column for each output.
    intercept : float or array of shape (m,)
    objective : float
        Mean loss plus penalty.
    violation : float
        Of the first-order conditions, relative to the largest gradient at zero.
    converged : bool
        Whether the violation is within the tolerance.
    held_out : float
        Sum of weights times loss over the rows that were held out; 0 where there were none.
    """

    index: npt.NDArray[np.int64]
    coef: npt.NDArray[np.float64]
    intercept: float | npt.NDArray[np.float64]
    objective: float
    violation: float
    converged: bool
    held_out: float = 0.0
