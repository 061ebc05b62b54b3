"""A loss over the rows of a dataset, in NumPy: the table of losses with its targets filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnknownNameError
from . import _losses

__all__ = ["Curve", "curve"]

Floats = npt.NDArray[np.float64]

# Share of the largest curvature below which that of a row is not taken to fall; for Newton's step.
_LEAST, _NEWTON_LEAST = 1e-6, 1e-12


@dataclass(frozen=True)
class Curve:
    """One loss for all rows.

    Attributes
    ----------
    loss : {"squared", "huber", "poisson", "logistic"}
    y : array of shape (n,)
    delta : float
        Residual from which the Huber loss is linear.
    """

    loss: str
    y: Floats
    delta: float = math.inf

    @property
    def is_quadratic(self) -> bool:
        return self.loss == "squared"

    @property
    def kind(self) -> int:
        """Number of the loss in compiled code."""
        return _losses.LOSS_KINDS[self.loss]

    def value(self, f: Floats) -> Floats:
        """Loss of every row at the predictions ``f``; infinite where it overflows."""
        return np.asarray(_losses.values(self.kind, self.y, f, self.delta))

    def derivative(self, f: Floats) -> Floats:
        return np.asarray(_losses.derivatives(self.kind, self.y, f, self.delta))

    def curvature(self, f: Floats) -> Floats:
        """Weights of the weighted least squares problem that stands in for the loss near ``f``, all positive.

        For the Huber loss these are its majorant, ``min(1, delta/|residual|)``; for logistic and Poisson the second
        derivatives, kept off zero.
        """
        if self.loss == "huber":
            out = np.empty(self.y.size)
            _losses.majorants(self.kind, self.y, f, np.ones(self.y.size), self.delta, out)
            return out
        return self._second(f, _LEAST)

    def second(self, f: Floats) -> Floats:
        """Second derivative, for Newton's step."""
        return self._second(f, 0.0 if self.loss == "huber" else _NEWTON_LEAST)

    def _second(self, f: Floats, least: float) -> Floats:
        bends = np.asarray(_losses.curvatures(self.kind, self.y, f, self.delta))
        if self.loss == "logistic":
            return np.asarray(np.maximum(bends, least))
        return np.asarray(np.maximum(bends, least * bends.max(initial=1e-300)))

    def constant(self, weights: Floats) -> float:
        """The best prediction that is the same for all rows, which are weighted by ``weights`` of sum 1."""
        if self.loss == "squared":
            return float(weights @ self.y)
        return float(_losses.settle(self.kind, self.y, np.zeros(self.y.size), weights, self.delta))


def curve(loss: str, y: Any, delta: float = 1.35) -> Curve:
    """The loss by name.

    Raises
    ------
    UnknownNameError
        It is not one of squared, huber, poisson, logistic.
    """
    if loss not in _losses.LOSS_KINDS:
        raise UnknownNameError("loss", loss, _losses.LOSS_KINDS)
    return Curve(loss, np.ascontiguousarray(y, dtype=np.float64), delta if loss == "huber" else math.inf)
