"""One set of rows on its way down a path of strengths, with groups of features that enter and leave together."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ._block_descent import certify, descend_groups, rotate, screen_groups
from ._fold_path import Stretch
from ._losses import half_squares
from ._scalar import Code, entry
from ._solution import Solution
from ._terms import Terms

if TYPE_CHECKING:
    from ._grouped import GroupedProblem

__all__ = ["GroupPath", "Layout"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Strengths that are solved before the other groups are looked at.
_FEWEST, _MOST = 2, 8
# Share of the tolerance that the working set is solved to; the rest is for rounding.
_INNER = 0.3
_REFINEMENTS = 6
# Groups whose blocks are looked at together.
_BLOCKS = 64
# Groups that enter at a time, where fewer than that are nonzero: columns that share a direction all seem needed before
# the first of them explain it.
_AT_ONCE = 16


@dataclass(frozen=True)
class Layout:
    """Groups in coordinates in which the penalty sees one unit times their norm.

    Attributes
    ----------
    members : integer array of shape (k,)
        Features that vary, those of a group together.
    starts : integer array of shape (groups + 1,)
        Where each group begins among them.
    ratio : array of shape (k,)
        At least 1: coordinates are scaled coefficients times the ratio, and columns are divided by it.
    unit, factor : arrays of shape (groups,)
        The penalty of a group is ``factor * Omega(unit * norm)``.
    low : array of shape (groups,)
        Largest mean square of a group's columns, at most the largest eigenvalue of its Gram matrix.
    """

    members: Integers
    starts: Integers
    ratio: Floats
    unit: Floats
    factor: Floats
    low: Floats

    @classmethod
    def empty(cls) -> Layout:
        """No groups."""
        nothing = np.zeros(0)
        return cls(np.zeros(0, np.int64), np.zeros(1, np.int64), nothing, nothing, nothing, nothing)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.unit.size)

    def norms(self, gradient: Floats) -> Floats:
        """Norm of every group's part of a gradient (p, m)."""
        if self.count == 0:
            return np.zeros(0)
        part = gradient[self.members] / self.ratio[:, None]
        return np.sqrt(np.add.reduceat(np.einsum("ij,ij->i", part, part), self.starts[:-1]))

    def places(self, groups: Integers) -> tuple[Integers, Integers]:
        """Places of the members of some groups, in turn, and where each group begins among these."""
        sizes = self.starts[groups + 1] - self.starts[groups]
        firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return np.repeat(self.starts[groups] - firsts[:-1], sizes) + np.arange(firsts[-1]), firsts


