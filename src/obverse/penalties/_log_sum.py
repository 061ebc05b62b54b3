"""The log-sum penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from ._arrays import Array
from ._base import Penalty
from ._parameters import require_positive

__all__ = ["LogSum"]


@final
@dataclass(frozen=True)
class LogSum(Penalty):
    r"""Log-sum: :math:`\Omega(w) = \log(1 + |w|/\epsilon)`.

    Its map is :math:`\hat\eta(w) = |w| (|w| + \epsilon)`, the slope at zero :math:`1/\epsilon`, the tail logarithmic.
    Written here so that :math:`\Omega(0)=0`; the paper's code has :math:`\log(|w| + \epsilon)`.

    Parameters
    ----------
    epsilon : float, default 1
        Width, in units of the weights: well below it the penalty is a lasso of slope ``1/epsilon``, well above it a
        logarithm. Positive.

    References
    ----------
    Candes, Wakin and Boyd (2008); map and dual: LeJeune, Javadi and Baraniuk (2021), released code.
    """

    epsilon: float = 1.0
    name: ClassVar[str] = "log-sum"

    def __post_init__(self) -> None:
        require_positive(epsilon=self.epsilon)

    def _value(self, w: Array, xp: Any) -> Array:
        return xp.log1p(w / self.epsilon)

    def _slope(self, w: Array, xp: Any) -> Array:
        return 1 / (w + self.epsilon)

    def _eta(self, w: Array, xp: Any) -> Array:
        return w * (w + self.epsilon)

    def _dual(self, eta: Array, xp: Any) -> Array:
        # v = eta_hat^{-1}(eta), in the form without cancellation; v^2 / eta = v / (v + eps).
        v = 2 * eta / (xp.sqrt(self.epsilon**2 + 4 * eta) + self.epsilon)
        return 2 * xp.log1p(v / self.epsilon) - v / (v + self.epsilon)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        eps = self.epsilon
        discriminant = (z + eps) ** 2 - 4 * step
        root = xp.clip(((z - eps) + xp.sqrt(xp.clip(discriminant, 0.0, None))) / 2, 0.0, None)
        if isinstance(step, float | int) and step <= eps * eps:
            return root
        # Past the curvature limit zero competes with the larger stationary point: compare the objectives.
        better = (root / 2 - z) * root + step * xp.log1p(root / eps) < 0
        return xp.where((discriminant >= 0) & better, root, xp.zeros_like(root))

    @property
    def slope_at_zero(self) -> float:  # type: ignore[override]
        return 1 / self.epsilon

    @property
    def curvature_limit(self) -> float:  # type: ignore[override]
        return self.epsilon**2
