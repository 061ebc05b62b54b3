"""A penalty known only by its slope, as numbers: tabulated once, then evaluated fast on arrays and tensors."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from .._core.arrays import Array
from .._core.checks import positive
from ..errors import InvalidArgumentError
from ._base import Penalty
from ._elementwise import check_elementwise
from ._piecewise import Piecewise, tabulate
from ._stationary import ScalarProx, bends, best_point, largest_root, lower_hull, smallest_root

__all__ = ["TabulatedPenalty", "remembered"]

Floats = npt.NDArray[np.float64]

_OCTAVES = 100
_WORTH_A_TABLE = 4096  # elements from which making the table of a step costs less than solving for each
_PER_OCTAVE = 32  # points at which the curvature is looked at
_BLOCK = 32768  # elements solved for at a time, in the fast cache


@final
class TabulatedPenalty(Penalty):
    r"""A subquadratic penalty given by its slope, turned once into piecewise polynomials.

    The slope is tabulated on a dyadic grid, from 2^-100 to 2^100 times ``scale``, to a relative error of about 1e-11;
    the value is the exact integral of that table, so that value and slope agree. Outside the grid both continue as
    power laws. The proximal operator solves :math:`x + t\,\Omega'(x) = z`; for a number as step it is itself tabulated
    once and kept until another step is asked for.

    Parameters
    ----------
    slope : callable
        :math:`\Omega'(w)` for a float64 NumPy array of positive magnitudes, nonnegative and finite.
    label : str, default "tabulated"
        Name in messages and plots.
    scale : float, default 1
        Natural size of the weights.
    breaks : sequence of float, optional
        Known kinks and jumps of the slope; others are found by bisection.
    slope_at_zero, curvature_limit : float, optional
        Where they are known in closed form; otherwise read off the table.
    noise : callable, optional
        Absolute error of ``slope`` at each magnitude, where it suffers from cancellation.
    octaves : pair of int, optional
        Exponents of two that bound the grid, instead of those that ``scale`` implies.
    powers : pair of float, optional
        Power laws below and above the grid; otherwise read off its ends.
    find_breaks : bool, default True
        Whether kinks and jumps besides ``breaks`` are looked for.

    Raises
    ------
    InvalidArgumentError
        If the slope is negative or not finite somewhere on the grid, looks at other weights, or is random.

    Notes
    -----
    That :math:`\Omega(\sqrt u)` is concave is taken for granted here; `obverse.duality.check_subquadratic` checks it.
    Formulas: see `Penalty`; the dual is the integral of :math:`f'(\eta) = (\hat w(\eta)/\eta)^2`, derived in
    docs/theory.md, section 2.2.
    """

    def __init__(
        self,
        slope: Callable[[Floats], Floats],
        *,
        label: str = "tabulated",
        scale: float = 1.0,
        breaks: Sequence[float] = (),
        slope_at_zero: float | None = None,
        curvature_limit: float | None = None,
        noise: Callable[[Floats], Floats] | None = None,
        octaves: tuple[int, int] | None = None,
        powers: tuple[float, float] | None = None,
        find_breaks: bool = True,
    ) -> None:
        scale = positive("scale", scale)
        self.label = label
        middle = round(math.log2(scale))
        octaves = octaves or (middle - _OCTAVES, middle + _OCTAVES)

        def checked(w: Floats) -> Floats:
            with np.errstate(all="ignore"):
                values = np.asarray(slope(w), dtype=np.float64)
            if values.shape != w.shape:
                raise InvalidArgumentError(
                    f"the slope must return one number each, got shape {values.shape} for {w.shape}"
                )
            wrong = ~(np.isfinite(values) & (values >= 0))
            if wrong.any():
                raise InvalidArgumentError(
                    f"the slope of a penalty must be finite and at least 0, got {values[wrong][0]} at {w[wrong][0]:.6g}"
                )
            return values

        check_elementwise(
            checked, np.exp2(np.linspace(octaves[0], octaves[1], 401)), what="the slope", tolerance=1e-6, noise=noise
        )
        self._slope_table = tabulate(
            checked, octaves, breaks=breaks, floor=noise, powers=powers, find_breaks=find_breaks
        )
        self._value_table = self._slope_table.integral()
        low = self._slope_table.powers[0]
        if slope_at_zero is None:
            slope_at_zero = math.inf if low < -1e-6 else 0.0 if low > 1e-6 else float(self._slope_table.rows[0, 0])
        self._at_zero = slope_at_zero
        self._known_limit = curvature_limit
        # An array, not the function: penalties are pickled.
        self._noise_on_grid = 0.0 if noise is None else noise(_grid(self._slope_table, _PER_OCTAVE))
        self._scalar_prox: ScalarProx | None = None

    @property
    def error(self) -> float:
        """Largest relative error of the slope that was seen while it was tabulated."""
        return self._slope_table.error

    @property
    def rough(self) -> tuple[float, float] | None:
        """Magnitudes between which the error exceeds 1e-11; None where it does so nowhere."""
        return self._slope_table.rough

    def _prepare(self, *names: str) -> int:
        """Compute cached tables now; under torch.compile this runs as ordinary Python while tracing."""
        for name in names:
            getattr(self, name)
        return 0

    _prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"TabulatedPenalty({self.label!r})"

    # ------------------------------------------------------------------ what a Penalty is asked for
    def _value(self, w: Array, xp: Any) -> Array:
        return attached(self._value_table(w, xp), (w, lambda: self._slope(w, xp)))

    def _slope(self, w: Array, xp: Any) -> Array:
        # Where the slope is down to rounding noise its polynomials may dip below zero.
        slope = xp.clip(self._slope_table(w, xp), 0.0, None)
        return attached(slope, (w, lambda: self._slope_table.derivative(w, xp)))

    def _eta(self, w: Array, xp: Any) -> Array:
        self._prepare("_eta_at_zero")
        slope = self._slope(w, xp)
        flat = slope == 0
        safe = xp.where(flat, xp.ones_like(slope), slope)
        eta = xp.where(flat, xp.full_like(slope, math.inf), w / safe)
        return xp.where(w == 0, xp.full_like(w, self._eta_at_zero), eta)

    @cached_property
    def _eta_at_zero(self) -> float:
        """The limit of w / slope at zero: finite and positive only where the penalty starts as a square."""
        low = self._slope_table.powers[0]
        if low < 1 - 1e-6:
            return 0.0
        start = float(self._slope_table.rows[0, 0])
        return self._slope_table.low / start if start > 0 else math.inf

    @property
    def slope_at_zero(self) -> float:
        return self._at_zero

    @cached_property
    def curvature_limit(self) -> float:
        if self._known_limit is not None:
            return self._known_limit
        return _curvature_limit(self._slope_table, self._at_zero, self._noise_on_grid)

    # ------------------------------------------------------------------ dual
    def _dual(self, eta: Array, xp: Any) -> Array:
        self._prepare("_dual_table", "_dual_slope_table")
        table, out_of_reach = self._dual_table
        result = attached(xp.clip(table(eta, xp), 0.0, None), (eta, lambda: table_of_slope(eta)))

        def table_of_slope(eta: Array) -> Array:
            return self._dual_slope_table(eta, xp)

        if out_of_reach < math.inf:
            result = xp.where(eta > out_of_reach, xp.full_like(eta, math.inf), result)
        # At infinity f is twice the supremum of Omega.
        end = self._slope_table
        highest = math.inf if end.rows[0, -1] > 0 else 2 * float(self._value_table(np.array([end.high]), np)[0])
        return xp.where(eta == math.inf, xp.full_like(eta, highest), result)

    @cached_property
    def _dual_slope_table(self) -> Piecewise:
        table = self._slope_table
        w = _grid(table)
        slope = table(w, np)
        with np.errstate(divide="ignore"):
            eta = np.maximum.accumulate(np.where(slope > 0, w / slope, math.inf))
        finite = np.isfinite(eta)
        w, eta = w[finite], eta[finite]

        def dual_slope(points: Floats) -> Floats:
            shape, points = points.shape, points.reshape(-1)
            # v = sup {v : eta_hat(v) <= eta} by bisection between neighbors on the grid.
            index = np.searchsorted(eta, points, side="right")
            lower = np.where(index > 0, w[np.maximum(index - 1, 0)], 0.0)
            upper = np.where(index < w.size, w[np.minimum(index, w.size - 1)], self._reach(w[-1]))
            for _ in range(56):
                middle = (lower + upper) / 2
                below = middle <= points * table(middle, np)
                lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
            result: Floats = ((lower / points) ** 2).reshape(shape)
            return result

        breaks = [self._eta_at_zero] if 0 < self._eta_at_zero < math.inf else []
        for point in table.breaks:
            sides = table(np.array([np.nextafter(point, 0), point]), np)
            breaks += [point / side for side in sides if side > 0]
        low, high = (_exponent(x) for x in (table.low, table.high))
        if table.rows[0, -1] == 0:
            # From the largest finite eta on the dual slope is a power -2: there the integral is all but complete.
            high = max(high, _exponent(float(eta[-1])) + 50)
        return tabulate(
            dual_slope,
            (low, high),
            breaks=sorted(set(breaks)),
            tolerance=1e-10,
            floor=lambda w: np.full_like(w, 1e-13),
            find_breaks=False,
        )

    def _reach(self, last: float) -> float:
        """Largest weight that a finite eta may belong to: where the penalty becomes flat, or the end of the grid."""
        return next((point for point in self._slope_table.breaks if point > last), last)

    @cached_property
    def _dual_table(self) -> tuple[Piecewise, float]:
        slope = self._slope_table
        end = float(slope.rows[0, -1])
        bounded = end > 0 and abs(slope.powers[1] - 1) < 1e-6
        return self._dual_slope_table.integral(), (slope.high / end * (1 + 1e-12) if bounded else math.inf)

    # ------------------------------------------------------------------ proximal operator
    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(z, torch.Tensor):
            return self._prox_numpy(z, step)
        if torch.compiler.is_compiling():
            self._prepare("curvature_limit")
        tracing = torch.compiler.is_compiling() or type(z) not in (torch.Tensor, torch.nn.Parameter)
        if tracing or (z.device.type != "cpu" and not isinstance(step, (float, int))):
            x = self._prox_array(z.detach(), _detached(step), xp)
        elif z.device.type != "cpu":
            x = self._table_of(float(step))(z.detach(), xp)
        else:
            try:
                points, steps = z.detach().numpy(), _detached(step)
                steps = steps.numpy() if isinstance(steps, torch.Tensor) else steps
            except RuntimeError:  # inside a function transform there is no memory to share
                x = self._prox_array(z.detach(), _detached(step), xp)
            else:
                with np.errstate(all="ignore"):
                    x = torch.from_numpy(np.asarray(self._prox_numpy(points, steps)))
        # The implicit function theorem: dx/dz = 1 / (1 + step Omega''(x)), dx/dstep = -Omega'(x) dx/dz; 0 at zero.

        def by_point() -> Array:
            curvature = self._slope_table.derivative(x, xp)
            return xp.where(x > 0, 1 / (1 + _detached(step) * curvature), xp.zeros_like(x))

        def by_step() -> Array:
            return xp.where(x > 0, -self._slope_table(x, xp) * by_point(), xp.zeros_like(x))

        return attached(x, (z, by_point), (step, by_step))

    def _prox_numpy(self, z: Any, step: Any) -> Any:
        if isinstance(step, (float, int)) or getattr(step, "ndim", 1) == 0:
            known = self._scalar_prox is not None and self._scalar_prox.step == float(step)
            if known or z.size >= _WORTH_A_TABLE:
                return self._table_of(float(step))(z, np)
        z, step = np.broadcast_arrays(z, step)
        shape, dtype = z.shape, z.dtype
        z, step = z.reshape(-1), step.reshape(-1)
        result = np.empty_like(z)
        for start in range(0, z.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            result[block] = self._prox_block(z[block], step[block])
        return result.reshape(shape).astype(dtype, copy=False)

    def _prox_block(self, z: Any, step: Any) -> Any:
        result = np.where((step == 0) | ~np.isfinite(z), z, np.zeros_like(z))
        reach = self._zeroing_step(z.astype(np.float64), np)  # in float32 it overflows early
        active = np.flatnonzero((step > 0) & (z > 0) & (step < reach) & np.isfinite(z))
        points, steps = z[active].astype(np.float64), step[active].astype(np.float64)
        x = self._stationary(points, steps, np)
        # Right at the threshold rounding decides whether a weight came this far, and a root near zero is hard to find.
        edge = np.flatnonzero(steps * self._at_zero >= points * (1 - 1e-6))
        x[edge] *= (x[edge] / 2 - points[edge]) * x[edge] + steps[edge] * self._value_table(x[edge], np) < 0
        result[active] = x
        return result

    def _prox_array(self, z: Array, step: Array, xp: Any) -> Array:
        """The same for any step, in one pass over all elements and without a decision that depends on them."""
        step = step + xp.zeros_like(z)
        x = self._stationary(z, step, xp)
        zero = (x / 2 - z) * x + step * self._value_table(x, xp) >= 0
        x = xp.where(zero & (step > 0), xp.zeros_like(x), x)
        return xp.where(xp.isfinite(z), x, z)

    def _stationary(self, z: Array, step: Array, xp: Any) -> Array:
        """The best stationary point, which up to the curvature limit is the only one."""
        table = self._slope_table
        x = largest_root(table, z, step, self.curvature_limit, xp)
        if not isinstance(z, np.ndarray):
            return x if self.curvature_limit == math.inf else self._better(x, z, step, xp)
        # Another minimum besides the largest needs an objective that starts out convex, or a slope that falls in steps.
        table_starts_convex = 1 + step * table.derivative(np.minimum(1e-9 * z, x), np) > 0
        folded = np.isnan(x) | (
            (step > self.curvature_limit) & (self._has_many_minima | (table_starts_convex & (step * self._at_zero < z)))
        )
        chosen = np.flatnonzero(folded)
        if chosen.size:
            x[chosen] = best_point(table, self._value_table, self._bends, z[chosen], step[chosen], x[chosen])
        return x

    def _better(self, largest: Array, z: Array, step: Array, xp: Any) -> Array:
        """The better one of the largest and the smallest stationary point: all that a compiled graph can follow."""
        smallest = smallest_root(self._slope_table, z, step, self._at_zero, xp)

        def objective(x: Array) -> Array:
            return (x / 2 - z) * x + step * self._value_table(x, xp)

        return xp.where(objective(smallest) < objective(largest), smallest, largest)

    @cached_property
    def _bends(self) -> Floats:
        return bends(self._slope_table)

    @cached_property
    def _has_many_minima(self) -> bool:
        """Whether the objective of the proximal operator may have more than two minima.

        There are at most two for every step where the curvature falls to its least value and rises again.
        """
        table = self._slope_table
        w = _grid(table)
        slope = table(w, np)
        bend = np.diff(slope) / np.diff(w)
        sure = np.abs(bend) * w[1:] > 1e-4 * slope[:-1]
        bend = np.where(sure & (bend < 0), bend, 0.0)
        before, after = np.minimum.accumulate(bend), np.minimum.accumulate(bend[::-1])[::-1]
        level = np.maximum(before, after)
        return bool(((bend > 0.9 * level) & (level < 1e-9 * bend.min())).any())

    def _table_of(self, step: float) -> ScalarProx:
        cached = self._scalar_prox
        if cached is None or cached.step != step:
            cached = self._scalar_prox = ScalarProx(self._slope_table, self._value_table, self._at_zero, step)
        return cached

    # ------------------------------------------------------------------ zeroing step
    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        if self._at_zero == 0:
            return xp.where(z > 0, xp.full_like(z, math.inf), xp.zeros_like(z))
        self._prepare("_zeroing_table")
        return attached(self._zeroing_table(z, xp), (z, lambda: self._zeroing_table.derivative(z, xp)))

    @cached_property
    def _zeroing_table(self) -> Piecewise:
        value, slope = self._value_table, self._slope_table

        # t(z) = sup_x (z x - x^2/2) / Omega(x) is an upper envelope of lines in z: the hull picks the best x of a grid.
        grid = _grid(slope)
        omega = value(grid, np)
        usable = omega > 0
        grid, omega = grid[usable], omega[usable]
        order = np.argsort(grid / omega, kind="stable")
        grid, gradient, offset = grid[order], (grid / omega)[order], (grid * grid / (2 * omega))[order]
        kept = lower_hull(gradient, offset)
        grid, gradient, offset = grid[kept], gradient[kept], offset[kept]
        switches = np.maximum.accumulate(np.diff(offset) / np.diff(gradient))

        def largest(points: Floats) -> Floats:
            z = points.reshape(-1)
            x = grid[np.searchsorted(switches, z)]
            top = x * (z - x / 2) / value(x, np)
            width = 0.07
            for _ in range(6):
                trial = x * (1 + width * np.linspace(-1, 1, 5)[:, None])
                scores = trial * (z - trial / 2) / value(trial, np)
                best = scores.argmax(0)[None]
                x = np.take_along_axis(trial, best, 0)[0]
                top = np.maximum(top, np.take_along_axis(scores, best, 0)[0])
                width *= 0.3
            # The last stretch by Newton's step on the derivative, where it stays close.
            for _ in range(2):
                omega, s = value(x, np), slope(x, np)
                defect = (z - x) * omega - x * (z - x / 2) * s
                change = defect / (omega + x * (z - x / 2) * slope.derivative(x, np))
                x = np.where(np.abs(change) < width * x, x + change, x)
                top = np.maximum(top, x * (z - x / 2) / value(x, np))
            if self._at_zero < math.inf:
                top = np.maximum(top, z / self._at_zero)
            result: Floats = top.reshape(points.shape)
            return result

        low, high = (_exponent(x) for x in (self._slope_table.low, self._slope_table.high))
        return tabulate(largest, (low + 32, high), tolerance=1e-10, bits=(3, 4))


def remembered(build: Callable[..., TabulatedPenalty]) -> Callable[..., TabulatedPenalty]:
    """``build`` with its results kept by arguments; under torch.compile it runs while tracing and is not traced."""
    cache: dict[tuple[Any, ...], TabulatedPenalty] = {}

    def prepare(*key: Any) -> int:
        if key not in cache:
            cache[key] = build(*key)
        return 0

    prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def lookup(*key: Any) -> TabulatedPenalty:
        prepare(*key)
        return cache[key]

    return lookup


def attached(result: Array, *inputs: tuple[Array, Callable[[], Array]]) -> Array:
    """``result`` with known derivatives by torch tensors that require a gradient; unchanged for anything else.

    ``x - x.detach()`` is zero and carries the gradient, in a form that every transform of torch understands.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(result, torch.Tensor) or not torch.is_grad_enabled():
        return result
    for x, derivative in inputs:
        if isinstance(x, torch.Tensor) and x.requires_grad:
            slope = derivative()
            usable = torch.isfinite(x) & torch.isfinite(slope)
            change = torch.where(usable, x - x.detach(), torch.zeros_like(result))
            result = result + torch.where(usable, slope, torch.zeros_like(slope)) * change
    return result


