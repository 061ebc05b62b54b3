"""Proper scores of predicted probabilities: least when the probabilities are right."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch

from ._streaming import Predictions, StreamingMetric, Sums

__all__ = ["BrierScore", "NegativeLogLikelihood"]


class _MeanScore(StreamingMetric):
    def __init__(self, *, inputs: str = "logits", ignore_index: int = -100) -> None:
        super().__init__(Sums((2,)), inputs, ignore_index)

    def _count(self, predictions: Predictions) -> None:
        scores = self._scores(predictions)
        self.counted.add(torch.stack([scores.sum(), scores.new_tensor(float(len(scores)))]))

    @abstractmethod
    def _scores(self, predictions: Predictions) -> torch.Tensor:
        """(R,) scores of the rows."""

    def compute(self) -> float:
        """The mean over all rows; NaN before the first."""
        total, count = self.counted.value.tolist()
        return float(total / count) if count else math.nan


class BrierScore(_MeanScore):
    """Mean of ``sum_k (p_k - t_k)^2``, between 0 and 2. Some libraries give half of it.

    Parameters
    ----------
    inputs : {"logits", "probabilities"}
        What `update` is given.
    ignore_index : int
        Class index of rows that do not count.

    Notes
    -----
    State: 16 bytes. Source: Brier (1950), in its original form over all classes.
    """

    def _scores(self, predictions: Predictions) -> torch.Tensor:
        return (predictions.p - predictions.target()).square().sum(1)


class NegativeLogLikelihood(_MeanScore):
    """Mean of ``-sum_k t_k log p_k`` in nats: the cross-entropy without weights.

    Parameters
    ----------
    inputs : {"logits", "probabilities"}
        What `update` is given.
    ignore_index : int
        Class index of rows that do not count.

    Notes
    -----
    Infinite when a class with a probability of zero was the true one. State: 16 bytes.
    """

    def _scores(self, predictions: Predictions) -> torch.Tensor:
        log_p = predictions.log_p
        if predictions.index is not None:
            return -log_p.gather(1, predictions.index[:, None])[:, 0]
        target = predictions.target()
        return -torch.where(target > 0, target * log_p, 0.0).sum(1)