class GroupPath:
    """Where one set of rows stands: its working set of groups, their rotated Gram matrix, coefficients and gradients.

    Members of the working set are this fold's own, so that nothing is learned from rows that it holds out; the columns
    and products are shared.
    """

    def __init__(self, problem: GroupedProblem, number: int, terms: Terms) -> None:
        self.problem, self.number, self.terms = problem, number, terms
        self.store, self.layout = problem.store, problem.layout(number, terms)
        self.gradient = problem.start[number]
        self.scale = float(self.layout.norms(self.gradient).max(initial=0.0))
        self.inside = np.zeros(self.layout.count, np.bool_)
        self.groups: Integers = np.zeros(0, np.int64)
        self.index: Integers = np.zeros(0, np.int64)  # features
        self.starts: Integers = np.zeros(1, np.int64)
        self.ratio, self.rotation, self.gram = np.zeros(0), np.zeros((0, 1)), np.zeros((0, 0))
        self.top = np.zeros(0)
        self.v = self.r = np.zeros((problem.outputs, 0))
        self.solutions: list[Solution] = []
        self.ended = False
        self.length = _FEWEST
        # At most the curvature of each group; where the penalty jumps the curvature itself is found when it matters.
        self.low, self.known = self.layout.low.copy(), np.diff(self.layout.starts) == 1
        self.known |= terms.penalty.curvature_limit == math.inf
        self._marked = np.zeros(self.layout.count, np.bool_)
        self._admit(np.flatnonzero(self.layout.factor == 0))

    @property
    def size(self) -> int:
        """Columns in the working set."""
        return int(self.index.size)

    # ------------------------------------------------------------------ one stretch of the path
    def advance(self, stretch: Stretch) -> None:
        """Solve for the strengths of a stretch; ends the path where one has more features than are allowed."""
        done = 0
        while done < stretch.strengths.size and not self.ended:
            piece = stretch.part(done, done + self.length)
            done += self.length
            # More at a time, as long as the working set misses nothing.
            self.length = min(2 * self.length, _MOST) if self._solve(piece) else _FEWEST

    def solve_free(self, terms: Terms) -> None:
        """Solve for the groups without a penalty alone."""
        if self.groups.size:
            code, _ = terms.codes(np.ones(1))
            found = self._descend(code, 0.0, _INNER * terms.tol * self.scale)
            fitted = self.store.product(self.store.place[self.index], self._coefficients(found))
            residuals, _ = self.problem.residuals(fitted, self.number)
            self.gradient = self.problem.gradients(residuals, self.number)[..., 0]

    def curvatures(self, groups: Integers) -> Floats:
        """Largest eigenvalue of the Gram matrix of each of these groups."""
        problem, layout = self.problem, self.layout
        rows, weights = problem.folds.slices[self.number], problem.store.weights.copy()
        weights[rows] = 0.0
        weights /= weights.sum()
        tops = []
        for first in range(0, groups.size, _BLOCKS):
            places, firsts = layout.places(groups[first : first + _BLOCKS])
            columns = problem.design.dense(layout.members[places])[problem.folds.order]
            if problem.fit_intercept:
                columns -= weights @ columns
            columns *= np.sqrt(weights)[:, None]
            columns /= layout.ratio[places]
            for a, b in itertools.pairwise(firsts):
                gram = columns[:, a:b].T @ columns[:, a:b]
                tops.append(gram[0, 0] if b - a == 1 else np.linalg.eigvalsh(gram)[-1])
        return np.array(tops)

    def _descend(self, code: Code, strength: float, tolerance: float) -> Floats:
        """The solution within the working set, from where it stands."""
        factor, unit = self.layout.factor[self.groups], self.layout.unit[self.groups]
        descend_groups(
            code, self.gram, self.starts, self.v, self.r, strength * factor, unit, self.top, tolerance,
            self.terms.max_iter,
        )  # fmt: skip
        return self.v.copy()

    def _solve(self, stretch: Stretch) -> bool:
        """Solve for a few strengths; whether the first working set held all that was needed."""
        last = stretch.strengths.size - 1
        self._screen(stretch.code_at(last), stretch.strengths[last], self.gradient)
        self._admit(self._foremost(self._marked))
        most = self.problem.design.columns if self.terms.max_features is None else self.terms.max_features
        m, done, tries, rounds = self.problem.outputs, 0, 0, 0
        while done <= last and not self.ended:
            rest = stretch.part(done)
            tolerance = _INNER * self.terms.tol * self.scale * 0.5**tries
            found, coefs = [], []
            for b, strength in enumerate(rest.strengths):
                found.append(self._descend(rest.code_at(b), strength, tolerance))
                coefs.append(self._coefficients(found[-1]))
                if np.count_nonzero(coefs[-1].any(axis=1)) > most:
                    break
            fitted = self.store.product(self.store.place[self.index], np.concatenate(coefs, axis=1))
            residuals, offsets = self.problem.residuals(fitted, self.number)
            gradients = self.problem.gradients(residuals, self.number)
            accepted, loose, more = 0, False, np.zeros(self.layout.count, np.bool_)
            for b, v in enumerate(found):
                code, strength = rest.code_at(b), rest.strengths[b]
                outside = self._screen(code, strength, gradients[..., b])
                within = certify(
                    code, self.starts, v, self._rotated(gradients[..., b]), strength * self.layout.factor[self.groups],
                    self.layout.unit[self.groups], self.top,
                )  # fmt: skip
                is_loose = within > self.terms.tol * self.scale
                if accepted == b and not self._marked.any() and (not is_loose or tries >= _REFINEMENTS):
                    violation = max(outside, within) / self.scale if self.scale > 0 else 0.0
                    columns = slice(b * m, (b + 1) * m)
                    self.solutions.append(
                        self._solution(v, coefs[b], residuals[:, columns], offsets[columns], rest.alphas[b], violation)
                    )
                    accepted, tries = accepted + 1, 0
                else:
                    loose |= is_loose
                    more |= self._marked
            if accepted:
                self.ended = int(np.count_nonzero(coefs[accepted - 1].any(axis=1))) > most
            else:
                tries += loose and not more.any()
            # Go on from the first that was refused, with its exact gradient, or else from the last.
            place = min(accepted, len(found) - 1)
            self.v, self.gradient = found[place], gradients[..., place]
            self.r = self._rotated(self.gradient)
            done += accepted
            self._admit(self._foremost(more))
            rounds += 1
        return rounds <= 1

    # ------------------------------------------------------------------ the working set
    def _coefficients(self, v: Floats) -> Floats:
        """Scaled coefficients (k, m)."""
        return np.asarray(rotate(np.ascontiguousarray(v.T), self.starts, self.rotation, False) / self.ratio[:, None])

    def _rotated(self, gradient: Floats) -> Floats:
        """The working set's part of a gradient (p, m), in its own coordinates (m, k)."""
        part = gradient[self.index] / self.ratio[:, None]
        return np.ascontiguousarray(rotate(part, self.starts, self.rotation, True).T)

    def _screen(self, code: Code, strength: float, gradient: Floats) -> float:
        """Mark the groups outside that may leave zero; the largest violation of all."""
        layout = self.layout
        weight, norms = strength * layout.factor, layout.norms(gradient)
        usable = weight > 0
        largest = 0.0
        for _ in range(2):
            with np.errstate(over="ignore"):
                step = weight[usable] * layout.unit[usable] * layout.unit[usable] / self.low[usable]
            least = entry(code, float(step.min())) * (1 - 1e-9) if step.size else 0.0
            largest = screen_groups(code, norms, weight, layout.unit, self.low, self.inside, least, self._marked)
            unknown = np.flatnonzero(self._marked & ~self.known)
            if unknown.size == 0:
                break
            self.low[unknown] = np.maximum(self.low[unknown], self.curvatures(unknown) * (1 - 1e-12))
            self.known[unknown] = True
        return float(largest)

    def _foremost(self, marked: npt.NDArray[np.bool_]) -> Integers:
        """Of the marked groups, some whose gradients are largest in terms of the penalty's unit."""
        groups = np.flatnonzero(marked)
        nonzero = np.add.reduceat(self.v.any(axis=0), self.starts[:-1]) > 0 if self.groups.size else np.zeros(0)
        count = max(_AT_ONCE, int(np.count_nonzero(nonzero)))
        if groups.size <= count:
            return groups
        norms = self.layout.norms(self.gradient)[groups]
        with np.errstate(all="ignore"):
            share = norms / self.layout.factor[groups] / self.layout.unit[groups]
        return np.sort(groups[np.argsort(-share)[:count]])

    def _admit(self, groups: Integers) -> None:
        """Make groups members of the working set, their columns rotated to the axes of their Gram matrices."""
        if groups.size == 0:
            return
        places, firsts = self.layout.places(groups)
        index, old = self.layout.members[places], self.size
        self.store.require(index)
        self.inside[groups] = True
        self.groups = np.concatenate([self.groups, groups])
        self.index = np.concatenate([self.index, index])
        self.ratio = np.concatenate([self.ratio, self.layout.ratio[places]])
        self.starts = np.concatenate([self.starts, old + firsts[1:]])
        size, width = self.size, max(self.rotation.shape[1], int(np.diff(firsts).max()))
        fresh = self.store.gram(self.number, self.store.place[self.index], self.store.place[index])
        fresh = fresh / self.ratio[:, None] / self.ratio[old:]
        rotation = np.zeros((size, width))
        rotation[:old, : self.rotation.shape[1]] = self.rotation
        own = np.zeros(index.size)
        for a, b in itertools.pairwise(firsts):
            if b - a == 1:
                own[a], rotation[old + a, 0] = fresh[old + a, a], 1.0
            else:
                own[a:b], rotation[old + a : old + b, : b - a] = np.linalg.eigh(fresh[old + a : old + b, a:b])
        self.rotation, own = rotation, np.maximum(own, 0.0)
        fresh = rotate(fresh, self.starts, rotation, True)
        fresh = rotate(np.ascontiguousarray(fresh.T), firsts, np.ascontiguousarray(rotation[old:]), True).T
        for a, b in itertools.pairwise(firsts):
            fresh[old + a : old + b, a:b] = np.diag(own[a:b])
        if self.gram.shape[0] < size:
            capacity = max(64, 2 * self.gram.shape[0], size)
            grown = np.zeros((capacity, capacity))
            grown[:old, :old] = self.gram[:old, :old]
            self.gram = grown
        self.gram[:size, old:size] = fresh
        self.gram[old:size, :size] = fresh.T
        self.top = np.concatenate([self.top, np.maximum.reduceat(own, firsts[:-1])])
        self.v = np.concatenate([self.v, np.zeros((self.v.shape[0], index.size))], axis=1)
        self.r = self._rotated(self.gradient)

    # ------------------------------------------------------------------ results
    def _solution(
        self, v: Floats, coef: Floats, residuals: Floats, offsets: Floats, alpha: float, violation: float
    ) -> Solution:
        problem, terms = self.problem, self.terms
        rows, scale = problem.folds.slices[self.number], problem.y_scale
        held = half_squares(problem.store.weights[rows], residuals[rows])
        loss = half_squares(problem.shares(self.number), residuals)
        omega = 0.0
        if self.groups.size:
            norms = np.sqrt(np.add.reduceat((v**2).sum(axis=0), self.starts[:-1])) * self.layout.unit[self.groups]
            factor = self.layout.factor[self.groups]
            used = factor > 0
            omega = terms.value(norms[used], factor[used], alpha)
        chosen = np.flatnonzero(coef.any(axis=1))
        chosen = chosen[np.argsort(self.index[chosen])]
        index, values = self.index[chosen], coef[chosen]
        coefs = values * scale / problem.design.scale[index, None]
        intercept = np.zeros(problem.outputs)
        if problem.fit_intercept:
            intercept = scale * (problem.y_mean + offsets - problem.design.origin(index) @ values)
        return Solution(
            index=index,
            coef=coefs if problem.several else coefs[:, 0],
            intercept=intercept if problem.several else float(intercept[0]),
            objective=loss * scale * scale + omega,
            violation=float(violation),
            converged=bool(violation <= terms.tol),
            held_out=held * scale * scale,
        )
