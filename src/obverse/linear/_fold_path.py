"""One set of rows on its way down a path of strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ._descent import certify, descend_block, reach, screen
from ._losses import half_squares
from ._scalar import Code, entries
from ._solution import Solution
from ._terms import Terms

if TYPE_CHECKING:
    from ._sparse_members import SparseMembers
    from ._squared import SquaredProblem

__all__ = ["FoldPath", "Stretch"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BOUNDS = 16
# Strengths that are solved before the other columns are looked at.
_FEWEST, _MOST = 4, 8
# Further down than this, what enters cannot be told from the gradient at the start.
_DROP = 0.6
# Share of the tolerance that the working set is solved to; the rest is for rounding.
_INNER = 0.3
_REFINEMENTS = 6
# A working set is thinned once so many times larger than what is likely to be needed, and of some size.
_SLACK = 1.5
_SMALL = 200
# Columns stay in it whose gradient has come so near to their threshold.
_NEAR = 0.8
# With so few columns all are taken.
_FEW = 64
# Sparse columns need no products where there are more members than this, and than so many times a column's entries.
_PRODUCTS, _ENTRIES = 256, 8


@dataclass(frozen=True)
class Stretch:
    """A few neighboring strengths: the penalty's code and, one row each, its parameters."""

    code: Code
    parameters: Floats
    strengths: Floats
    alphas: Floats

    def code_at(self, b: int) -> Code:
        """The code at the b-th strength."""
        kind, _, *tables = self.code
        return (kind, self.parameters[b], *tables)

    def part(self, first: int, stop: int | None = None) -> Stretch:
        """Some of the strengths in turn."""
        kept = slice(first, stop)
        return Stretch(self.code, self.parameters[kept], self.strengths[kept], self.alphas[kept])


