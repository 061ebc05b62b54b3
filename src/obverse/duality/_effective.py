"""The penalty that a dropout is the other face of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.checks import positive
from ..errors import InvalidArgumentError, NotSubquadraticError, WrongTypeError
from ..penalties import Penalty, Rescaled, TabulatedPenalty, check_elementwise
from ._adaptive import AdaptiveDropout
from ._user_function import UserFunction

__all__ = ["effective_penalty"]

Floats = npt.NDArray[np.float64]

_OCTAVES = (-100, 100)
_MOST_ERROR = 1e-6  # relative error of the integral from which on a table is refused


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
    InvalidArgumentError
        If the function looks at other weights, is random, fails, returns another shape or no real numbers, or has too
        many steps for a table.
    WrongTypeError
        If it is no function.

    Notes
    -----
    Relative error about 1e-10. A keep probability within 1e-12 of one has lost the digits of its distance from one:
    from there on the slope continues as the power law it had. For a function that returns single precision both are
    limited by that precision.

    The function is evaluated for magnitudes from 2^-100 to 2^100: together, again, in another order, in parts and one
    by one.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021); quadrature: derived in docs/theory.md, section 2.3.
    """
    strength = positive("strength", strength)
    if not 1e-100 <= strength <= 1e100:
        raise InvalidArgumentError(f"strength must be between 1e-100 and 1e100, got {strength!r}")
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
        raise WrongTypeError(f"keep_probability must be callable, got {type(keep_probability).__name__}")
    function = UserFunction(keep_probability, "the keep probability")
    with np.errstate(all="ignore"):
        table = _from_map(function, strength, name or verb.strip("<>") or "custom")
    return table if scale is None else Rescaled(table, width=1 / scale)


def _from_map(alpha: UserFunction, strength: float, name: str) -> TabulatedPenalty:
    w = np.exp2(np.arange(_OCTAVES[0] * 32, _OCTAVES[1] * 32) / 32)
    what = "the keep probability"
    keep = check_elementwise(alpha, w, what=what, tolerance=max(1e-7, 1e3 * alpha.rounding))
    _check_probability(w, keep, alpha.rounding, 1e3 * alpha.rounding)
    if (keep >= 1).all():
        raise InvalidArgumentError(
            "the keep probability is 1 at every weight: nothing is dropped and there is no penalty (L0 counts nonzeros)"
        )
    seen: list[tuple[Floats, Floats]] = []
    tail = _tail(w, keep, alpha.rounding, strength)

    def slope(x: Floats) -> Floats:
        probability = alpha(x)
        seen.append((x.reshape(-1), probability.reshape(-1)))
        result: Floats = x * np.maximum((1 - probability) / probability / strength, 0.0)
        return result if tail is None else np.where(x > tail[0], tail[1] * (x / tail[0]) ** tail[2], result)

    slopes = slope(w)
    wrong = ~np.isfinite(slopes)
    if wrong.any():
        reason = f"the keep probability {keep[wrong][0]:.3g} is so small that its penalty exceeds every number"
        raise _refusal(w, np.flatnonzero(wrong), reason)
    table = TabulatedPenalty(
        slope,
        label=name,
        octaves=_OCTAVES,
        powers=(_inner_power(w, slopes), _outer_power(slope)),
        noise=lambda x: alpha.rounding * (x / strength + (slope(x) if alpha.rounding > 1e-12 else 0.0)),
    )
    # The table was made from many more points than the grid above has.
    points, index = np.unique(np.concatenate([x for x, _ in seen]), return_index=True)
    _check_probability(
        points, np.concatenate([p for _, p in seen])[index], alpha.rounding, max(1e-9, 1e3 * alpha.rounding)
    )
    if table.rough is not None:
        _check_table(table, slope, *table.rough)
    return table


def _check_table(table: TabulatedPenalty, slope: Callable[[Floats], Floats], low: float, high: float) -> None:
    """Raise unless the table serves where its tolerance was not met: a penalty is the integral of its slope."""
    w = np.linspace(low, high, 4001)[1:-1] + (high - low) / 1e5
    exact = slope(w)
    error = float(np.abs(table.slope(w) - exact).sum() / max(float(exact.sum()), 1e-300))
    if error > _MOST_ERROR:
        raise InvalidArgumentError(
            f"the keep probability has more steps or kinks than can be located for |w| in [{low:.6g}, {high:.6g}]: its "
            f"penalty would be off by {error:.1g}; give a rule with fewer steps, or a smooth one"
        )


def _check_probability(w: Floats, keep: Floats, rounding: float, slack: float) -> None:
    """Raise unless the values at ascending weights are probabilities that do not fall and are not zero.

    ``slack`` is the relative fall that is taken for rounding.
    """
    wrong = ~np.isfinite(keep) | (keep < 0) | (keep > 1 + 1e3 * rounding)
    if wrong.any():
        raise _refusal(w, np.flatnonzero(wrong), f"a keep probability must lie in [0, 1], got {keep[wrong][0]:.6g}")
    falls = np.diff(keep) < -slack * keep[1:] - rounding
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


def _tail(w: Floats, keep: Floats, rounding: float, strength: float) -> tuple[float, float, float] | None:
    """Weight from which on the slope is a power law, the slope there and the power; None where digits last to the end.

    Once the distance of the keep probability from one has lost its digits, the slope goes on as the power law that it
    had. A penalty that is exactly flat there has none to lose.
    """
    negligible = 1e3 * rounding
    vanishing = 1 / keep - 1 < negligible
    if not vanishing.any():
        return None
    last = int(np.argmax(vanishing))
    if last == 0 or ((keep[last:] == 1).all() and 1 / keep[last - 1] - 1 > 1e3 * negligible):
        return None
    # A local exponent over several octaves averages the rounding out.
    start, end = max(last - 192, 0), max(last - 32, 1)
    slopes = [float(w[i] * (1 / keep[i] - 1)) / strength for i in (start, end)]
    if min(slopes) <= 0:
        return None
    power = math.log(slopes[1] / slopes[0]) / math.log(w[end] / w[start])
    power = round(power) + 0.0 if abs(power - round(power)) < 1e-3 else power
    # A power law already has more digits on average than at the end; anything else ends with what it has there.
    at_end = float(w[last - 1] * (1 / keep[last - 1] - 1)) / strength
    averaged = slopes[1] * (w[last - 1] / w[end]) ** power
    if abs(averaged - at_end) < 0.01 * at_end:
        return float(w[last - 1]), float(averaged), power
    stop = min(32 * math.ceil(last / 32), w.size - 1)
    return float(w[stop]), max(float(w[stop] * (1 / keep[stop] - 1)) / strength, 0.0), power


def _inner_power(w: Floats, slopes: Floats) -> float:
    first = slopes[[0, 32]]
    low = math.log2(first[1] / first[0]) if min(first) > 0 else 1.0
    low = round(low) + 0.0 if abs(low - round(low)) < 1e-9 else low
    if low <= -1 + 1e-6:
        raise NotSubquadraticError(
            "the keep probability falls so fast towards zero that its penalty is infinite everywhere "
            f"(slope ~ w^{low:.3g}); the failing interval is (0, {w[32]:.3g})",
            (0.0, float(w[32])),
        )
    return low


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
