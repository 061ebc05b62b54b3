"""The dropout that a penalty is the other face of."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from .._core.arrays import Array, floating, numbers, quiet
from .._core.checks import is_number, positive
from .._core.random import numpy_generator, torch_generator
from ..errors import InvalidArgumentError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._own_penalty import check_own

__all__ = ["AdaptiveDropout", "adaptive_dropout"]


@final
@dataclass(frozen=True, eq=False)
class AdaptiveDropout:
    r"""Multiplicative noise of mean one whose variance adapts to the weight; made by `adaptive_dropout`.

    On a linear model it adds :math:`\tfrac12\sum_i G_{ii} w_i^2\,\mathrm{Var}(s_i)` to the expected squared loss, the
    reweighted form of :math:`\lambda\sum_i \Omega(w_i)`.

    Attributes
    ----------
    penalty : Penalty
        :math:`\Omega`.
    strength : float
        :math:`\lambda`.
    scale : float or array or None
        Root mean square :math:`\sqrt{G_{ii}}` of the inputs that the weights multiply, None for 1.
    """

    penalty: Penalty
    strength: float
    scale: Any = None

    def _score(self, w: Array) -> Array:
        if self.scale is None:
            return w
        if isinstance(self.scale, float):
            return w * self.scale if hasattr(w, "dtype") else np.asarray(w) * self.scale
        x, xp = floating(w)
        scale = xp.asarray(numbers(self.scale), dtype=x.dtype, device=x.device)
        try:
            score = x * scale
        except (ValueError, RuntimeError):
            score = None
        if score is None or score.shape != x.shape:
            raise InvalidArgumentError(
                f"scale of shape {tuple(scale.shape)} does not fit weights of shape {tuple(x.shape)}"
            )
        given = getattr(w, "dtype", None)
        return score if given is None or not xp.isdtype(given, "real floating") else xp.astype(score, given)

    def keep_probability(self, w: Array) -> Array:
        r"""Probability :math:`\hat\eta/(\hat\eta+\lambda)` of keeping each weight."""
        return self.penalty.keep_probability(self._score(w), self.strength)

    def variance(self, w: Array) -> Array:
        r"""Variance of each mask, :math:`\lambda/\hat\eta`; infinite where a weight is always dropped."""
        score = self._score(w)
        x, xp = floating(score)
        with quiet(xp):
            eta = self.penalty.eta(x)
            zero = eta == 0
            variance = xp.where(zero, math.inf, self.strength / xp.where(zero, 1.0, eta))
            given = getattr(score, "dtype", None)
            half = given is not None and given != variance.dtype and xp.isdtype(given, "real floating")
            return (xp.astype(variance, given) if half else variance)[()]

    def sample(self, w: Array, generator: Any = None, law: Literal["bernoulli", "gaussian"] = "bernoulli") -> Array:
        """Masks of mean one, in the shape, dtype and device of ``w``.

        Parameters
        ----------
        w : array of any shape
            Weights.
        generator : numpy.random.Generator, torch.Generator, int or None
            Generator or seed of the draw; None draws from the library's own generator. A generator of the other library
            contributes its next number.
        law : {"bernoulli", "gaussian"}
            ``b / keep_probability`` with b zero or one, or a normal variable of the same mean and variance.

        Notes
        -----
        Where the keep probability is 0 the mask is 0 under both laws: the masked weight ``w * s`` is then zero with
        probability one (Bernoulli), or has standard deviation ``sqrt(strength * |w| * slope) -> 0`` (Gaussian).
        """
        if law not in ("bernoulli", "gaussian"):
            raise InvalidArgumentError(f"law must be 'bernoulli' or 'gaussian', got {law!r}")
        x, xp = floating(w)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(x, torch.Tensor):
            x = x.detach()
            if isinstance(generator, torch.Generator):
                pass
            elif generator is not None:
                seed = torch_generator(generator, "generator").initial_seed()
                generator = torch.Generator(device=x.device).manual_seed(seed)
            draw = torch.rand if law == "bernoulli" else torch.randn
            noise = draw(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        else:
            random = numpy_generator(generator, "generator")
            noise = random.random(x.shape) if law == "bernoulli" else random.standard_normal(x.shape)
            noise = xp.astype(noise, x.dtype) if x.dtype == np.float64 else _below_one(noise, law, x.dtype)
        keep = self.keep_probability(x)
        dropped = keep == 0
        safe = xp.where(dropped, xp.ones_like(keep), keep)
        if law == "bernoulli":
            mask = xp.where(noise < keep, 1 / safe, xp.zeros_like(keep))
        else:
            mask = 1 + noise * xp.sqrt(xp.where(dropped, xp.zeros_like(keep), (1 - safe) / safe))
        mask = xp.where(xp.isnan(keep), keep, xp.where(dropped, xp.zeros_like(keep), mask))
        given = getattr(w, "dtype", None)
        return (
            mask
            if given is None or given == mask.dtype or not xp.isdtype(given, "real floating")
            else xp.astype(mask, given)
        )


def _below_one(noise: Any, law: str, dtype: Any) -> Any:
    """Rounded to single precision, with uniform numbers kept below one."""
    rounded = noise.astype(dtype)
    return np.minimum(rounded, np.nextafter(dtype.type(1), dtype.type(0))) if law == "bernoulli" else rounded


def _checked_scale(scale: Any) -> Any:
    if is_number(scale) or isinstance(scale, bool):
        return positive("scale", scale)
    values, _ = floating(scale)
    if not bool(((values > 0) & (values < math.inf)).all()):
        raise InvalidArgumentError("scale must be positive and finite everywhere")
    return values


def adaptive_dropout(penalty: Penalty | str, strength: float = 1.0, *, scale: Any = None) -> AdaptiveDropout:
    r"""The dropout whose expected loss is reweighted minimization of ``strength * penalty``.

    Parameters
    ----------
    penalty : Penalty or str
        A subquadratic penalty, or its name.
    strength : float
        :math:`\lambda`, positive.
    scale : float or array that broadcasts against the weights, optional
        Root mean square :math:`\sqrt{G_{ii}}` of each weight's input where inputs are not normalized. The keep
        probability is then evaluated at :math:`\sqrt{G_{ii}}|w_i|`, and the penalty on the loss is
        :math:`\lambda\sum_i\Omega(\sqrt{G_{ii}}|w_i|)`, which does not change with the units of the inputs.

    Returns
    -------
    AdaptiveDropout
        With ``keep_probability(w)``, ``variance(w)`` and ``sample(w, generator, law)``.

    Raises
    ------
    InvalidArgumentError
        If ``penalty`` is not a `Penalty`, or one of the user's own whose formulas look at other weights or are random,
        or ``strength`` or ``scale`` is not positive and finite.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021); scale rule: derived in docs/theory.md, section 2.4.
    """
    if isinstance(penalty, str):
        penalty = penalty_named(penalty)
    if not isinstance(penalty, Penalty):
        raise InvalidArgumentError(f"penalty must be a Penalty or a name, got {type(penalty).__name__}")
    check_own(penalty)
    strength = positive("strength", strength)
    if scale is not None:
        scale = _checked_scale(scale)
    return AdaptiveDropout(penalty, float(strength), scale)
