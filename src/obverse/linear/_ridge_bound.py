"""A penalty as scaled coefficients see it, and the ridge that touches it from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._scalar import Code
from ._terms import Terms

__all__ = ["RidgeBound"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RidgeBound:
    """The penalty as scaled coefficients see it, ``sum_j weight_j Omega(unit_j |u_j|)``, and its ridge.

    Attributes
    ----------
    terms : Terms
    weight, unit : arrays of shape (p,)
    usable : bool array of shape (p,)
        Columns that vary.
    code : Code or None
        As compiled code reads the penalty; None where it makes no exact zeros.
    """

    terms: Terms
    weight: Floats
    unit: Floats
    usable: npt.NDArray[np.bool_]
    code: Code | None

    def value(self, u: Floats) -> float:
        index = np.flatnonzero((u != 0) & (self.weight > 0))
        if index.size == 0:
            return 0.0
        return float(self.weight[index] @ np.asarray(self.terms.penalty.value(self.unit[index] * np.abs(u[index]))))

    def slope(self, u: Floats) -> Floats:
        """Derivative by every coefficient; 0 at zero."""
        # Off zero, where the slope may be infinite.
        slope = self._slope(self.unit * np.where(u != 0, np.abs(u), 1.0))
        return np.where(u != 0, self.weight * self.unit * slope * np.sign(u), 0.0)

    def _slope(self, w: Floats) -> Floats:
        return np.asarray(self.terms.penalty.slope(w))

    def ridge(self, u: Floats) -> Floats:
        """Weight of the ridge that bounds the penalty: ``weight unit^2 / eta(unit |u|)``, infinite where eta is 0."""
        with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
            eta = np.asarray(self.terms.penalty.eta(self.unit * np.abs(u)))
            return np.where(self.weight > 0, self.weight * self.unit / eta * self.unit, 0.0)

    def curvature(self, u: Floats) -> Floats:
        """Second derivative by central differences of the slope; at zero the weight of the ridge, its limit."""
        w = self.unit * np.abs(u)
        step = 1e-5 * w
        with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
            bend = (self._slope(w + step) - self._slope(w - step)) / (2 * step)
            return np.where(u != 0, self.weight * self.unit * bend * self.unit, self.ridge(u))

    def zeroed(self, u: Floats, g: Floats, gram: Floats) -> npt.NDArray[np.bool_]:
        """Which scalar problems have their global minimum at zero."""
        z, step = self._scalar(u, g, gram)
        return np.asarray(np.asarray(self.terms.penalty.prox(z, step)) == 0)

    def moved(self, u: Floats, g: Floats, gram: Floats) -> Floats:
        """Minimizers of the scalar problems."""
        z, step = self._scalar(u, g, gram)
        return np.where(self.usable, np.asarray(self.terms.penalty.prox(z, step)) / self.unit, 0.0)

    def _scalar(self, u: Floats, g: Floats, gram: Floats) -> tuple[Floats, Floats]:
        safe = np.where(gram > 0, gram, 1.0)
        return self.unit * (u + g / safe), self.weight * self.unit / safe * self.unit
