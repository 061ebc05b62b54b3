"""Groups of rows by their features, where no label or metadata says what belongs together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.random import Seed, torch_generator
from ..errors import InvalidArgumentError

__all__ = ["cluster_groups", "feature_matrix"]


def cluster_groups(features: Any, clusters: int, *, seed: Seed = 0) -> NDArray[np.int64]:
    """Groups 0 to ``clusters - 1`` by k-means of standardized features.

    Parameters
    ----------
    features : array or tensor, N rows
        Inputs, or the embeddings of a trained model; further axes are flattened.
    clusters : int
        From 1 to N.
    seed : int, torch.Generator or numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (N,)
        For the ``groups`` of `estimate_group_noise`, `diagnose_groups` or `group_report`.

    Raises
    ------
    InvalidArgumentError
        For features that are not finite numbers, or more clusters than different rows.
    """
    matrix = feature_matrix(features)
    clusters = checks.count("clusters", clusters, 1, len(matrix))
    if clusters > (different := len(np.unique(matrix, axis=0))):
        raise InvalidArgumentError(f"{clusters} clusters need as many different rows, got {different}")
    from sklearn.cluster import KMeans

    state = int(torch.randint(2**31, (), generator=torch_generator(seed)))
    return np.asarray(KMeans(clusters, n_init=10, random_state=state).fit_predict(matrix), dtype=np.int64)


def feature_matrix(features: Any) -> NDArray[np.float64]:
    """Features as float64 of shape (N, d), each column centered and, unless constant, of variance 1."""
    given = features.detach().cpu().double().numpy() if isinstance(features, Tensor) else features
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"features must be an array of numbers, got {type(features).__name__}") from error
    if array.ndim < 1 or not array.size or not np.isfinite(array).all():
        raise InvalidArgumentError(
            f"features must be finite numbers, one or more for each row, got shape {array.shape}"
        )
    matrix = array.reshape(len(array), -1)
    spread = matrix.std(0)
    return np.asarray((matrix - matrix.mean(0)) / np.where(spread > 0, spread, 1.0))
