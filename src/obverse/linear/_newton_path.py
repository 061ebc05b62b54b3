"""Paths of problems that are solved by proximal Newton steps: blocks of strengths, checked by one product with X."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ._column_store import ColumnStore
from ._descent import screen
from ._design import Design
from ._prox_newton import Point, ProxNewton, Snapshot
from ._scalar import Code, entries, slope
from ._solution import Solution
from ._terms import Terms
from ._training import TrainingColumns
from ._working_set import Folds

__all__ = ["NewtonProblem", "largest_alpha", "solve_folds"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Strengths that are solved before the other columns are looked at.
_BLOCK = 4
_BOUNDS = 16
# Share of the tolerance that working sets are solved to; the rest is for rounding.
_INNER = 0.5
# Zeros that may join at once, and how often, for one block.
_JOIN = 500
_ROUNDS = 60
_NONE = np.zeros(1)


class NewtonProblem(Protocol):
    """What a path needs to know of a problem."""

    design: Design
    folds: Folds
    training: TrainingColumns
    store: ColumnStore
    outputs: int
    losses: Any  # one likelihood for each fold
    null: Floats  # predictor of zero coefficients without intercepts
    coef_scale: float  # of coefficients, in powers of two

    @property
    def objective_scale(self) -> tuple[float, float]:
        """Two factors that bring a scaled loss to the unit of the objective."""

    def solution(
        self, number: int, coordinates: Integers, snapshot: Snapshot, alpha: float, converged: bool, terms: Terms
    ) -> Solution:
        """A point of a fold's path in the units of the data."""


