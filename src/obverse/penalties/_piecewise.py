"""Functions of a magnitude as piecewise polynomials whose piece is read off the bits of the number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.arrays import Array

__all__ = ["Piecewise", "tabulate"]

Function = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
Floats = npt.NDArray[np.float64]

_BLOCK = 8192  # elements at a time, so that the temporaries stay in the fast cache


@dataclass(frozen=True, eq=False)
class Piecewise:
    """A piecewise polynomial on a dyadic grid: `2**bits` equal segments in every octave.

    The exponent and the leading mantissa bits of a float number its segment, the remaining mantissa bits are its
    place within, so that no logarithm and no search is needed. A break inside a segment splits it in two rows of the
    table; the numbers of all later rows move up by one, which a comparison with the break reproduces.

    Parameters
    ----------
    rows : array of shape (degree + 1, pieces + 2)
        Coefficients in the local coordinate of the segment, from -1 to 1, with one guard row at either end.
    first : int
        Number of the first segment: octave times ``2**bits``, relative to 1.
    bits : int
        Binary logarithm of the segments per octave.
    breaks : tuple of float
        Points at which a segment is split, ascending; a break belongs to the piece on its right.
    powers : pair of float
        Exponents of the power laws that continue the function below and above the grid.
    error : float
        Largest relative error seen at the test points.
    rough : pair of float or None
        Interval outside of which the requested tolerance was met, where it was not met everywhere.
    """

    rows: Floats
    first: int
    bits: int
    breaks: tuple[float, ...]
    low: float
    high: float
    powers: tuple[float, float]
    error: float = 0.0
    rough: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # As plain numbers, which torch.compile reads without a look at the table.
        object.__setattr__(self, "degree", self.rows.shape[0] - 1)
        object.__setattr__(self, "count", self.rows.shape[1])

        object.__setattr__(self, "_cache", {})

    _cache: dict[Any, Any] = field(init=False, repr=False)
    degree: int = field(init=False)
    count: int = field(init=False)

    # ------------------------------------------------------------------ evaluation
    def __call__(self, w: Array, xp: Any) -> Array:
        """The function at ``w >= 0``, in the dtype of ``w``; torch gradients are attached by the caller."""
        return self._evaluate(w, "rows", self.powers)

    def derivative(self, w: Array, xp: Any) -> Array:
        """Its derivative; at a break the one from the right."""
        low, high = self.powers
        return self._evaluate(w, "_derivative_rows", (low - 1, high - 1))

    def with_derivative(self, w: Array, xp: Any) -> tuple[Array, Array]:
        """The function and its derivative together."""
        return self(w, xp), self.derivative(w, xp)

    @cached_property
    def _derivative_rows(self) -> Floats:
        """Coefficients of the derivative: the local coordinate moves by 2/width per unit of w."""
        degree = self.rows.shape[0] - 1
        rows = self.rows[1:] * np.arange(1, degree + 1)[:, None] * (2 / self._widths)
        low, high = self.powers
        rows[:, [0, -1]] = 0.0
        rows[0, 0] = self.rows[0, 0] * low / self.low
        rows[0, -1] = self.rows[0, -1] * high / self.high
        return rows

    @cached_property
    def _segments(self) -> npt.NDArray[np.int64]:
        """Segment number of every row."""
        pieces = self.rows.shape[1] - 2
        numbers = np.arange(self.first, self.first + pieces - len(self.breaks))
        splits = segment_of(np.asarray(self.breaks), self.bits)
        numbers = np.sort(np.concatenate([numbers, splits]))
        return np.concatenate([numbers[:1], numbers, numbers[-1:]])

    @cached_property
    def _widths(self) -> Floats:
        left, right = edges_of(self._segments, self.bits)
        return right - left

    def integral(self) -> Piecewise:
        """The integral from 0, where the power law below the grid is integrable."""
        low = self.powers[0]
        degree = self.rows.shape[0] - 1
        rows = np.zeros((degree + 2, self.rows.shape[1]))
        rows[1:] = self.rows / np.arange(1, degree + 2)[:, None] * (self._widths / 2)
        left, right = edges_of(self._segments, self.bits)
        starts, ends = left.copy(), right.copy()
        splits = np.flatnonzero(np.diff(self._segments[1:-1]) == 0) + 1
        for row, point in zip(splits, self.breaks, strict=True):
            ends[row] = starts[row + 1] = point
        a, b = (2 * (x - left) / (right - left) - 1 for x in (starts, ends))
        pieces = slice(1, -1)
        at_start, at_end = horner(rows, a)[pieces], horner(rows, b)[pieces]
        before = self.rows[0, 0] * self.low / (low + 1)
        total = before + np.concatenate([[0.0], np.cumsum(at_end - at_start)])
        rows[0, pieces] = total[:-1] - at_start
        rows[:, [0, -1]] = 0.0
        rows[0, 0], rows[0, -1] = total[0], total[-1]
        # Above the grid the integral keeps its own local power, which is 0 where it has become constant.
        growth = self.rows[0, -1] * self.high / total[-1] if total[-1] > 0 else 0.0
        return Piecewise(rows, self.first, self.bits, self.breaks, self.low, self.high, (low + 1, growth), self.error)

    def _evaluate(self, w: Array, label: str, powers: tuple[float, float]) -> Array:
        if isinstance(w, (np.ndarray, np.generic)):
            return self._evaluate_numpy(np.asarray(w), getattr(self, label), powers)
        import torch

        # A plain tensor on the host shares its memory with NumPy, whose blocked loop is the faster one.
        if (
            not torch.compiler.is_compiling()
            and type(w) in (torch.Tensor, torch.nn.Parameter)
            and w.device.type == "cpu"
        ):
            try:
                host = w.detach().numpy()
            except RuntimeError:  # inside a function transform there is no memory to share
                pass
            else:
                return torch.from_numpy(self._evaluate_numpy(host, getattr(self, label), powers))
        columns = self._tensor(label, str(w.device), w.dtype == torch.float32)
        degree = self.degree - (label == "_derivative_rows")
        return self._evaluate_torch(w.detach(), columns, degree, powers)

    def _layout(self, single: bool) -> tuple[int, int, int, int, float]:
        """Shift, offset, mask, bits of 1.0 and center of the local coordinate for a float width."""
        mantissa, bias = (23, 127) if single else (52, 1023)
        shift = mantissa - self.bits
        offset = self.first + (bias << self.bits) - 1
        return shift, offset, (1 << shift) - 1, bias << mantissa, 1 + 2.0 ** -(self.bits + 1)

    def _evaluate_numpy(self, w: npt.NDArray[Any], rows: Floats, powers: tuple[float, float]) -> npt.NDArray[Any]:
        single = w.dtype == np.float32
        integer = np.int32 if single else np.int64
        shift, offset, mask, one, center = self._layout(single)
        columns = self._scaled(rows, single)
        flat = np.ascontiguousarray(w).reshape(-1)
        out = np.empty_like(flat)
        size = min(_BLOCK, flat.size)
        keys, places, term = np.empty(size, np.intp), np.empty(size, integer), np.empty(size, flat.dtype)
        extended = powers != (0.0, 0.0)
        for start in range(0, flat.size, _BLOCK):
            x, y = flat[start : start + _BLOCK], out[start : start + _BLOCK]
            n = x.size
            bits, key, place, more = x.view(integer), keys[:n], places[:n], term[:n]
            np.right_shift(bits, shift, out=key, casting="unsafe")
            key -= offset
            for point in self.breaks:
                key += x >= flat.dtype.type(point)
            np.bitwise_and(bits, mask, out=place)
            np.bitwise_or(place, one, out=place)
            t = place.view(flat.dtype)
            t -= flat.dtype.type(center)
            np.take(columns[-1], key, out=y, mode="clip")
            for column in columns[-2::-1]:
                y *= t
                np.take(column, key, out=more, mode="clip")
                y += more
            if not (x.min() >= self.low and x.max() <= self.high):
                if extended:
                    self._continue_numpy(x, y, rows, powers)
                y[np.isnan(x)] = np.nan
        return out.reshape(w.shape)

    def _continue_numpy(self, x: Any, y: Any, rows: Floats, powers: tuple[float, float]) -> None:
        ends = (self.low, rows[0, 0], powers[0]), (self.high, rows[0, -1], powers[1])
        for (end, value, power), outside in zip(ends, (x < self.low, x > self.high), strict=True):
            if value != 0:
                with np.errstate(all="ignore"):
                    y[outside] = value * np.power(np.asarray(x[outside], np.float64) / end, power)
            else:
                y[outside] = 0.0

    def _scaled(self, rows: Floats, single: bool) -> list[npt.NDArray[Any]]:
        """Rows in the coordinate of the mantissa, contiguous and cached by the table they come from."""
        cache: dict[Any, list[npt.NDArray[Any]]] = self._cache
        key = (id(rows), single)
        if key not in cache:
            power = np.arange(rows.shape[0]) * (self.bits + 1)
            scaled = np.ldexp(rows, power[:, None])
            with np.errstate(over="ignore", under="ignore"):
                cache[key] = list(np.ascontiguousarray(scaled, dtype=np.float32 if single else np.float64))
        return cache[key]

    def _tensor(self, label: str, device: str, single: bool) -> Any:
        """The coefficient table as one tensor, made on first use."""
        self._store(label, device, single)
        return self._cache[label, device, single]

    def _store(self, label: str, device: str, single: bool) -> int:
        if (label, device, single) not in self._cache:
            # All at once: a compiler that has looked into the cache does not look again.
            for name in ("rows", "_derivative_rows"):
                for width in (True, False):
                    columns = np.stack(self._scaled(getattr(self, name), width))
                    self._cache[name, device, width] = sys.modules["torch"].as_tensor(columns, device=device)
        return 0

    def _evaluate_torch(self, x: Any, columns: Any, degree: int, powers: tuple[float, float]) -> Any:
        torch = sys.modules["torch"]
        single = x.dtype == torch.float32
        shift, offset, mask, one, center = self._layout(single)
        bits = x.view(torch.int32 if single else torch.int64)
        key = (bits >> shift) - offset
        for point in self.breaks:
            key = key + (x >= point).to(key.dtype)
        key = key.clamp(0, self.count - 1).to(torch.int64)
        t = ((bits & mask) | one).view(x.dtype) - center
        y = columns[degree][key]
        for k in range(degree - 1, -1, -1):
            y = y * t + columns[k][key]
        if powers == (0.0, 0.0):
            return torch.where(torch.isnan(x), x, y)
        # Outside the grid only the guard rows' constants are left: the power laws continue them.
        below = torch.where(x < self.low, x / self.low, 1.0)
        above = torch.where(x > self.high, x / self.high, 1.0)
        y = torch.where(x < self.low, columns[0][0] * below ** powers[0], y)
        y = torch.where(x > self.high, columns[0][-1] * above ** powers[1], y)
        return torch.where(torch.isnan(x), x, y)


# What `torch.compiler.assume_constant_result` sets, without importing torch here: under torch.compile the table is
# made while tracing, as ordinary Python, and is not traced itself.
Piecewise._store._dynamo_marked_constant = True  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- the dyadic grid
def segment_of(w: Floats, bits: int) -> npt.NDArray[np.int64]:
    """Number of the segment that holds ``w``."""
    mantissa, exponent = np.frexp(w)
    within: npt.NDArray[np.int64] = np.floor((2 * mantissa - 1) * 2**bits).astype(np.int64)
    return within + ((exponent - 1).astype(np.int64) << bits)


def edges_of(segments: npt.NDArray[np.int64], bits: int) -> tuple[Floats, Floats]:
    """Left and right edges of segments."""

    def left(number: npt.NDArray[np.int64]) -> Floats:
        octave = number >> bits
        edge: Floats = np.ldexp(1 + (number - (octave << bits)) / 2.0**bits, octave)
        return edge

    return left(segments), left(segments + 1)


def horner(rows: Floats, t: Floats) -> Floats:
    """Polynomials with coefficients ``rows`` (ascending) at ``t``."""
    total = np.broadcast_to(rows[-1], np.broadcast_shapes(rows[-1].shape, t.shape)).copy()
    for row in rows[-2::-1]:
        total = total * t + row
    return total


def interpolation(degree: int) -> tuple[Floats, Floats]:
    """Chebyshev nodes on [-1, 1] and the matrix from values there to coefficients of powers."""
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    chebyshev = np.polynomial.chebyshev.chebvander(nodes, degree)
    to_powers = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        unit = np.zeros(degree + 1)
        unit[k] = 1.0
        to_powers[: k + 1, k] = np.polynomial.chebyshev.cheb2poly(unit)
    return nodes, to_powers @ np.linalg.inv(chebyshev)


_TESTS = np.array([-0.995, -0.9, -0.66, -0.31, 0.04, 0.37, 0.71, 0.93, 0.995])


def tabulate(
    function: Function,
    octaves: tuple[int, int],
    *,
    breaks: Sequence[float] = (),
    tolerance: float = 1e-11,
    floor: Function | None = None,
    degree: int = 7,
    bits: tuple[int, int] = (3, 6),
    find_breaks: bool = True,
    powers: tuple[float, float] | None = None,
) -> Piecewise:
    """Turn a function of positive numbers into a `Piecewise`.

    Parameters
    ----------
    function : callable
        NumPy array of positive numbers in, array of the same shape out; finite.
    octaves : pair of int
        Exponents of two between which it is tabulated.
    breaks : sequence of float
        Known kinks and jumps. Others are found by bisection where the finest segments do not resolve the function.
    tolerance : float
        Relative error to reach.
    floor : callable, optional
        Absolute error at each point below which the function is only rounding noise.
    bits : pair of int
        Binary logarithms of the smallest and largest number of segments per octave.
    powers : pair of float, optional
        Power laws outside the grid; by default read off the outermost octaves.
    """
    nodes, to_coefficients = interpolation(degree)
    known = sorted(float(b) for b in breaks if 2.0 ** octaves[0] < b < 2.0 ** octaves[1])

    def allowed(w: Floats, f: Floats) -> Floats:
        return tolerance * np.abs(f) + (0.0 if floor is None else floor(w)) + 1e-300

    for level in range(bits[0], bits[1] + 1):
        first = octaves[0] << level
        segments = np.arange(first, octaves[1] << level)
        left, right = edges_of(segments, level)
        center, half = (left + right) / 2, (right - left) / 2
        split = np.isin(segments, segment_of(np.asarray(known), level))
        rows = to_coefficients @ function(center + half * nodes[:, None])
        points = center + half * _TESTS[:, None]
        values = function(points)
        defect = (np.abs(horner(rows[:, None, :], np.repeat(_TESTS[:, None], segments.size, 1)) - values)) / allowed(
            points, values
        )
        worst = np.where(split, 0.0, defect.max(0))
        failing = np.flatnonzero(worst > 1)
        # A kink fails at every level in its one segment: refining all octaves for a few of them is waste.
        if failing.size == 0 or (level > bits[0] + (not find_breaks) and failing.size <= 4):
            break
    extra: dict[int, list[float]] = {}
    for point in known:
        extra.setdefault(int(np.searchsorted(segments, segment_of(np.asarray(point), level))), []).append(point)
    if find_breaks and 0 < failing.size <= 32:
        for index in failing:
            found = _find_breaks(function, left[index], right[index], allowed)
            if found:
                extra[int(index)] = found
    if find_breaks:
        fitted = worst <= 1
        for place in _jumps_between(rows, fitted, allowed(left, rows[0])):
            extra.setdefault(place, []).insert(0, float(left[place]))
    table, order = _with_breaks(function, rows, extra, center, half, allowed, worst)
    bad = np.flatnonzero(worst > 1)
    rough = (float(left[bad[0]]), float(right[bad[-1]])) if bad.size else None
    if powers is None:
        powers = (_power(function, 2.0 ** octaves[0], 2.0), _power(function, 2.0 ** octaves[1], 0.5))
    ends = function(np.array([2.0 ** octaves[0], 2.0 ** octaves[1] * (1 - 2.0**-53)]))
    guard = np.zeros((degree + 1, 2))
    guard[0] = ends
    table = np.concatenate([guard[:, :1], table, guard[:, 1:]], axis=1)
    return Piecewise(
        table,
        first,
        level,
        tuple(order),
        2.0 ** octaves[0],
        2.0 ** octaves[1],
        powers,
        float(worst.max()) * tolerance,
        rough,
    )


def _jumps_between(rows: Floats, fitted: npt.NDArray[np.bool_], allowed: Floats) -> list[int]:
    """Segments on whose left end the function jumps: the polynomials on either side fit and do not meet."""
    signs = np.where(np.arange(rows.shape[0]) % 2, -1.0, 1.0)
    at_left, at_right = signs @ rows, rows.sum(0)
    jump = np.abs(at_left[1:] - at_right[:-1])
    wide = jump > 1e-6 * np.maximum(np.abs(at_left[1:]), np.abs(at_right[:-1])) + 1e3 * allowed[1:]
    wide &= fitted[1:] & fitted[:-1]
    return [int(index) + 1 for index in np.flatnonzero(wide)] if wide.sum() <= 32 else []


def _power(function: Function, end: float, factor: float) -> float:
    """Local exponent of the function at an end of the grid, exact where it is a power to rounding."""
    at_end, inside = function(np.array([end * (1 - 2.0**-53), end * factor]))
    if not (at_end > 0 and inside > 0):
        return 0.0
    power = float(np.log(inside / at_end) / np.log(factor))
    return round(power) + 0.0 if abs(power - round(power)) < 1e-9 else power


def _find_breaks(
    function: Function, left: float, right: float, allowed: Callable[[Floats, Floats], Floats]
) -> list[float]:
    """Kinks and jumps inside one segment, by bisection on the defect of a local polynomial fit."""
    nodes, to_coefficients = interpolation(4)

    def defect(a: float, b: float) -> float:
        center, half = (a + b) / 2, (b - a) / 2
        points = center + half * _TESTS
        values = function(points)
        fit = horner(to_coefficients @ function(center + half * nodes), _TESTS)
        return float((np.abs(fit - values) / allowed(points, values)).max())

    found: list[float] = []
    pending = [(left, right)]
    while pending and len(found) < 12:
        a, b = lower, upper = pending.pop(0)
        if defect(a, b) <= 1:
            continue
        while True:
            middle = (a + b) / 2
            if not a < middle < b:
                break
            before, after = defect(a, middle), defect(middle, b)
            if max(before, after) <= 1:
                break
            a, b = (a, middle) if before > after else (middle, b)
        # The right end of the last interval belongs to the piece on the right.
        found.append(float(b))
        pending += [(lower, float(np.nextafter(a, 0))), (b, upper)]
    return sorted(found)


def _with_breaks(
    function: Function,
    rows: Floats,
    extra: dict[int, list[float]],
    center: Floats,
    half: Floats,
    allowed: Callable[[Floats, Floats], Floats],
    worst: Floats,
) -> tuple[Floats, list[float]]:
    """Rows with the split segments replaced by one row per piece, and the breaks in order; updates ``worst``."""
    if not extra:
        return rows, []
    columns: list[Floats] = []
    order: list[float] = []
    done = 0
    for index in sorted(extra):
        points = sorted(extra[index])
        columns.append(rows[:, done:index])
        middle, reach = center[index], half[index]
        ends = [middle - reach, *points, middle + reach]
        fits = [_narrow(function, a, b, middle, reach, rows.shape[0], allowed) for a, b in pairwise(ends)]
        columns += [row[:, None] for row, _ in fits]
        worst[index] = max(defect for _, defect in fits)
        order += points
        done = index + 1
    columns.append(rows[:, done:])
    return np.concatenate(columns, axis=1), order


def _narrow(
    function: Function,
    a: float,
    b: float,
    middle: float,
    reach: float,
    size: int,
    allowed: Callable[[Floats, Floats], Floats],
) -> tuple[Floats, float]:
    """Coefficients, in the coordinate of the whole segment, of a fit on its part [a, b); and its defect."""
    center, half = (a + b) / 2, (b - a) / 2
    best, smallest = np.zeros(size), np.inf
    if a == b:
        return best, 0.0
    for degree in range(size):
        nodes, to_coefficients = interpolation(degree)
        local = to_coefficients @ function(center + half * nodes)
        # Substitute the local coordinate: (w - center) / half = (reach t + middle - center) / half.
        ratio, shift = reach / half, (middle - center) / half
        power, row = np.ones(1), np.zeros(size)
        for k in range(degree + 1):
            row[: k + 1] += local[k] * power
            power = np.convolve(power, [shift, ratio])
        points = center + half * _TESTS
        values = function(points)
        defect = float(
            (np.abs(horner(row[:, None], (points - middle) / reach) - values) / allowed(points, values)).max()
        )
        if defect < smallest:
            best, smallest = row, defect
        if defect <= 1:
            break
    return best, smallest
