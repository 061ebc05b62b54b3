"""Class counts, and the weights that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from ..errors import InvalidArgumentError

__all__ = ["Counts", "as_counts", "class_balanced_weights", "inverse_frequency_weights"]

Counts = Sequence[float] | NDArray[np.generic] | Tensor


def as_counts(counts: Counts) -> Tensor:
    """Counts of at least two classes as a float64 tensor of shape (K,); none may be zero."""
    values = torch.as_tensor(counts, dtype=torch.float64).detach().cpu()
    if values.ndim != 1 or len(values) < 2:
        raise InvalidArgumentError(f"counts must be one number for each of 2 or more classes, got {counts!r}")
    if not bool(torch.isfinite(values).all()) or bool((values <= 0).any()):
        raise InvalidArgumentError(
            f"every class needs a positive, finite count, got {values.tolist()}; leave out classes without examples"
        )
    return values


def class_balanced_weights(counts: Counts, beta: float = 0.9999) -> Tensor:
    """Weights by the inverse effective number of examples, with sum K.

    Parameters
    ----------
    counts : array of shape (K,)
        Training examples in each class, all positive.
    beta : float
        In [0, 1]: 0 gives equal weights, 1 (the limit) weights by inverse count.

    Returns
    -------
    Tensor of float32, shape (K,)

    Raises
    ------
    InvalidArgumentError
        For a count that is not positive, or ``beta`` outside [0, 1].

    Notes
    -----
    ``w_c ~ 1 / E(n_c)``, ``E(n) = (1 - beta^n) / (1 - beta)``. Source: Cui, Jia, Lin, Song and Belongie (2019).
    """
    values = as_counts(counts)
    beta = checks.fraction("beta", beta)
    if beta == 0.0:
        return torch.ones(len(values))
    # expm1 keeps the digits that 1 - beta^n loses for beta near one.
    effective = values if beta == 1.0 else torch.expm1(values * math.log(beta)) / (beta - 1.0)
    return _sum_to_classes(1.0 / effective)


def inverse_frequency_weights(counts: Counts, power: float = 1.0) -> Tensor:
    """Weights ``n_c^-power`` with sum K: the cost-sensitive baseline (``power`` 1, or 1/2 for a softer one).

    Parameters
    ----------
    counts : array of shape (K,)
        Training examples in each class, all positive.
    power : float
        Finite; 0 gives equal weights.

    Returns
    -------
    Tensor of float32, shape (K,)
    """
    values = as_counts(counts)
    return _sum_to_classes((values / values.min()) ** -checks.finite("power", power))


def _sum_to_classes(weights: Tensor) -> Tensor:
    scaled = (weights * (len(weights) / weights.sum())).float()
    if not bool((scaled.isfinite() & (scaled > 0)).all()):
        raise InvalidArgumentError(
            f"the weights of these counts are beyond float32: {scaled.tolist()}; take a power nearer to 0, or fewer "
            "orders of magnitude between the counts"
        )
    return scaled
