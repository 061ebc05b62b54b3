"""The reweighted face: the penalty as a ridge whose weights follow the coefficients, solved again and again.

Because ``Omega(sqrt(u))`` is concave, ``Omega(w) <= Omega(v) + (w^2 - v^2) / (2 eta(v))``, with equality at w = v. So
the minimizer of the loss plus the ridge ``alpha/2 sum_j factor_j w_j^2 / eta(v_j)`` has an objective no higher than
that of v, and the fixed points are the stationary points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._code import encode, makes_zeros
from ._curves import Curve, curve
from ._design import Design
from ._ridge_bound import RidgeBound
from ._ridge_descent import Reweighted, RidgeDescent
from ._terms import Terms
from ._tikhonov import Tikhonov

__all__ = ["Reweighted", "ReweightedProblem", "reweighted_solutions"]

Floats = npt.NDArray[np.float64]


class ReweightedProblem:
    """Data and a loss, to be solved by reweighting.

    Parameters
    ----------
    loss : {"squared", "huber", "poisson", "logistic"}
    X : dense array or CSC matrix of shape (n, p)
        float32 or float64, finite.
    y : array of shape (n,)
        Classes as 0 and 1.
    weights : array of shape (n,)
        At least 0, of sum 1.
    fit_intercept : bool
    delta : float
        Residual from which the Huber loss is linear, in the unit of y.

    Raises
    ------
    UnknownNameError
        Another loss.
    InvalidArgumentError
        One class only.
    """

    def __init__(
        self, loss: str, X: Any, y: Floats, weights: Floats, *, fit_intercept: bool, delta: float = 1.35
    ) -> None:
        held = weights > 0
        if not held.all():
            # Rows without weight have no say in scales, in floors of curvatures, or in what overflows.
            X, y, weights = X[held], y[held], weights[held]
        self.design = Design(X, weights, centered=fit_intercept, exact=True)
        self.weights, self.fit_intercept = weights, fit_intercept
        if loss == "logistic" and np.unique(y).size < 2:
            raise InvalidArgumentError("the logistic loss needs rows of both classes, with positive weights")
        self.y_scale = 1.0
        if loss in ("squared", "huber"):
            size = float(np.abs(y).max(initial=0.0))
            self.y_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
        self.loss: Curve = curve(loss, y / self.y_scale, delta / self.y_scale)
        self.usable = self.design.spread > 0
        self.ridge = Tikhonov(self.design, intercept=fit_intercept, constant=self.loss.is_quadratic)
        self.null = self.loss.constant(weights) if fit_intercept else 0.0
        gradient = self.design.correlate(weights * self.loss.derivative(np.full(y.size, self.null)))
        self.scale = float(np.abs(gradient[self.usable]).max(initial=0.0))

    def solve(
        self,
        terms: Terms,
        alphas: Floats,
        *,
        start: tuple[Floats, float] | None = None,
        newton: bool = True,
        keep_coefs: bool = False,
    ) -> list[Reweighted]:
        """One solution for every alpha, in the order given.

        Parameters
        ----------
        terms : Terms
        alphas : array
        start : (array of shape (p,), float), optional
            Coefficients and intercept to start from, in the units of the data. A zero stays zero until it violates the
            rule on zeros. By default a ridge solution; with a penalty that makes no zeros, the solution for the
            alpha before.
        newton : bool
            Whether Newton's steps, on the same matrices with the penalty's curvature for its ridge, may finish; they
            never raise the objective.
        keep_coefs : bool
            Whether the results hold the coefficients of all iterations.

        Raises
        ------
        InvalidArgumentError
            ``terms.positive``, or a penalty that only counts nonzeros.

        Notes
        -----
        With exact zeros, a coefficient is set to zero once its keep probability is below 0.1, zero is the global
        minimizer of its own scalar problem, and the objective does not rise; a zero that violates that rule is let in
        again. Without these two rules zeros would only be reached in the limit, and never left.
        """
        results: list[Reweighted] = []
        point = None if start is None else self.scaled(*start)
        for alpha in alphas:
            run = self.run(terms, float(alpha), newton=newton, keep_coefs=keep_coefs)
            if point is None:
                point = run.first()
            results.append(run.descend(*point))
            following = None if start is None else self.scaled(*start)
            point = following if makes_zeros(terms.penalty) else (run.u, run.b)
        return results

    def run(
        self, terms: Terms, alpha: float, *, newton: bool = True, keep_coefs: bool = False, face: str = "reweighted"
    ) -> RidgeDescent:
        """One descent that has not begun; raises like `solve`."""
        if terms.positive:
            raise InvalidArgumentError(
                f"positive=True asks for bounds, which solver={face!r} does not know; use solver='auto' with a "
                "penalty that makes exact zeros, or positive=False"
            )
        self.design.require_range(standardize=terms.standardize)
        probe = np.array([1e-150, 1.0, 1e150])
        if not np.asarray(terms.penalty.slope(probe)).any():
            raise InvalidArgumentError(
                f"{terms.penalty!r} is flat but at zero, so that solver={face!r} never moves; use solver='auto'"
            )
        return RidgeDescent(self, self._bound(terms, alpha), terms, newton, keep_coefs)

    def scaled(self, coef: Floats, intercept: float) -> tuple[Floats, float]:
        u = np.where(self.usable, np.asarray(coef, dtype=np.float64) / self.y_scale * self.design.scale, 0.0)
        return u, float(intercept) / self.y_scale + float((self.design.center + self.design.shift) @ u)

    def _bound(self, terms: Terms, alpha: float) -> RidgeBound:
        with np.errstate(over="ignore", under="ignore"):
            unit = self.y_scale * np.sqrt(self.design.spread) if terms.standardize else self.y_scale / self.design.scale
            height = alpha
            if terms.width == "alpha":
                unit, height = unit / alpha, alpha * alpha
            unit = np.where(self.usable, unit, 1.0)
            weight = np.where(self.usable, height / self.y_scale / self.y_scale * terms.factor, 0.0)
        code = encode(terms.penalty) if makes_zeros(terms.penalty) else None
        return RidgeBound(terms, weight, unit, self.usable, code)


def reweighted_solutions(
    loss: str,
    X: Any,
    y: Floats,
    weights: Floats,
    terms: Terms,
    alphas: Floats,
    *,
    start: tuple[Floats, float] | None = None,
    delta: float = 1.35,
) -> list[Reweighted]:
    """Solutions of ``mean loss + alpha sum_j factor_j Omega(w_j)`` by reweighting; see `ReweightedProblem.solve`.

    Parameters
    ----------
    loss : {"squared", "huber", "poisson", "logistic"}
    X : dense array or CSC matrix of shape (n, p)
    y, weights : arrays of shape (n,)
        ``weights`` at least 0, of sum 1.
    terms : Terms
    alphas : array
    start : (array of shape (p,), float), optional
        Coefficients and intercept.
    delta : float
        Residual from which the Huber loss is linear.
    """
    problem = ReweightedProblem(loss, X, y, weights, fit_intercept=terms.fit_intercept, delta=delta)
    return problem.solve(terms, alphas, start=start)
