"""Choosing an alpha: by held-out error, or by information criteria."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._estimator import Data
from ._path import SparsePath

__all__ = ["cannot_reach", "extended_bic", "has_risen", "log_likelihoods", "one_standard_error"]

Floats = npt.NDArray[np.float64]

# Alphas past the lowest value after which a path is given up.
_PATIENCE = 10
# Alphas over which the pace of a fall is measured, and how many of these are compared.
_PACE, _RECENT = 8, 2
# What counts as a rise, of the way from the first value down to the lowest.
_RISE = 0.01


def has_risen(values: Floats) -> bool:
    """Whether the lowest value lies so far back, and values have risen so far since, that the path may end.

    A flat stretch is no rise: it may yet lead down.
    """
    best = int(np.argmin(values))
    if not best < values.size - _PATIENCE:
        return False
    return bool(values[-1] > values[best] + _RISE * (values[0] - values[best]))


def cannot_reach(values: Floats, count: int, best: float) -> bool:
    """Whether a path of ``count`` alphas whose values so far fall ever more slowly will stay above ``best``.

    The fastest of the last falls is drawn on to the path's end. With penalties that are not convex values fall in
    steps, which is why falls are taken over some length, and compared with the fastest so far.
    """
    if values.size < _PACE + 2 * _RECENT or not values[-1] > best:
        return False
    falls = values[:-_PACE] - values[_PACE:]
    recent = float(falls[-_RECENT:].max())
    slows = recent < (1 - 1e-3) * float(falls.max())
    return slows and values[-1] - max(recent, 0.0) / _PACE * (count - values.size) > best


def one_standard_error(errors: Floats, standard_errors: Floats, features: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Row and column of the sparsest solution within one standard error of the lowest of all.

    Parameters
    ----------
    errors, standard_errors : arrays of shape (k, n)
        Of the alphas of each shape, descending; NaN where there is none.
    features : integer array of shape (k, n)

    Notes
    -----
    Of each shape its largest alpha within the limit; of these the one with the fewest features, and then with the
    lowest error. The alphas of different shapes cannot be compared.
    """
    best = np.unravel_index(int(np.nanargmin(errors)), errors.shape)
    within = errors <= errors[best] + standard_errors[best]
    rows = np.flatnonzero(within.any(axis=1))
    columns = within[rows].argmax(axis=1)
    first = np.lexsort((errors[rows, columns], features[rows, columns]))[0]
    return int(rows[first]), int(columns[first])


def log_likelihoods(data: Data, path: SparsePath) -> Floats:
    """Twice the negative logarithm of the likelihood along a path, but for a constant.

    For the squared loss with its variance estimated, ``n log(mean squared residual)``; for the Huber loss the same with
    twice its mean, which is the former where no residual is large; for others the deviance.
    """
    n = data.total
    if data.y.ndim == 2 or data.loss == "multinomial":
        losses = np.array([_several(data, path.coefs[k], path.intercepts[k]) for k in range(len(path.alphas))])
        if data.loss == "multinomial":
            return 2 * n * losses
        outputs = data.y.shape[1]
        return np.asarray(n * outputs * np.log(np.maximum(losses, np.finfo(np.float64).tiny)))
    scores = np.asarray(data.X @ path.coefs.T.toarray(), dtype=np.float64) + path.intercepts
    if data.loss in ("squared", "huber"):
        size = float(np.abs(data.y).max(initial=0.0)) or 1.0
        residuals = np.abs((data.y[:, None] - scores) / size)
        squares = residuals**2
        if data.loss == "huber":
            delta = data.delta / size
            squares = np.where(residuals <= delta, squares, delta * (2 * residuals - delta))
        return np.asarray(n * np.log(np.maximum(data.weights @ squares, np.finfo(np.float64).tiny)))
    y = data.y[:, None]
    with np.errstate(over="ignore"):
        losses = np.logaddexp(0, scores) - y * scores if data.loss == "logistic" else np.exp(scores) - y * scores
    return np.asarray(2 * n * (data.weights @ losses))


def _several(data: Data, coef: Any, intercept: Any) -> float:
    scores = np.asarray(data.X @ coef.T, dtype=np.float64) + intercept
    if data.loss == "multinomial":
        top = scores.max(axis=1)
        sums = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        own = scores[np.arange(scores.shape[0]), data.y.astype(np.int64)]
        return float(data.weights @ (sums - own))
    size = float(np.abs(data.y).max(initial=0.0)) or 1.0
    return float(data.weights @ (((data.y - scores) / size) ** 2).mean(axis=1))


def extended_bic(data: Data, path: SparsePath, gamma: float) -> Floats:
    r"""The extended Bayesian information criterion of every solution of a path.

    .. math:: -2 \log L + k \log n + 2 \gamma \log \binom{p}{k}

    with k nonzero coefficients, those of several outputs counted one by one, and p the number of features; ``gamma=0``
    is BIC. Infinite from ``n/2`` coefficients on, where the estimate of the variance says nothing. Source: Chen and
    Chen (2008).
    """
    from scipy.special import gammaln

    p, features = data.X.shape[1], path.n_features
    count = features if path.is_sparse else (path.coefs != 0).sum(axis=(1, 2))
    choices = gammaln(p + 1) - gammaln(features + 1) - gammaln(p - features + 1)
    values = log_likelihoods(data, path) + count * np.log(data.total) + 2 * gamma * choices
    return np.where((features == 0) | (count < data.total / 2), values, np.inf)
