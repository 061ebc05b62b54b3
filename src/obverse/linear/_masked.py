"""The dropout face: stochastic gradients under masks whose keep probabilities follow the coefficients.

With columns of mean square 1 and masks s of mean one, ``E ||y - X(s*w)||^2 / 2n = ||y - Xw||^2 / 2n + 1/2 sum_j var_j
w_j^2``. Noise of variance ``strength_j / eta(w_j)``, which keeps a coefficient with probability ``eta / (eta +
strength_j)``, has in expectation the gradient of the penalized loss, if its own dependence on w is not differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .._core.random import Seed, numpy_generator
from ..errors import InvalidArgumentError, UnknownNameError
from ._reweighted import ReweightedProblem
from ._ridge_descent import RidgeDescent
from ._solution import Solution
from ._terms import Terms

__all__ = ["Masked", "masked_solution"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# A coefficient may be taken for zero once its keep probability is below this.
_KEEP = 0.1
# Least keep probability of a mask that is drawn: rarer masks would be as large as they are rare.
_LEAST = {"bernoulli": 1e-2, "gaussian": 1e-8}
# Zeros are let in once the violation on the support is below this share of theirs.
_SETTLED = 0.1
_POWER_STEPS = 30
# Share of the epochs after which the steps begin to fall, and after which iterates are averaged.
_CONSTANT, _AVERAGED = 0.02, 0.5
_FALL = 0.8
# Where neither objective nor violation falls from so many epochs to as many later, the rate is halved.
_WAIT = 10


@dataclass(frozen=True)
class Masked:
    """A solution and how it was reached.

    Attributes
    ----------
    solution : Solution
    epochs : int
        Passes over the rows.
    history : array of shape (epochs + 1,)
        Objective of the iterate (of the average of iterates, once that is taken) after every epoch.
    coefs : array of shape (epochs + 1, p), or None
        The coefficients at the same times, if they were asked for.
    """

    solution: Solution
    epochs: int
    history: Floats
    coefs: Floats | None = None


class _Rows:
    """Batches of rows, in columns that are centered and of mean square 1."""

    def __init__(self, problem: ReweightedProblem, index: Integers) -> None:
        design = problem.design
        self.index = index
        self.size = np.sqrt(design.spread[index])
        self.scale, self.center = design.scale[index], design.center[index]
        self.dense: Floats | None = None
        self.sparse: Any = None
        if design.is_sparse:
            self.sparse = sp.csr_array(design.X[:, index], dtype=np.float64)
        else:
            self.dense = np.ascontiguousarray(design.dense(index) / self.size)

    def take(self, rows: Integers) -> Floats:
        if self.dense is not None:
            return self.dense[rows]
        block = self.sparse[rows].toarray() / self.scale
        return np.asarray((block - self.center) / self.size)


class _Training:
    """Coefficients v of the columns in use, and the gradients that move them."""

    def __init__(
        self, problem: ReweightedProblem, run: RidgeDescent, law: str, batch: int, random: np.random.Generator
    ) -> None:
        self.problem, self.run, self.law, self.batch, self.random = problem, run, law, batch, random
        self.index = np.flatnonzero(problem.usable)
        self.rows = _Rows(problem, self.index)
        self.y = problem.loss.y - problem.null
        self.share = problem.weights * self.y.size
        self.v = run.u[self.index] * self.rows.size
        self.alive = np.ones(self.index.size, np.bool_)
        if run.parts.code is not None:
            self.alive = (self.v != 0) | (run.parts.weight[self.index] == 0)
        self.steps = 0

    def scaled(self, v: Floats) -> Floats:
        """As the problem counts coefficients."""
        u = np.zeros(self.problem.design.columns)
        u[self.index] = v / self.rows.size
        return u

    def variance(self, v: Floats) -> Floats:
        """Of every mask: strength / eta."""
        spread = self.problem.design.spread[self.index]
        ratio = self.run.parts.ridge(self.scaled(v))[self.index] / spread
        return np.minimum(np.where(self.alive, ratio, 0.0), 1 / _LEAST[self.law] - 1)

    def largest_curvature(self) -> float:
        """Largest eigenvalue of the columns' correlations, by the power method, and a little more."""
        x = self.random.standard_normal(self.index.size)
        size = 1.0
        for _ in range(_POWER_STEPS):
            size = float(np.linalg.norm(x))
            if size == 0:
                return 1.0
            x = self._product(x / size)
        return 1.05 * max(float(np.linalg.norm(x)), 1.0)

    def _product(self, v: Floats) -> Floats:
        u = self.scaled(v)
        weighted = self.problem.weights * (self.run.forward(u))
        return self.problem.design.correlate(weighted)[self.index] / self.rows.size

    def expected(self, v: Floats) -> Floats:
        """Expectation of the sampled gradient over rows and masks."""
        weighted = self.problem.weights * (self.y - self.run.forward(self.scaled(v)))
        gradient = -self.problem.design.correlate(weighted)[self.index] / self.rows.size
        return gradient + self.variance(v) * v

    def draw(self, shape: tuple[int, int]) -> Floats:
        return self.random.random(shape) if self.law == "bernoulli" else self.random.standard_normal(shape)

    def sampled(self, x: Floats, rows: Integers, noise: Floats, v: Floats, variance: Floats) -> Floats:
        """Gradient on a batch, every row under its own mask of mean one."""
        if self.law == "bernoulli":
            odds = 1 + variance
            masked = np.where(noise * odds < 1, x * odds, 0.0)
        else:
            masked = x * (1 + np.sqrt(variance) * noise)
        residual = self.share[rows] * (self.y[rows] - masked @ v)
        return -(residual @ masked) / rows.size

    def move(self, gradient: Floats, variance: Floats, rate: float) -> None:
        """A step that is the shorter the noisier the coefficient."""
        self.v -= np.where(self.alive, rate / (1 + rate * (1 + variance)) * gradient, 0.0)
        self.steps += 1

    def batches(self) -> list[Integers]:
        order = self.random.permutation(self.y.size)
        return [order[i : i + self.batch] for i in range(0, order.size, self.batch)]

    def prune(self, v: Floats) -> npt.NDArray[np.bool_]:
        """Set to zero what has a low keep probability and its scalar minimum there; which these are."""
        run = self.run
        run.place(self.scaled(v), self.problem.null)
        gone = np.zeros(self.index.size, np.bool_)
        if run.parts.code is not None:
            low = 1 / (1 + self.variance(v)) < _KEEP
            gone = self.alive & low & run.parts.zeroed(run.u, run.g, run.gram)[self.index]
            self.alive &= ~gone
            self.v[gone] = 0.0
        return gone

    def enter(self) -> None:
        """Let zeros in that violate the rule on zeros, where the rest has settled."""
        inside, outside = self.run.violations()
        if self.run.parts.code is not None and inside <= _SETTLED * outside and self.run.enter():
            self.v = self.run.u[self.index] * self.rows.size
            self.alive |= self.v != 0


