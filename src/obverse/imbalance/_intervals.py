"""Intervals of shares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from .._core import checks

__all__ = ["normal_quantile", "wilson"]


def normal_quantile(confidence: float) -> float:
    """Half width of a two-sided normal interval in standard deviations."""
    return float(ndtri(0.5 + checks.fraction("confidence", confidence, zero=False, one=False) / 2.0))


def wilson(hits: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of shares: inside [0, 1], and of positive width at 0 and 1. NaN without trials."""
    k, n = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    z = normal_quantile(confidence)
    n = np.where(n > 0, n, math.nan)
    center = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)
