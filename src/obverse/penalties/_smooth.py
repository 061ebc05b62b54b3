r"""Penalties that are smooth at zero, and so shrink without making zeros: log-square-sum and standout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array, tracing
from ._base import Penalty
from ._parameters import store_constant, store_exponent

__all__ = ["Log2Sum", "Standout"]

# Newton from one side of the inflection converges quadratically, and at a rate of 2/3 where three stationary
# points meet; there the minimizer itself is only defined to the cube root of the rounding error.
_NEWTON_STEPS = 32


@final
@dataclass(frozen=True)
class Log2Sum(Penalty):
    r"""Logarithm of the square: :math:`\Omega(w) = \log(1 + w^2/\epsilon)`.

    Its map is :math:`\hat\eta(w) = (w^2 + \epsilon)/2`; its dual :math:`2\log(2\eta/\epsilon) + \epsilon/\eta
    - 2` from :math:`\epsilon/2` on, 0 below. The slope at zero is 0: weights shrink, none becomes exactly
    zero.

    Parameters
    ----------
    epsilon : float, default 1
        Square of the width: a ridge well below ``sqrt(epsilon)``, a logarithm well above. Positive.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021), released code, with the sign in the dual corrected (derived in
    docs/theory.md, section 4.3).
    """

    epsilon: float = 1.0
    name: ClassVar[str] = "log2-sum"

    def __post_init__(self) -> None:
        store_constant(self, "epsilon")

    def _value(self, w: Array, xp: Any) -> Array:
        # Past 1e9 widths the 1 is rounded away, and the square might overflow.
        scaled = w / math.sqrt(self.epsilon)
        large = scaled > 1e9
        bounded = xp.where(large, 1.0, scaled)
        return xp.where(large, 2 * xp.log(xp.where(large, scaled, 1.0)), xp.log1p(bounded * bounded))

    def _slope(self, w: Array, xp: Any) -> Array:
        large = w > math.sqrt(self.epsilon)
        divisor = xp.where(large, w, 1.0)
        return xp.where(large, 2 / (w + self.epsilon / divisor), 2 * w / (xp.where(large, 0.0, w) ** 2 + self.epsilon))

    def _eta(self, w: Array, xp: Any) -> Array:
        return (w * w + self.epsilon) / 2

    def _dual(self, eta: Array, xp: Any) -> Array:
        excess = xp.clip(2 * eta / self.epsilon - 1, 0.0, None)
        return 2 * (xp.log1p(excess) + (1 / (1 + excess) - 1))

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # In units of the width: x (1 + 2 T / (x^2 + 1)) = z, of which the left is concave up to sqrt(3), then
        # convex.
        width = math.sqrt(self.epsilon)
        twice = 2 * step / self.epsilon

        def curve(x: Array) -> tuple[Array, Array]:
            square = x * x + 1
            ratio = twice / square
            return x * (1 + ratio), 1 + ratio * (2 / square - 1)

        far, scaled = _far(z / width, xp)
        below, above = _both_sides(curve, scaled, twice, math.sqrt(3), xp)
        # The difference of their objectives, per distance between them; a bounded one keeps squares in range.
        gap = above - below
        bounded = xp.clip(gap, None, 1e15)
        logarithm = xp.log1p(bounded * ((bounded + 2 * below) / (below * below + 1)))
        better = (above + below) / 2 - scaled + (twice / 2) * (logarithm / gap) < 0
        return xp.where(far, z, width * xp.where(better, above, below))

    @property
    def slope_at_zero(self) -> float:
        return 0.0

    @property
    def curvature_limit(self) -> float:
        return 4.0 * self.epsilon


@final
@dataclass(frozen=True)
class Standout(Penalty):
    r"""Standout: the penalty whose keep probability at strength 1 is :math:`\mathrm{sigmoid}(g|w| + b)`.

    With gain :math:`g` and bias :math:`b`,

    .. math:: \hat\eta(w) = e^{g|w| + b}, \qquad
              \Omega(w) = e^{-b} \left(1 - (1 + g|w|) e^{-g|w|}\right) / g^2

    It levels off at :math:`e^{-b}/g^2` and is smooth at zero: weights shrink, none becomes exactly zero.

    Parameters
    ----------
    gain : float, default 1
        How fast the keep probability rises with the weight. Positive.
    bias : float, default 0
        Log odds of keeping a weight at zero. From -80 to 80.

    References
    ----------
    Ba and Frey (2013); penalty: LeJeune, Javadi and Baraniuk (2021), released code, and derived for gain and
    bias in docs/theory.md, section 4.7.
    """

    gain: float = 1.0
    bias: float = 0.0
    name: ClassVar[str] = "standout"

    def __post_init__(self) -> None:
        store_constant(self, "gain")
        store_exponent(self, "bias", 80.0)

    @property
    def _scale(self) -> float:
        return math.exp(-self.bias) / self.gain**2

    def _value(self, w: Array, xp: Any) -> Array:
        return self._scale * _second_gamma(self.gain * w, xp)

    def _slope(self, w: Array, xp: Any) -> Array:
        finite = xp.where(w < math.inf, w, 0.0)
        return math.exp(-self.bias) * (finite * xp.exp(-self.gain * w))

    def _eta(self, w: Array, xp: Any) -> Array:
        return xp.exp(self.gain * w + self.bias)

    def _dual(self, eta: Array, xp: Any) -> Array:
        # eta_hat is a bijection above its value at zero, so the dual is its definition at the inverse.
        finite = xp.where(eta < math.inf, xp.clip(eta, math.exp(self.bias), None), math.exp(self.bias))
        y = xp.log(finite) - self.bias
        value = self._scale * (2 * _second_gamma(y, xp) - y * y * xp.exp(-y))
        return xp.where(eta == math.inf, 2 * self._scale, value)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # In units of 1/gain: y (1 + T exp(-y)) = gain z, of which the left is concave up to 2 and then
        # convex.
        strength = step * math.exp(-self.bias)

        def curve(y: Array) -> tuple[Array, Array]:
            damping = strength * xp.exp(-y)
            return y * (1 + damping), 1 + damping * (1 - y)

        far, scaled = _far(self.gain * z, xp)
        below, above = _both_sides(curve, scaled, strength, 2.0, xp)
        gain = (above - below) * ((above + below) / 2 - scaled)
        cost = strength * (_second_gamma(above, xp) - _second_gamma(below, xp))
        return xp.where(far, z, xp.where(gain + cost < 0, above, below) / self.gain)

    @property
    def slope_at_zero(self) -> float:
        return 0.0

    @property
    def curvature_limit(self) -> float:
        # The curvature exp(-b) (1 - g w) exp(-g w) is least at g w = 2.
        return math.exp(2 + self.bias)


def _far(scaled: Array, xp: Any) -> tuple[Array, Array]:
    """Where points are so far out that no step moves them, and the points with these brought into range."""
    far = scaled > math.sqrt(float(xp.finfo(scaled.dtype).max))
    return far, xp.where(far, 1.0, scaled)


def _second_gamma(y: Array, xp: Any) -> Array:
    """1 - (1 + y) exp(-y) for y >= 0: by its series up to 1/4, where the difference would cancel."""
    small = y < 0.25
    low = xp.where(small, y, 0.0)
    series = xp.zeros_like(low)
    for n in range(13, 1, -1):
        series = (-1) ** n * (n - 1) / math.factorial(n) + low * series
    high = xp.where(small | (y == math.inf), 1.0, y)
    direct = 1 - (1 + high) * xp.exp(-high)
    return xp.where(small, low * low * series, xp.where(y == math.inf, 1.0, direct))


def _both_sides(
    curve: Callable[[Array], tuple[Array, Array]], z: Array, strength: Array, inflection: float, xp: Any
) -> tuple[Array, Array]:
    """The smallest and the largest root of ``curve(x) = z`` on [0, z]; where there is but one, both are that.

    Left of its inflection the curve is concave and right of it convex, so that Newton from 0 climbs to a root
    on the left and Newton from z descends to one on the right, both monotonically.
    """
    middle = xp.clip(z + 0 * strength, None, inflection)
    at_middle, _ = curve(middle)
    left, right = xp.zeros_like(middle), xp.clip(z + 0 * strength, inflection, None)
    far = z > inflection
    rounding = 4 * float(xp.finfo(z.dtype).eps)
    for _ in range(_NEWTON_STEPS):
        (value, tilt), (far_value, far_tilt) = curve(left), curve(right)
        # Past a fold the tilt is not positive and Newton would leave its side: there is no root on it.
        new_left = xp.where(tilt > 0, left - (value - z) / xp.where(tilt > 0, tilt, 1.0), middle)
        new_left = xp.where(new_left > middle, middle, new_left)
        new_right = xp.where(far_tilt > 0, right - (far_value - z) / xp.where(far_tilt > 0, far_tilt, 1.0), middle)
        new_right = xp.where(new_right < middle, middle, new_right)
        settled = (new_left - left <= rounding * left) & (right - new_right <= rounding * right)
        left, right = new_left, new_right
        if not tracing(xp) and bool(xp.all(settled)):
            break
    # A side without a root ends on the inflection.
    has_left = (at_middle >= z) | (left < middle)
    has_right = far & (right > middle)
    return xp.where(has_left, left, right), xp.where(has_right, right, left)