class FoldPath:
    """Where one set of rows stands: its members, their Gram matrix, coefficients, and the gradient of all columns.

    Members of the working set are this fold's own, so that nothing is learned from rows that it holds out; the columns
    and products are shared. Once there are many members with few entries, descent goes on without products.
    """

    def __init__(self, problem: SquaredProblem, number: int, terms: Terms) -> None:
        self.problem, self.number, self.terms = problem, number, terms
        self.design, self.store = problem.design, problem.store
        self.spread, unit = problem.training.spread(number), problem.training.units(number, terms, problem.y_scale)
        self.unit_of_all = unit
        self.rows, self.total = problem.folds.slices[number], float(problem.totals[number])
        self.inside = np.zeros(self.design.columns, np.bool_)
        self.places: Integers = np.zeros(0, np.int64)  # in the store
        self.index: Integers = np.zeros(0, np.int64)  # features
        self.gram, self.u, self.g = np.zeros((0, 0)), np.zeros(0), np.zeros(0)
        self.sparse: SparseMembers | None = None
        self.unit, self.factor = np.zeros(0), np.zeros(0)
        self.gradient = problem.start[:, number].copy()
        self.residual = problem.start_residuals[:, number].copy()
        self.scale = float(np.abs(self.gradient).max(initial=0.0))
        self.solutions: list[Solution] = []
        self.ended = False
        self.length = _FEWEST
        # Share of alpha at which columns are let in where it is solved alone: those near their thresholds would be
        # next, and each round costs a product with all columns.
        self.nearly = 1.0
        # Taken without the scale of y, whose square may leave the range of a double.
        relative = unit / problem.y_scale
        with np.errstate(all="ignore"):
            gram = np.where(self.spread > 0, self.spread, 1.0)
            self.ratio_of_all = terms.factor * relative / gram * relative
        self.ratios = self._spanned_ratios()
        self._marked = np.zeros(self.design.columns, np.bool_)
        self._admit(np.flatnonzero((terms.factor == 0) & (self.spread > 0)))

    @property
    def size(self) -> int:
        """Columns in the working set."""
        return int(self.index.size)

    @property
    def squares(self) -> Floats:
        """Mean squares of the columns in the working set."""
        squares: Floats = np.diagonal(self.gram)[: self.size] if self.sparse is None else self.sparse.gram
        return squares

    # ------------------------------------------------------------------ one stretch of the path
    def advance(self, stretch: Stretch) -> None:
        """Solve for the strengths of a stretch; ends the path where one has more features than are allowed."""
        done = 0
        while done < stretch.strengths.size and not self.ended:
            length = min(self.length, stretch.strengths.size - done)
            while length > 1 and stretch.strengths[done + length - 1] < _DROP * stretch.strengths[done]:
                length //= 2
            piece = stretch.part(done, done + length)
            done += length
            # More at a time, as long as the working set misses nothing.
            self.length = _MOST if self._solve(piece) else _FEWEST

    def entering(self, alpha: float) -> int:
        """How many columns would leave zero at ``alpha``, by the present gradient."""
        stretch = self.problem.stretch(self.terms, np.array([alpha]))
        self._screen(stretch, 0, self._bounds(stretch), self.gradient)
        return int(np.count_nonzero(self._marked))

    def approach(self, alpha: float, screened: float, tolerance: float) -> None:
        """Come near the solution for ``alpha``, on one working set, to a tolerance relative to the largest gradient.

        The columns that enter are those that would at ``screened``.
        """
        self.entering(screened)
        stretch = self.problem.stretch(self.terms, np.array([alpha]))
        entering = np.flatnonzero(self._marked)
        self._thin(self._bounds(stretch)[0])
        self._admit(entering)
        found = np.zeros((1, max(1, self.size)))
        self._descend(stretch, max(tolerance, self.terms.tol) * self.scale, found, self.design.columns)
        residuals, _ = self.problem.residuals(self._product(found[:, : self.size]), self.number)
        self.residual = residuals[:, 0]
        self.gradient = self.design.correlate(self.problem.weighted(residuals, self.number)[:, 0]) / self.total
        self.g = self.gradient[self.index]

    def _solve(self, stretch: Stretch) -> bool:
        """Solve for a few strengths; whether the first working set held all that was needed."""
        bounds = self._bounds(stretch)
        last = stretch.strengths.size - 1
        self._screen(stretch, last, bounds, self.gradient)
        if last == 0 and self.nearly < 1:
            self.entering(self.nearly * float(stretch.alphas[0]))
        self._thin(bounds[last])
        self._admit(np.flatnonzero(self._marked))
        most = self.design.columns if self.terms.max_features is None else self.terms.max_features
        done = tries = rounds = 0
        while done <= last and not self.ended:
            rest, limits = stretch.part(done), bounds[done:]
            found = np.zeros((rest.strengths.size, max(1, self.size)))
            tolerance = _INNER * self.terms.tol * self.scale * 0.5**tries
            solved = self._descend(rest, tolerance, found, most)
            found = found[:solved, : self.size]
            residuals, offsets = self.problem.residuals(self._product(found), self.number)
            gradients, stale = self._gradients(residuals, limits)
            accepted, loose, more = 0, False, np.zeros(self.design.columns, np.bool_)
            for b in range(solved):
                outside = self._screen(rest, b, limits, gradients[:, b])
                within = certify(
                    rest.code_at(b), rest.strengths[b], found[b], gradients[self.index, b],
                    self.squares, self.factor, self.unit, self.terms.positive,
                )  # fmt: skip
                is_loose = within > self.terms.tol * self.scale
                if accepted == b and not self._marked.any() and (not is_loose or tries >= _REFINEMENTS):
                    violation = max(outside, within) / self.scale if self.scale > 0 else 0.0
                    self.solutions.append(
                        self._solution(found[b], residuals[:, b], offsets[b], rest.alphas[b], violation)
                    )
                    accepted, tries = accepted + 1, 0
                else:
                    loose |= is_loose
                    more |= self._marked
            if accepted:
                self.ended = int(np.count_nonzero(found[accepted - 1])) > most
            else:
                tries += loose and not more.any()
            # Go on from the first that was refused, with its exact gradient, or else from the last.
            place = min(accepted, solved - 1)
            if place < solved - 1 and stale.size:
                weighted = self.problem.weighted(residuals[:, [place]], self.number)
                gradients[stale, place] = self.design.correlate(weighted, stale)[:, 0] / self.total
            self.u[: self.size] = found[place]
            self.gradient, self.residual = gradients[:, place].copy(), residuals[:, place].copy()
            self.g = self.gradient[self.index]
            done += accepted
            if solved == 1 and more.any() and self.nearly < 1:
                self.entering(self.nearly * float(rest.alphas[0]))
                more |= self._marked
            self._admit(np.flatnonzero(more))
            rounds += 1
        return rounds <= 1

    def _descend(self, stretch: Stretch, tolerance: float, found: Floats, most: int) -> int:
        """Solve on the working set, by its products or by residuals; how many strengths were solved."""
        if self.sparse is not None:
            return self.sparse.descend(
                stretch, self.terms, self.u, self.residual, self.factor, self.unit, tolerance, found, most
            )
        return int(
            descend_block(
                stretch.code, stretch.parameters, stretch.strengths, self.gram, self.size, self.u, self.g,
                self.factor, self.unit, self.terms.positive, tolerance, self.terms.max_iter, found, most,
            )
        )  # fmt: skip

    def _product(self, found: Floats) -> Floats:
        """Members times solutions, which are rows."""
        return self.store.product(self.places, found.T) if self.sparse is None else self.sparse.product(found.T)

    def _gradients(self, residuals: Floats, bounds: Floats) -> tuple[Floats, Integers]:
        """Negative gradients of all columns, (p, m), and the columns for which only that of the last is exact.

        These are columns that surely stay zero, so that nothing is decided by theirs. Residuals on the way are nearly
        means of those at its two ends, and so are gradients: few columns come near enough to their thresholds.
        """
        weighted = self.problem.weighted(residuals, self.number)
        count = residuals.shape[1]
        columns = self.design.columns
        if count == 1 or columns < _FEW:
            return self.design.correlate(weighted) / self.total, np.zeros(0, np.int64)
        gradients = np.empty((columns, count))
        after = gradients[:, -1] = self.design.correlate(weighted[:, -1]) / self.total
        moved = residuals - self.residual[:, None]
        moved[self.rows] = 0.0
        along = moved[:, -1] * self.store.weights
        length = float(along @ moved[:, -1])
        shares = along @ moved[:, :-1] / length if length > 0 else np.zeros(count - 1)
        rest = moved[:, :-1] - moved[:, [-1]] * shares
        distances = np.sqrt(self.store.weights @ (rest * rest)) / self.total
        needed = np.zeros(columns, np.bool_)
        reach(
            self.gradient, after, shares, distances, self.spread, self.ratio_of_all, self.unit_of_all,
            self.terms.positive, self.inside, self.ratios, bounds, gradients, needed,
        )  # fmt: skip
        index = np.flatnonzero(needed)
        gradients[index, :-1] = self.design.correlate(weighted[:, :-1], index) / self.total
        return gradients, np.flatnonzero(~needed)

    # ------------------------------------------------------------------ the working set
    def _spanned_ratios(self) -> Floats:
        """Ratios of step and alpha that span those of the columns, ascending."""
        usable = (self.spread > 0) & (self.terms.factor > 0) & (self.ratio_of_all > 0)
        if not usable.any():
            return np.ones(1)
        ratio = self.ratio_of_all[usable]
        low, high = float(ratio.min()), float(ratio.max())
        return np.array([low]) if low == high else np.geomspace(low, high * (1 + 1e-12), _BOUNDS)

    def _bounds(self, stretch: Stretch) -> Floats:
        """Entry threshold of each of these ratios, below which a zero surely stays; one row for each strength."""
        return np.array(
            [entries(stretch.code_at(b), alpha * self.ratios) * (1 - 1e-9) for b, alpha in enumerate(stretch.alphas)]
        )

    def _screen(self, stretch: Stretch, b: int, bounds: Floats, gradient: Floats) -> float:
        """Mark the columns outside that would leave zero; the largest violation of all."""
        strength = stretch.strengths[b]
        return float(
            screen(
                stretch.code_at(b),
                strength,
                gradient,
                self.spread,
                self.terms.factor,
                self.unit_of_all,
                self.terms.positive,
                self.inside,
                stretch.alphas[b] * self.ratios,
                bounds[b],
                self._marked,
            )
        )

    def _thin(self, bounds: Floats) -> None:
        """Leave out the members that are zero and far from entering, where they are many."""
        size = self.size
        if size <= _SMALL:
            return
        gram = self.squares
        z = np.abs(self.g[:size]) / np.where(gram > 0, gram, 1.0) * self.unit
        # Every step is at least that of its ratio's lower neighbor, and thresholds grow with the step.
        ratio = self.ratio_of_all[self.index]
        number = np.clip(np.searchsorted(self.ratios, ratio, side="right") - 1, 0, self.ratios.size - 1)
        kept = np.flatnonzero((self.u[:size] != 0) | (self.factor == 0) | (z >= _NEAR * bounds[number]))
        if size <= _SLACK * kept.size:
            return
        self.inside[self.index] = False
        self.index = self.index[kept]
        self.inside[self.index] = True
        if self.sparse is not None:
            self.sparse.keep(kept)
        else:
            self.places = self.places[kept]
            self.gram = np.ascontiguousarray(self.gram[np.ix_(kept, kept)])
        self.u, self.g = self.u[kept], self.g[kept]
        self.unit, self.factor = self.unit[kept], self.factor[kept]

    def _admit(self, index: Integers) -> None:
        """Make columns members of the working set."""
        if index.size == 0:
            return
        old, size = self.size, self.size + index.size
        self.index = np.concatenate([self.index, index])
        self.inside[index] = True
        if self.sparse is None and self.design.is_sparse:
            self._consider_residuals()
        if self.sparse is not None:
            self.sparse.take(self.index[self.sparse.index.size :])
            self.u = np.concatenate([self.u[:old], np.zeros(index.size)])
        else:
            self._take_products(index, old, size)
        self.u[old:] = 0.0
        self.g = self.gradient[self.index]
        self.unit, self.factor = self.unit_of_all[self.index], self.terms.factor[self.index]

    def _take_products(self, index: Integers, old: int, size: int) -> None:
        self.store.require(index)
        places = self.store.place[index]
        self.places = np.concatenate([self.places, places])
        if self.gram.shape[0] < size:
            capacity = max(64, 2 * self.gram.shape[0], size)
            grown = np.zeros((capacity, capacity))
            grown[:old, :old] = self.gram[:old, :old]
            self.gram = grown
            self.u = np.concatenate([self.u[:old], np.zeros(capacity - old)])
        fresh = self.store.gram(self.number, self.places, places)
        self.gram[:size, old:size] = fresh
        self.gram[old:size, :size] = fresh.T

    def _consider_residuals(self) -> None:
        """Go on without products where members are many and their entries few.

        One update costs as much as there are members with products, and a few times a column's entries without.
        """
        entries = float(np.diff(self.design.X.indptr)[self.index].mean())
        if self.size > max(_PRODUCTS, _ENTRIES * entries):
            from ._sparse_members import SparseMembers

            self.sparse = SparseMembers(self.problem, self.number)
            self.gram, self.places = np.zeros((0, 0)), np.zeros(0, np.int64)

    # ------------------------------------------------------------------ results
    def _solution(self, u: Floats, residual: Floats, offset: float, alpha: float, violation: float) -> Solution:
        index = self.index[u != 0]
        order = np.argsort(index)
        index, values = index[order], u[u != 0][order]
        held = half_squares(self.store.weights[self.rows], residual[self.rows])
        loss = half_squares(self.problem.shares(self.number), residual)
        scale = self.problem.y_scale
        omega = self.terms.value(np.abs(values) * self.unit_of_all[index], self.terms.factor[index], alpha)
        center = float(self.design.origin(index) @ values)
        return Solution(
            index=index,
            coef=values * scale / self.design.scale[index],
            intercept=scale * (float(self.problem.y_mean[0]) + offset - center) if self.problem.fit_intercept else 0.0,
            objective=loss * scale * scale + omega,
            violation=float(violation),
            converged=bool(violation <= self.terms.tol),
            held_out=held * scale * scale,
        )
