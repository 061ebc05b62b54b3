"""How a formula for magnitudes meets an array: block by block, with NaN, infinities and extremes kept right."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.arrays import Array, np_namespace, tracing

__all__ = ["in_blocks", "on_finite", "on_numbers", "square_root"]

_BLOCK = 1 << 14  # elements at a time: the temporaries of a formula then stay in the fast cache
# From here on single precision no longer holds the squares and quotients that formulas form on their way.
_LARGE = 1e8


def in_blocks(formula: Callable[[Array, Array], Array], x: Array, y: Array, xp: Any) -> Array:
    """``formula(x, y)``, elementwise; on large arrays in main memory block by block.

    The temporaries of a formula then stay in the fast cache and in memory that is at hand, which costs half the time in
    NumPy and a fraction of it in torch. Gradients and compilers get the formula whole.
    """
    whole = isinstance(y, (float, int))
    if isinstance(x, np.ndarray):
        block, empty = _BLOCK, np.empty_like
    elif _is_plain_on_host(x, xp) and (whole or _is_plain_on_host(y, xp)):
        block, empty = 2 * _BLOCK, xp.empty_like
    else:
        return formula(x, y)
    if math.prod(x.shape) <= 2 * block or not (whole or y.shape == x.shape):
        return formula(x, y)
    flat, other = x.reshape(-1), y if whole else y.reshape(-1)
    result = empty(flat)
    for start in range(0, flat.shape[0], block):
        piece = slice(start, start + block)
        result[piece] = formula(flat[piece], other if whole else other[piece])
    return result.reshape(x.shape)


def on_numbers(formula: Callable[[Array], Array], w: Array, xp: Any, *, is_extreme: bool = False) -> Array:
    """``formula(w)`` for magnitudes ``w``, NaN where ``w`` is; float32 is widened where it cannot hold the way.

    Parameters
    ----------
    formula : callable
        Need not care about NaN.
    w : array of any shape
        Magnitudes, at least 0.
    is_extreme : bool
        Whether the constants of the formula ask for float64.
    """
    highest = _highest(w, xp)
    if highest is None or math.isnan(highest):
        hole = xp.isnan(w)
        # The square has the derivative NaN where ``w`` is NaN, and 0 elsewhere.
        gap = xp.where(hole, w, 0.0)
        inside = xp.where(hole, 1.0, w)
        if highest is None:
            return formula(inside) + gap * gap
        return on_numbers(formula, inside, xp, is_extreme=is_extreme) + gap * gap
    if is_extreme or highest > _LARGE:
        return _widened(formula, w, xp)
    return formula(w)


def on_finite(
    formula: Callable[[Array, Array], Array], z: Array, step: Array, xp: Any, *, is_extreme: bool = False
) -> Array:
    """The proximal operator ``formula(z, step)`` for magnitudes ``z``; NaN and infinity stay what they are.

    No subquadratic penalty holds an infinite weight: the minimizer is at least ``z / (1 + step / eta(z))``.
    """
    is_array = not isinstance(step, (float, int))
    highest = _highest(z, xp)
    largest = _highest(step, xp) if is_array else abs(step)
    if highest is None or largest is None or not highest < math.inf:
        finite = xp.isfinite(z)
        inside = xp.where(finite, z, 1.0)
        if highest is None or largest is None:
            return xp.where(finite, formula(inside, xp.astype(step, z.dtype) if is_array else step), z)
        return xp.where(finite, on_finite(formula, inside, step, xp, is_extreme=is_extreme), z)
    if is_extreme or highest > _LARGE or largest > _LARGE:
        wide = xp.astype(step, xp.float64) if is_array else step
        return _widened(lambda z: formula(z, wide), z, xp)
    return formula(z, xp.astype(step, z.dtype) if is_array else step)


def square_root(x: Array, xp: Any) -> Array:
    """Square root, 0 where ``x`` is negative, with gradient 0 (not infinite) wherever the result is 0."""
    if getattr(x, "requires_grad", False):
        inside = x > 0
        return xp.sqrt(xp.where(inside, x, 1.0)) * inside
    return xp.sqrt(xp.clip(x, 0.0, None))


def _highest(w: Array, xp: Any) -> float | None:
    """The largest of ``w``, NaN if one is; None where that cannot be known, or only at the price of waiting."""
    if math.prod(w.shape) == 0:
        return 0.0
    if xp is not np_namespace and not _is_on_host(w, xp):
        return None
    try:
        return float((w.detach() if hasattr(w, "detach") else w).max())
    except RuntimeError:  # inside a function transform
        return None


def _widened(formula: Callable[[Array], Array], w: Array, xp: Any) -> Array:
    return formula(w) if w.dtype == xp.float64 else xp.astype(formula(xp.astype(w, xp.float64)), w.dtype)


def _is_on_host(x: Array, xp: Any) -> bool:
    """Whether ``x`` is an ordinary torch tensor in main memory, at which no compiler looks."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and isinstance(x, torch.Tensor)
        and not tracing(xp)
        and type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
    )


def _is_plain_on_host(x: Array, xp: Any) -> bool:
    """Whether ``x`` is a torch tensor in main memory of which no gradient is wanted and no compiler sees."""
    return _is_on_host(x, xp) and not (x.requires_grad and sys.modules["torch"].is_grad_enabled())
