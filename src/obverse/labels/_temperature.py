"""One number that makes a trained network as sure as it is right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .._core import checks
from .._core.arrays import wide
from .._core.distributed import add
from .._core.logits import lowest
from ..errors import InvalidArgumentError
from ._rows import as_rows
from ._state import StatefulModule

__all__ = ["TemperatureScaling"]

_BOUNDS = 0.01, 100.0
_ROWS = 8192
_ITERATIONS = 100


class TemperatureScaling(StatefulModule):
    """Logits divided by a temperature ``T``, which is fitted to held-out logits and never changes the prediction.

    Parameters
    ----------
    bounds : tuple of float, optional
        Range of ``T``, at whose ends a fit may end. By default 0.01 to 100, with a guard at the lower end (see Notes).
    ignore_index : int
        Class index of rows that do not count.

    Attributes
    ----------
    temperature : float
        1 before `fit`.
    is_bounded : bool
        Whether the likelihood of the last fit had no maximum within the bounds, as for logits that are always right;
        `fit` warns then.

    Notes
    -----
    The negative log-likelihood is convex in ``1 / T``, with the slope ``mean(E_p[z] - E_t[z])``, ``p = softmax(z/T)``.
    `fit` finds its root by Newton steps in ``log T`` in float64, with halvings of an interval where they leave it, so
    there is no step size, no starting value and nothing that could fail to converge. State: 8 bytes.

    Where all rows are right, the likelihood grows without end as ``T`` falls, and the first wrong row of a test set
    would cost nearly everything. Unless bounds were given, one row without knowledge is then added: the targets are
    ``(n t + u) / (n + 1)`` with ``u`` uniform over the classes, and ``T`` is the temperature of these, but at most 1.

    Masked logits (-inf) stay masked; they are no answers whatever the temperature.

    Source: Guo et al. (2017); the additional row after Platt (1999); the solver is derived.
    """

    state_tensors = ("fitted",)
    fitted: torch.Tensor

    def __init__(self, *, bounds: tuple[float, float] | None = None, ignore_index: int = -100) -> None:
        super().__init__()
        self.bounds = _BOUNDS if bounds is None else _checked_bounds(bounds)
        self._is_guarded = bounds is None
        self.ignore_index = checks.integer("ignore_index", ignore_index)
        self.fitted = torch.ones((), dtype=torch.float64)
        self.is_bounded = False

    @property
    def temperature(self) -> float:
        """``T``."""
        return float(self.fitted)

    @torch.no_grad()
    def fit(self, logits: torch.Tensor, target: torch.Tensor, *, across_processes: bool = False) -> TemperatureScaling:
        """Find the temperature of least negative log-likelihood.

        Parameters
        ----------
        logits : torch.Tensor
            (N, K) or (N, K, ...) of inputs that were not trained on.
        target : torch.Tensor
            Class indices (N, ...) or probabilities shaped like the logits.
        across_processes : bool
            Whether every process calls this with its own share of the rows; all find the same temperature.

        Returns
        -------
        TemperatureScaling
            This.

        Raises
        ------
        InvalidArgumentError
            Shapes that do not fit, logits that are NaN or +inf or mask all classes or the target, or no rows. The
            temperature stays as it was.

        Warns
        -----
        UserWarning
            The likelihood has no maximum within the bounds.
        """
        likelihood = _Likelihood.of(logits, target, self.ignore_index, type(self).__name__, across_processes)
        low, high = (math.log(bound) for bound in self.bounds)
        # The slope in 1/T increases with 1/T, so it decreases with log T.
        is_low, is_high = likelihood.slope(low)[0] <= 0.0, likelihood.slope(high)[0] >= 0.0
        if is_low:
            found = self._guarded(likelihood, low) if self._is_guarded else self.bounds[0]
        else:
            found = self.bounds[1] if is_high else math.exp(_root(likelihood.slope, low, high))
        self.fitted = torch.tensor(found, dtype=torch.float64, device=self.fitted.device)
        self.is_bounded = is_low or is_high
        if self.is_bounded:
            what = "right too often" if is_low else "wrong too often"
            warnings.warn(
                f"TemperatureScaling: the {likelihood.rows} rows are {what} for a likelihood with a maximum between "
                f"{self.bounds[0]:g} and {self.bounds[1]:g}; T = {found:.4g} is used. Fit to more held-out rows.",
                stacklevel=3,
            )
        return self

    def _guarded(self, likelihood: _Likelihood, low: float) -> float:
        """The temperature of the rows and one more that knows nothing, at most 1."""
        one_more = replace(likelihood, uniform=1.0 / (likelihood.rows + 1.0))
        if one_more.slope(0.0)[0] >= 0.0:
            return 1.0
        return math.exp(_root(one_more.slope, low, 0.0)) if one_more.slope(low)[0] > 0.0 else self.bounds[0]

    def _problems(self, given: dict[str, torch.Tensor]) -> list[str]:
        found = super()._problems(given)
        if not found and not all(float(value) > 0.0 for value in given.values()):
            found.append("fitted must be a positive temperature")
        return found

    def _load(self, name: str, value: torch.Tensor) -> None:
        super()._load(name, value)
        self.is_bounded = False

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits / T``, (N, K) or (N, K, ...), in float32 at least.

        Division can round two different logits to one; where that would change the largest class, it is put right by
        the least possible number.
        """
        if not isinstance(logits, torch.Tensor) or logits.dim() < 2 or not logits.is_floating_point():
            raise InvalidArgumentError("TemperatureScaling takes floating-point logits of shape (N, K) or (N, K, ...)")
        given = wide(logits)
        # The lowest finite number masks as minus infinity does, and is no number to scale.
        scaled = torch.where(given <= lowest(logits.dtype), given, given / self.temperature)
        with torch.no_grad():
            top = given.argmax(1, keepdim=True)
            best = scaled.gather(1, top)
            more = torch.nextafter(best, torch.full_like(best, math.inf)) - best
            more = torch.where(scaled.argmax(1, keepdim=True) == top, 0.0, more)
        return scaled.scatter_add(1, top, more)

    def extra_repr(self) -> str:
        """The temperature."""
        return f"temperature={self.temperature:.4g}"


