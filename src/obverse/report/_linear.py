"""From the record of a fitted linear model to one page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._charts import Figure
from ._confusion import confusion_table
from ._linear_charts import error_figure, path_figure, prediction_figure, size_figure
from ._penalty_charts import Survivors, face_figures, rebuilt
from ._provenance import as_yaml, version_rows
from ._record import Record, as_text
from ._template import write_page
from ._wording import MISSING, amount, count, duration, number, percent, plural

__all__ = ["write_linear"]

_MOST_FEATURES = 300
_MOST_OUTPUTS = 6
_MOST_CANDIDATES = 60
_BINS = 24


def write_linear(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a fitted linear model: one HTML file that needs no network.

    The page has the errors on held-out rows beside those of a model without features, the table of selected features,
    the coefficient path, the cross-validated error, the two faces of the penalty, and where it all came from. What the
    record does not hold is left out. The same record gives the same bytes.

    Parameters
    ----------
    record : mapping
        The content of ``record.json`` as ``obverse fit`` writes it. Fields may be missing or null. All text from it is
        escaped.
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
            f"record must be a mapping, such as the content of record.json, got {type(record).__name__}"
        )
    return write_page("linear.html.j2", _content(Record.of(record)), path)


def _content(record: Record) -> dict[str, Any]:
    target, data = record.text("data.target", 80), record.text("data.name", 80)
    features = record.records("features")
    outputs = [as_text(name, 40) for name in record.items("data.outputs")]
    return {
        "title": " in ".join(part for part in (target, data) if part) or "A linear model",
        "version": record.text("obverse", 40),
        "sentence": _sentence(record),
        "tiles": _tiles(record),
        "remarks": [as_text(remark, 400) for remark in record.items("remarks")[:10]],
        "measures": [_measure(entry) for entry in record.records("test.measures")],
        "test_rows": count(record.number("test.rows")),
        "outputs": outputs if 1 < len(outputs) <= _MOST_OUTPUTS else [],
        "features": [_feature(entry, features, len(outputs)) for entry in features[:_MOST_FEATURES]],
        "features_left_out": max(0, len(features) - _MOST_FEATURES),
        "has_keep": any(entry.number("keep_probability") is not None for entry in features),
        "has_frequency": any(entry.number("frequency") is not None for entry in features),
        "path": path_figure(record),
        "choice": [figure for figure in (error_figure(record), size_figure(record)) if figure is not None],
        "candidates": [_candidate(entry) for entry in record.records("candidates")[:_MOST_CANDIDATES]],
        "candidate_measure": record.text("cv.measure", 60) or "Error",
        "prediction": prediction_figure(record),
        "confusion": confusion_table(record, [record]),
        "penalty": record.text("penalty.name", 60),
        "faces": _faces(record),
        "command": record.text("command", 4000),
        "settings": as_yaml(record.get("settings")),
        "facts": _facts(record),
        "versions": version_rows(record),
    }


def _sentence(record: Record) -> str:
    """The model in one sentence; a clause whose figures are missing is left out."""
    penalty, data = record.text("penalty.name", 80), record.text("data.name", 80)
    subject = (
        "A linear model"
        + (f" with the {penalty} penalty" if penalty else "")
        + (f", fitted to {data}," if data else "")
    )
    selected, features = record.number("model.selected"), amount(record.number("model.features"), "feature")
    clauses = []
    if selected is not None and features:
        clauses.append(f"uses {count(selected)} of {features}")
    main = next(iter(record.records("test.measures")), None)
    if main is not None and main.number("model") is not None:
        text = f"has {_article(main.text('name', 60))} of {_value(main, 'model')} on held-out rows"
        if main.number("null") is not None:
            text += f", where a model without features has {_value(main, 'null')}"
        clauses.append(text)
    return f"{subject} {' and '.join(clauses)}." if clauses else f"{subject} has no results on record."


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


def _value(entry: Record, field: str) -> str:
    value = entry.number(field)
    return percent(value, 2) if entry.get("is_share") is True else number(value, 4)


def _measure(entry: Record) -> dict[str, Any]:
    model, null = entry.number("model"), entry.number("null")
    ratio = None if model is None or null is None or null <= 0 else model / null
    return {
        "name": entry.text("name", 60),
        "model": _value(entry, "model"),
        "null": _value(entry, "null"),
        "ratio": MISSING if ratio is None else percent(ratio),
    }


def _tiles(record: Record) -> list[dict[str, str]]:
    tiles = []
    main = next(iter(record.records("test.measures")), None)
    if main is not None:
        name = main.text("name", 60)
        without = _value(main, "null")
        tiles.append(
            {
                "name": f"Test {name}",
                "value": _value(main, "model"),
                "context": f"without features {without}" if without != MISSING else "",
            }
        )
    selected, features = record.number("model.selected"), record.number("model.features")
    columns = amount(record.number("model.columns"), "column")
    tiles.append(
        {
            "name": "Features used",
            "value": count(selected),
            "context": f"of {count(features)}" + (f", from {columns}" if columns else ""),
        }
    )
    tiles.append(
        {
            "name": "Strength alpha",
            "value": number(record.number("alpha")),
            "context": record.text("choice", 120),
        }
    )
    violation = record.number("model.violation")
    tiles.append(
        {
            "name": "Violation",
            "value": number(violation, 2),
            "context": "of the first-order conditions"
            + ("" if record.get("model.converged") is not False else ": not converged"),
        }
    )
    return tiles


def _feature(entry: Record, every: list[Record], outputs: int) -> dict[str, Any]:
    importance = entry.number("importance")
    most = max((e.number("importance") or 0.0 for e in every), default=0.0)
    share = None if importance is None or most <= 0 else min(max(importance / most, 0.0), 1.0)
    coefficients = entry.numbers("coefficients")
    shown = coefficients if len(coefficients) == outputs and 1 < outputs <= _MOST_OUTPUTS else []
    single = entry.number("coefficient")
    keep, frequency = entry.number("keep_probability"), entry.number("frequency")
    return {
        "name": entry.text("name", 120),
        "coefficient": number(single, 4),
        "coefficient_key": _key(single),
        "coefficients": [{"text": number(value, 3), "key": _key(value)} for value in shown],
        "importance": number(importance),
        "importance_key": _key(importance),
        "width": None if share is None else f"{100 * share:.2f}%",
        "negative": single is not None and single < 0 and not shown,
        "keep": percent(keep) if keep is not None else MISSING,
        "keep_key": _key(keep),
        "frequency": percent(frequency) if frequency is not None else MISSING,
        "frequency_key": _key(frequency),
    }


def _candidate(entry: Record) -> dict[str, Any]:
    half = entry.number("standard_error")
    return {
        "name": entry.text("name", 120),
        "error": number(entry.number("error"), 4),
        "error_key": _key(entry.number("error")),
        "half": "" if half is None or not math.isfinite(half) else f"± {number(half, 2)}",
        "alpha": number(entry.number("alpha")),
        "alpha_key": _key(entry.number("alpha")),
        "chosen": entry.get("chosen") is True,
    }


def _faces(record: Record) -> list[Figure]:
    parameters = record.get("penalty.parameters")
    name, strength = record.text("penalty.name", 60), record.number("faces.strength")
    own = parameters if isinstance(parameters, dict) else {}
    # What stretches a penalty is not the penalty's own.
    penalty = rebuilt(name, {k: v for k, v in own.items() if k not in ("width", "height")})
    if penalty is None:
        return []
    width, height = record.number("faces.width"), record.number("faces.height")
    if width is not None and 0 < width < math.inf:
        from obverse.penalties import Rescaled

        penalty = Rescaled(penalty, width=width, height=height if height is not None and 0 < height < math.inf else 1.0)
    usable = strength is not None and 0 < strength < math.inf
    return face_figures(penalty, name, strength if usable else None, _magnitudes(record))


def _magnitudes(record: Record) -> Survivors | None:
    """The scaled coefficients of the selected features, counted between log-spaced edges."""
    found = [entry.number("importance") for entry in record.records("features")]
    sizes = [size for size in found if size is not None and 1e-300 < size < 1e300]
    if not sizes:
        return None
    low, high = min(sizes) / 1.3, max(sizes) * 1.3
    edges = [low * (high / low) ** (i / _BINS) for i in range(_BINS + 1)]
    counts = [float(sum(a <= size < b for size in sizes)) for a, b in pairwise(edges)]
    return Survivors(edges, counts, 1) if sum(counts) > 0 else None


def _facts(record: Record) -> list[tuple[str, str]]:
    """What was fitted to what, as name and value; unknown ones are left out."""
    classes = [as_text(name, 40) for name in record.items("data.classes")]
    listed = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    parameters = record.get("penalty.parameters")
    settings = ""
    if isinstance(parameters, dict):
        settings = ", ".join(f"{as_text(k, 30)} = {as_text(v, 40)}" for k, v in list(parameters.items())[:12])
    penalty = record.text("penalty.name", 60)
    rows = [record.number(f"data.{part}") for part in ("train", "test")]
    facts = [
        ("Task", record.text("task", 40)),
        ("Loss", record.text("loss", 40)),
        ("Penalty", f"{penalty} ({settings})" if penalty and settings else penalty),
        ("Alpha", number(record.number("alpha"), 5)),
        ("Intercept", number(record.number("model.intercept"), 5)),
        ("Data", record.text("data.name", 80)),
        ("Target", record.text("data.target", 80)),
        ("Weights", record.text("data.weights", 80)),
        ("Train, test rows", " · ".join(count(r) for r in rows) if any(r is not None for r in rows) else ""),
        ("Rows left out for missing values", count(record.number("data.dropped_rows") or None)),
        ("Columns left out", ", ".join(as_text(name, 60) for name in record.items("data.dropped_columns")[:40])),
        ("Classes", f"{plural(len(classes), 'class', 'classes')}: {listed}" if classes else ""),
        ("Time", duration(record.number("seconds"))),
    ]
    return [(name, value) for name, value in facts if value and value != MISSING]


def _key(value: float | None) -> float:
    """What a cell is sorted by."""
    return -1e308 if value is None or not math.isfinite(value) else value
