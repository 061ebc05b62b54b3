r"""Powers of the weight: ridge, lasso, and everything between them and counting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array
from ..errors import InvalidArgumentError
from ._base import Penalty
from ._parameters import store_constant

__all__ = ["Lasso", "Lp", "Ridge"]

# Newton steps that reach float64 accuracy from the starting points below, for every power and step.
_CONCAVE_STEPS, _CONVEX_STEPS = 7, 24


@final
@dataclass(frozen=True)
class Ridge(Penalty):
    r"""Ridge: :math:`\Omega(w) = w^2/2`, the other face of dropout at a constant rate.

    Its map is :math:`\hat\eta = 1` and its dual 0 up to 1, infinite beyond; it shrinks and makes no zeros.

    References
    ----------
    Derived in docs/theory.md, section 4.1; constant dropout as ridge: Wager, Wang and Liang (2013).
    """

    name: ClassVar[str] = "ridge"

    def _value(self, w: Array, xp: Any) -> Array:
        return w * (w / 2)

    def _slope(self, w: Array, xp: Any) -> Array:
        return w + 0.0

    def _eta(self, w: Array, xp: Any) -> Array:
        return xp.where(xp.isnan(w), w, 1.0)

    def _dual(self, eta: Array, xp: Any) -> Array:
        return xp.where(eta > 1, math.inf, 0 * xp.where(eta > 1, 0.0, eta))

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        return z / (1 + step)

    @property
    def slope_at_zero(self) -> float:
        return 0.0

    @property
    def curvature_limit(self) -> float:
        return math.inf


@final
@dataclass(frozen=True)
class Lasso(Penalty):
    r"""Lasso: :math:`\Omega(w) = |w|`, with map and dual :math:`\hat\eta(w) = |w|`, :math:`f(\eta) = \eta`.

    Its proximal operator is soft thresholding.

    References
    ----------
    Tibshirani (1996).
    """

    name: ClassVar[str] = "lasso"

    def _value(self, w: Array, xp: Any) -> Array:
        return w + 0.0

    def _slope(self, w: Array, xp: Any) -> Array:
        return xp.where(xp.isnan(w), w, 1.0)

    def _eta(self, w: Array, xp: Any) -> Array:
        return w + 0.0

    def _dual(self, eta: Array, xp: Any) -> Array:
        return eta + 0.0

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        return xp.clip(z - step, 0.0, None)

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        return z + 0.0

    @property
    def slope_at_zero(self) -> float:
        return 1.0

    @property
    def curvature_limit(self) -> float:
        return math.inf


@final
@dataclass(frozen=True)
class Lp(Penalty):
    r"""Power of the weight: :math:`\Omega(w) = |w|^p / p` for :math:`0 < p \le 2`.

    Its map is :math:`\hat\eta(w) = |w|^{2-p}`, its dual :math:`f(\eta) = \eta^q/q` with :math:`q = p/(2-p)`.
    The slope at zero is infinite below p = 1: a weight at zero stays there under any step, and every step
    makes a gap in the values that the proximal operator can take.

    Parameters
    ----------
    p : float, default 0.5
        Power, from 0.001 to 2. 1 is `Lasso` and 2 is `Ridge`.

    References
    ----------
    Map and dual: LeJeune, Javadi and Baraniuk (2021), released code; threshold of the proximal operator:
    Marjanovic and Solo (2012); its closed form at p = 1/2: Xu, Chang, Xu and Zhang (2012), derived for this
    scaling in docs/theory.md, section 4.2.
    """

    p: float = 0.5
    name: ClassVar[str] = "lp"

    def __post_init__(self) -> None:
        store_constant(self, "p")
        if self.p < 1e-3:
            raise InvalidArgumentError(f"p must be at least 0.001 (for 0, take L0), got {self.p!r}")
        if self.p > 2:
            raise InvalidArgumentError(
                f"p must be at most 2, beyond which the penalty is not subquadratic; got {self.p!r}"
            )

    def _value(self, w: Array, xp: Any) -> Array:
        # The derivative of the power is infinite at zero: keep zero out of its reach.
        return xp.where(w == 0, 0.0, xp.where(w == 0, 1.0, w) ** self.p) / self.p

    def _slope(self, w: Array, xp: Any) -> Array:
        return w ** (self.p - 1) if self.p != 1 else xp.where(xp.isnan(w), w, 1.0)

    def _eta(self, w: Array, xp: Any) -> Array:
        return w ** (2 - self.p) if self.p != 2 else xp.where(xp.isnan(w), w, 1.0)

    def _dual(self, eta: Array, xp: Any) -> Array:
        if self.p == 2:
            return xp.where(eta > 1, math.inf, 0 * xp.where(eta > 1, 0.0, eta))
        q = self.p / (2 - self.p)
        return eta**q / q

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        if self.p == 2:
            return z / (1 + step)
        if self.p == 1:
            return xp.clip(z - step, 0.0, None)
        return self._concave_prox(z, step, xp) if self.p < 1 else self._convex_prox(z, step, xp)

    def _concave_prox(self, z: Array, step: Array, xp: Any) -> Array:
        # With x = z r the equation is r + c r^(p-1) = 1, c = step z^(p-2); zero is better from c = `_jump`
        # on.
        p, limit = self.p, self._zeroing_step(z, xp)
        zero = (step >= limit) & (step + 0 * z > 0)
        # A limit below the normal numbers may be flushed to zero in the division.
        tiny = limit < float(xp.finfo(z.dtype).smallest_normal)
        c = self._jump * xp.where(zero | tiny, 0.0, step / xp.where(tiny, 1.0, limit))
        if p == 0.5:
            r = (2 / 3) * (1 + xp.cos((2 / 3) * (math.pi - xp.acos((27**0.5 / 2) * c))))
        else:
            # Convex and increasing right of the root, so Newton from r = 1 descends to it.
            r = 1 - c / (1 - (1 - p) * c)
            for _ in range(_CONCAVE_STEPS):
                power = c * r ** (p - 1)
                r = r - (r + power - 1) / (1 - (1 - p) * power / r)
        return xp.where(zero, 0.0, z * r)

    def _convex_prox(self, z: Array, step: Array, xp: Any) -> Array:
        # With x = z exp(y): log(exp(y) + c exp((p-1) y)) = 0, convex and increasing in y with slopes in [p-1,
        # 1].
        p = self.p
        idle = (z == 0) | (step + 0 * z == 0)
        log_c = xp.log(xp.where(idle, 1.0, step + 0 * z)) - (2 - p) * xp.log(xp.where(idle, 1.0, z))
        y = xp.clip(-log_c / (p - 1), None, 0.0)
        for _ in range(_CONVEX_STEPS):
            other = log_c + (p - 1) * y
            share = 1 / (1 + xp.exp(other - y))
            total = xp.where(other > y, other, y) + xp.log1p(xp.exp(-xp.abs(other - y)))
            y = y - total / (share + (p - 1) * (1 - share))
        return xp.where(idle, z + 0 * step, z * xp.exp(y))

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        if self.p > 1:
            return xp.where(z > 0, math.inf, z)
        return self._jump * z ** (2 - self.p)

    @property
    def _jump(self) -> float:
        """Zeroing step of z = 1, from the smallest nonzero minimizer (2 (1-p) / p)^(1/(2-p)) at unit step."""
        if self.p == 1:
            return 1.0
        smallest = (2 * (1 - self.p) / self.p) ** (1 / (2 - self.p))
        return float((smallest + smallest ** (self.p - 1)) ** (self.p - 2))

    @property
    def slope_at_zero(self) -> float:
        return math.inf if self.p < 1 else float(self.p == 1)

    @property
    def curvature_limit(self) -> float:
        return 0.0 if self.p < 1 else math.inf
