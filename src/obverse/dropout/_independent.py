"""Masks whose units are independent: Bernoulli, Gaussian and Rademacher."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from .._core.arrays import Array, beside
from ..errors import InvalidArgumentError
from ._law import Event, MaskLaw, checked_probability, real_numbers

__all__ = ["Bernoulli", "Gaussian", "Rademacher"]

Rate = float | NDArray[np.float64]


class _Independent(MaskLaw):
    """Independent units: ``Cbar = diag(lam)``, the same ``lam`` for all or one each."""

    @abstractmethod
    def _lam(self) -> Rate:
        """Variance over squared mean, of all units or of each."""

    def _variance(self, event: Event) -> NDArray[np.float64]:
        return _over(self._lam(), event)

    def _covariance(self, event: Event) -> NDArray[np.float64]:
        return np.diag(self._variance(event).reshape(-1))

    def _quadratic_form(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        squares = values.square().reshape(*values.shape[: values.ndim - len(event)], math.prod(event))
        lam = self._lam()
        if isinstance(lam, float):
            return lam * squares.sum(-1)
        return squares @ beside(_over(lam, event).reshape(-1), values)

    def _hadamard(self, matrix: torch.Tensor, event: Event) -> torch.Tensor:
        return (beside(self._variance(event).reshape(-1), matrix) * matrix.diagonal()).diag()


class Bernoulli(_Independent):
    """Dropout: every unit is kept with its probability ``theta``, independently.

    ``Cbar = diag(lam)`` with ``lam = (1 - theta) / theta``.

    Parameters
    ----------
    keep_probability : float or array, in [0, 1]
        One for all units, or an array that broadcasts against the event.
    """

    def __init__(self, keep_probability: float | Array) -> None:
        self.keep_probability: Rate = checked_probability(keep_probability, "keep_probability")

    def with_rate(self, drop_rate: float) -> Self:
        """The same law with mean drop probability ``drop_rate``.

        Unequal rates keep their proportions: the drop probabilities are multiplied by one factor.

        Raises
        ------
        InvalidArgumentError
            If ``drop_rate`` is not a probability, or a unit's drop probability would exceed 1.
        """
        rate = checked_probability(drop_rate, "drop_rate")
        keep = self.keep_probability
        if isinstance(keep, float):
            return type(self)(1.0 - rate)
        drop = 1.0 - keep
        average = drop.mean()
        scaled = np.full_like(drop, rate) if average == 0.0 else drop * (rate / average)
        if scaled.max() > 1.0 + 1e-12:
            raise InvalidArgumentError(
                f"a mean drop rate of {rate} would need a drop probability of {scaled.max():.4g} for some unit; "
                f"these proportions allow at most {average / drop.max():.4g}"
            )
        return type(self)(1.0 - np.minimum(scaled, 1.0))

    def _lam(self) -> Rate:
        return (1.0 - self.keep_probability) / self.keep_probability

    def _mean(self, event: Event) -> NDArray[np.float64]:
        return _over(self.keep_probability, event)

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        keep = self.keep_probability
        mask = torch.empty((rows, *event), dtype=dtype, device=device)
        if isinstance(keep, float):
            return mask.bernoulli_(keep, generator=generator)
        return mask.bernoulli_(torch.as_tensor(_over(keep, event), device=mask.device), generator=generator)

    def _draw_normalized(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        keep = self.keep_probability
        if isinstance(keep, float) and keep > 0.0:
            return self._draw(rows, event, generator, dtype, device).mul_(1.0 / keep)
        return super()._draw_normalized(rows, event, generator, dtype, device)


class _Noise(_Independent):
    """Independent continuous or two-point noise around one, with the variance of Bernoulli masks."""

    def __init__(self, keep_probability: float | Array | None = None, *, variance: float | Array | None = None) -> None:
        if (keep_probability is None) == (variance is None):
            raise InvalidArgumentError(f"{type(self).__name__} takes keep_probability or variance, one of them")
        if variance is None:
            keep = checked_probability(keep_probability, "keep_probability", positive=True)
            self.noise_variance: Rate = (1.0 - keep) / keep
        else:
            self.noise_variance = _checked_variance(variance)

    @property
    def keep_probability(self) -> Rate:
        """Keep probability of the Bernoulli law with the same variance, ``1 / (1 + lam)``."""
        return 1.0 / (1.0 + self.noise_variance)

    def with_rate(self, drop_rate: float) -> Self:
        """The same noise with the variance of Bernoulli masks of this (mean) drop probability."""
        scaled = Bernoulli(self.keep_probability).with_rate(drop_rate)
        return type(self)(scaled.keep_probability)

    def _parameters(self) -> dict[str, Any]:
        return {"variance": self.noise_variance}

    def _lam(self) -> Rate:
        return self.noise_variance

    def _mean(self, event: Event) -> NDArray[np.float64]:
        _over(self.noise_variance, event)
        return np.ones(event)

    def _deviation(self, event: Event, like: torch.Tensor) -> float | torch.Tensor:
        lam = self.noise_variance
        if isinstance(lam, float):
            return math.sqrt(lam)
        return torch.as_tensor(np.sqrt(_over(lam, event)), dtype=like.dtype, device=like.device)

    def _draw_normalized(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        return self._draw(rows, event, generator, dtype, device)


class Gaussian(_Noise):
    """Gaussian dropout: every unit is multiplied by ``1 + sqrt(lam) N(0, 1)``, independently.

    The moments of Bernoulli masks, hence the same expected squared loss above a linear head; no unit is ever exactly
    dropped, so that `drop_rate` is 0.

    Parameters
    ----------
    keep_probability : float or array, in (0, 1]
        ``lam = (1 - theta) / theta``; broadcasts against the event.
    variance : float or array, nonnegative
        ``lam`` itself, in place of ``keep_probability``.
    """

    def drop_rate(self, shape: Sequence[int]) -> float:
        """0: a Gaussian factor is almost surely not zero."""
        self.mean(shape)
        return 0.0

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        noise = torch.empty((rows, *event), dtype=dtype, device=device).normal_(generator=generator)
        return noise.mul_(self._deviation(event, noise)).add_(1.0)


class Rademacher(_Noise):
    """Two-point noise: every unit is multiplied by ``1 + sqrt(lam)`` or ``1 - sqrt(lam)``, a fair coin each.

    The moments of Bernoulli masks with the smallest spread of a single draw. At ``lam = 1`` it is dropout with
    ``theta = 1/2``.

    Parameters
    ----------
    keep_probability : float or array, in (0, 1]
        ``lam = (1 - theta) / theta``; broadcasts against the event.
    variance : float or array, nonnegative
        ``lam`` itself, in place of ``keep_probability``.
    """

    def drop_rate(self, shape: Sequence[int]) -> float:
        """Half the share of units with ``lam = 1``: the others are never multiplied by zero."""
        return float(0.5 * np.mean(self.variance(shape) == 1.0))

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        coin = torch.empty((rows, *event), dtype=dtype, device=device).bernoulli_(0.5, generator=generator)
        return coin.mul_(2.0).sub_(1.0).mul_(self._deviation(event, coin)).add_(1.0)


def _over(rate: Rate, event: Event) -> NDArray[np.float64]:
    """The rate of every unit of an event."""
    try:
        return np.array(np.broadcast_to(rate, event))
    except ValueError as error:
        raise InvalidArgumentError(
            f"rates of shape {np.shape(rate)} do not broadcast against an event of shape {event}"
            + (" (a mask that all channels share needs one rate for all of them)" if 1 in event else "")
        ) from error


def _checked_variance(value: Any) -> Rate:
    array = real_numbers(value, "variance")
    if not bool(np.all((array >= 0.0) & np.isfinite(array))):
        raise InvalidArgumentError(f"variance must be finite and not negative, got {value}")
    if array.ndim == 0:
        return float(array)
    array.setflags(write=False)
    return array
