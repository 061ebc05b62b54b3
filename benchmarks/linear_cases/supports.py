"""Supports that are known: 500 rows, 2000 columns, 20 true coefficients of size 1, and what every method makes of them.

Told are the F1 score of the support, the excess risk over the noise's variance (the error of the coefficients in the
norm of the columns' covariance, which is that of predictions on new rows), the error of the coefficients in the
Euclidean norm, and how many are kept. Shapes are in units in which the largest gradient at zero is 1. Every method sees
the same folds; EBIC needs none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .families import FAMILIES, MCP_GAMMA, Family
from .folds import splits
from .problems import Problem, correlated
from .solvers import SOLVERS, importable

__all__ = ["CORRELATIONS", "SNRS", "draw", "methods"]

Floats = npt.NDArray[np.float64]
Method = Callable[[Problem], Floats]

ROWS, COLUMNS, TRUE = 500, 2000, 20
SNRS = (3.0, 10.0)
CORRELATIONS = (0.0, 0.5, 0.8)

# How the library is asked for every penalty of the study, and its convention.
PENALTIES = {
    "lasso": ("lasso", "fixed"),
    "mcp": ("mcp:kappa=3", "alpha"),
    "scad": ("scad:a=3.7", "alpha"),
    "l0.5": ("l0.5", "fixed"),
    "log-sum": ("log-sum:epsilon=0.1", "fixed"),
    "variational-dropout": ("variational-dropout:scale=10", "fixed"),
}
POWERS = ["l0.2", "l0.35", "l0.5", "l0.7", "l0.9"]


def _ours(spec: str | list[str], width: str, **options: Any) -> Method:
    def fit(problem: Problem) -> Floats:
        from obverse.linear import SparseRegressorCV

        model = SparseRegressorCV(spec, width=width, n_alphas=50, cv=splits(problem.y.size), **options)
        coefs: Floats = model.fit(problem.X, problem.y).coef_
        return coefs

    return fit


def _lasso_cv(problem: Problem) -> Floats:
    from sklearn.linear_model import LassoCV

    coefs: Floats = LassoCV(alphas=50, eps=0.02, cv=splits(problem.y.size)).fit(problem.X, problem.y).coef_
    return coefs


def _abess(**options: Any) -> Method:
    def fit(problem: Problem) -> Floats:
        from abess import LinearRegression

        model = LinearRegression(support_size=range(61), thread=1, **options)
        return np.asarray(model.fit(problem.X, problem.y).coef_, dtype=np.float64)

    return fit


def _by_hand(solver: str, tolerance: float) -> Method:
    """Cross-validated MCP on paths fold by fold, at the package's default tolerance."""

    def fit(problem: Problem) -> Floats:
        family: Family = FAMILIES["mcp"]
        alphas = family.largest_alpha() * np.geomspace(1.0, 0.02, 50)
        path, errors = SOLVERS[solver].path, np.zeros(alphas.size)
        for train, held in splits(problem.y.size):
            part = Problem("part", np.asfortranarray(problem.X[train]), problem.y[train])
            coefs = np.asarray(path(part, family, alphas, tolerance))
            errors += ((problem.X[held] @ coefs.T - problem.y[held, None]) ** 2).sum(axis=0)
        return np.asarray(path(problem, family, alphas, tolerance))[int(errors.argmin())]

    return fit


def methods() -> dict[str, Method]:
    """Every method that can run here."""
    known = importable()
    chosen: dict[str, Method] = {}
    for name, (spec, width) in PENALTIES.items():
        chosen[f"{name}, CV"] = _ours(spec, width)
        chosen[f"{name}, EBIC"] = _ours(spec, width, criterion="ebic")
        if name == "l0.5":
            chosen["l0.2 to l0.9, CV of power too"] = _ours(POWERS, width)
        elif name != "lasso":
            chosen[f"{name}, CV of width too"] = _ours(spec, width, shapes="auto")
    chosen["sklearn LassoCV"] = _lasso_cv
    if "abess" in known:
        chosen["abess, CV"] = _abess(cv=5)
        chosen["abess, EBIC"] = _abess(ic_type="ebic")
    if "pycasso" in known:
        chosen[f"pycasso MCP({MCP_GAMMA:g}), CV"] = _by_hand("pycasso", 1e-7)
    if "skglm" in known:
        chosen[f"skglm MCP({MCP_GAMMA:g}), CV"] = _by_hand("skglm", 1e-4)
    return chosen


def draw(snr: float, rho: float, seed: int) -> dict[str, Any]:
    """One data set, and all methods on it."""
    X, y, truth, noise = correlated(ROWS, COLUMNS, TRUE, rho, snr, seed=1000 + seed, spread=0.0)
    n = X.shape[0]
    center, size = X.mean(axis=0), X.std(axis=0)
    standard = np.asfortranarray((X - center) / size)
    centered = y - y.mean()
    scale = float(np.abs(standard.T @ centered).max()) / n
    problem = Problem("drawn", standard, centered / scale)
    rows: dict[str, Any] = {}
    for name, method in methods().items():
        started = time.process_time()
        try:
            coefs = method(problem) * scale / size
        except Exception as error:
            rows[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
            continue
        rows[name] = {"seconds": time.process_time() - started} | _scores(coefs, truth, rho, noise)
    return {"kind": "study", "snr": snr, "correlation": rho, "draw": seed, "methods": rows}


def _scores(coefs: Floats, truth: Floats, rho: float, noise: float) -> dict[str, float]:
    found, true = coefs != 0, truth != 0
    hits = int((found & true).sum())
    error = coefs - truth
    # error' Sigma error for the covariance rho^|i - j|, by the recursion of the autoregressive process.
    risk, carried = 0.0, 0.0
    for value in error:
        risk += value * value + 2 * value * carried
        carried = rho * (carried + value)
    return {
        "f1": 2 * hits / max(1, int(found.sum()) + int(true.sum())),
        "excess": risk / noise**2,
        "error": math.sqrt(float(error @ error)),
        "kept": int(found.sum()),
    }
