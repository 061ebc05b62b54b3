"""Tabulates penalties that are given by a value and a slope only, so that a step costs no search for each weight.

The general proximal operator of such a penalty scans candidates and bisects. Here the slope is tabulated once
(`obverse.penalties.TabulatedPenalty`). Steps at which the operator is single-valued are solved by Newton's method on a
finer, linear table in float32. What does not settle, and larger steps, go to the exact operator of the table. A table
that disagrees with the penalty's own operator is not used.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

from ..penalties import Penalty, Rescaled, TabulatedPenalty

__all__ = ["tabulated"]

# The nodes of the quick table: segments in an octave as a power of two, and the octaves.
_BITS = 11
_LOW, _HIGH = -48, 24
# Bits of a float32's mantissa, and the bias of its exponent.
_MANTISSA, _BIAS = 23, 127
# The operator is single-valued up to the curvature limit; up to this share of it the equation is well conditioned.
_SURE = 0.8
# Largest deviation of the table from the penalty's own operator, relative to the point.
_TOLERANCE = 1e-6
# With a residual of at most this share of the point, one more step of Newton's method is accurate to float32.
_NEARLY = 1e-5
_ATTEMPTS = 5
_TABLES: Any = WeakIdKeyDictionary()


def tabulated(penalty: Penalty) -> Penalty:
    """The penalty with its operators read off a table where it has no formula for the proximal one; else itself."""
    if isinstance(penalty, Rescaled):
        inner = tabulated(penalty.penalty)
        return penalty if inner is penalty.penalty else Rescaled(inner, penalty.width, penalty.height)
    if type(penalty)._prox is not Penalty._prox:
        return penalty
    if penalty not in _TABLES:
        _TABLES[penalty] = _checked(penalty)
    table: Penalty | None = _TABLES[penalty]
    return penalty if table is None else table


def _checked(penalty: Penalty) -> Penalty | None:
    """The tabulated penalty; None where a table cannot stand for the penalty."""
    limit, at_zero = float(penalty.curvature_limit), float(penalty.slope_at_zero)
    try:
        table = TabulatedPenalty(
            lambda w: np.asarray(penalty.slope(w), dtype=np.float64),
            label=repr(penalty),
            slope_at_zero=at_zero,
            curvature_limit=limit,
        )
        fast = _Fast(table)
        agrees = _agrees(penalty, table, fast)
    except (ValueError, ArithmeticError, RuntimeError):
        return None
    return fast if agrees else None


def _agrees(penalty: Penalty, table: TabulatedPenalty, fast: _Fast) -> bool:
    """Whether value and operator of the table are those of the penalty, over many sizes of weights and steps."""
    points = np.geomspace(1e-6, 1e3, 37)[:, None].astype(np.float32)
    limit = float(table.curvature_limit)
    around = limit if 0 < limit < np.inf else 1.0
    steps = (around * np.geomspace(1e-6, 10.0, 12)).astype(np.float32)
    wide, apart = points.astype(np.float64), np.broadcast_to(steps.astype(np.float64), (37, 12))
    with np.errstate(all="ignore"):
        exact, tabular = np.asarray(penalty.prox(wide, apart)), np.asarray(table.prox(wide, apart))
        quick = fast.prox(torch.from_numpy(points), torch.from_numpy(steps)).double().numpy()
        values = np.asarray(penalty.value(wide)), np.asarray(table.value(wide))
    objective = [(x - wide) ** 2 / 2 + apart * np.asarray(penalty.value(x)) for x in (exact, tabular, quick)]
    # Formulas such as 1 - exp(-w) lose small values in rounding, and the penalty's own operator is no better than that.
    noise = 1e-14 * float(values[0].max())
    same = (np.abs(tabular - exact) <= _TOLERANCE * wide) | (objective[1] <= objective[0] + apart * noise)
    # Where the operator jumps two minimizers are equally good, and the rounding of float32 decides.
    allowed = objective[1] + _TOLERANCE * wide**2 + apart * noise
    near = (np.abs(quick - tabular) <= _TOLERANCE * wide) | (objective[2] <= allowed)
    return bool(same.all() and near.all()) and np.allclose(*values, rtol=_TOLERANCE, atol=noise)


@final
class _Fast(Penalty):
    """A tabulated penalty with a quick proximal operator for float32 tensors."""

    def __init__(self, table: TabulatedPenalty) -> None:
        self._table = table
        self._nodes: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self._limit = _SURE * float(table.curvature_limit)

    def __repr__(self) -> str:
        return repr(self._table)

    @property
    def slope_at_zero(self) -> float:
        return self._table.slope_at_zero

    @property
    def curvature_limit(self) -> float:
        return self._table.curvature_limit

    def _value(self, w: Any, xp: Any) -> Any:
        return self._table._value(w, xp)

    def _slope(self, w: Any, xp: Any) -> Any:
        return self._table._slope(w, xp)

    def _eta(self, w: Any, xp: Any) -> Any:
        return self._table._eta(w, xp)

    def _dual(self, eta: Any, xp: Any) -> Any:
        return self._table._dual(eta, xp)

    def _zeroing_step(self, z: Any, xp: Any) -> Any:
        return self._table._zeroing_step(z, xp)

    def _prox(self, z: Any, step: Any, xp: Any) -> Any:
        is_plain = isinstance(z, torch.Tensor) and z.dtype == torch.float32 and not z.requires_grad
        if not is_plain or torch.compiler.is_compiling() or self._limit == 0:
            return self._table._prox(z, step, xp)
        if not isinstance(step, torch.Tensor) and step > self._limit:
            return self._table._prox(z, step, xp)
        if isinstance(step, torch.Tensor):
            z, step = torch.broadcast_tensors(z, step)  # type: ignore[no-untyped-call]
        x, is_open = self._solved(z, step)
        is_open |= step > self._limit
        if bool(is_open.any()):
            steps = step[is_open] if isinstance(step, torch.Tensor) else step
            x[is_open] = self._table._prox(z[is_open], steps, xp)
        return x

    def _solved(self, z: torch.Tensor, step: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The root of ``x + step * slope(x) = z``, and where it was not found; zero where zero is the minimizer."""
        x = z
        for _ in range(_ATTEMPTS):
            slope, bend = self._slope_and_bend(x)
            residual = slope.mul_(step).add_(x).sub_(z)
            x = torch.sub(x, residual / bend.mul_(step).add_(1.0).clamp_(min=1 - _SURE)).clamp_(min=0.0)
            is_open = residual.abs_() > _NEARLY * z
            if not bool(is_open.any()):
                break
        is_zero = z <= step * self.slope_at_zero
        # Also what is not a number, or off the grid.
        is_open.logical_or_((z > 0) & ~((z >= 2.0**_LOW) & (z < 2.0**_HIGH))).logical_and_(~is_zero)
        return x.masked_fill_(is_zero, 0.0), is_open

    def _slope_and_bend(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The slope and its derivative, linear between nodes that are read off the leading bits of each float32."""
        starts, bends = self._columns(x.device)
        shift = _MANTISSA - _BITS
        bits = x.contiguous().view(torch.int32)
        keys = (bits >> shift).sub_((_LOW + _BIAS) << _BITS).clamp_(0, len(starts) - 1).view(-1)
        beyond = x - bits.bitwise_and(-1 << shift).view(torch.float32)
        bend = bends.index_select(0, keys).view(x.shape)
        return beyond.mul_(bend).add_(starts.index_select(0, keys).view(x.shape)), bend

    def _columns(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The slope at every node, and its rise to the next one."""
        if device not in self._nodes:
            mantissas = 1 + np.arange(1 << _BITS) / (1 << _BITS)
            nodes = (np.exp2(np.arange(_LOW, _HIGH, dtype=np.float64))[:, None] * mantissas).reshape(-1)
            nodes = np.append(nodes, 2.0**_HIGH)
            slopes = np.asarray(self._table.slope(nodes))
            columns = torch.from_numpy(np.stack([slopes[:-1], np.diff(slopes) / np.diff(nodes)])).to(device).float()
            self._nodes[device] = (columns[0].contiguous(), columns[1].contiguous())
        return self._nodes[device]
