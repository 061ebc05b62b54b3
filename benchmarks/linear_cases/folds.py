"""Cross-validation: five folds, 50 alphas down to a tenth of the largest, and a refit, each package by its own means.

Rivals run at the tolerance at which their path on all rows is accurate, and again at their default tolerance, which
is looser (told apart by "default"). Packages without a class for it run their paths fold by fold.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .cells import calibrate, interleaved, strengths
from .families import FAMILIES, MCP_GAMMA, Family
from .problems import Problem, load
from .solvers import SOLVERS, importable, skglm_penalty, skglm_solver

__all__ = ["SHAPES", "measure", "two_dimensional"]

Floats = npt.NDArray[np.float64]

FOLDS = 5
# Shapes of MCP for cross-validation in two dimensions.
SHAPES = (1.5, 2.0, 3.0, 5.0, 10.0)


def splits(n: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The folds that all packages that can be told get: rows to train on, rows held out."""
    parts = np.array_split(np.random.default_rng(0).permutation(n), FOLDS)
    return [(np.setdiff1d(np.arange(n), part), np.sort(part)) for part in parts]


def _ours(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from obverse.linear import SparseRegressorCV

    model = SparseRegressorCV(
        family.spec, alphas=alphas, width=family.width, fit_intercept=False, cv=splits(problem.y.size), tol=tolerance
    )
    return float(model.fit(problem.X, problem.y).alpha_)


def _sklearn(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from sklearn.linear_model import LassoCV

    model = LassoCV(alphas=alphas, fit_intercept=False, cv=splits(problem.y.size), tol=tolerance, max_iter=100_000)
    return float(model.fit(problem.X, problem.y).alpha_)


def _adelie(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    import adelie

    glm = adelie.glm.gaussian(y=problem.y)
    found = adelie.cv_grpnet(
        X=problem.X, glm=glm, n_folds=FOLDS, min_ratio=float(alphas[-1] / alphas[0]), lmda_path_size=alphas.size,
        seed=0, intercept=False, tol=tolerance, n_threads=1, progress_bar=False,
    )  # fmt: skip
    found.fit(problem.X, glm, intercept=False, tol=tolerance, n_threads=1, progress_bar=False)
    return float(found.lmdas[found.best_idx])


def _pycasso(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    import pycasso

    owner = np.zeros(problem.y.size, np.int64)
    for number, (_, held) in enumerate(splits(problem.y.size)):
        owner[held] = number
    solver = pycasso.Solver(
        problem.X, problem.y, lambdas=np.array(alphas), penalty={"lasso": "l1"}.get(family.name, family.name),
        gamma=MCP_GAMMA, useintercept=False, standardize=False, prec=tolerance, max_ite=100_000,
    )  # fmt: skip
    return float(solver.cross_validate(FOLDS, foldid=owner)["lambda_min"])


def _by_hand(path: Callable[[Problem, Family, Floats, float], Any]) -> Callable[..., float]:
    """Paths fold by fold, and one on all rows down to the chosen alpha."""

    def run(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> float:
        errors = np.zeros(alphas.size)
        for train, held in splits(problem.y.size):
            part = Problem(problem.name, np.asfortranarray(problem.X[train]), problem.y[train])
            coefs = np.asarray(path(part, family, alphas, tolerance))
            errors += ((problem.X[held] @ coefs.T - problem.y[held, None]) ** 2).sum(axis=0)
        best = int(errors.argmin())
        path(problem, family, alphas[: max(best + 1, 2)], tolerance)
        return float(alphas[best])

    return run


def _skglm_class(problem: Problem, family: Family, alphas: Floats, tolerance: float) -> Any:
    from skglm.cv import GeneralizedLinearEstimatorCV
    from skglm.datafits import Quadratic

    model = GeneralizedLinearEstimatorCV(
        Quadratic(), skglm_penalty(family)[0], skglm_solver(family, tolerance), alphas=alphas, cv=FOLDS, random_state=0
    )
    return float(model.fit(problem.X, problem.y).alpha_)


# Name: package, its path in `SOLVERS`, families, default tolerance, what is timed.
WAYS: dict[str, tuple[str, str, tuple[str, ...], float | None, Callable[..., Any]]] = {
    "obverse": ("obverse", "obverse", ("lasso", "mcp"), None, _ours),
    "sklearn LassoCV": ("sklearn", "sklearn, Gram", ("lasso",), 1e-4, _sklearn),
    "adelie": ("adelie", "adelie", ("lasso",), 1e-7, _adelie),
    "pycasso": ("pycasso", "pycasso", ("lasso", "mcp"), 1e-7, _pycasso),
    "celer, by hand": ("celer", "celer", ("lasso",), 1e-6, _by_hand(SOLVERS["celer"].path)),
    "skglm, by hand": ("skglm", "skglm", ("lasso", "mcp"), 1e-4, _by_hand(SOLVERS["skglm"].path)),
    "skglm class": ("skglm", "skglm", ("lasso", "mcp"), 1e-4, _skglm_class),
}


def measure(name: str, family_name: str, repeats: int) -> dict[str, Any]:
    problem, family = load(name), FAMILIES[family_name]
    alphas = strengths("path10", family)
    known = importable()
    tolerances: dict[str, float] = {}
    works: dict[str, Callable[[], Any]] = {}
    rows: dict[str, Any] = {}
    for way, (package, path, families, default, run) in WAYS.items():
        if family_name not in families or package not in ("obverse", *known):
            continue
        if path not in tolerances:
            solver = SOLVERS[path]
            if not solver.offers(problem, family, alphas.size):
                solver = SOLVERS[path.partition(",")[0]]
            tolerances[path] = calibrate(solver, problem, family, alphas).tolerance
        settings = {way: tolerances[path]} | ({f"{way}, default": default} if default is not None else {})
        for label, tolerance in settings.items():
            work = lambda run=run, tolerance=tolerance: run(problem, family, alphas, tolerance)  # noqa: E731
            try:
                rows[label] = {"tolerance": tolerance, "accurate": label == way, "alpha": work()}
            except Exception as error:
                rows[label] = {"failed": f"{type(error).__name__}: {error}"[:200]}
                continue
            works[label] = work
    for label, times in interleaved(works, repeats, {label for label in works if label.startswith("skglm")}).items():
        rows[label]["seconds"] = statistics.median(times)
        rows[label]["spread"] = [min(times), max(times)]
    return {"kind": "cv", "problem": name, "task": "cv", "family": family_name, "repeats": repeats, "solvers": rows}


def two_dimensional(name: str, repeats: int) -> dict[str, Any]:
    """Five shapes of MCP by 50 alphas, beside scikit-learn's cross-validation of the lasso's alpha alone."""
    problem, lasso = load(name), FAMILIES["lasso"]
    alphas = strengths("path10", lasso)
    solver = SOLVERS["sklearn, Gram" if name == "b" else "sklearn"]
    tolerance = calibrate(solver, problem, lasso, alphas).tolerance

    def ours() -> Any:
        from obverse.linear import SparseRegressorCV

        model = SparseRegressorCV(
            [f"mcp:kappa={shape}" for shape in SHAPES], n_alphas=50, alpha_min_ratio=0.1, width="alpha",
            fit_intercept=False, cv=splits(problem.y.size),
        )  # fmt: skip
        return model.fit(problem.X, problem.y)

    works: dict[str, Callable[[], Any]] = {
        "obverse, 5 shapes": ours,
        "sklearn LassoCV": lambda: _sklearn(problem, lasso, alphas, tolerance),
        "sklearn LassoCV, default": lambda: _sklearn(problem, lasso, alphas, 1e-4),
    }
    rows = {label: {"accurate": "default" not in label} for label in works}
    chosen = repr(ours().penalty_)
    rows["obverse, 5 shapes"]["chosen"] = chosen  # type: ignore[assignment]
    for label, times in interleaved(works, repeats).items():
        rows[label] |= {"seconds": statistics.median(times), "spread": [min(times), max(times)]}  # type: ignore[dict-item]
    return {"kind": "cv2d", "problem": name, "task": "cv2d", "family": "mcp", "repeats": repeats, "solvers": rows}
