"""Paths for the squared loss: all folds in lockstep, blocks of strengths checked by one product with the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ._descent import descend_block, screen
from ._design import Design
from ._scalar import Code, entry, prox, slope
from ._solution import Solution
from ._terms import Terms
from ._working_set import Folds, WorkingSet

__all__ = ["SquaredProblem"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Strengths that are solved before the other columns are looked at.
_BLOCK = 4
_BOUNDS = 16
# Share of the tolerance that the working set is solved to; the rest is for rounding.
_INNER = 0.3
_REFINEMENTS = 6


@njit(cache=True, nogil=True)
def _certify(code: Code, strength: float, u: Any, g: Any, gram: Any, factor: Any, unit: Any, positive: bool) -> float:
    """Largest violation within the working set, from an exact gradient."""
    largest = 0.0
    for j in range(u.size):
        weight = strength * factor[j]
        if u[j] != 0:
            push = weight * unit[j] * slope(code, unit[j] * abs(u[j])) if weight > 0 else 0.0
            largest = max(largest, abs(g[j] - (push if u[j] > 0 else -push)))
        elif gram[j] > 0 and not (positive and g[j] <= 0):
            z = abs(g[j]) / gram[j] * unit[j]
            x = prox(code, z, weight * unit[j] * unit[j] / gram[j]) if weight > 0 else z
            if x > 0:
                # How far the gradient is past the threshold at which zero is left.
                past = abs(g[j]) - entry(code, weight * unit[j] * unit[j] / gram[j]) / unit[j] * gram[j]
                largest = max(largest, past)
    return largest


class _Fold:
    """Where one problem stands: its members, their Gram matrix, coefficients and gradient."""

    def __init__(self, columns: int) -> None:
        self.inside = np.zeros(columns, np.bool_)
        self.places: Integers = np.zeros(0, np.int64)  # in the store
        self.index: Integers = np.zeros(0, np.int64)  # features
        self.gram, self.u, self.g = np.zeros((0, 0)), np.zeros(0), np.zeros(0)
        self.unit, self.factor = np.zeros(0), np.zeros(0)
        self.solutions: list[Solution] = []
        self.ended = False

    @property
    def size(self) -> int:
        return int(self.places.size)


class SquaredProblem:
    """``min 1/(2 sum s) sum_i s_i (y_i - x_i w - b)^2 + alpha sum_j factor_j Omega(w_j)`` for several sets of rows.

    Parameters
    ----------
    design : Design
    y : array of shape (n,)
    folds : Folds
    fit_intercept : bool

    Notes
    -----
    Columns, their products and the gradient at zero are kept, so that solving for another penalty costs less.
    """

    def __init__(self, design: Design, y: Floats, folds: Folds, *, fit_intercept: bool) -> None:
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.store = WorkingSet(design, folds, design.weights, centered=fit_intercept)
        size = float(np.abs(y).max(initial=0.0))
        # A power of two, so that dividing rounds nothing.
        self.y_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
        scaled = y / self.y_scale
        self.y_mean = float(design.weights @ scaled) if fit_intercept else 0.0
        self.y = (scaled - self.y_mean)[folds.order]
        self._inverse = np.argsort(folds.order)
        self._totals = np.array(
            [1 - float(self.store.weights[rows].sum()) if rows.stop > rows.start else 1.0 for rows in folds.slices]
        )
        nothing = np.zeros((design.rows, folds.count))
        residuals, _ = self._residuals(nothing, np.arange(folds.count))
        self.start = self._gradient(residuals, np.arange(folds.count))

    # ------------------------------------------------------------------ residuals and gradients
    def _residuals(self, fitted: Floats, owner: Integers) -> tuple[Floats, Floats]:
        """Residuals of every column of ``fitted``, about the mean of its fold's own rows, and these means."""
        residuals = self.y[:, None] - fitted
        offsets = np.zeros(fitted.shape[1])
        if self.fit_intercept:
            total = self.store.weights @ residuals
            for column, fold in enumerate(owner):
                rows = self.folds.slices[fold]
                held = float(self.store.weights[rows] @ residuals[rows, column])
                offsets[column] = (total[column] - held) / self._totals[fold]
            residuals -= offsets
        return residuals, offsets

    def _gradient(self, residuals: Floats, owner: Integers) -> Floats:
        """Negative gradient of the loss for all columns of the data, (p, m)."""
        weighted = residuals * self.store.weights[:, None]
        for column, fold in enumerate(owner):
            weighted[self.folds.slices[fold], column] = 0.0
        if not self.folds.is_trivial:
            weighted = weighted[self._inverse]
        gradient = self.design.correlate(weighted)
        gradient /= self._totals[owner]
        return gradient

    # ------------------------------------------------------------------ solving
    def units(self, terms: Terms) -> Floats:
        """What scaled coefficients are multiplied by to give those that the penalty sees."""
        unit = np.full(self.design.columns, self.y_scale)
        if terms.standardize:
            return unit * np.sqrt(self.design.spread)
        with np.errstate(over="ignore", under="ignore"):
            return unit / self.design.scale

    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized coefficients of the problem that holds nothing out are zero."""
        gram, unit = self.design.spread, self.units(terms)
        gradient = self.start[:, -1]
        usable = (gram > 0) & (terms.factor > 0) & ((gradient > 0) if terms.positive else (gradient != 0)) & (unit > 0)
        if not usable.any():
            return 0.0
        gram, unit, gradient, factor = gram[usable], unit[usable], np.abs(gradient[usable]), terms.factor[usable]
        z = gradient / gram * unit
        step = factor / gram * unit * unit / self.y_scale / self.y_scale
        if terms.width == "fixed":
            with np.errstate(over="ignore"):
                return float(np.max(np.asarray(terms.penalty.zeroing_step(z)) / step))
        code, _ = terms.codes(np.ones(1))
        # The penalty alpha^2 Omega(w / alpha) has the threshold alpha * entry(step).
        return float(max(point / entry(code, t) for point, t in zip(z, step, strict=True)))

    def solve(
        self,
        terms: Terms,
        alphas: Floats,
        *,
        block: int = _BLOCK,
        stop: Callable[[list[list[Solution]]], bool] | None = None,
        start: list[tuple[Integers, Floats]] | None = None,
    ) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
        code, parameters = terms.codes(alphas)
        folds = [_Fold(self.design.columns) for _ in range(self.folds.count)]
        unit = self.units(terms)
        gradient = self.start.copy()
        scale = np.abs(self.start).max(axis=0, initial=0.0)
        free = np.flatnonzero((terms.factor == 0) & (self.design.spread > 0))
        for number, fold in enumerate(folds):
            if free.size:
                self._admit(fold, number, free, gradient[:, number], unit, terms)
        marked = np.zeros(self.design.columns, np.bool_)
        for first in range(0, alphas.size, block):
            piece = slice(first, min(first + block, alphas.size))
            strengths = alphas[piece] / self.y_scale / self.y_scale
            active = [number for number, fold in enumerate(folds) if not fold.ended]
            for number in active:
                here = (code[0], parameters[piece.stop - 1], *code[2:])
                self._screen(here, strengths[-1], gradient[:, number], folds[number], unit, terms, marked)
                self._admit(folds[number], number, np.flatnonzero(marked), gradient[:, number], unit, terms)
            self._solve_block(
                code, parameters[piece], strengths, alphas[piece], folds, active, gradient, scale, terms, unit
            )
            if all(fold.ended for fold in folds):
                break
            if stop is not None and stop([fold.solutions for fold in folds]):
                break
        return [fold.solutions for fold in folds]

    def _solve_block(
        self,
        code: Any,
        parameters: Floats,
        strengths: Floats,
        alphas: Floats,
        folds: list[_Fold],
        active: list[int],
        gradient: Floats,
        scale: Floats,
        terms: Terms,
        unit: Floats,
    ) -> None:
        """Solve a block of strengths for all folds; ``gradient`` ends as that of the last solutions."""
        count = strengths.size
        done = dict.fromkeys(active, 0)
        tries = dict.fromkeys(active, 0)
        marked = np.zeros(self.design.columns, np.bool_)
        most = self.design.columns if terms.max_features is None else terms.max_features
        pending = list(active)
        while pending:
            owner, solved, found = [], {}, {}
            for number in pending:
                fold = folds[number]
                found[number] = np.zeros((count - done[number], max(1, fold.size)))
                tolerance = _INNER * terms.tol * scale[number] * 0.5 ** tries[number]
                solved[number] = descend_block(
                    code, parameters[done[number] :], strengths[done[number] :], fold.gram, fold.size, fold.u, fold.g,
                    fold.factor, fold.unit, terms.positive, tolerance, terms.max_iter, found[number], most,
                )  # fmt: skip
                owner += [number] * solved[number]
            owners = np.array(owner, np.int64)
            fitted = np.concatenate(
                [
                    self.store.product(folds[number].places, found[number][: solved[number], : folds[number].size].T)
                    for number in pending
                ],
                axis=1,
            )
            residuals, offsets = self._residuals(fitted, owners)
            products = self._gradient(residuals, owners)
            column = 0
            following = []
            for number in pending:
                fold = folds[number]
                more = np.zeros(self.design.columns, np.bool_)
                accepted = 0
                refine = False
                for b in range(solved[number]):
                    place = column + b
                    here = (code[0], parameters[done[number] + b], *code[2:])
                    strength = strengths[done[number] + b]
                    outside = self._screen(here, strength, products[:, place], fold, unit, terms, marked)
                    u = found[number][b, : fold.size]
                    within = _certify(
                        here, strength, u, products[fold.index, place], np.diagonal(fold.gram)[: fold.size],
                        fold.factor, fold.unit, terms.positive,
                    )  # fmt: skip
                    loose = within > terms.tol * scale[number]
                    if accepted == b and (not marked.any()) and (not loose or tries[number] >= _REFINEMENTS):
                        violation = max(outside, within) / scale[number] if scale[number] > 0 else 0.0
                        alpha = alphas[done[number] + b]
                        rows = self.folds.slices[number]
                        fold.solutions.append(
                            self._solution(fold, u, residuals[:, place], offsets[place], rows, alpha, violation, terms)
                        )
                        accepted += 1
                        tries[number] = 0
                    else:
                        refine |= loose
                        more |= marked
                if accepted:
                    fold.ended = int(np.count_nonzero(found[number][accepted - 1])) > most
                else:
                    tries[number] += refine and not more.any()
                # Go on from the first that was refused, with its exact gradient, or else from the last.
                place = min(accepted, solved[number] - 1)
                fold.u[: fold.size] = found[number][place, : fold.size]
                gradient[:, number] = products[:, column + place]
                fold.g = gradient[fold.index, number].copy() if fold.size else fold.g
                done[number] += accepted
                self._admit(fold, number, np.flatnonzero(more), gradient[:, number], unit, terms)
                column += solved[number]
                if done[number] < count and not fold.ended:
                    following.append(number)
            pending = following

    def _admit(self, fold: _Fold, number: int, index: Integers, gradient: Floats, unit: Floats, terms: Terms) -> None:
        """Make columns members of a fold's working set."""
        if index.size == 0:
            return
        self.store.require(index)
        old, places = fold.size, self.store.place[index]
        size = old + index.size
        fold.places = np.concatenate([fold.places, places])
        fold.index = np.concatenate([fold.index, index])
        fold.inside[index] = True
        if fold.gram.shape[0] < size:
            capacity = max(64, 2 * fold.gram.shape[0], size)
            grown = np.zeros((capacity, capacity))
            grown[:old, :old] = fold.gram[:old, :old]
            fold.gram = grown
            fold.u = np.concatenate([fold.u[:old], np.zeros(capacity - old)])
        fresh = self.store.gram(number, fold.places, places)
        fold.gram[:size, old:size] = fresh
        fold.gram[old:size, :size] = fresh.T
        fold.u[old:] = 0.0
        fold.g = gradient[fold.index].copy()
        fold.unit, fold.factor = unit[fold.index], terms.factor[fold.index]

    def _screen(
        self, code: Any, strength: float, gradient: Floats, fold: _Fold, unit: Floats, terms: Terms, marked: Any
    ) -> float:
        gram = self.design.spread
        steps, bounds = self._bounds(code, strength, unit, terms)
        return float(
            screen(
                code, strength, gradient, gram, terms.factor, unit, terms.positive, fold.inside, steps, bounds, marked
            )
        )

    def _bounds(self, code: Any, strength: float, unit: Floats, terms: Terms) -> tuple[Floats, Floats]:
        """Steps that span those of the columns, and the entry threshold of each."""
        low, high = self._span(unit, terms)
        steps = np.array([strength * low]) if low == high else strength * np.geomspace(low, high * (1 + 1e-12), _BOUNDS)
        bounds = np.array([entry(code, step) for step in steps])
        return steps, bounds * (1 - 1e-9)

    def _span(self, unit: Floats, terms: Terms) -> tuple[float, float]:
        gram = self.design.spread
        usable = (gram > 0) & (terms.factor > 0)
        if not usable.any():
            return 1.0, 1.0
        ratio = terms.factor[usable] * unit[usable] / gram[usable] * unit[usable]
        return float(ratio.min()), float(ratio.max())

    def _solution(
        self,
        fold: _Fold,
        u: Floats,
        residuals: Floats,
        offset: float,
        rows: slice,
        alpha: float,
        violation: float,
        terms: Terms,
    ) -> Solution:
        index = fold.index[u != 0]
        order = np.argsort(index)
        index, values = index[order], u[u != 0][order]
        squares = self.store.weights * residuals**2
        held = float(squares[rows].sum())
        loss = (float(squares.sum()) - held) / (1 - float(self.store.weights[rows].sum()))
        penalized = np.abs(values) * self.units(terms)[index]
        omega = self._omega(penalized, index, alpha, terms)
        center = float(self.design.center[index] @ values)
        return Solution(
            index=index,
            coef=values * self.y_scale / self.design.scale[index],
            intercept=self.y_scale * (self.y_mean + offset - center) if terms.fit_intercept else 0.0,
            objective=loss / 2 * self.y_scale * self.y_scale + omega,
            violation=float(violation),
            converged=bool(violation <= terms.tol),
            held_out=held * self.y_scale * self.y_scale,
        )

    @staticmethod
    def _omega(penalized: Floats, index: Integers, alpha: float, terms: Terms) -> float:
        """The penalty of coefficients as it sees them, in the units of the objective."""
        factor = terms.factor[index]
        if terms.width == "alpha":
            return float(alpha * alpha * (factor @ np.asarray(terms.penalty.value(penalized / alpha))))
        return float(alpha * (factor @ np.asarray(terms.penalty.value(penalized))))
