"""Means and second moments of rows that come in batches."""

from __future__ import annotations

import torch

__all__ = ["CoMoments"]


class CoMoments:
    """Count, mean and centered second moments of rows, in float64, in memory of one matrix whatever the number of rows.

    Batches are merged by their means (Chan, Golub and LeVeque, 1983), so that nothing cancels where the mean is large
    beside the spread.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        """Take in a batch, (n, d) of float64; an empty one changes nothing."""
        more = len(rows)
        if more == 0:
            return
        mean = rows.mean(0)
        centered = rows - mean
        scatter, mean = (centered.mT @ centered).cpu(), mean.cpu()
        if self.count == 0:
            self.count, self.mean, self._scatter = more, mean, scatter
            return
        total = self.count + more
        step = mean - self.mean
        self._scatter += scatter + torch.outer(step, step) * (self.count * more / total)
        self.mean = self.mean + step * (more / total)
        self.count = total

    @property
    def covariance(self) -> torch.Tensor:
        """``(1/N) sum (x - mean)(x - mean)'``, (d, d)."""
        return self._scatter / max(self.count, 1)

    @property
    def second_moment(self) -> torch.Tensor:
        """``(1/N) sum x x'``, (d, d)."""
        return self.covariance + torch.outer(self.mean, self.mean)
