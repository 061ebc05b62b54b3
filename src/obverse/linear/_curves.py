"""Losses as functions of the prediction, with derivative and curvature, in NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from ..errors import UnknownNameError

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

    def value(self, f: Floats) -> Floats:
        """Loss of every row at the predictions ``f``; infinite where it overflows."""
        with np.errstate(all="ignore"):
            if self.loss == "logistic":
                result = np.logaddexp(0.0, f) - self.y * f
            elif self.loss == "poisson":
                result = np.exp(f) - self.y * f
            else:
                size = np.abs(self.y - f)
                inside = np.minimum(size, self.delta)
                result = inside * (size - inside / 2)
        return np.asarray(result)

    def derivative(self, f: Floats) -> Floats:
        if self.loss == "logistic":
            return _sigmoid(f) - self.y
        if self.loss == "poisson":
            with np.errstate(over="ignore"):
                return np.asarray(np.exp(f) - self.y)
        return np.clip(f - self.y, -self.delta, self.delta)

    def curvature(self, f: Floats) -> Floats:
        """Weights of the weighted least squares problem that stands in for the loss near ``f``, all positive.

        For the Huber loss these are its reweighting variable, ``min(1, delta/|residual|)``, which bounds it from
        above; for logistic and Poisson the second derivatives, kept off zero.
        """
        if self.loss == "huber":
            return np.asarray(self.delta / np.maximum(np.abs(self.y - f), self.delta))
        return self._second(f, _LEAST)

    def second(self, f: Floats) -> Floats:
        """Second derivative, for Newton's step."""
        if self.loss == "huber":
            return (np.abs(self.y - f) <= self.delta).astype(np.float64)
        return self._second(f, _NEWTON_LEAST)

    def _second(self, f: Floats, least: float) -> Floats:
        if self.loss == "squared":
            return np.ones_like(f)
        if self.loss == "logistic":
            return np.asarray(np.maximum(_sigmoid(f) * _sigmoid(-f), least))
        with np.errstate(over="ignore", under="ignore"):
            rate = np.exp(f)
        return np.asarray(np.maximum(rate, least * rate.max(initial=1e-300)))

    def constant(self, weights: Floats) -> float:
        """The best prediction that is the same for all rows, which are weighted by ``weights`` of sum 1."""
        mean = float(weights @ self.y)
        if self.loss == "logistic":
            mean = min(max(mean, 1e-12), 1 - 1e-12)
            return math.log(mean / (1 - mean))
        if self.loss == "poisson":
            return math.log(max(mean, 1e-300))
        if self.loss == "squared":
            return mean
        order = np.argsort(self.y)
        center = float(self.y[order][np.searchsorted(np.cumsum(weights[order]), 0.5).clip(0, self.y.size - 1)])
        for _ in range(1000):
            c = weights * self.curvature(np.full(self.y.size, center))
            following = float(c @ self.y) / float(c.sum())
            done = abs(following - center) <= 1e-15 * max(abs(center), self.delta)
            center = following
            if done:
                break
        return center


def _sigmoid(f: Floats) -> Floats:
    return np.asarray(expit(f))


def curve(loss: str, y: Any, delta: float = 1.35) -> Curve:
    """The loss by name.

    Raises
    ------
    UnknownNameError
        It is not one of squared, huber, poisson, logistic.
    """
    known = ("squared", "huber", "poisson", "logistic")
    if loss not in known:
        raise UnknownNameError("loss", loss, known)
    return Curve(loss, np.asarray(y, dtype=np.float64), delta if loss == "huber" else math.inf)
