"""The penalty that a dropout is the other face of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.checks import positive
from ..errors import InvalidArgumentError, NotSubquadraticError
from ..penalties import Penalty, Rescaled, TabulatedPenalty
from ._adaptive import AdaptiveDropout

__all__ = ["effective_penalty", "on_arrays"]

Floats = npt.NDArray[np.float64]

_OCTAVES = (-100, 100)
_NEGLIGIBLE = 1e-12  # noise variance below which 1/keep - 1 is mostly the rounding of keep
_ROUNDING = 1e-15


def effective_penalty(
    keep_probability: Callable[[Any], Any] | AdaptiveDropout,
    strength: float = 1.0,
    *,
    scale: float | None = None,
    name: str | None = None,
) -> Penalty:
    r"""The penalty that dropping weights with a given probability minimizes, on average.

    .. math:: \lambda\,\Omega(w) = R(w) = \int_0^{|w|} t\,\bigl(1/\alpha(t) - 1\bigr)\,dt

    Parameters
    ----------
    keep_probability : callable
        :math:`\alpha`, of magnitudes, nondecreasing, in [0, 1], positive for positive weights. It may take NumPy
        arrays, torch tensors or single numbers. The bound method of a `Penalty` or of an `AdaptiveDropout` gives that
        penalty back in closed form.
    strength : float, default 1
        :math:`\lambda` by which R is divided, positive. For the bound method of a `Penalty`, which takes the strength
        as its second argument, it is that argument as well.
    scale : float, optional
        Root mean square :math:`\sqrt{G_{ii}}` of the inputs, where they are not normalized and the map is evaluated at
        :math:`\sqrt{G_{ii}}|w_i|`: the result is then :math:`R(\mathrm{scale}\cdot|w|)/\lambda`. (A map evaluated at
        the bare weight has the effective penalty :math:`G_{ii} R(w)` instead.)
    name : str, optional
        Label for messages and plots.

    Returns
    -------
    Penalty

    Raises
    ------
    NotSubquadraticError
        If the probability falls, leaves [0, 1], is not finite, or is so small near zero that the integral diverges;
        ``interval`` says where.

    Notes
    -----
    Relative error about 1e-10. A keep probability within 1e-12 of one has lost the digits of its distance from one:
    from there on the slope continues as the power law it had.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021); quadrature: derived, see theory note, equation (3).
    """
    strength = positive("strength", strength)
    if scale is not None:
        scale = positive("scale", scale)
    owner = getattr(keep_probability, "__self__", None)
    verb = getattr(keep_probability, "__name__", "")
    if isinstance(owner, Penalty) and verb == "keep_probability":
        return owner if scale is None else Rescaled(owner, width=1 / scale)
    dropout = owner if isinstance(owner, AdaptiveDropout) and verb == "keep_probability" else keep_probability
    if isinstance(dropout, AdaptiveDropout):
        width = 1.0 if dropout.scale is None else dropout.scale
        if not isinstance(width, (int, float)):
            raise InvalidArgumentError(
                "a dropout with one scale per weight has one penalty per weight; use a number as scale"
            )
        width, height = 1 / (width * (scale or 1.0)), dropout.strength / strength
        unchanged = width == 1 and height == 1
        return dropout.penalty if unchanged else Rescaled(dropout.penalty, width, height)
    if not callable(keep_probability):
        raise InvalidArgumentError(f"keep_probability must be callable, got {type(keep_probability).__name__}")
    table = _from_map(on_arrays(keep_probability), strength, name or verb.strip("<>") or "custom")
    return table if scale is None else Rescaled(table, width=1 / scale)


def on_arrays(function: Callable[[Any], Any]) -> Callable[[Floats], Floats]:
    """The function on float64 NumPy arrays, whether it takes arrays, torch tensors or single numbers."""

    def by_array(w: Floats) -> Any:
        return function(w)

    def by_tensor(w: Floats) -> Any:
        import torch

        return function(torch.from_numpy(w)).detach().numpy()

    def by_number(w: Floats) -> Any:
        return np.array([float(function(float(x))) for x in w.reshape(-1)]).reshape(w.shape)

    probe = np.array([0.5, 1.0, 2.0])
    failures = []
    for form in (by_array, by_tensor, by_number):
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(form(probe.copy()), dtype=np.float64)
        except Exception as error:  # the user's function may refuse a form in any way it likes
            failures.append(f"{type(error).__name__}: {error}")
            continue
        if values.shape in (probe.shape, ()):
            break
        failures.append(f"result of shape {values.shape} for {probe.shape}")
    else:
        raise InvalidArgumentError(
            f"the function takes neither arrays, nor tensors, nor numbers: {failures[0]}; {failures[-1]}"
        )

    def quiet(w: Floats) -> Floats:
        with np.errstate(all="ignore"):
            values = np.asarray(form(w.reshape(-1).copy()), dtype=np.float64)
        return np.broadcast_to(values, (w.size,)).reshape(w.shape)

    return quiet


def _from_map(alpha: Callable[[Floats], Floats], strength: float, name: str) -> TabulatedPenalty:
    w = np.exp2(np.arange(_OCTAVES[0] * 32, _OCTAVES[1] * 32) / 32)
    keep = alpha(w)
    wrong = ~np.isfinite(keep) | (keep < 0) | (keep > 1 + 1e-12)
    if wrong.any():
        raise _refusal(w, np.flatnonzero(wrong), f"a keep probability must lie in [0, 1], got {keep[wrong][0]:.6g}")
    falls = np.diff(keep) < -1e-12 * keep[1:] - 1e-15
    if falls.any():
        index = np.flatnonzero(falls)
        index = np.append(index, index + 1)
        raise _refusal(
            w, index, "a keep probability must not fall as the weight grows: its penalty is not subquadratic"
        )
    if (keep == 0).any():
        raise _refusal(
            w,
            np.flatnonzero(keep == 0),
            "weights there are always dropped: the penalty of this keep probability is infinite",
        )
    octave = _OCTAVES[1]
    power: float | None = None
    vanishing = 1 / keep - 1 < _NEGLIGIBLE
    if vanishing.any():
        # The grid ends where the digits do; a penalty that is exactly flat there has none to lose.
        last = int(np.argmax(vanishing))
        octave = max(math.ceil(last / 32) + _OCTAVES[0], _OCTAVES[0] + 8)
        if (keep[last:] == 1).all() and last > 0 and 1 / keep[last - 1] - 1 > 1e3 * _NEGLIGIBLE:
            octave, power = min(octave + 1, _OCTAVES[1]), 0.0
        else:
            # A local exponent over several octaves averages the rounding out.
            start, end = max(last - 192, 0), max(last - 32, 1)
            slopes = [w[i] * (1 / keep[i] - 1) for i in (start, end)]
            power = math.log(slopes[1] / slopes[0]) / math.log(w[end] / w[start]) if min(slopes) > 0 else 0.0
            power = round(power) + 0.0 if abs(power - round(power)) < 1e-3 else power

    def slope(x: Floats) -> Floats:
        probability = alpha(x)
        return x * np.maximum((1 - probability) / probability, 0.0) / strength

    first = slope(w[:33:32])
    low = math.log2(first[1] / first[0]) if min(first) > 0 else 1.0
    low = round(low) + 0.0 if abs(low - round(low)) < 1e-9 else low
    if low <= -1 + 1e-6:
        raise NotSubquadraticError(
            "the keep probability falls so fast towards zero that its penalty is infinite everywhere "
            f"(slope ~ w^{low:.3g}); the failing interval is (0, {w[32]:.3g})",
            (0.0, float(w[32])),
        )
    high = power if power is not None else _outer_power(slope)
    return TabulatedPenalty(
        slope,
        label=name,
        octaves=(_OCTAVES[0], octave),
        powers=(low, high),
        noise=lambda x: _ROUNDING * x / strength,
    )


def _outer_power(slope: Callable[[Floats], Floats]) -> float:
    inner, outer = slope(np.exp2([_OCTAVES[1] - 8.0, _OCTAVES[1] - 1.0]))
    power = math.log2(outer / inner) / 7 if min(inner, outer) > 0 else 0.0
    return round(power) + 0.0 if abs(power - round(power)) < 1e-6 else power


def _refusal(w: Floats, index: npt.NDArray[np.intp], reason: str) -> NotSubquadraticError:
    """The error, with the first run of failing points as its interval."""
    index = np.unique(index)
    end = int(np.argmax(np.append(np.diff(index) > 1, True)))
    left, right = float(w[index[0]]), float(w[index[end]])
    if index[0] == 0:
        left = 0.0
    return NotSubquadraticError(f"{reason}; it fails for |w| in [{left:.6g}, {right:.6g}]", (left, right))
