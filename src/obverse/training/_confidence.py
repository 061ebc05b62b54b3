"""How far the confidence of a finished run can be trusted, before and after temperature scaling."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ..labels import BrierScore, CalibrationError, NegativeLogLikelihood, TemperatureScaling, WinningScores
from ._samples import Samples
from ._trainer import Trainer

__all__ = ["confidence_record"]

_ROWS = 2048


def confidence_record(trainer: Trainer) -> dict[str, Any]:
    """Calibration on the test split; the temperature is fitted on the validation split.

    Where the validation rows determine no temperature, such as few rows that are all right, ``temperature_is_bounded``
    is true. Every process computes the same.
    """
    test, labels = _scores(trainer, trainer.data.test)
    with warnings.catch_warnings():
        # The record says it, and the table and the page do.
        warnings.filterwarnings("ignore", message="TemperatureScaling: the .* rows are", category=UserWarning)
        scaling = TemperatureScaling().fit(*_scores(trainer, trainer.data.validation))
    error, scaled = CalibrationError(), CalibrationError()
    likelihood, scaled_likelihood, brier = NegativeLogLikelihood(), NegativeLogLikelihood(), BrierScore()
    winning = WinningScores()
    error.update(test, labels)
    brier.update(test, labels)
    likelihood.update(test, labels)
    winning.update(test, labels)
    scaled.update(scaling(test), labels)
    scaled_likelihood.update(scaling(test), labels)
    return {
        "calibration_error": error.compute(),
        "brier_score": brier.compute(),
        "negative_log_likelihood": likelihood.compute(),
        "temperature": scaling.temperature,
        "temperature_is_bounded": scaling.is_bounded,
        "scaled_calibration_error": scaled.compute(),
        "scaled_negative_log_likelihood": scaled_likelihood.compute(),
        "winning_scores": {group: found.mean for group, found in winning.compute().items() if found.count},
        "reliability": [list(row) for row in error.reliability_table() if row.rows],
    }


@torch.no_grad()
def _scores(trainer: Trainer, samples: Samples) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and labels (N,) on the CPU."""
    training = trainer.model.training
    trainer.model.eval()
    parts = []
    try:
        for start in range(0, len(samples), _ROWS):
            with trainer.accelerator.autocast():
                scores = trainer.model(trainer.data.normalize(samples.inputs[start : start + _ROWS]))
            parts.append(scores.double().cpu())
    finally:
        trainer.model.train(training)
    return torch.cat(parts), samples.labels.cpu()
