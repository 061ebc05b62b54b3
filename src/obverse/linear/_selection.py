"""Choosing an alpha: by held-out error, or by information criteria."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._estimator import Data
from ._losses import LOSS_KINDS, LOSSES, half_squares, softmax, total
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
    twice its mean, which is the former where no residual is large; for others the deviance, twice the summed loss.
    """
    losses = mean_losses(data, path)
    if LOSSES[data.loss].link != "identity":
        return 2 * data.total * losses
    outputs = data.y.shape[1] if data.y.ndim == 2 else 1
    return data.total * outputs * np.log(np.maximum(2 * losses / outputs, np.finfo(np.float64).tiny))


def mean_losses(data: Data, path: SparsePath) -> Floats:
    """Mean loss of every solution of a path; squared and Huber losses in units of the largest target, squared."""
    if data.y.ndim == 2 or data.loss == "multinomial":
        return np.array([_several(data, path.coefs[k], path.intercepts[k]) for k in range(len(path.alphas))])
    scores = np.asarray(data.X @ path.coefs.T.toarray(), dtype=np.float64) + path.intercepts
    kind, size = LOSS_KINDS[data.loss], _size(data) if LOSSES[data.loss].link == "identity" else 1.0
    y, delta = np.ascontiguousarray(data.y / size), data.delta / size
    columns = np.ascontiguousarray(scores.T / size)
    return np.array([total(kind, y, column, data.weights, delta) for column in columns])


def _size(data: Data) -> float:
    return float(np.abs(data.y).max(initial=0.0)) or 1.0


def _several(data: Data, coef: Any, intercept: Any) -> float:
    """Mean loss of several classes, or of several outputs, summed."""
    scores = np.asarray(data.X @ coef.T, dtype=np.float64) + intercept
    if data.loss == "multinomial":
        room = np.empty_like(scores)
        return float(softmax(data.y.astype(np.int64), scores, data.weights, room, np.empty_like(scores)))
    return half_squares(data.weights, (data.y - scores) / _size(data))


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
