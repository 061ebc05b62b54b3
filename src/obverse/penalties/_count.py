"""Counting the weights that are not zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array
from ._base import Penalty

__all__ = ["L0"]


@final
@dataclass(frozen=True)
class L0(Penalty):
    r"""Number of nonzeros: :math:`\Omega(w) = 1` unless :math:`w = 0`.

    Its proximal operator is hard thresholding at :math:`\sqrt{2\,\mathrm{step}}`. The map is the limit of
    magnitude pruning: :math:`\hat\eta` is 0 at zero and infinite elsewhere, the dual is 2 for every positive
    :math:`\eta`. The slope is infinite at zero, where the penalty jumps, and 0 elsewhere.

    References
    ----------
    Blumensath and Davies (2008) for hard thresholding; map and dual derived in docs/theory.md, section 4.6.
    """

    name: ClassVar[str] = "l0"

    def _value(self, w: Array, xp: Any) -> Array:
        return xp.where(w > 0, 1.0, w)

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.where(w == 0, math.inf, xp.where(w > 0, 0.0, w))

    def _eta(self, w: Array, xp: Any) -> Array:
        return xp.where(w > 0, math.inf, w)

    def _dual(self, eta: Array, xp: Any) -> Array:
        return xp.where(eta > 0, 2.0, eta)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        return xp.where((step >= z * (z / 2)) & (step + 0 * z > 0), 0.0, z)

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        return z * (z / 2)

    @property
    def slope_at_zero(self) -> float:
        return math.inf

    @property
    def curvature_limit(self) -> float:
        return 0.0