class _FoldPath:
    """The path of one fold."""

    def __init__(self, problem: NewtonProblem, number: int, terms: Terms) -> None:
        self.problem, self.number, self.terms = problem, number, terms
        self.loss = problem.losses[number]
        outputs = problem.outputs
        self.unit = np.repeat(problem.training.units(number, terms, problem.coef_scale), outputs)
        self.factor = np.repeat(terms.factor, outputs)
        self.spread = np.repeat(problem.training.spread(number), outputs)
        self.newton = ProxNewton(self.loss, terms, self.unit, self.factor, self.spread)
        usable = (self.spread > 0) & (self.factor > 0) & (self.unit > 0)
        ratio = np.log(self.factor[usable]) + 2 * np.log(self.unit[usable]) - np.log(self.spread[usable])
        self.span = (float(ratio.min()), float(ratio.max()) + 1e-12) if ratio.size else (0.0, 0.0)
        self.solutions: list[Solution] = []
        self.ended = False
        self.degenerate = self.loss.is_degenerate()
        self.marked = np.zeros(self.unit.size, np.bool_)
        if self.degenerate:
            return
        self.newton.begin(problem.null)
        self.gradient = self.correlate([self.newton.point])[0]
        self.scale = float(np.abs(self.gradient[self.spread > 0]).max(initial=0.0))
        self.newton.admit(np.flatnonzero((self.factor == 0) & (self.spread > 0)))

    def correlate(self, points: list[Point]) -> Floats:
        """Negative gradients by all coordinates, one row for each point."""
        design, outputs = self.problem.design, self.problem.outputs
        if len(points) == 1 and outputs == 1:
            return design.correlate(points[0].residuals)[None]
        parts = [point.residuals.reshape(design.rows, outputs) for point in points]
        products = design.correlate(np.concatenate(parts, axis=1))
        shaped = products.reshape(design.columns, len(points), outputs)
        return np.ascontiguousarray(shaped.transpose(1, 0, 2)).reshape(len(points), -1)

    def _screen(self, code: Code, strength: float, gradient: Floats, point: Point) -> float:
        """Mark the zeros outside the working set that would leave."""
        curvature = self.newton.curvature(point)
        low, high = self.span
        least, most = point.mean.min(), point.mean.max()
        steps = (
            strength * np.exp(np.linspace(low - np.log(most), high - np.log(least), _BOUNDS)) if least > 0 else _NONE
        )
        return float(
            screen(
                code, strength, gradient, curvature, self.factor, self.unit, self.terms.positive, self.newton.inside,
                steps, entries(code, steps) * (1 - 1e-9), self.marked,
            )
        )  # fmt: skip

    def _join(self, marked: npt.NDArray[np.bool_], gradient: Floats) -> None:
        new = np.flatnonzero(marked & ~self.newton.inside)
        if new.size > _JOIN:
            reach = np.abs(gradient[new]) / np.sqrt(self.spread[new])
            new = np.sort(new[np.argpartition(-reach, _JOIN)[:_JOIN]])
        self.newton.admit(new)

    def block(self, code: Any, parameters: Floats, strengths: Floats, alphas: Floats) -> None:
        """Solve for a block of descending strengths."""
        if self.degenerate:
            self._give_up(alphas)
            return
        newton, terms = self.newton, self.terms
        count, done = strengths.size, 0
        most = terms.max_features if terms.max_features is not None else self.unit.size
        tolerance = terms.tol * self.scale
        refused = np.zeros((count, self.unit.size), np.bool_)
        self._screen((code[0], parameters[-1], *code[2:]), strengths[-1], self.gradient, newton.point)
        self._join(self.marked, self.gradient)
        rounds = 0
        while done < count and not self.ended:
            rounds += 1
            points: list[Snapshot] = []
            for b in range(done, count):
                here = (code[0], parameters[b], *code[2:])
                violation = newton.solve(here, strengths[b], _INNER * tolerance, refused[b])
                points.append(newton.snapshot(violation))
                if self._features(points[-1]) > most:
                    break
            gradients = self.correlate([snapshot.point for snapshot in points])
            more = np.zeros(self.unit.size, np.bool_)
            accepted = 0
            for b, point in enumerate(points):
                here = (code[0], parameters[done + b], *code[2:])
                outside = self._screen(here, strengths[done + b], gradients[b], point.point)
                if accepted == b and (not self.marked.any() or rounds >= _ROUNDS):
                    point.violation = max(point.violation, outside)
                    self._accept(point, here, strengths[done + b], alphas[done + b])
                    accepted += 1
                else:
                    more |= self.marked
            if accepted and self._features(points[accepted - 1]) > most:
                self.ended = True
            place = min(accepted, len(points) - 1)
            newton.restore(points[place])
            self.gradient = gradients[place]
            self._join(more, self.gradient)
            done += accepted

    def _features(self, point: Snapshot) -> int:
        nonzero = self.newton.coordinates[: point.u.size][point.u != 0]
        return int(np.unique(nonzero // self.problem.outputs).size)

    def _accept(self, point: Snapshot, code: Code, strength: float, alpha: float) -> None:
        newton = self.newton
        point.violation = point.violation / self.scale if self.scale > 0 else 0.0
        size = point.u.size
        u, factor, unit = point.u, newton.factor[:size], newton.unit[:size]
        converged = point.violation <= self.terms.tol and self.loss.has_best_intercept()
        if converged and u.any() and self.loss.is_separated(point.point.predictor):
            # Where the penalty is flat as well, larger coefficients are better without end.
            pushes = [
                factor[j] > 0 and strength * factor[j] * slope(code, unit[j] * abs(u[j])) > 0 for j in np.flatnonzero(u)
            ]
            converged = any(pushes)
        self.solutions.append(
            self.problem.solution(self.number, newton.coordinates[:size], point, alpha, bool(converged), self.terms)
        )

    def _give_up(self, alphas: Floats) -> None:
        """Solutions of data whose intercept has no best value."""
        limit = self.loss.limit()
        for alpha in alphas:
            point = Snapshot(np.zeros(0), limit.intercept, limit, 0.0)
            self.solutions.append(
                self.problem.solution(self.number, np.zeros(0, np.int64), point, alpha, False, self.terms)
            )


def solve_folds(
    problem: NewtonProblem,
    terms: Terms,
    alphas: Floats,
    stop: Callable[[list[list[Solution]]], bool] | None,
) -> list[list[Solution]]:
    """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
    code, parameters = terms.codes(alphas)
    first, second = problem.objective_scale
    strengths = alphas / first / second
    paths = [_FoldPath(problem, number, terms) for number in range(problem.folds.count)]
    for start in range(0, alphas.size, _BLOCK):
        piece = slice(start, min(start + _BLOCK, alphas.size))
        for path in paths:
            if not path.ended:
                path.block(code, parameters[piece], strengths[piece], alphas[piece])
        if all(path.ended for path in paths) or (stop is not None and stop([path.solutions for path in paths])):
            break
    return [path.solutions for path in paths]


def largest_alpha(problem: NewtonProblem, terms: Terms) -> float:
    """Smallest alpha at which all penalized coefficients of the last fold are zero.

    Features without penalty are fitted first.
    """
    path = _FoldPath(problem, problem.folds.count - 1, terms)
    if path.degenerate:
        return 0.0
    newton = path.newton
    if newton.u.size:
        code, _ = terms.codes(np.ones(1))
        newton.solve(code, 1.0, 0.01 * terms.tol * path.scale, np.zeros(path.unit.size, np.bool_))
        path.gradient = path.correlate([newton.point])[0]
    gram, unit, factor, gradient = newton.curvature(newton.point), path.unit, path.factor, path.gradient
    usable = (gram > 0) & (factor > 0) & ((gradient > 0) if terms.positive else (gradient != 0)) & (unit > 0)
    if not usable.any():
        return 0.0
    gram, unit, gradient, factor = gram[usable], unit[usable], np.abs(gradient[usable]), factor[usable]
    first, second = problem.objective_scale
    z = gradient / gram * unit
    step = factor / gram * unit * unit / first / second
    return float(terms.leaving(z, step).max())