def _detached(x: Array) -> Array:
    return x.detach() if hasattr(x, "detach") else x


def _exponent(x: float) -> int:
    return math.frexp(x)[1] - 1


def _grid(table: Piecewise, per_octave: int = 16) -> Floats:
    """Points along a table: geometric, with both sides of every break."""
    octaves = _exponent(table.high) - _exponent(table.low)
    steps = np.ldexp(1 + np.arange(per_octave) / per_octave, _exponent(table.low))
    points = (steps * np.exp2(np.arange(octaves))[:, None]).reshape(-1)
    sides = [x for point in table.breaks for x in (np.nextafter(point, 0), point)]
    return np.unique(np.concatenate([points, sides]))


def _curvature_limit(table: Piecewise, at_zero: float, noise: Floats | float) -> float:
    """1 / sup(-Omega''), from the derivative of the slope's table; accurate to about 1e-5."""
    for point in table.breaks:
        far, before, after = table(np.array([point / 2, np.nextafter(point, 0), point]), np)
        if before - after > 1e-9 * max(before, far):
            return 0.0
    if at_zero == math.inf:
        return 0.0
    w = _grid(table, _PER_OCTAVE)
    slope, bend = table(w, np), -table.derivative(w, np)
    # Far below the natural scale the derivative of the table is rounding noise.
    with np.errstate(invalid="ignore", divide="ignore"):
        # Noise of the slope is amplified ten thousandfold in the derivative of a polynomial of degree 7.
        sure = bend * w > 1e-3 * slope + 1e4 * noise
    if not sure.any():
        return math.inf
    w, bend = w[sure], bend[sure]
    top = int(bend.argmax())
    largest = float(bend[top])
    if top == 0:
        # The supremum is the limit at zero: continue the curvature there as a polynomial.
        near = slice(0, 160)
        fit = np.polynomial.Polynomial.fit(w[near], bend[near], 6)
        largest = max(largest, float(fit(0.0)))
    elif top < w.size - 1:
        fine = np.linspace(w[top - 1], w[top + 1], 2001)
        largest = max(largest, float((-table.derivative(fine, np)).max()))
    return 1 / largest
