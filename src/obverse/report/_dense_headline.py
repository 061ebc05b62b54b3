"""The figures of a run that trained dense: how often it errs, and how far its confidence can be trusted."""

from __future__ import annotations

from ._headline import Headline, mean
from ._record import Record
from ._wording import count, number, percent, plural

__all__ = ["dense_sentence", "dense_tiles", "is_dense"]

_UNDETERMINED = "not determined by the validation rows: too few, or all right"


def is_dense(metrics: Record) -> bool:
    """Whether nothing was asked to become zero."""
    return metrics.text("recipe.face", 40) == "none"


def dense_tiles(headline: Headline, runs: list[Record]) -> list[dict[str, str]]:
    """The figures as name, value and a line of context each."""

    def over(field: str) -> float | None:
        return mean(run.number(f"test.{field}") for run in runs)

    scaled = percent(over("scaled_calibration_error"))
    return [
        headline.tiles()[0],
        {
            "name": "Calibration error",
            "value": percent(over("calibration_error")),
            "context": f"{scaled} after temperature scaling",
        },
        {
            "name": "Negative log-likelihood",
            "value": number(over("negative_log_likelihood")),
            "context": f"nats; {number(over('scaled_negative_log_likelihood'))} after temperature scaling",
        },
        {
            "name": "Temperature",
            "value": number(over("temperature")),
            "context": _UNDETERMINED
            if any(run.get("test.temperature_is_bounded") is True for run in runs)
            else "above 1: surer than it should be",
        },
    ]


def dense_sentence(headline: Headline, metrics: Record, runs: list[Record]) -> str:
    """The run in one sentence."""
    model, data = metrics.text("model.name", 80), metrics.text("data.name", 80)
    labels = next((found for found in (run.text("labels.name", 40) for run in runs) if found), None)
    subject = (f"Trained on {data}" if data else "Trained") + (f" with {labels} labels" if labels else "")
    parameters = metrics.number("model.parameters")
    size = f" with its {count(parameters)} parameters" if parameters else ""
    if headline.test_error is None:
        return f"{subject}, {model or 'the model'} has no results on record yet."
    mean_of = f" (mean of {plural(headline.seeds, 'seed')})" if headline.seeds > 1 else ""
    said = f"{subject}, {model or 'the model'}{size} errs on {percent(headline.test_error)} of the test set{mean_of}"
    gap = mean(run.number("test.calibration_error") for run in runs)
    return f"{said}, with confidence off by {percent(gap)} on average." if gap is not None else f"{said}."