def _root(slope: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """Where a decreasing function is zero, by Newton steps within an interval that always holds the root."""
    at = min(max(0.0, low), high) if low < 0.0 < high else 0.5 * (low + high)
    for _ in range(_ITERATIONS):
        value, derivative = slope(at)
        if value == 0.0:
            return at
        low, high = (at, high) if value > 0.0 else (low, at)
        following = at - value / derivative if derivative < 0.0 else low
        if not low < following < high:
            following = 0.5 * (low + high)
        if abs(following - at) <= 1e-12:
            return following
        at = following
    return at


def _checked_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0.0 < low < high < math.inf:
        raise InvalidArgumentError(f"bounds must be two temperatures, 0 < low < high, got {bounds!r}")
    return low, high


@dataclass(frozen=True)
class _Likelihood:
    """The likelihood of rows as a function of the temperature.

    Parameters
    ----------
    logits : torch.Tensor
        (R, K) of the rows that count; minus infinity where a class is masked.
    index, shares : torch.Tensor or None
        Their targets, one of the two.
    rows : int
        Number of rows, of all processes.
    across_processes : bool
        Whether the other processes hold rows as well.
    uniform : float
        Share of the uniform distribution over the unmasked classes in every target.
    """

    logits: torch.Tensor
    index: torch.Tensor | None
    shares: torch.Tensor | None
    rows: int
    across_processes: bool
    uniform: float = 0.0

    @staticmethod
    def of(
        logits: torch.Tensor, target: torch.Tensor, ignore_index: int, name: str, across_processes: bool
    ) -> _Likelihood:
        rows = as_rows(logits, target, None, ignore_index, name, is_loss=False)
        z = rows.logits.detach()[rows.kept]
        masked = z <= lowest(logits.dtype)
        z = z.masked_fill(masked, -math.inf)
        shares = None if rows.shares is None else rows.shares.detach()[rows.kept]
        index = None if rows.index is None else rows.index[rows.kept]
        if index is not None:
            on_masked = masked.gather(1, index[:, None])[:, 0]
        else:
            assert shares is not None
            on_masked = (masked & (shares > 0)).any(1)
        broken = (z.isnan() | (z == math.inf)).any(1) | masked.all(1)
        summary = torch.stack([torch.ones_like(broken).sum(), broken.sum(), (on_masked & ~broken).sum()]).double()
        if across_processes:
            add(summary)
        count, unusable, impossible = summary.tolist()
        if not count or unusable or impossible:
            problem = "targets whose logits are masked" if count and not unusable else "logits that are not finite"
            raise InvalidArgumentError(f"{name} cannot be fitted to {problem if count else 'no rows that count'}")
        return _Likelihood(z, index, shares, int(count), across_processes)

    def slope(self, log_t: float) -> tuple[float, float]:
        """First derivative of the mean likelihood in ``1/T``, and its own derivative in ``log T``."""
        beta = math.exp(-log_t)
        sums = torch.zeros(2, dtype=torch.float64, device=self.logits.device)
        for begin in range(0, len(self.logits), _ROWS):
            part = self.logits[begin : begin + _ROWS].double()
            # Only differences of logits matter; around the largest one their squares stay small.
            part = part - part.amax(1, keepdim=True)
            p = (part * beta).softmax(1)
            allowed = part > -math.inf
            part = torch.where(allowed, part, 0.0)
            mean = (p * part).sum(1)
            if self.index is not None:
                of_target = part.gather(1, self.index[begin : begin + _ROWS, None])[:, 0]
            else:
                assert self.shares is not None
                t = self.shares[begin : begin + _ROWS].double()
                of_target = (t * part).sum(1) / t.sum(1)
            if self.uniform:
                of_target = (1.0 - self.uniform) * of_target + self.uniform * part.sum(1) / allowed.sum(1)
            sums[0] += (mean - of_target).sum()
            sums[1] += ((p * part.square()).sum(1) - mean.square()).sum()
        if self.across_processes:
            add(sums)
        first, second = (sums / self.rows).tolist()
        return first, -beta * second
