"""What a penalty is: one small set of formulas, evaluated on NumPy arrays and torch tensors alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .._core.arrays import Array, floating, namespace, np_namespace, quiet, tracing
from .._core.checks import is_number, nonnegative
from ..errors import InvalidArgumentError, WrongTypeError
from . import _numeric
from ._evaluation import in_blocks, on_finite, on_numbers

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
        given = _beside("step", step, points, xp)
        is_extreme = self._is_extreme(xp)

        def formula(z: Array, step: Array) -> Array:
            return xp.copysign(
                on_finite(lambda z, step: self._prox(z, step, xp), xp.abs(z), step, xp, is_extreme=is_extreme), z
            )

        with quiet(xp):
            return _returned(in_blocks(formula, points, given, xp), z, xp)

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
            :math:`\lambda`, at least 0; in an array it may be infinite, which drops every weight that the penalty
            does not leave free.
        """
        x, xp = floating(w)
        given = _beside("strength", strength, x, xp)
        is_extreme = self._is_extreme(xp)

        def formula(w: Array, strength: Array) -> Array:
            eta = on_numbers(lambda w: self._eta(w, xp), xp.abs(w), xp, is_extreme=is_extreme)
            # Where eta is infinite the penalty is flat and nothing is dropped; where eta and the strength
            # are both zero there is no noise either.
            unbounded = (eta == math.inf) | (eta + strength == 0)
            bounded = xp.where(unbounded, xp.ones_like(eta), eta)
            return xp.where(unbounded, xp.ones_like(eta), bounded / (bounded + strength))

        with quiet(xp):
            return _returned(in_blocks(formula, x, given, xp), w, xp)

    def _elementwise(self, formula: Any, w: Array) -> Array:
        x, xp = floating(w)
        is_extreme = self._is_extreme(xp)

        def magnitudes(x: Array, _: float) -> Array:
            return on_numbers(lambda w: formula(w, xp), xp.abs(x), xp, is_extreme=is_extreme)

        with quiet(xp):
            return _returned(in_blocks(magnitudes, x, 0.0, xp), w, xp)

    def _is_extreme(self, xp: Any) -> bool:
        """Whether a constant is so large or small that float32 cannot hold its quotients with ordinary weights."""
        return not tracing(xp) and self._has_extreme_constants

    @cached_property
    def _has_extreme_constants(self) -> bool:
        return any(not 1e-8 < abs(constant) < 1e8 for constant in _constants(self) if constant != 0)


def _constants(penalty: Penalty) -> Iterator[float]:
    """The numbers among the fields of a penalty, and of the penalties that it is made of."""
    for name in getattr(penalty, "__dataclass_fields__", ()):
        field = getattr(penalty, name)
        if isinstance(field, Penalty):
            yield from _constants(field)
        elif is_number(field):
            yield float(field)


def _beside(name: str, value: Array, points: Array, xp: Any) -> Array:
    """A step or strength: a number, or an array that belongs to the library of ``points`` and broadcasts with them."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (float, int)):
        if isinstance(value, bool) or not 0 <= value < math.inf:
            nonnegative(name, value)
        return float(value)
    if isinstance(value, (list, tuple)):
        value, _ = floating(value)
        value = value if xp is np_namespace else xp.asarray(value, dtype=points.dtype, device=points.device)
    try:
        library = namespace(value)
    except TypeError:
        raise WrongTypeError(f"{name} must be a number or an array, got {type(value).__name__}") from None
    if library is not xp:
        raise InvalidArgumentError(
            f"the points and the {name} must be arrays of one library, got {name} as {type(value).__name__}"
        )
    if not xp.isdtype(value.dtype, "real floating"):
        if not xp.isdtype(value.dtype, "integral"):
            raise WrongTypeError(f"{name} must be real, got an array of dtype {value.dtype}")
        value = xp.astype(value, points.dtype)
    if not tracing(xp):
        _check_beside(name, value, points, xp)
    return value


def _check_beside(name: str, value: Array, points: Array, xp: Any) -> None:
    """Raise unless an array fits the points, and is finite (a step) and at least 0."""
    try:
        np.broadcast_shapes(tuple(points.shape), tuple(value.shape))
    except ValueError:
        raise InvalidArgumentError(
            f"{name} of shape {tuple(value.shape)} does not broadcast against points of shape {tuple(points.shape)}"
        ) from None
    if value.ndim > 0 and value.device != points.device:
        raise InvalidArgumentError(f"{name} is on device {value.device} and the points on {points.device}")
    if math.prod(value.shape) == 0:
        return
    plain = value.detach() if hasattr(value, "detach") else value
    try:
        lowest, highest = float(plain.min()), float(plain.max())
    except RuntimeError:  # inside a function transform, and on tensors without storage, there are no numbers to see
        return
    # NaN is neither. A weight of infinite strength is dropped for certain; no step is infinite.
    is_bounded = highest < math.inf or (name == "strength" and highest == math.inf)
    if not (lowest >= 0 and is_bounded):
        wrong = lowest if not lowest >= 0 else highest
        allowed = "at least 0" if name == "strength" else "finite and at least 0"
        raise InvalidArgumentError(f"{name} must be {allowed} everywhere, got {wrong}")


def _returned(result: Array, given: Array, xp: Any) -> Array:
    """``result`` in the dtype of ``given`` where that is a (half-precision) array; a NumPy scalar for a number."""
    dtype = getattr(given, "dtype", None)
    if dtype is not None and dtype != result.dtype and xp.isdtype(dtype, "real floating"):
        return xp.astype(result, dtype)
    return result[()] if getattr(result, "ndim", 1) == 0 and not hasattr(result, "requires_grad") else result
