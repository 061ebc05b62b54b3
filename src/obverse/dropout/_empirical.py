"""The law of masks that were observed: uniform over given samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from .._core.arrays import Array, beside
from ..errors import InvalidArgumentError
from ._law import Event, MaskLaw, real_numbers

__all__ = ["Empirical"]

_NAMED = 5  # units that an error names


class Empirical(MaskLaw):
    """Masks drawn uniformly, with replacement, from the rows of ``samples``.

    Its moments are those of the rows, exactly: ``Cbar = (1/m) sum_k z_k z_k' - 1 1'`` over the normalized rows ``z_k``.

    Parameters
    ----------
    samples : array (m, *event)
        Raw masks, ``m >= 1``; any finite real values whose mean is positive for every unit.

    Raises
    ------
    InvalidArgumentError
        If there is no sample, an entry is not finite, or some units are never kept; the message names them.
    """

    samples: NDArray[np.float64]

    def __init__(self, samples: Array) -> None:
        rows = real_numbers(samples, "samples")
        if rows.ndim < 1 or rows.size == 0:
            raise InvalidArgumentError(f"samples must be (m, *event) with m >= 1, got shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise InvalidArgumentError("samples must be finite")
        never = np.argwhere(np.atleast_1d(rows.mean(axis=0) <= 0.0))
        if never.size:
            named = ", ".join(str(tuple(unit.tolist())) for unit in never[:_NAMED])
            more = f" and {len(never) - _NAMED} more" if len(never) > _NAMED else ""
            raise InvalidArgumentError(
                f"no sample keeps the units {named}{more} (mean mask not positive), so the mask cannot be divided by "
                "its mean; leave these units out, or give samples that keep them"
            )
        self._rows = torch.from_numpy(rows.copy())
        rows.setflags(write=False)
        self.samples = rows

    def with_rate(self, drop_rate: float) -> Self:
        """Refused: the rate is that of the samples."""
        raise InvalidArgumentError(f"the drop rate of an empirical law is that of its samples, not {drop_rate}")

    def drop_rate(self, shape: Sequence[int]) -> float:
        """Share of zeros in the samples."""
        self.mean(shape)
        return float(np.mean(self.samples == 0.0))

    def _mean(self, event: Event) -> NDArray[np.float64]:
        if event != self.samples.shape[1:]:
            raise InvalidArgumentError(
                f"samples are masks of an event of shape {self.samples.shape[1:]}, not of {event}; a mask that all "
                "channels share needs samples with one channel"
            )
        return np.asarray(self.samples.mean(axis=0))

    def _deviations(self, event: Event) -> NDArray[np.float64]:
        """``z_k - 1`` in rows, ``(m, d)``."""
        return (self.samples / self._mean(event) - 1.0).reshape(len(self.samples), math.prod(event))

    def _variance(self, event: Event) -> NDArray[np.float64]:
        return np.asarray(np.mean(self._deviations(event) ** 2, axis=0)).reshape(event)

    def _covariance(self, event: Event) -> NDArray[np.float64]:
        deviations = self._deviations(event)
        covariance: NDArray[np.float64] = deviations.T @ deviations / len(deviations)
        return covariance

    def _quadratic_form(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        flat = values.reshape(*values.shape[: values.ndim - len(event)], math.prod(event))
        return (flat @ beside(self._deviations(event).T, values)).square().mean(-1)

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        self._mean(event)
        chosen = torch.randint(len(self._rows), (rows,), generator=generator, device=device)
        return self._rows.to(chosen.device)[chosen].to(dtype)
