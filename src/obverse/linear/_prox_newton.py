"""Proximal Newton steps on a working set, for losses of a linear predictor; one problem along its path.

Each step models the loss by a quadratic about the present predictor, minimizes model plus penalty by coordinate
descent on the Gram matrix of the columns that count, and goes only as far as the objective itself falls. The model may
be old; the gradient never is. Where it overshoots, a quadratic that lies above the loss takes its place.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from ._column_store import ColumnStore
from ._descent import _newton, descend
from ._scalar import Code, entry, prox, slope, value
from ._terms import Terms

__all__ = ["Likelihood", "ProxNewton", "Quadratic", "Snapshot"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Share of a violation that a model is solved to.
_FORCING = 0.05
# Share of the model's promise that the objective must keep.
_SUFFICIENT = 0.05
_EPOCHS = 200
_STEPS = 200
_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
_SINGLES = 8
_LOCAL = 4
_ALIGNMENTS = 10
# How far curvatures may drift, and how slowly violations may fall, until the model is made anew.
_DRIFT = 0.25
_CONTRACTION = 0.3
# Gram matrices of so many multiplications are made anew for every step.
_CHEAP = 1e6


@njit(cache=True, nogil=True)
def _certify(
    code: Code,
    strength: float,
    u: Any,
    g: Any,
    curvature: Any,
    factor: Any,
    unit: Any,
    positive: bool,
    refused: Any,
    wanted: Any,
) -> float:
    """Largest violation; ``wanted`` marks the nonzero coefficients (1) and the zeros that would leave (2).

    A zero leaves where the gradient is beyond the slope of the penalty at zero. Where the penalty jumps it leaves if
    it is not the minimizer of its own scalar problem (3), unless that was tried and ``refused``.
    """
    largest = 0.0
    parameters = code[1]
    width, height = parameters[2], parameters[3]
    at_zero = parameters[4] * (height / width)
    limit = parameters[5]
    for j in range(u.size):
        weight = strength * factor[j]
        wanted[j] = 0
        if u[j] != 0:
            push = weight * unit[j] * slope(code, unit[j] * abs(u[j])) if weight > 0 else 0.0
            largest = max(largest, abs(g[j] - (push if u[j] > 0 else -push)))
            wanted[j] = 1
            continue
        a = g[j] if positive else abs(g[j])
        if a <= 0 or curvature[j] <= 0:
            continue
        first = weight * unit[j] * at_zero if weight > 0 else 0.0
        if a > first:
            wanted[j] = 2
            largest = max(largest, a - first)
        elif not refused[j]:
            step = weight * unit[j] * unit[j] / curvature[j]
            if step * (height / width / width) > limit and prox(code, a / curvature[j] * unit[j], step) > 0:
                wanted[j] = 3
                largest = max(largest, a - entry(code, step) / unit[j] * curvature[j])
    return largest


@njit(cache=True, nogil=True)
def _penalty(code: Code, strength: float, u: Any, factor: Any, unit: Any) -> float:
    result = 0.0
    for j in range(u.size):
        if u[j] != 0 and factor[j] > 0:
            result += strength * factor[j] * value(code, unit[j] * abs(u[j]))
    return result


class Point:
    """A loss at a linear predictor.

    Attributes
    ----------
    predictor, residuals, bends : arrays of shape (n,) or (n, outputs)
        The predictor with its best intercepts; minus the gradient by it; curvatures.
    intercept : array of shape () or (outputs,)
        What the evaluation added to the predictor.
    loss : float
    mean : array of shape (outputs,)
        Sums of the curvatures.
    """

    __slots__ = ("bends", "intercept", "loss", "mean", "predictor", "residuals")

    def __init__(
        self, predictor: Floats, intercept: Floats, loss: float, residuals: Floats, bends: Floats, mean: Floats
    ) -> None:
        self.predictor, self.intercept, self.loss = predictor, intercept, loss
        self.residuals, self.bends, self.mean = residuals, bends, mean


class Quadratic(Protocol):
    """A quadratic model of a loss with the intercept eliminated, for coordinates that join one after another."""

    gram: Floats  # its leading rows and columns, one for each coordinate

    def drift(self, point: Point) -> float:
        """How far curvatures have moved since, relative to their sum."""

    def extend(self, coordinates: Integers) -> None:
        """Take in more coordinates."""


class Likelihood(Protocol):
    """A loss over the rows of one problem; a coordinate is ``feature * outputs + output``."""

    store: ColumnStore
    outputs: int
    levels: int  # models from the boldest, 0, to the most cautious

    def evaluate(self, predictor: Floats) -> Point:
        """Add the intercepts that minimize the loss to the predictor, in place, and evaluate the loss."""

    def centered(self, direction: Floats, point: Point) -> tuple[Floats, Floats]:
        """A direction with the change of the intercepts that the model about the point expects, and that change."""

    def quadratic(self, point: Point, level: int) -> Quadratic:
        """A model about the point."""

    def product(self, coordinates: Integers, coefficients: Floats) -> Floats:
        """What coefficients add to the predictor."""

    def correlate(self, coordinates: Integers, residuals: Floats) -> Floats:
        """Negative gradient by coordinates in the store."""


class Snapshot:
    """A solution on the working set: coefficients, intercepts, the loss there, and how much is violated."""

    def __init__(self, u: Floats, offset: Floats, point: Point, violation: float) -> None:
        self.u, self.offset, self.point, self.violation = u, offset, point, violation


class ProxNewton:
    """One problem: its working set, coefficients, linear predictor and model.

    Parameters
    ----------
    likelihood : Likelihood
    terms : Terms
    unit, factor, spread : arrays of shape (coordinates,)
        Of all coordinates; ``spread`` is the mean square of the column, 0 where it is constant.
    """

    def __init__(self, likelihood: Likelihood, terms: Terms, unit: Floats, factor: Floats, spread: Floats) -> None:
        self.likelihood, self.terms = likelihood, terms
        self.all_unit, self.all_factor, self.spread = unit, factor, spread
        self.convex = terms.penalty.curvature_limit == np.inf
        self.inside = np.zeros(unit.size, np.bool_)
        self.coordinates: Integers = np.zeros(0, np.int64)
        self.u, self.g = np.zeros(0), np.zeros(0)
        self.unit, self.factor = np.zeros(0), np.zeros(0)
        self.point: Point
        self.offset: Floats = np.zeros(())
        self.value = 0.0
        self._model: Quadratic | None = None
        self._members: Integers = np.zeros(0, np.int64)  # positions in the working set
        self._fresh = False
        self._level = 0
        self._nearby = False
        self._penalty: tuple[Code, float] | None = None

    # ------------------------------------------------------------------ the working set
    def begin(self, predictor: Floats) -> None:
        """Start from zero coefficients, where the predictor is this but for intercepts."""
        self._null = predictor
        self.point = self.likelihood.evaluate(predictor.copy())
        self.offset = self.point.intercept

    def admit(self, coordinates: Integers) -> None:
        """Take coordinates into the working set."""
        if coordinates.size == 0:
            return
        self.likelihood.store.require(coordinates // self.likelihood.outputs)
        self.inside[coordinates] = True
        self.coordinates = np.concatenate([self.coordinates, coordinates])
        self.u = np.concatenate([self.u, np.zeros(coordinates.size)])
        self.unit, self.factor = self.all_unit[self.coordinates], self.all_factor[self.coordinates]
        self._slope()

    def snapshot(self, violation: float) -> Snapshot:
        return Snapshot(self.u.copy(), self.offset, self.point, violation)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a point of the path."""
        self.u = np.concatenate([snapshot.u, np.zeros(self.coordinates.size - snapshot.u.size)])
        self.point, self.offset = snapshot.point, snapshot.offset
        self._slope()

    def curvature(self, point: Point) -> Floats:
        """Curvature of the loss along every coordinate, as if it did not depend on the row."""
        return (self.spread.reshape(-1, point.mean.size) * point.mean).ravel()

    def _slope(self) -> None:
        self.g = self.likelihood.correlate(self.coordinates, self.point.residuals)

    # ------------------------------------------------------------------ solving
    def solve(self, code: Code, strength: float, tolerance: float, refused: npt.NDArray[np.bool_]) -> float:
        """Solve on the working set; the violation that is left.

        ``refused``, over all coordinates, is written to: zeros that a model would have leave, and the loss would not.
        """
        self._penalty = (code, strength)
        self._refresh()
        self._level, held, alignments = 0, 0, 0
        self._nearby = False
        self.value = self.point.loss + _penalty(code, strength, self.u, self.factor, self.unit)
        outputs, spread = self.likelihood.outputs, self.spread[self.coordinates]
        wanted = np.zeros(self.u.size, np.int64)
        last = np.inf
        violation = 0.0
        for _ in range(min(_STEPS, self.terms.max_iter)):
            if self.u.size == 0:
                break
            curvature = spread * (self.point.mean[0] if outputs == 1 else self.point.mean[self.coordinates % outputs])
            violation = _certify(
                code, strength, self.u, self.g, curvature, self.factor, self.unit, self.terms.positive,
                refused[self.coordinates], wanted,
            )  # fmt: skip
            if violation <= tolerance:
                if outputs > 1 and alignments < _ALIGNMENTS and self._align():
                    alignments += 1
                    last = np.inf
                    continue
                break
            if violation > _CONTRACTION * last and not self._fresh:
                self._model = None
            last = violation
            newcomers = np.flatnonzero(wanted == 3)
            self._nearby &= not (wanted > 1).any()
            if self._step(np.flatnonzero(wanted), max(_FORCING * violation, 0.3 * tolerance), newcomers):
                refused[self.coordinates[newcomers[self.u[newcomers] == 0]]] = True
                held -= 1
                if self._level and held <= 0:
                    self._level, self._model = 0, None
            elif newcomers.size:
                self._one_by_one(newcomers, curvature, refused)
            elif not self._fresh:
                self._model = None
            elif self._level < self.likelihood.levels:
                self._level, held, self._model = self._level + 1, 3, None
            else:
                break
        return violation

    def _refresh(self) -> None:
        """The predictor anew from the coefficients, without the rounding of its updates."""
        nonzero = np.flatnonzero(self.u)
        predictor = self._null + self.offset
        if nonzero.size:
            predictor += self.likelihood.product(self.coordinates[nonzero], self.u[nonzero])
        self.point = self.likelihood.evaluate(predictor)
        self.offset = self.offset + self.point.intercept
        self._slope()

    def _align(self) -> bool:
        """Move the coefficients of features that all outputs use by a constant, which only the penalty sees.

        The best constant is one of them, so that one of them becomes zero.
        """
        assert self._penalty is not None
        code, strength = self._penalty
        outputs = self.likelihood.outputs
        on = np.flatnonzero(self.u)
        features, first, counts = np.unique(self.coordinates[on] // outputs, return_index=True, return_counts=True)
        moved = False
        for feature, start in zip(features[counts == outputs], first[counts == outputs], strict=True):
            if self.factor[on[start]] == 0:
                continue
            row = on[self.coordinates[on] // outputs == feature]
            values, unit, factor = self.u[row], self.unit[row], self.factor[row]
            candidates = [values.min()] if self.terms.positive else values
            costs = np.array([_penalty(code, strength, values - value, factor, unit) for value in candidates])
            best = int(costs.argmin())
            now = _penalty(code, strength, values, factor, unit)
            if costs[best] <= now * (1 + 1e-12):
                self.u[row] = values - candidates[best]
                moved = True
        if moved:
            self._refresh()
            self.value = self.point.loss + _penalty(code, strength, self.u, self.factor, self.unit)
        return moved

    def _quadratic(self, wanted: Integers) -> Quadratic:
        """The model, with at least the wanted members of the working set."""
        model = self._model
        if (
            model is not None
            and not self._fresh
            and model.drift(self.point)
            > (_DRIFT if self._members.size**2 * self.point.residuals.size > _CHEAP else 0.0)
        ):
            model = None
        if model is None:
            model = self.likelihood.quadratic(self.point, self._level)
            self._members = wanted
            self._fresh = True
            model.extend(self.coordinates[wanted])
        else:
            new = np.setdiff1d(wanted, self._members, assume_unique=True)
            if new.size:
                self._members = np.concatenate([self._members, new])
                model.extend(self.coordinates[new])
        self._model = model
        return model

    def _step(self, wanted: Integers, tolerance: float, newcomers: Integers) -> bool:
        """One step of the model; whether the objective fell."""
        assert self._penalty is not None
        code, strength = self._penalty
        gram = self._quadratic(wanted).gram
        members = self._members
        before, slope_before = self.u[members], self.g[members]
        unit, factor = self.unit[members], self.factor[members]
        weight = strength * factor
        most = min(_EPOCHS, self.terms.max_iter)
        # Where the model is not convex it may leap to where it no longer holds; its local minimum is nearer.
        for local in (False, True) if not self._nearby else (True, False):
            if local and (self.convex or newcomers.size):
                continue
            u, g = before.copy(), slope_before.copy()
            if local:
                for _ in range(_LOCAL):
                    if not _newton(code, gram, u.size, u, g, weight, unit, self.terms.positive, tolerance):
                        break
            else:
                descend(code, gram, u.size, u, g, weight, unit, self.terms.positive, tolerance, most)
            change = u - before
            moved = np.flatnonzero(change)
            if moved.size == 0 or not np.isfinite(change).all():
                continue
            direction = self.likelihood.product(self.coordinates[members[moved]], change[moved])
            rise = _penalty(code, strength, u, factor, unit) - _penalty(code, strength, before, factor, unit)
            with np.errstate(over="ignore", invalid="ignore"):  # far out, where no step is taken
                promise = float(change @ (slope_before + g)) / 2 - rise
            lengths = _LENGTHS[:1] if newcomers.size else _LENGTHS if local or self.convex else _LENGTHS[:3]
            for length in lengths:
                ahead = before + length * change if length < 1 else u
                if self._move(members, ahead, length * direction, length * promise):
                    self._nearby = local
                    return True
        return False

    def _move(self, members: Integers, u: Floats, direction: Floats, promise: float) -> bool:
        """Go to new coefficients if the objective falls by a share of what was promised."""
        assert self._penalty is not None
        code, strength = self._penalty
        if not np.isfinite(direction).all():
            return False
        direction, shift = self.likelihood.centered(direction, self.point)
        point = self.likelihood.evaluate(self.point.predictor + direction)
        coefficients = self.u.copy()
        coefficients[members] = u
        objective = point.loss + _penalty(code, strength, coefficients, self.factor, self.unit)
        noise = 1e-14 * (abs(self.point.loss) + abs(self.value))
        # What is lost in rounding cannot be asked for.
        needed = _SUFFICIENT * promise if promise > 10 * noise else -noise
        if not self.value - objective >= needed:
            return False
        self._fresh = False
        self.u, self.point, self.value = coefficients, point, objective
        self.offset = self.offset + (shift + point.intercept)
        self._slope()
        return True

    def _one_by_one(self, newcomers: Integers, curvature: Floats, refused: npt.NDArray[np.bool_]) -> None:
        """Let the zeros that would jump try alone, those with the largest gradient first; refuse those that fail."""
        assert self._penalty is not None
        code, strength = self._penalty
        order = newcomers[np.argsort(-np.abs(self.g[newcomers]) / np.sqrt(curvature[newcomers]))]
        refused[self.coordinates[order[_SINGLES:]]] = True
        for j in order[:_SINGLES]:
            step = strength * self.factor[j] * self.unit[j] ** 2 / curvature[j]
            size = prox(code, abs(self.g[j]) / curvature[j] * self.unit[j], step) / self.unit[j]
            new = np.array([np.copysign(size, self.g[j])])
            place = np.array([j])
            direction = self.likelihood.product(self.coordinates[place], new)
            if self._move(place, new, direction, 1e-12 * abs(self.value)):
                return
            refused[self.coordinates[j]] = True