def masked_solution(
    X: Any,
    y: Floats,
    weights: Floats,
    terms: Terms,
    alpha: float,
    *,
    seed: Seed | None = None,
    loss: str = "squared",
    law: Literal["gaussian", "bernoulli"] = "gaussian",
    gradient: Literal["sampled", "controlled", "expected"] = "controlled",
    batch: int = 32,
    start: tuple[Floats, float] | None = None,
    keep_coefs: bool = False,
) -> Masked:
    """Minimize ``mean loss + alpha sum_j factor_j Omega(w_j)`` by training under adaptive dropout.

    Parameters
    ----------
    X : dense array or CSC matrix of shape (n, p)
    y, weights : arrays of shape (n,)
        ``weights`` at least 0, of sum 1.
    terms : Terms
        ``max_iter`` is the number of epochs at most; ``tol`` ends "controlled" and "expected" training early.
    alpha : float
    seed : int, numpy.random.Generator, torch.Generator or None
    loss : {"squared"}
        For other losses, masks do not add a ridge to the expected loss.
    law : {"gaussian", "bernoulli"}
        Of the masks. Bernoulli masks keep a coefficient with a probability of at least 0.01 here, below which they are
        as large as they are rare.
    gradient : {"sampled", "controlled", "expected"}
        Of sampled rows and masks, with falling steps and averaged iterates (its error falls with the root of the number
        of draws); the same with, as a control variate, the gradient under the same masks at the last epoch's end, whose
        expectation is known, so that the noise dies out; or the expectation over rows and masks.
    batch : int
        Rows of one step.
    start : (array of shape (p,), float), optional
        Coefficients to start from. A zero is absorbing, which is why the default is a ridge solution.
    keep_coefs : bool
        Whether the result holds the coefficients of all epochs.

    Raises
    ------
    InvalidArgumentError
        Another loss, ``terms.positive``, an unknown law, or a penalty that only counts nonzeros.

    Notes
    -----
    A coefficient becomes an exact zero once its keep probability is below 0.1 and zero is the global minimizer of its
    scalar problem. With gradient="sampled" it stays zero; otherwise a zero that violates that rule is let in again. The
    reported violation is that of the first-order conditions, zeros included.
    """
    if loss != "squared":
        raise InvalidArgumentError(
            f"solver='dropout' trains the squared loss, for which masks are exactly a penalty; got loss={loss!r}. "
            "Use solver='reweighted' or 'auto'"
        )
    if law not in _LEAST:
        raise UnknownNameError("law", law, _LEAST)
    if gradient not in ("sampled", "controlled", "expected"):
        raise UnknownNameError("gradient", gradient, ("sampled", "controlled", "expected"))
    problem = ReweightedProblem("squared", X, y, weights, fit_intercept=terms.fit_intercept)
    run = problem.run(terms, alpha, keep_coefs=keep_coefs, face="dropout")
    random = numpy_generator(seed, "random_state")
    run.place(*(run.first() if start is None else problem.scaled(*start)))
    training = _Training(problem, run, law, max(1, min(batch, problem.weights.size)), random)
    run.place(training.scaled(training.v), problem.null)
    run.note()
    epochs = _averaged(training, terms) if gradient == "sampled" else _controlled(training, terms, gradient)
    return Masked(run.result(), epochs, np.array(run.history), np.array(run.coefs) if keep_coefs else None)


