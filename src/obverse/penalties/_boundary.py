"""The strength that belongs to a boundary between weights that stay and weights that fall."""

from __future__ import annotations

import math

import numpy as np

from ._base import Penalty

__all__ = ["boundary_strength"]


def boundary_strength(penalty: Penalty) -> float:
    """Strength at which the proximal operator zeroes magnitude 1, the boundary's.

    A penalty without exact zeros has none; it acts with the strength at which the boundary's keep probability is one
    half, but no stronger than lets a weight near zero keep 98 % of itself per application, and the budget alone zeroes.
    """
    strength = float(penalty.zeroing_step(np.float64(1.0)))
    if math.isfinite(strength):
        return strength
    at_boundary = float(penalty.eta(np.float64(1.0)))
    near_zero = float(penalty.eta(np.float64(1e-6)))
    return min(at_boundary, near_zero / 49) if math.isfinite(near_zero) else 0.0
