r"""Penalties that are constant from some weight on, so that large weights are not shrunk: MCP, SCAD, capped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array
from ..errors import InvalidArgumentError
from ._base import Penalty
from ._parameters import store_constant

__all__ = ["MCP", "SCAD", "CappedL1", "TargetedDropout"]


@final
@dataclass(frozen=True)
class MCP(Penalty):
    r"""Minimax concave penalty: :math:`|w| - w^2/2\kappa` up to :math:`\kappa`, then :math:`\kappa/2`.

    Its map is :math:`\hat\eta(w) = \kappa |w| / (\kappa - |w|)`, infinite from :math:`\kappa` on; its dual
    :math:`f(\eta) = \kappa\eta/(\eta+\kappa)`.

    Parameters
    ----------
    kappa : float, default 1
        Weight from which the penalty is constant. Positive.

    References
    ----------
    Zhang (2010); map and dual: LeJeune, Javadi and Baraniuk (2021), released code.
    """

    kappa: float = 1.0
    name: ClassVar[str] = "mcp"

    def __post_init__(self) -> None:
        store_constant(self, "kappa")

    def _value(self, w: Array, xp: Any) -> Array:
        bounded = xp.where(w >= self.kappa, self.kappa, w)
        return bounded * (1 - bounded / (2 * self.kappa))

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.clip(1 - w / self.kappa, 0.0, None)

    def _eta(self, w: Array, xp: Any) -> Array:
        flat = w >= self.kappa
        return xp.where(flat, math.inf, self.kappa * w / xp.where(flat, 1.0, self.kappa - w))

    def _dual(self, eta: Array, xp: Any) -> Array:
        return self.kappa / (1 + self.kappa / eta)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # Soft thresholding stretched to meet the identity at kappa. Past the curvature limit zero wins until
        # beyond kappa, and what is left is hard thresholding.
        zero, kept = step >= self._zeroing_step(z, xp), z >= self.kappa
        stretched = (z - step) * (self.kappa / xp.where(zero | kept, self.kappa, self.kappa - (step + 0 * z)))
        return xp.where(zero, 0.0, xp.where(kept, z, stretched))

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        return z * xp.clip(z / self.kappa, 1.0, None)

    @property
    def slope_at_zero(self) -> float:
        return 1.0

    @property
    def curvature_limit(self) -> float:
        return float(self.kappa)


@final
@dataclass(frozen=True)
class SCAD(Penalty):
    r"""Smoothly clipped absolute deviation, in units in which its slope at zero is 1.

    With the threshold :math:`l`, the slope is 1 up to :math:`l`, falls linearly to 0 at :math:`a l`, and the
    penalty is constant, :math:`(a+1) l/2`, from there on.

    Parameters
    ----------
    a : float, default 3.7
        Where the penalty becomes constant, in thresholds. Above 1 (the original asks for more than 2, which
        makes the proximal operator continuous at steps up to the threshold).
    threshold : float, default 1
        Weight up to which the penalty is the lasso. Positive.

    References
    ----------
    Fan and Li (2001); map and dual: LeJeune, Javadi and Baraniuk (2021), released code.
    """

    a: float = 3.7
    threshold: float = 1.0
    name: ClassVar[str] = "scad"

    def __post_init__(self) -> None:
        store_constant(self, "a", "threshold")
        if not 1 < self.a <= 1e50:
            raise InvalidArgumentError(f"a must be above 1 and at most 1e50, got {self.a!r}")

    @property
    def _end(self) -> float:
        return self.a * self.threshold

    @property
    def _width(self) -> float:
        return (self.a - 1) * self.threshold

    def _value(self, w: Array, xp: Any) -> Array:
        # The lasso, less the square that bends it.
        bounded = xp.where(w >= self._end, self._end, w)
        excess = xp.clip(bounded - self.threshold, 0.0, None)
        return bounded - excess * (excess / (2 * self._width))

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.clip((self._end - w) / self._width, 0.0, 1.0)

    def _eta(self, w: Array, xp: Any) -> Array:
        flat = w >= self._end
        return xp.where(flat, math.inf, w / xp.where(flat, 1.0, self._slope(w, xp)))

    def _dual(self, eta: Array, xp: Any) -> Array:
        # threshold * ((a+1) eta - threshold) / (width + eta), as its value at the threshold and the rest.
        ratio = self.threshold / eta
        beyond = self.threshold * (self.a + 1 - ratio) / (1 + (self.a - 1) * ratio)
        return xp.where(eta <= self.threshold, eta, beyond)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # The three pieces of the slope give z - step, a stretched line and z. Up to the curvature limit (the
        # width) they follow one another; past it the line is a maximum, and z wins over z - step from (end +
        # threshold + step) / 2 on, which is `kept` in both cases since the two bounds cross at the limit.
        threshold, end, width = self.threshold, self._end, self._width
        steep = step + 0 * z >= width
        zero = step >= self._zeroing_step(z, xp)
        kept = (z >= end) & ((step + 0 * z <= width) | (2 * z >= end + threshold + step) | (step + 0 * z >= z))
        soft = xp.clip(z - step, 0.0, None)
        bent = ~steep & ~kept & (z > threshold + step)
        line = (width * z - end * step) / xp.where(bent, width - (step + 0 * z), 1.0)
        return xp.where(zero, 0.0, xp.where(kept, z, xp.where(bent, line, soft)))

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        return z * xp.clip(z / (self._end + self.threshold), 1.0, None)

    @property
    def slope_at_zero(self) -> float:
        return 1.0

    @property
    def curvature_limit(self) -> float:
        return float(self._width)


@final
@dataclass(frozen=True)
class CappedL1(Penalty):
    r"""Capped lasso: :math:`\Omega(w) = \min(|w|, \kappa)` with :math:`\kappa` the threshold.

    Its map is :math:`\hat\eta(w) = |w|` below the threshold and infinite from there on; its dual
    :math:`f(\eta) = \eta` up to the threshold and :math:`2\kappa - \kappa^2/\eta` beyond.

    Parameters
    ----------
    threshold : float, default 1
        Weight from which the penalty is constant. Positive.

    References
    ----------
    Zhang (2010), "Analysis of multi-stage convex relaxation for sparse regularization"; map and dual derived
    in docs/theory.md, section 4.4.
    """

    threshold: float = 1.0
    name: ClassVar[str] = "capped-l1"

    def __post_init__(self) -> None:
        store_constant(self, "threshold")

    def _value(self, w: Array, xp: Any) -> Array:
        return xp.where(w >= self.threshold, self.threshold, w)

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.where(w >= self.threshold, 0.0, 1.0 + 0 * xp.where(w >= self.threshold, 0.0, w))

    def _eta(self, w: Array, xp: Any) -> Array:
        return xp.where(w >= self.threshold, math.inf, w)

    def _dual(self, eta: Array, xp: Any) -> Array:
        return xp.where(eta <= self.threshold, eta, self.threshold * (2 - self.threshold / eta))

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # z and z - step are the two candidates, equally good at threshold + step / 2; past step = 2 threshold
        # the second is zero, which `_zeroing_step` has decided.
        kept = (z >= self.threshold + step / 2) | (step + 0 * z >= 2 * self.threshold)
        return xp.where(step >= self._zeroing_step(z, xp), 0.0, xp.where(kept, z, z - step))

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        return z * xp.clip(z / (2 * self.threshold), 1.0, None)

    @property
    def slope_at_zero(self) -> float:
        return 1.0

    @property
    def curvature_limit(self) -> float:
        return 0.0


@final
@dataclass(frozen=True)
class TargetedDropout(Penalty):
    r"""Targeted dropout with an absolute threshold: :math:`\Omega(w) = \min(|w|, \kappa)^2/2`.

    Weights below the threshold :math:`\kappa` are dropped at a constant rate, the others kept:
    :math:`\hat\eta = 1` below, infinite from there on. Small weights are shrunk, never to exact zeros. The
    dual is 0 up to 1 and :math:`\kappa^2 (1 - 1/\eta)` beyond.

    Parameters
    ----------
    threshold : float, default 1
        Weight from which nothing is dropped. Positive.

    References
    ----------
    Gomez et al. (2019), "Learning sparse networks using targeted dropout"; penalty derived in
    docs/theory.md, section 4.5.
    """

    threshold: float = 1.0
    name: ClassVar[str] = "targeted-dropout"

    def __post_init__(self) -> None:
        store_constant(self, "threshold")

    def _value(self, w: Array, xp: Any) -> Array:
        bounded = xp.where(w >= self.threshold, self.threshold, w)
        return bounded * (bounded / 2)

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.where(w >= self.threshold, 0.0, w)

    def _eta(self, w: Array, xp: Any) -> Array:
        return xp.where(w >= self.threshold, math.inf, xp.where(xp.isnan(w), w, 1.0))

    def _dual(self, eta: Array, xp: Any) -> Array:
        return self.threshold**2 * (1 - 1 / xp.clip(eta, 1.0, None))

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        kept = z > self.threshold * xp.sqrt(1 + (step + 0 * z))
        return xp.where(kept, z, z / (1 + step))

    @property
    def slope_at_zero(self) -> float:
        return 0.0

    @property
    def curvature_limit(self) -> float:
        return 0.0
