"""What a penalty is: one small set of formulas, evaluated on NumPy arrays and torch tensors alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import InvalidArgumentError
from . import _numeric
from ._arrays import Array, floating, in_blocks, namespace, quiet

__all__ = ["Penalty"]


class Penalty(ABC):
    r"""A separable, even, nondecreasing penalty :math:`\Omega(w)` with :math:`\Omega(0)=0`.

    A subclass gives two formulas for magnitudes ``w >= 0``, `_value` and `_slope`, written with the array
    functions of ``xp`` (NumPy's or torch's). Everything else follows numerically and safeguarded; a subclass
    with closed forms overrides `_eta`, `_dual`, `_prox`, `slope_at_zero` and `curvature_limit`.

    When :math:`\Omega(\sqrt u)` is concave the penalty is *subquadratic*, and

    .. math:: \Omega(w) = \tfrac12 \min_{\eta \ge 0} \left[ w^2/\eta + f(\eta) \right],
              \qquad \hat\eta(w) = |w| / \Omega'(|w|)

    so that it is the other face of a dropout with keep probability
    :math:`\hat\eta(w) / (\hat\eta(w) + \lambda)`.

    Notes
    -----
    Every public method takes a number, a NumPy array or a torch tensor of any shape, and returns an array of
    the same kind, shape and dtype (numbers and integers give float64; float16 and bfloat16 are evaluated in
    float32 and returned as given). The sign of ``w`` is ignored, NaN passes through.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021), "The flip side of the reweighted coin: duality of adaptive dropout
    and regularization".
    """

    name: ClassVar[str] = ""

    # ------------------------------------------------------------------ the formulas of a subclass
    @abstractmethod
    def _value(self, w: Array, xp: Any) -> Array:
        """Omega(w) for w >= 0."""

    @abstractmethod
    def _slope(self, w: Array, xp: Any) -> Array:
        """Omega'(w) for w >= 0; at zero, the limit from the right (it may be infinite)."""

    def _eta(self, w: Array, xp: Any) -> Array:
        """w / Omega'(w) for w >= 0, with the limit at zero; infinite where the slope vanishes."""
        return _numeric.eta(self, w, xp)

    def _dual(self, eta: Array, xp: Any) -> Array:
        """f(eta) for eta >= 0."""
        return _numeric.dual(self, eta, xp)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        """argmin over x >= 0 of (x - z)^2 / 2 + step * Omega(x), for z >= 0 and step >= 0 (scalar or array)."""
        return _numeric.prox(self, z, step, xp)

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        """sup over 0 < x < 2z of x (z - x/2) / Omega(x), for z >= 0; infinite where Omega'(0+) = 0."""
        return _numeric.zeroing_step(self, z, xp)

    @cached_property
    def slope_at_zero(self) -> float:
        r""":math:`\Omega'(0+)`: infinite, positive or 0. Positive exactly when the proximal operator makes zeros."""
        return _numeric.slope_at_zero(self)

    @cached_property
    def curvature_limit(self) -> float:
        r"""Largest step for which the proximal operator is single-valued and continuous.

        It is :math:`1 / \sup_{w>0} (-\Omega''(w))`: infinite for convex penalties, 0 where no step is small
        enough.
        """
        return _numeric.curvature_limit(self)

    # ------------------------------------------------------------------ the public face
    def value(self, w: Array) -> Array:
        r"""Penalty :math:`\Omega(w)`, elementwise.

        Parameters
        ----------
        w : array of any shape
            Weights.

        Returns
        -------
        array of the same shape
            Differentiable in torch; the gradient is ``sign(w) * slope(w)``, and 0 at zero.
        """
        return self._elementwise(self._value, w)

    def slope(self, w: Array) -> Array:
        r"""Slope :math:`\Omega'(|w|) \ge 0`, elementwise; at zero the limit from the right."""
        return self._elementwise(self._slope, w)

    def eta(self, w: Array) -> Array:
        r"""Reweighting variable :math:`\hat\eta(w) = |w| / \Omega'(|w|)`, elementwise.

        It is the minimizer of the eta-trick, nondecreasing in ``|w|`` for a subquadratic penalty, and
        infinite where the penalty is flat.
        """
        return self._elementwise(self._eta, w)

    def dual(self, eta: Array) -> Array:
        r"""Dual :math:`f(\eta) = \max_w [2\Omega(w) - w^2/\eta]` of the eta-trick, elementwise for ``eta >=
        0``.

        Infinite where :math:`\eta` is out of reach (ridge beyond 1, say).
        """
        return self._elementwise(self._dual, eta)

    def prox(self, z: Array, step: Array) -> Array:
        r"""Proximal operator: :math:`\arg\min_x \tfrac12 (x-z)^2 + \mathrm{step}\cdot\Omega(x)`, elementwise.

        Exact, the global minimizer also where the penalty is not convex.

        Parameters
        ----------
        z : array of any shape
            Points.
        step : float or array that broadcasts against ``z``
            Step size times strength, at least 0 and finite.

        Returns
        -------
        array of the shape of ``z`` and ``step`` broadcast together
        """
        points, xp = floating(z)
        if isinstance(step, np.generic):
            step = step.item()
        if isinstance(step, (int, float)):
            if not 0 <= step < math.inf:
                raise InvalidArgumentError(f"step must be at least 0 and finite, got {step}")
        elif namespace(step) is not xp:
            raise InvalidArgumentError(
                f"z and step must be arrays of one library, got {type(z).__name__} and {type(step).__name__}"
            )
        else:
            step = xp.astype(step, points.dtype)
        with quiet(xp):
            result = in_blocks(lambda z, step: xp.copysign(self._prox(xp.abs(z), step, xp), z), points, step, xp)
        return _returned(result, z, xp)

    def zeroing_step(self, z: Array) -> Array:
        r"""Smallest step at which the proximal operator sends ``z`` to zero, elementwise.

        .. math:: t(z) = \sup_{0 < x < 2|z|} x (|z| - x/2) / \Omega(x)

        so that ``prox(z, step) == 0`` exactly when ``step >= zeroing_step(z)``. Its k-th order statistic is
        the strength that keeps all but k weights. Infinite for a penalty that makes no exact zeros; 0 at
        zero. (Derived in docs/theory.md, section 3.2.)
        """
        return self._elementwise(self._zeroing_step, z)

    def keep_probability(self, w: Array, strength: Array) -> Array:
        r"""Keep probability of the dual dropout, :math:`\hat\eta(w) / (\hat\eta(w) + \lambda)`, elementwise.

        Parameters
        ----------
        w : array of any shape
            Weights.
        strength : float or array that broadcasts against ``w``
            :math:`\lambda`, at least 0.
        """
        if isinstance(strength, (int, float)) and not 0 <= strength < math.inf:
            raise InvalidArgumentError(f"strength must be at least 0 and finite, got {strength}")

        x, xp = floating(w)

        def formula(w: Array, strength: Array) -> Array:
            eta = self._eta(xp.abs(w), xp)
            # Where eta is infinite the penalty is flat and nothing is dropped; where eta and the strength
            # are both zero there is no noise either.
            unbounded = (eta == math.inf) | (eta + strength == 0)
            bounded = xp.where(unbounded, xp.ones_like(eta), eta)
            return xp.where(unbounded, xp.ones_like(eta), bounded / (bounded + strength))

        with quiet(xp):
            result = in_blocks(formula, x, strength, xp)
        return _returned(result, w, xp)

    @staticmethod
    def _elementwise(formula: Any, w: Array) -> Array:
        x, xp = floating(w)
        with quiet(xp):
            result = in_blocks(lambda x, _: formula(xp.abs(x), xp), x, 0.0, xp)
        return _returned(result, w, xp)


def _returned(result: Array, given: Array, xp: Any) -> Array:
    """``result`` in the dtype of ``given`` where that is a (half-precision) array; a NumPy scalar for a number."""
    dtype = getattr(given, "dtype", None)
    if dtype is not None and dtype != result.dtype and xp.isdtype(dtype, "real floating"):
        return xp.astype(result, dtype)
    return result[()] if getattr(result, "ndim", 1) == 0 and not hasattr(result, "requires_grad") else result
