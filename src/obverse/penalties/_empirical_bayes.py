"""The penalty of automatic relevance determination by empirical Bayes, one weight at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array, tracing
from ._base import Penalty
from ._evaluation import square_root
from ._jump import jump
from ._parameters import store_constant

__all__ = ["EmpiricalBayes"]


@final
@dataclass(frozen=True)
class EmpiricalBayes(Penalty):
    r"""Empirical Bayes: the penalty with dual :math:`f(\eta) = \log(1 + c\,\eta)`.

    With :math:`v = \sqrt c\,|w|` and :math:`s = (v + \sqrt{v^2+4})/2`,

    .. math:: \Omega(w) = \frac{v}{2s} + \log s, \qquad \Omega'(w) = \frac{\sqrt c}{s}, \qquad
              \hat\eta(w) = \frac{w^2 + \sqrt{w^4 + 4 w^2/c}}{2}

    The slope at zero is :math:`\sqrt c`, the tail logarithmic. It follows variational dropout closely, with
    everything in closed form.

    Parameters
    ----------
    precision : float, default 1
        :math:`c`, the precision of the data about one weight; ``1/sqrt(c)`` is the width. Positive.

    References
    ----------
    The divergence :math:`\tfrac12\log(1 + 1/\alpha)`: Kharitonov, Molchanov and Vetrov (2018); penalty and
    proximal operator derived in docs/theory.md, section 4.8.
    """

    precision: float = 1.0
    name: ClassVar[str] = "empirical-bayes"

    def __post_init__(self) -> None:
        store_constant(self, "precision")

    @property
    def _root(self) -> float:
        return math.sqrt(self.precision)

    def _value(self, w: Array, xp: Any) -> Array:
        v = self._root * w
        # The share is one half to rounding long before the square root overflows.
        near = v < 1e12
        bounded = xp.where(near, v, 1.0)
        share = bounded / (bounded + xp.hypot(bounded, xp.asarray(2.0, dtype=v.dtype, device=v.device)))
        # There asinh(v / 2) is log v, in a form that does not overflow with v.
        logarithm = xp.where(near, xp.asinh(bounded / 2), xp.log(xp.where(near, 1.0, w)) + math.log(self._root))
        return xp.where(near, share, 0.5) + logarithm

    def _slope(self, w: Array, xp: Any) -> Array:
        v = self._root * w
        return 2 * self._root / (v + xp.hypot(v, xp.asarray(2.0, dtype=v.dtype, device=v.device)))

    def _eta(self, w: Array, xp: Any) -> Array:
        return w * ((w + xp.hypot(w, xp.asarray(2 / self._root, dtype=w.dtype, device=w.device))) / 2)

    def _dual(self, eta: Array, xp: Any) -> Array:
        return xp.log1p(self.precision * eta)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # In v and T = c step the stationary point is v = Z - T/s with s^2 - Z s = 1 - T.
        Z, T = self._root * z, self.precision * step
        number = isinstance(step, (float, int)) and not tracing(xp)
        if not number:
            T = T + 0 * Z
        past = math.sqrt(max(T - 1, 0.0)) if number else xp.sqrt(xp.clip(T - 1, 0.0, None))
        rest = max(1 - T, 0.0) if number else xp.clip(1 - T, 0.0, None)
        # Z^2 + 4 (1 - T), factored where it can vanish.
        discriminant = xp.clip(Z - 2 * past, 0.0, None) * (Z + 2 * past) + 4 * rest
        divisor = Z + square_root(discriminant, xp)
        v = xp.clip(Z - 2 * T / xp.where(divisor == 0, 1.0, divisor), 0.0, None)
        if number and T <= 2:
            return v / self._root
        if number:
            return v / self._root * (jump(_unit_value, T, math.sqrt(2 * T * math.asinh(T / 2))) < Z)
        # Past the curvature limit zero competes: compare the objectives.
        worse = (v / 2 - Z) * v + T * EmpiricalBayes()._value(v, xp) >= 0
        return xp.where((T > 2) & worse, 0.0, v / self._root)

    @property
    def slope_at_zero(self) -> float:
        return self._root

    @property
    def curvature_limit(self) -> float:
        return 2 / self.precision


def _unit_value(v: float) -> float:
    return v / (v + math.hypot(v, 2.0)) + math.asinh(v / 2)
