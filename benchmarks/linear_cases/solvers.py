"""The solvers that are compared, each as its users call it, with a ladder of its own tolerances.

Packages that are not installed are left out. Conventions differ, and are brought to those of `families`:

* skglm's l_q penalty is ``alpha |w|^q`` and the library's ``alpha |w|^q / q``, so that skglm is given ``alpha / q``;
  log-sum agrees, and MCP and SCAD do with ``width="alpha"``;
* for l_q skglm's default choice of the working set, by the subdifferential, sees nothing at zero: it is given its other
  one, by fixed points.

That the objectives agree is checked with every solution, by formulas that are neither's.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .families import LOG_SUM_WIDTH, MCP_GAMMA, SCAD_GAMMA, Family
from .problems import Problem

__all__ = ["PACKAGES", "SOLVERS", "Solver", "importable"]

Floats = npt.NDArray[np.float64]

PACKAGES = ("sklearn", "skglm", "celer", "adelie", "pycasso", "abess")


def importable() -> dict[str, str]:
    """Versions of the packages that are there."""
    from importlib.metadata import version

    names = {"sklearn": "scikit-learn"}
    return {name: version(names.get(name, name)) for name in PACKAGES if importlib.util.find_spec(name) is not None}


@dataclass(frozen=True)
class Solver:
    """One way to a path.

    Attributes
    ----------
    name, package : str
    ladder : tuple of float
        Its tolerances from loose to tight.
    usual : float
        Where on the ladder it is usually accurate.
    offers : callable of (problem, family, n_alphas)
    path : callable of (problem, family, alphas, tolerance)
        What is timed.
    read : callable
        Coefficients of shape (n_alphas, p) from what `path` returns.
    passes : callable
        Products with all of X that it counted; none if it does not count.
    """

    name: str
    package: str
    ladder: tuple[float, ...]
    usual: float
    offers: Callable[[Problem, Family, int], bool]
    path: Callable[[Problem, Family, Floats, float], Any]
    read: Callable[[Any], Any]
    passes: Callable[[Any], float | None] = field(default=lambda found: None)
    claims: Callable[[Any], float | None] = field(default=lambda found: None)


def _decades(first: int, last: int) -> tuple[float, ...]:
    return tuple(10.0**-k for k in range(first, last + 1))


# ---------------------------------------------------------------------- the library measured
def _ours(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from obverse import linear

    if alphas.size > 1:
        return linear.sparse_path(
            problem.X, problem.y, family.spec, alphas=alphas, width=family.width, fit_intercept=False, tol=tolerance
        )
    model = linear.SparseRegressor(
        family.spec, float(alphas[0]), width=family.width, fit_intercept=False, tol=tolerance
    )
    return model.fit(problem.X, problem.y)


def _ours_read(found: Any) -> Any:
    return found.coefs if hasattr(found, "coefs") else found.coef_[None]


def _ours_violation(found: Any) -> float:
    return float(np.max(found.violations)) if hasattr(found, "violations") else float(found.violation_)


# ---------------------------------------------------------------------- scikit-learn
def _coordinate(gram: bool | str) -> Callable[[Problem, Family, Floats, float], Any]:
    def path(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
        from sklearn.linear_model import Lasso, lasso_path

        if alphas.size > 1:
            return lasso_path(
                problem.X, problem.y, alphas=alphas, precompute=gram, tol=tolerance, max_iter=100_000
            )[1].T  # fmt: skip
        model = Lasso(
            float(alphas[0]), fit_intercept=False, precompute=gram is True, tol=tolerance, max_iter=100_000
        )  # fmt: skip
        return model.fit(problem.X, problem.y).coef_[None]

    return path


def _lars(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    """Kinks of the whole path down to the last alpha, and between them a straight line."""
    from sklearn.linear_model import lars_path

    kinks, _, coefs = lars_path(
        problem.X, problem.y, Gram="auto", method="lasso", alpha_min=float(alphas[-1]), max_iter=100_000
    )
    if kinks.size == 1:
        return np.repeat(coefs.T, alphas.size, axis=0)
    place = np.clip(np.searchsorted(-kinks, -alphas), 1, kinks.size - 1)
    share = (kinks[place - 1] - alphas) / (kinks[place - 1] - kinks[place])
    share = np.clip(share, 0.0, 1.0)
    return (coefs[:, place - 1] * (1 - share) + coefs[:, place] * share).T


# ---------------------------------------------------------------------- rivals
def _celer(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from celer import celer_path

    return celer_path(problem.X, problem.y, "lasso", alphas=alphas, tol=tolerance, prune=1, max_iter=100)[1].T


def skglm_penalty(family: Family) -> tuple[Any, float]:
    """Its penalty, and what alpha is multiplied by in its convention."""
    from skglm import penalties

    if family.name == "variational-dropout":
        from .own_penalty import penalty

        return penalty(), 1.0
    return {
        "lasso": lambda: (penalties.L1(1.0), 1.0),
        "mcp": lambda: (penalties.MCPenalty(1.0, MCP_GAMMA), 1.0),
        "scad": lambda: (penalties.SCAD(1.0, SCAD_GAMMA), 1.0),
        "l0.5": lambda: (penalties.L0_5(1.0), 2.0),
        "l2/3": lambda: (penalties.L2_3(1.0), 1.5),
        "log-sum": lambda: (penalties.LogSumPenalty(1.0, LOG_SUM_WIDTH), 1.0),
    }[family.name]()


def skglm_solver(family: Family, tolerance: float, intercept: bool = False) -> Any:
    from skglm.solvers import AndersonCD

    return AndersonCD(
        tol=tolerance, fit_intercept=intercept, max_iter=500, warm_start=True,
        ws_strategy="fixpoint" if family.name in ("l0.5", "l2/3") else "subdiff",
    )  # fmt: skip


def _skglm(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from skglm.datafits import Quadratic

    penalty, factor = skglm_penalty(family)
    solver = skglm_solver(family, tolerance)
    return solver.path(problem.X, problem.y, Quadratic(), penalty, factor * alphas)[1].T


def _adelie(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    import adelie

    X = adelie.matrix.sparse(problem.X, method="naive", n_threads=1) if problem.is_sparse else problem.X
    return adelie.grpnet(
        X=X, glm=adelie.glm.gaussian(y=problem.y), lmda_path=alphas, tol=tolerance, early_exit=False, intercept=False,
        n_threads=1, progress_bar=False,
    ).betas  # fmt: skip


def _adelie_covariance(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    import adelie

    n = problem.X.shape[0]
    return adelie.gaussian_cov(
        A=np.asfortranarray(problem.X.T @ problem.X / n), v=problem.X.T @ problem.y / n, lmda_path=alphas,
        tol=tolerance, early_exit=False, rdev_tol=0.0, n_threads=1, progress_bar=False,
    ).betas  # fmt: skip


def _pycasso(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    import pycasso

    gamma = {"mcp": MCP_GAMMA, "scad": SCAD_GAMMA}.get(family.name, 3.0)
    solver = pycasso.Solver(
        problem.X, problem.y, lambdas=np.array(alphas), penalty={"lasso": "l1"}.get(family.name, family.name),
        gamma=gamma, useintercept=False, standardize=False, prec=tolerance, max_ite=100_000,
    )  # fmt: skip
    solver.train()
    return solver.coef()["beta"]


def _lasso(problem: Problem, family: Family, n_alphas: int) -> bool:
    return family.name == "lasso"


def _dense_lasso(problem: Problem, family: Family, n_alphas: int) -> bool:
    return family.name == "lasso" and not problem.is_sparse


def _tall_lasso(problem: Problem, family: Family, n_alphas: int) -> bool:
    n, p = problem.X.shape
    return _dense_lasso(problem, family, n_alphas) and p < 3 * n


def _plain(found: Any) -> Any:
    return found


SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver(
            "obverse", "obverse", (1e-6, 3e-7, 1e-7), 1e-6, lambda problem, family, n_alphas: True, _ours, _ours_read,
            lambda found: getattr(found, "passes", None), _ours_violation,
        ),
        Solver("sklearn", "sklearn", _decades(4, 14), 1e-6, _lasso, _coordinate(False), _plain),
        Solver("sklearn, Gram", "sklearn", _decades(4, 14), 1e-6, _tall_lasso, _coordinate(True), _plain),
        Solver("lars", "sklearn", (1.0,), 1.0, _dense_lasso, _lars, _plain),
        Solver("celer", "celer", _decades(4, 14), 1e-5, _lasso, _celer, _plain),
        Solver(
            "skglm",
            "skglm",
            (3e-6, 1e-6, 3e-7, 1e-7, 1e-8),
            1e-6,
            lambda problem, family, n_alphas: True,
            _skglm,
            _plain,
        ),
        Solver("adelie", "adelie", _decades(7, 18), 1e-12, _lasso, _adelie, _plain),
        Solver("adelie, covariance", "adelie", _decades(7, 18), 1e-11, _tall_lasso, _adelie_covariance, _plain),
        Solver(
            "pycasso", "pycasso", _decades(7, 16), 1e-13,
            lambda problem, family, n_alphas: family.name in ("lasso", "mcp", "scad") and not problem.is_sparse,
            _pycasso, _plain,
        ),
    )
}  # fmt: skip


def silenced() -> None:
    """Without the warnings of solvers that do not reach a tolerance: every solution is judged."""
    warnings.filterwarnings("ignore")
