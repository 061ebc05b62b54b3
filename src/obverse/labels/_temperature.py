"""One number that makes a trained network as sure as it is right."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..errors import InvalidArgumentError
from ._distributed import add_over_processes
from ._rows import as_rows
from ._state import StatefulModule

__all__ = ["TemperatureScaling"]

_LOW = (torch.float16, torch.bfloat16)
_ROWS = 8192
_ITERATIONS = 100


class TemperatureScaling(StatefulModule):
    """Logits divided by a temperature ``T``, which is fitted to held-out logits and never changes the prediction.

    Parameters
    ----------
    bounds : tuple of float
        Range of ``T``. Where the likelihood has no maximum within it, as for logits that are always right, the fit
        ends at a bound.
    ignore_index : int
        Class index of rows that do not count.

    Attributes
    ----------
    temperature : float
        1 before `fit`.
    is_bounded : bool
        Whether the last fit ended at a bound.

    Notes
    -----
    The negative log-likelihood is convex in ``1 / T``, with the slope ``mean(E_p[z] - E_t[z])``, ``p = softmax(z/T)``.
    `fit` finds its root by Newton steps in ``log T`` in float64, with halvings of an interval where they leave it, so
    there is no step size, no starting value and nothing that could fail to converge. State: 8 bytes. Source: Guo et al.
    (2017); the solver is derived.
    """

    state_tensors = ("fitted",)
    fitted: torch.Tensor

    def __init__(self, *, bounds: tuple[float, float] = (0.01, 100.0), ignore_index: int = -100) -> None:
        super().__init__()
        if len(bounds) != 2 or not 0.0 < bounds[0] < bounds[1] < math.inf:
            raise InvalidArgumentError(f"bounds must be two temperatures, 0 < low < high, got {bounds!r}")
        self.bounds = float(bounds[0]), float(bounds[1])
        self.ignore_index = ignore_index
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
            Shapes that do not fit, logits that are not finite, or no rows. The temperature stays as it was.
        """
        rows = as_rows(logits, target, None, self.ignore_index, type(self).__name__)
        z = rows.logits.detach()[rows.kept]
        shares = None if rows.shares is None else rows.shares.detach()[rows.kept]
        index = None if rows.index is None else rows.index[rows.kept]
        summary = torch.tensor([float(len(z)), float((~z.isfinite()).sum())], dtype=torch.float64, device=z.device)
        if across_processes:
            add_over_processes(summary)
        count, broken = summary.tolist()
        if not count or broken:
            problem = "logits that are not finite" if broken else "no rows that count"
            raise InvalidArgumentError(f"TemperatureScaling cannot be fitted to {problem}")

        def slope(log_t: float) -> tuple[float, float]:
            """First derivative of the mean likelihood in ``1/T``, and its own derivative in ``log T``."""
            beta = math.exp(-log_t)
            sums = torch.zeros(2, dtype=torch.float64, device=z.device)
            for begin in range(0, len(z), _ROWS):
                part = z[begin : begin + _ROWS].double()
                # Only differences of logits matter; around the largest one their squares stay small.
                part = part - part.amax(1, keepdim=True)
                p = (part * beta).softmax(1)
                mean = (p * part).sum(1)
                if index is not None:
                    of_target = part.gather(1, index[begin : begin + _ROWS, None])[:, 0]
                else:
                    assert shares is not None
                    t = shares[begin : begin + _ROWS].double()
                    # Shares that do not sum to one scale the likelihood of their row.
                    of_target, mean = (t * part).sum(1), mean * t.sum(1)
                sums[0] += (mean - of_target).sum()
                spread = (p * part.square()).sum(1) - (p * part).sum(1).square()
                sums[1] += (spread if shares is None else spread * shares[begin : begin + _ROWS].double().sum(1)).sum()
            if across_processes:
                add_over_processes(sums)
            first, second = (sums / count).tolist()
            return first, -beta * second

        low, high = (math.log(bound) for bound in self.bounds)
        # The slope in 1/T increases with 1/T, so it decreases with log T.
        if slope(low)[0] <= 0.0:
            found, bounded = self.bounds[0], True
        elif slope(high)[0] >= 0.0:
            found, bounded = self.bounds[1], True
        else:
            found, bounded = math.exp(_root(slope, low, high)), False
        self.fitted, self.is_bounded = torch.tensor(found, dtype=torch.float64, device=self.fitted.device), bounded
        return self

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits / T``, (N, K) or (N, K, ...), in float32 at least.

        Division can round two different logits to one; where that would change the largest class, it is put right by
        the least possible number.
        """
        if not isinstance(logits, torch.Tensor) or logits.dim() < 2 or not logits.is_floating_point():
            raise InvalidArgumentError("TemperatureScaling takes floating-point logits of shape (N, K) or (N, K, ...)")
        wide = logits.float() if logits.dtype in _LOW else logits
        scaled = wide / self.temperature
        with torch.no_grad():
            top = wide.argmax(1, keepdim=True)
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
