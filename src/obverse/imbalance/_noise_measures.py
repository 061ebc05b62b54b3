"""How noisy a row looks, from its held-out prediction or from its neighbors; groups are means of these."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..errors import InvalidArgumentError

__all__ = ["calibrated_impurity", "local_differences"]

Values = NDArray[np.float64]
_PRIOR = 0.5  # standard deviation of a group's log-temperature around that of all rows
_LOW, _HIGH = -3.0, 4.0  # bounds of a log-temperature
_CHUNK = 4096
_PLANES = 8


def calibrated_impurity(
    probabilities: Values, codes: NDArray[np.int64], members: NDArray[np.int64], groups: int
) -> tuple[Values, NDArray[np.bool_]]:
    """``1 - sum_k p_k^2`` of every row after a temperature for its group, shape (N,).

    Beside it, shape (G,), whether the temperature of a group, or of all rows, ended at a bound.

    The temperature minimizes the negative log-likelihood of the group, with a normal prior on its logarithm around that
    of all rows, so that small groups stay near it. For calibrated probabilities the mean is the mean of
    ``trace(diag p - p p^T)``, the trace of the Fisher information in the logits.
    """
    logs = np.log(np.maximum(probabilities, 1e-12))
    whole, is_bounded = _log_temperature(logs, codes, 0.0, math.inf)
    impurity, bounded = np.empty(len(codes)), np.full(groups, is_bounded)
    for group in range(groups):
        inside = members == group
        own, is_bounded = _log_temperature(logs[inside], codes[inside], whole, _PRIOR)
        bounded[group] |= is_bounded
        p = np.exp(log_softmax(logs[inside] / math.exp(own), axis=1))
        impurity[inside] = 1.0 - (p**2).sum(1)
    return impurity, bounded


def _log_temperature(logs: Values, codes: NDArray[np.int64], center: float, deviation: float) -> tuple[float, bool]:
    """The best log-temperature, and whether an end of its range is as good."""
    rows = np.arange(len(codes))

    def cost(value: float) -> float:
        fit = -float(log_softmax(logs / math.exp(value), axis=1)[rows, codes].sum())
        return fit + 0.5 * ((value - center) / deviation) ** 2

    found = float(minimize_scalar(cost, bounds=(_LOW, _HIGH), method="bounded").x)
    return found, min(cost(_LOW), cost(_HIGH)) <= cost(found) + 1e-9


def local_differences(
    features: Values, targets: Values, members: NDArray[np.int64], groups: int, neighbors: int | None
) -> tuple[Values, Values]:
    """Squared difference of every target to what its neighbors say, over the variance that it has; shape (N,).

    Beside it, shape (G,), by how much the deviation of each group's mean exceeds that of as many independent rows.

    With ``w`` the weights, of sum one, by which a linear fit to the k nearest rows of the same group predicts row i
    (means where k is too small for a fit), ``(y_i - sum w_j y_j)^2 / (1 + sum w_j^2)`` has mean ``sigma^2`` wherever
    the regression function is linear across the neighbors. With unit rows ``b_i`` of these differences, and Gaussian
    noise, the mean of n of them has variance ``2 sigma^4 sum_ij (b_i b_j)^2 / n^2`` instead of ``2 sigma^4 / n``.
    """
    from scipy.sparse import csr_array
    from sklearn.neighbors import NearestNeighbors

    dimension = features.shape[1]
    # A plane in many dimensions would need neighbors that are no longer near.
    usual = 2 * (dimension + 1) if dimension <= _PLANES else _PLANES
    wanted = usual if neighbors is None else neighbors
    result, excess = np.empty(len(targets)), np.empty(groups)
    for group in range(groups):
        inside = np.flatnonzero(members == group)
        k = min(wanted, len(inside) - 1)
        if k < 1:
            raise InvalidArgumentError("local differences need two rows or more in every group")
        x, y = features[inside], targets[inside]
        near = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(inside), _CHUNK)]
        weights = np.concatenate([_weights(x[near[part]] - x[part, None]) for part in chunks])
        norms = 1.0 + (weights**2).sum(1)
        result[inside] = (y - (weights * y[near]).sum(1)) ** 2 / norms
        rows = np.arange(len(inside))
        columns = np.concatenate([rows[:, None], near], axis=1)
        entries = np.concatenate([np.ones((len(inside), 1)), -weights], axis=1) / np.sqrt(norms)[:, None]
        unit = csr_array((entries.ravel(), (rows.repeat(k + 1), columns.ravel())), shape=(len(inside), len(inside)))
        overlap = unit @ unit.T
        excess[group] = math.sqrt(float((overlap.data**2).sum()) / len(inside))
    return result, excess


def _weights(offsets: Values) -> Values:
    """Weights (n, k) of the neighbors in the value at offset zero of the least-squares plane through them."""
    rows, k, dimension = offsets.shape
    if k <= dimension + 1:
        return np.full((rows, k), 1.0 / k)
    center = offsets.mean(1, keepdims=True)
    # Slopes of least norm where the neighbors do not span a plane; the weights have sum one either way.
    slopes = np.linalg.pinv(offsets - center, rcond=1e-8)
    return np.asarray(1.0 / k - np.einsum("nd,ndk->nk", center[:, 0], slopes))
