"""The descent of the reweighted face: ridge problems, Newton's steps on the same matrices, and rules on zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ._descent import certify
from ._ridge_bound import RidgeBound
from ._solution import Solution
from ._terms import Terms
from ._tikhonov import forward

if TYPE_CHECKING:
    from ._reweighted import ReweightedProblem

__all__ = ["Reweighted", "RidgeDescent"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Ridge of the first solution where the penalty has none of its own at zero, relative to the columns' mean squares.
_START = 1e-2
_FIRST_STEPS, _SHORTEST = 4, 1e-6
# A coefficient may be taken for zero once its keep probability is below this.
_KEEP = 0.1
# Newton's step is tried once the violation on the support is below this share of the largest gradient at zero, or after
# so many ridge problems.
_NEAR, _LATE = 0.1, 20
# Shares of the ridge in Newton's step, tried in turn, and the proximal term that goes with them.
_SHARES, _LITTLE = (0.0, 0.05, 0.2, 0.5), 1e-8
# Shares of the way that zeros are let in by, for losses that are not quadratic.
_ENTRIES = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3)
# How much of what its slope promises a step must bring, and how often it is halved for that.
_SUFFICIENT = 1e-4
_HALVINGS, _NEWTON_HALVINGS = 40, 5
_SHIFTS = 6
_ROUNDING = 4e-16


@dataclass(frozen=True)
class Reweighted:
    """A solution and how it was reached.

    Attributes
    ----------
    solution : Solution
    iterations : int
        Weighted ridge problems that were solved.
    history : array of shape (iterations + 1,)
        Objective before the first and after every one, in the units of ``solution.objective``; nonincreasing.
    coefs : array of shape (iterations + 1, p), or None
        The coefficients at the same times, if they were asked for.
    """

    solution: Solution
    iterations: int
    history: Floats
    coefs: Floats | None = None


class RidgeDescent:
    """One descent of a problem, and where it stands."""

    def __init__(self, problem: ReweightedProblem, parts: RidgeBound, terms: Terms, newton: bool, keep: bool) -> None:
        self.problem, self.parts, self.terms, self.newton, self.keep = problem, parts, terms, newton, keep
        self.design, self.loss = problem.design, problem.loss
        self.history: list[float] = []
        self.coefs: list[Floats] = []

    # ------------------------------------------------------------------ the objective and its derivatives
    def _fitted(self, u: Floats, b: float) -> Floats:
        index = np.flatnonzero(u)
        return forward(self.design, index, u[index]) + b

    def forward(self, u: Floats) -> Floats:
        """Centered and scaled columns times u."""
        return self._fitted(u, 0.0)

    def _objective(self, u: Floats, fitted: Floats) -> float:
        return self._mean_loss(fitted) + self.parts.value(u)

    def _mean_loss(self, fitted: Floats) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.problem.weights @ self.loss.value(fitted))

    def place(self, u: Floats, b: float, fitted: Floats | None = None) -> None:
        """Stand at a point: fitted values, objective, gradient, weights of the rows and columns."""
        self.u, self.b = u, b
        self.fitted = self._fitted(u, b) if fitted is None else fitted
        self.objective = self._objective(u, self.fitted)
        self.rows = self.problem.weights * self.loss.derivative(self.fitted)
        self.c = self.problem.weights * self.loss.curvature(self.fitted)
        self.g = -self.design.correlate(self.rows)
        self.gram = self.design.spread if self.loss.is_quadratic else self.design.squares(self.c)

    def violations(self) -> tuple[float, float]:
        """Largest on the support, the intercept included, and largest at zeros."""
        usable = self.problem.usable
        inside = abs(float(self.rows.sum())) if self.problem.fit_intercept else 0.0
        residual = np.abs(self.g - self.parts.slope(self.u))[usable & ((self.u != 0) | (self.parts.weight == 0))]
        inside = max(inside, float(residual.max(initial=0.0)))
        zero = usable & (self.u == 0) & (self.parts.weight > 0)
        if self.parts.code is None:
            return inside, float(np.abs(self.g[zero]).max(initial=0.0))
        outside = certify(
            self.parts.code, 1.0, self.u[zero], self.g[zero], self.gram[zero], self.parts.weight[zero],
            self.parts.unit[zero], False,
        )  # fmt: skip
        return inside, float(outside)

    # ------------------------------------------------------------------ starting
    def first(self) -> tuple[Floats, float]:
        """Zero where the penalty is a ridge there, else a ridge solution."""
        with np.errstate(divide="ignore"):
            if self.parts.code is None and float(self.terms.penalty.eta(np.float64(0.0))) > 0:
                return np.zeros(self.design.columns), self.problem.null
        index = np.flatnonzero(self.problem.usable)
        u, b = np.zeros(self.design.columns), self.problem.null
        for _ in range(1 if self.loss.is_quadratic else _FIRST_STEPS):
            self.place(u, b)
            t = _START * self.design.spread
            change = self._solved(index, t * u, t, self.c)
            if change is None:
                break
            d, shift = change
            before, length = self._mean_loss(self.fitted), 1.0
            while length > _SHORTEST and not self._mean_loss(self._fitted(u + length * d, b + length * shift)) < before:
                length /= 2
            u, b = u + length * d, b + length * shift
        # A coefficient of exactly zero would stay there.
        least = 1e-8 * float(np.abs(u).max(initial=0.0))
        return np.where(self.problem.usable & (np.abs(u) < least), least, u), b

    # ------------------------------------------------------------------ steps
    def _solved(self, index: Integers, push: Floats, t: Floats, c: Floats) -> tuple[Floats, float] | None:
        found = self.problem.ridge.solve(index, c, self.rows, push[index], t[index], self.gram[index])
        if found is None:
            return None
        d = np.zeros(self.design.columns)
        d[index] = found[0]
        return d, found[1]

    def _go(self, change: tuple[Floats, float] | None, halvings: int) -> bool:
        """Go along a change as far as the objective falls as its slope promises; whether there was such a way."""
        if change is None:
            return False
        d, shift = change
        along = self._fitted(d, shift)
        promised = min(_SUFFICIENT * float(self.rows @ along + self.parts.slope(self.u) @ d), 0.0)
        length = 1.0
        for _ in range(halvings + 1):
            u, b = self.u + length * d, self.b + length * shift
            fitted = self._fitted(u, b)
            objective = self._objective(u, fitted)
            if objective <= self.objective + length * promised + _ROUNDING * abs(self.objective):
                self.place(u, b, fitted)
                return True
            length /= 2
        return False

    def _reweight(self, active: Integers) -> bool:
        """Minimize the bound."""
        t = self.parts.ridge(self.u)
        push = self.parts.slope(self.u)
        added = 0.0
        for _ in range(_SHIFTS):
            # A proximal term where columns depend on each other and nothing holds them.
            change = self._solved(active, push, t + added * self.gram, self.c)
            if change is not None:
                return self._go(change, _HALVINGS)
            added = max(1e-10, 100 * added)
        return False

    def _finish(self, active: Integers) -> bool:
        """Newton's step, between it and the ridge's where the objective is not convex."""
        bend, push = self.parts.curvature(self.u), self.parts.slope(self.u)
        if not np.isfinite(bend[active]).all():
            return False
        c = self.problem.weights * self.loss.second(self.fitted)
        ridge = self.parts.ridge(self.u)
        gap = np.where(np.isfinite(ridge), ridge, 0.0) - np.where(np.isfinite(ridge), bend, 0.0)
        change = None
        for share in _SHARES:
            # Where the objective is not convex, with as much of the ridge as makes it so; where it is flat, a little
            # of a proximal term.
            change = self._solved(active, push, bend + share * (gap + _LITTLE * self.gram), c)
            if change is not None:
                break
        if change is None or self.parts.code is None:
            return self._go(change, _NEWTON_HALVINGS)
        # The penalty is smooth up to zero only: what would change its sign stops there, or all stops with the first.
        d, shift = change
        crossed = np.flatnonzero((self.u * (self.u + d) < 0) & (self.parts.weight > 0))
        if crossed.size == 0:
            return self._go(change, _NEWTON_HALVINGS)
        reach = np.abs(self.u[crossed] / d[crossed])
        first = float(reach.min())
        for length, stopped in ((1.0, crossed), (first, crossed[reach == first])):
            u, b = self.u + length * d, self.b + length * shift
            u[stopped] = 0.0
            fitted = self._fitted(u, b)
            if self._objective(u, fitted) < self.objective:
                self.place(u, b, fitted)
                return True
        return False

    def _prune(self) -> bool:
        """Set to zero the coefficients that go there; whether there were any."""
        ridge = self.parts.ridge(self.u)
        candidates = np.flatnonzero((self.u != 0) & (self.gram <= _KEEP * (self.gram + ridge)))
        if candidates.size:
            # The rule on zeros, on all columns at once only where some qualify.
            candidates = candidates[self.parts.zeroed(self.u, self.g, self.gram)[candidates]]
        candidates = candidates[np.argsort(np.abs(self.u[candidates]) * self.gram[candidates])]
        while candidates.size:
            u = self.u.copy()
            u[candidates] = 0.0
            fitted = self._fitted(u, self.b)
            if self._objective(u, fitted) <= self.objective:
                self.place(u, self.b, fitted)
                return True
            candidates = candidates[: candidates.size // 2]
        return False

    def enter(self) -> bool:
        """Let zeros in that violate the rule on zeros: all of them, or fewer if that raises the objective."""
        moved = np.where((self.u == 0) & (self.parts.weight > 0), self.parts.moved(self.u, self.g, self.gram), 0.0)
        order = np.argsort(-np.abs(moved) * self.gram)
        # Shorter ways where the loss bends more than at zero.
        for part in (1.0,) if self.loss.is_quadratic else _ENTRIES:
            count = int(np.count_nonzero(moved))
            while count:
                u = self.u.copy()
                u[order[:count]] = part * moved[order[:count]]
                fitted = self._fitted(u, self.b)
                if self._objective(u, fitted) < self.objective:
                    self.place(u, self.b, fitted)
                    return True
                count //= 2
        return False

    # ------------------------------------------------------------------ the loop
    def descend(self, u: Floats, b: float) -> Reweighted:
        """From these scaled coefficients on."""
        exact = self.parts.code is not None
        if not exact:
            # No zero is a solution here, but where eta vanishes none could be left.
            stuck = self.problem.usable & (u == 0) & np.isinf(self.parts.ridge(u))
            u = np.where(stuck, 1e-8 * float(np.abs(u).max(initial=0.0)) or 1e-8, u)
        self.place(u, b)
        self.note()
        scale, tolerance = self.problem.scale, self.terms.tol * self.problem.scale
        iterations = 0
        while True:
            while exact and self._prune():
                pass
            inside, outside = self.violations()
            if max(inside, outside) <= tolerance or iterations >= self.terms.max_iter:
                break
            if exact and inside <= max(tolerance, 0.1 * outside) and not self.enter() and inside <= tolerance:
                break
            locked = np.zeros(self.u.size, np.bool_) if not exact else (self.u == 0) & (self.parts.weight > 0)
            active = np.flatnonzero(self.problem.usable & ~locked)
            iterations += 1
            near = self.newton and (inside <= _NEAR * scale or iterations > _LATE)
            stepped = (near and self._finish(active)) or self._reweight(active)
            self.note()
            if not stepped:
                break
        return Reweighted(
            self.result(), iterations, np.array(self.history), np.array(self.coefs) if self.keep else None
        )

    def note(self) -> None:
        square = self.problem.y_scale * self.problem.y_scale
        self.history.append(self.objective * square)
        if self.keep:
            self.coefs.append(self.u * self.problem.y_scale / self.design.scale)

    def violation(self) -> float:
        """Of the first-order conditions, relative to the largest gradient at zero."""
        return max(self.violations()) / self.problem.scale if self.problem.scale > 0 else 0.0

    def result(self) -> Solution:
        """Where it stands, in the units of the data."""
        violation = self.violation()
        index = np.flatnonzero(self.u).astype(np.int64)
        size = self.problem.y_scale
        center = float(self.design.origin(index) @ self.u[index])
        return Solution(
            index=index,
            coef=self.u[index] * size / self.design.scale[index],
            intercept=size * (self.b - center) if self.problem.fit_intercept else 0.0,
            objective=self.objective * size * size,
            violation=violation,
            converged=bool(violation <= self.terms.tol),
        )
