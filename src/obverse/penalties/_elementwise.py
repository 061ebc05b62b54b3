"""Whether a function of the user's own looks at each weight alone, which every penalty and keep probability must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError

__all__ = ["check_elementwise"]

Floats = npt.NDArray[np.float64]

_SINGLES = 16


def check_elementwise(
    function: Callable[[Floats], Floats],
    points: Floats,
    *,
    what: str,
    tolerance: float = 1e-7,
    noise: Callable[[Floats], Floats] | None = None,
) -> Floats:
    """Evaluate a function on points together, again, in another order, in parts and one by one; the values must agree.

    Parameters
    ----------
    function : callable
        NumPy array of shape (points,) in, array of that shape out, for any number of points.
    points : array of shape (points,)
        Magnitudes, distinct; the wider their range, the more shows when one matters for another.
    what : str
        Name of the function in the message.
    tolerance : float
        Relative difference that rounding may make.
    noise : callable, optional
        Absolute difference that rounding may make at each point.

    Returns
    -------
    array of shape (points,)
        The values.

    Raises
    ------
    InvalidArgumentError
        A value changes with the call or with the other points; the message says at which weight and when.
    """
    whole = function(points)
    slack = tolerance * np.abs(whole) + (0.0 if noise is None else noise(points))

    def compare(values: Floats, index: npt.NDArray[np.intp], reason: str, when: str) -> None:
        expected = whole[index]
        with np.errstate(invalid="ignore"):
            same = (np.abs(values - expected) <= slack[index]) | (values == expected)
        wrong = np.flatnonzero(~(same | (np.isnan(values) & np.isnan(expected))))
        if wrong.size:
            worst = wrong[np.argmin(np.abs(np.log(points[index[wrong]] / 0.5)))]
            raise InvalidArgumentError(
                f"{what} {reason}: its value at {points[index[worst]]:.4g} changes from {expected[worst]:.6g} to "
                f"{values[worst]:.6g} when {when}"
            )

    everything = np.arange(points.size)
    others = "looks at other weights"
    compare(function(points), everything, "is random or keeps a state", "it is evaluated again")
    order = np.random.default_rng(0).permutation(points.size)
    compare(function(points[order]), order, others, "the weights come in another order")
    for part in (everything[: points.size // 3], everything[points.size // 3 :]):
        compare(function(points[part]), part, others, "some of the weights are left out")
    for index in everything[:: max(points.size // _SINGLES, 1)]:
        alone = np.array([index])
        compare(function(points[alone]), alone, others, "it is evaluated alone")
    return whole
