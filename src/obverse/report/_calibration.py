"""From measured confidence and learned relations of classes to one page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._provenance import version_rows
from ._record import Record, as_text
from ._relations import relation_table
from ._reliability import reliability_figure, score_figure
from ._template import write_page
from ._wording import MISSING, count, number, percent

__all__ = ["write_calibration"]


def write_calibration(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a network's confidence: one HTML file that needs no network.

    The page has the headline figures, a reliability diagram, how winning scores are spread, and which classes are
    related. What the record does not hold is left out. The same record gives the same bytes.

    Parameters
    ----------
    record : mapping
        Under ``calibration``: ``accuracy``, ``calibration_error``, ``negative_log_likelihood``, ``brier_score``,
        ``temperature``, ``rows``; ``reliability``, a mapping of names to `CalibrationError.reliability_table`;
        ``winning_scores``, a mapping of groups to mappings of ``count``, ``mean`` and ``histogram``; ``relations``, the
        matrix of `LabelCriterion.class_relations` as lists; ``criterion``, its name. Besides, ``model.name``,
        ``data.name``, ``data.classes``, ``command``, ``obverse`` and ``versions``. Fields may be missing or null. All
        text is escaped.
    path : path-like
        Where the page goes; missing folders are made, an existing file is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgumentError
        If ``record`` is not a mapping.
    OSError
        If the file cannot be written.
    """
    if not isinstance(record, Mapping):
        raise InvalidArgumentError(
            f"record must be a mapping with what was measured under 'calibration', got {type(record).__name__}"
        )
    return write_page("calibration.html.j2", _content(Record.of(record)), path)


def _content(record: Record) -> dict[str, Any]:
    found = record.record("calibration")
    model, data = record.text("model.name", 80), record.text("data.name", 80)
    figures = [reliability_figure(found.get("reliability")), score_figure(found.get("winning_scores"))]
    return {
        "title": " on ".join(part for part in (model, data) if part) or "How sure a network is",
        "version": record.text("obverse", 40),
        "sentence": _sentence(found),
        "tiles": _tiles(found),
        "figures": [figure for figure in figures if figure is not None],
        "relations": relation_table(found.get("relations"), record.items("data.classes")),
        "command": record.text("command", 4000),
        "facts": _facts(record, found),
        "versions": version_rows(record),
    }


def _sentence(found: Record) -> str:
    accuracy, gap, temperature = (found.number(f) for f in ("accuracy", "calibration_error", "temperature"))
    said = []
    if accuracy is not None:
        said.append(f"right in {percent(accuracy)} of cases")
    if gap is not None:
        said.append(f"with confidence off by {percent(gap)} on average" if said else
                    f"confidence is off by {percent(gap)} on average")  # fmt: skip
    ended = ", ".join(said)
    if temperature is not None:
        lean = "surer than it should be" if temperature > 1 else "less sure than it could be"
        by = f"by its temperature of {number(temperature)} it is {lean}"
        ended = f"{ended}; {by}" if ended else by
    return f"{ended[0].upper()}{ended[1:]}." if ended else "No figures are on record."


def _tiles(found: Record) -> list[dict[str, str]]:
    tiles = [
        ("Calibration error", percent(found.number("calibration_error")), "mean gap of confidence and accuracy"),
        ("Accuracy", percent(found.number("accuracy")), f"of {count(found.number('rows'))} rows"),
        ("Negative log-likelihood", number(found.number("negative_log_likelihood")), "nats"),
        ("Brier score", number(found.number("brier_score")), "between 0 and 2"),
    ]
    return [{"name": name, "value": value, "context": context} for name, value, context in tiles if value != MISSING]


def _facts(record: Record, found: Record) -> list[tuple[str, str]]:
    classes = [as_text(name, 40) for name in record.items("data.classes")]
    facts = [
        ("Model", record.text("model.name", 80)),
        ("Data", record.text("data.name", 80)),
        ("Classes", ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")),
        ("Trained with", found.text("criterion", 80)),
        ("Temperature", number(found.number("temperature"))),
    ]
    return [(name, value) for name, value in facts if value and value != MISSING]
