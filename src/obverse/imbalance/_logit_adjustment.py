"""Logit adjustment: class priors added to the scores in training, or taken from them afterwards."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .._core import checks
from ..errors import InvalidArgumentError
from ._counts import Counts, as_counts
from ._weighted_loss import WeightedLoss

__all__ = ["BalancedSoftmaxLoss", "LogitAdjustedLoss", "adjust_logits"]


class LogitAdjustedLoss(WeightedLoss):
    """Cross-entropy on logits plus log priors; the logits themselves then rank classes as if these were balanced.

    Parameters
    ----------
    counts : array of shape (K,)
        Training examples in each class, or their shares; all positive.
    temperature : float
        Factor on the log prior; 1 is consistent for the balanced error, 0 the cross-entropy.
    class_weights, denominator, reduction, ignore_index
        As for `WeightedLoss`.

    Notes
    -----
    ``CE(z + temperature log pi)``. Source: Menon, Jayasumana, Rawat, Jain, Veit and Kumar (2021).
    """

    def __init__(self, counts: Counts, *, temperature: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.temperature = checks.finite("temperature", temperature)
        self.log_prior: Tensor
        self.register_buffer("log_prior", _log_prior(counts), persistent=False)

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every row."""
        _check_classes(self.log_prior, logits)
        return F.cross_entropy(logits + self.temperature * self.log_prior.to(logits), target, reduction="none")

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}, {super().extra_repr()}"


class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Cross-entropy of ``n_c exp(z_c) / sum_k n_k exp(z_k)``: `LogitAdjustedLoss` at temperature 1.

    Parameters
    ----------
    counts : array of shape (K,)
        Training examples in each class, all positive.
    class_weights, denominator, reduction, ignore_index
        As for `WeightedLoss`.

    Notes
    -----
    Counts and shares differ by a constant, which the softmax does not see. Source: Ren et al. (2020).
    """

    def __init__(self, counts: Counts, **options: Any) -> None:
        super().__init__(counts, **options)


def adjust_logits(logits: Tensor, counts: Counts, temperature: float = 1.0) -> Tensor:
    """Take the class prior out of the logits of a model that was trained without adjustment.

    Parameters
    ----------
    logits : Tensor, shape (..., K)
    counts : array of shape (K,)
        Training examples in each class, or their shares; all positive.
    temperature : float
        1, or chosen on held-out data.

    Returns
    -------
    Tensor, shape (..., K)
        ``z - temperature log pi``, of the type of ``logits``; its argmax is the adjusted prediction.

    Notes
    -----
    Source: Menon et al. (2021), the post-hoc form.
    """
    prior = _log_prior(counts)
    _check_classes(prior, logits)
    return logits - checks.finite("temperature", temperature) * prior.to(logits)


def _log_prior(counts: Counts) -> Tensor:
    values = as_counts(counts)
    return (values / values.sum()).log().float()


def _check_classes(prior: Tensor, logits: Tensor) -> None:
    if logits.ndim < 1 or logits.shape[-1] != len(prior):
        raise InvalidArgumentError(f"{len(prior)} counts do not fit logits of shape {tuple(logits.shape)}")