def _averaged(training: _Training, terms: Terms) -> int:
    """Falling steps; the average of the iterates of the second half."""
    run, epochs = training.run, terms.max_iter
    rate = 1 / (training.largest_curvature() + training.index.size / training.batch)
    per_epoch = -(-training.y.size // training.batch)
    constant, first = _CONSTANT * epochs * per_epoch, int(_AVERAGED * epochs)
    average, count = np.zeros(training.index.size), 0
    for epoch in range(epochs):
        for rows in training.batches():
            x = training.rows.take(rows)
            variance = training.variance(training.v)
            step = training.sampled(x, rows, training.draw(x.shape), training.v, variance)
            training.move(step, variance, rate * (1 + training.steps / max(constant, 1.0)) ** -_FALL)
            if epoch >= first:
                count += 1
                average += (training.v - average) / count
        here = average if count else training.v
        if epoch >= first:
            average[training.prune(average)] = 0.0
        run.place(training.scaled(here), training.problem.null)
        run.note()
    return epochs


def _controlled(training: _Training, terms: Terms, gradient: str) -> int:
    """Constant steps: the noise at the last epoch's end is taken off, or there is none."""
    run, problem = training.run, training.problem
    curvature = training.largest_curvature()
    rate = 1 / curvature if gradient == "expected" else 1 / (4 * (curvature + training.index.size / training.batch))
    epoch, violations = 0, [run.violation()]
    lowest, best = run.objective, (training.v.copy(), training.alive.copy())
    while violations[-1] > terms.tol and epoch < terms.max_iter:
        if gradient == "controlled" and epoch % _WAIT == 0 and epoch > _WAIT and not _falls(violations, run.history):
            # Noise that does not die out at this rate, as where a coefficient keeps changing sign.
            rate /= 2
            training.v, training.alive = best[0].copy(), best[1].copy()
        anchor, anchored = training.v.copy(), training.expected(training.v)
        spread = training.variance(anchor)
        if gradient == "expected":
            training.move(anchored, spread, rate)
        else:
            for rows in training.batches():
                x = training.rows.take(rows)
                noise, variance = training.draw(x.shape), training.variance(training.v)
                step = training.sampled(x, rows, noise, training.v, variance) + anchored
                step -= training.sampled(x, rows, noise, anchor, spread)
                training.move(step, variance, rate)
        training.prune(training.v)
        run.place(training.scaled(training.v), problem.null)
        training.enter()
        run.note()
        violations.append(run.violation())
        epoch += 1
        if run.objective < lowest:
            lowest, best = run.objective, (training.v.copy(), training.alive.copy())
    if violations[-1] > terms.tol and lowest < run.objective:
        run.place(training.scaled(best[0]), problem.null)
    return epoch


def _falls(violations: list[float], objectives: list[float]) -> bool:
    """Whether either was lower over the last epochs than over as many before."""

    def fell(series: Floats) -> bool:
        return float(series[-_WAIT:].mean()) < float(series[-2 * _WAIT : -_WAIT].mean())

    return fell(np.log(np.maximum(violations, 1e-300))) or fell(np.array(objectives))
