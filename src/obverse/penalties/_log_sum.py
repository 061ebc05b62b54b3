"""The log-sum penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array, tracing
from ._base import Penalty
from ._evaluation import square_root
from ._jump import jump
from ._parameters import store_constant

__all__ = ["LogSum"]


@final
@dataclass(frozen=True)
class LogSum(Penalty):
    r"""Log-sum: :math:`\Omega(w) = \log(1 + |w|/\epsilon)`.

    Its map is :math:`\hat\eta(w) = |w| (|w| + \epsilon)`, the slope at zero :math:`1/\epsilon`, the tail
    logarithmic. Written here so that :math:`\Omega(0)=0`; the paper's code has :math:`\log(|w| + \epsilon)`.

    Parameters
    ----------
    epsilon : float, default 0.1
        Width, in units of the weights: well below it the penalty is a lasso of slope ``1/epsilon``, well
        above it a logarithm. Positive.

    References
    ----------
    Candes, Wakin and Boyd (2008); map and dual: LeJeune, Javadi and Baraniuk (2021), released code.
    """

    epsilon: float = 0.1
    name: ClassVar[str] = "log-sum"

    def __post_init__(self) -> None:
        store_constant(self, "epsilon")

    def _value(self, w: Array, xp: Any) -> Array:
        return xp.log1p(w / self.epsilon)

    def _slope(self, w: Array, xp: Any) -> Array:
        return 1 / (w + self.epsilon)

    def _eta(self, w: Array, xp: Any) -> Array:
        return w * (w + self.epsilon)

    def _dual(self, eta: Array, xp: Any) -> Array:
        # v = eta_hat^{-1}(eta), in the form without cancellation; v^2 / eta = v / (v + eps).
        finite = xp.where(eta < math.inf, eta, 1.0)
        v = 2 * finite / (xp.sqrt(self.epsilon**2 + 4 * finite) + self.epsilon)
        return xp.where(eta == math.inf, eta, 2 * xp.log1p(v / self.epsilon) - v / (v + self.epsilon))

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        # The larger root of (x - z)(x + eps) + step = 0 is x = z - 2 step / (u + sqrt(u^2 - 4 step)) with u =
        # z + eps: in this form nothing cancels and nothing overflows. The discriminant is factored for the
        # same reason.
        eps = self.epsilon
        if isinstance(step, (float, int)) and not tracing(xp):
            twice = 2 * math.sqrt(step)
            root = z - 2 * step / (z + eps + _root_of_product(z - (twice - eps), z + (twice + eps), xp))
            if step <= eps * eps:
                return xp.clip(root, 0.0, None)
            ratio = step / eps / eps
            highest = math.sqrt(2 * ratio * math.log1p(2 * ratio))
            return root * xp.astype(z > eps * jump(math.log1p, ratio, highest), z.dtype)
        step = step + 0 * z
        twice = 2 * xp.sqrt(step)
        root = z - 2 * step / (z + eps + _root_of_product(z - (twice - eps), z + (twice + eps), xp))
        root = xp.clip(root, 0.0, None)
        # Past the curvature limit zero competes with the larger stationary point: compare the objectives.
        better = (root / 2 - z) * root + step * xp.log1p(root / eps) < 0
        return xp.where((step > eps * eps) & ~better, 0.0, root)

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        # In units of epsilon the step is the maximum of x (Z - x/2) / log(1 + x): the limit Z at x = 0 up to
        # Z = 1, then at the root of x + x^2 / (2 psi(x)) = Z with psi(x) = (1 + x) log(1 + x) - x. Near it
        # the maximum is flat, so that four Newton steps from a fitted guess give all digits.
        Z = xp.astype(z, xp.float64) / self.epsilon
        past = xp.clip(Z - 1, 0.0, None)
        past = xp.where(past < math.inf, past, 1.0)
        x = guess = past * (1 - 1 / (4 + 1.3 * xp.log1p(past)))
        for _ in range(4):
            x = xp.where(past > 1e-5, x, 1.0)
            logarithm = xp.log1p(x)
            psi = (1 + x) * logarithm - x
            ratio = x / psi
            x = x - (x + x * ratio / 2 - (1 + past)) / (1 + ratio - logarithm * ratio * ratio / 2)
        x = xp.where(past > 1e-5, x, guess)
        idle = x == 0
        scaled = xp.where(idle, Z, x * (Z - x / 2) / xp.where(idle, 1.0, xp.log1p(x)))
        return xp.astype(scaled * self.epsilon**2, z.dtype)

    @property
    def slope_at_zero(self) -> float:
        return 1 / self.epsilon

    @property
    def curvature_limit(self) -> float:
        return self.epsilon**2


def _root_of_product(a: Array, b: Array, xp: Any) -> Array:
    """sqrt(a b) for b >= 0, and 0 where a is negative."""
    return square_root(xp.clip(a, 0.0, None) * b, xp)
