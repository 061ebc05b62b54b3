"""What every solution is judged by: objective and first-order conditions, in plain NumPy, whoever found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .families import Family
from .problems import Problem

__all__ = ["Verdict", "judge"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What was found about the solutions of a path.

    Attributes
    ----------
    violation : float
        Of the first-order conditions, the largest over features and alphas, relative to the largest gradient at zero.
        Where the slope at zero is infinite they say nothing about zeros; there the threshold of entry counts.
    missed : float
        The same by the stricter rule that every zero be the global minimizer of its own scalar problem.
    objectives : array of shape (n_alphas,)
    kept : int array of shape (n_alphas,)
        Nonzero coefficients.
    """

    violation: float
    missed: float
    objectives: Floats
    kept: npt.NDArray[np.int64]


def judge(problem: Problem, family: Family, alphas: Floats, coefs: Any) -> Verdict:
    """Judge coefficients of shape (n_alphas, p), dense or sparse."""
    n, p = problem.X.shape
    if coefs.shape != (alphas.size, p):
        raise ValueError(f"expected coefficients of shape {(alphas.size, p)}, got {coefs.shape}")
    rows = sp.csr_array(coefs)
    scale = float(np.abs(problem.X.T @ problem.y).max()) / n
    violation, missed = 0.0, 0.0
    objectives, kept = np.zeros(alphas.size), np.zeros(alphas.size, np.int64)
    for start in range(0, alphas.size, 10):
        block = rows[start : start + 10]
        # X may be huge and sparse, so that its product is taken with the few columns that count.
        used = np.unique(block.indices)
        fitted = problem.X[:, used] @ block[:, used].toarray().T
        residuals = problem.y[:, None] - fitted
        gradients = np.asarray(problem.X.T @ residuals) / n
        for place, alpha in enumerate(alphas[start : start + 10]):
            w = block[[place]].toarray()[0]
            size, gradient = np.abs(w), gradients[:, place]
            alive = w != 0
            inner = np.abs(gradient[alive] - np.sign(w[alive]) * family.slope(size[alive], alpha)).max(initial=0.0)
            outer = np.abs(gradient[~alive]).max(initial=0.0)
            entry, at_zero = family.entry(alpha), family.slope_at_zero(alpha)
            violation = max(violation, inner, outer - (entry if np.isinf(at_zero) else at_zero))
            missed = max(missed, inner, outer - entry)
            loss = float(residuals[:, place] @ residuals[:, place]) / (2 * n)
            objectives[start + place] = loss + float(family.value(size[alive], alpha).sum())
            kept[start + place] = np.count_nonzero(alive)
    if not np.isfinite(objectives).all():
        violation = missed = float("inf")
    return Verdict(float(violation / scale), float(missed / scale), objectives, kept)
