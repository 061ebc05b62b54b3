"""From the diagnosis of a model's dropout to one page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._charts import Figure, Key
from ._plot import SHAPES, Plot, Spot, thinned
from ._provenance import as_yaml, version_rows
from ._record import Record, as_number, as_numbers, as_text
from ._scales import Linear, Logarithmic
from ._template import write_page
from ._wording import MISSING, amount, axis_number, axis_percent, count, number, percent, plural

__all__ = ["write_dropout"]

_MOST_LAYERS = 60
_MOST_VALUES = 200
_MOST_UNITS = 400
_MOST_ROWS = 24


def write_dropout(record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a diagnosis: one HTML file that needs no network.

    The page has the regularizer and its bounds, the singular values of the predictions beside those that the theory
    predicts, the share of every layer and unit, and what to keep in mind. What the record does not hold is left out.
    The same record gives the same bytes.

    Parameters
    ----------
    record : mapping
        With the content of `obverse.dropout.ModelDiagnosis.to_dict` under ``diagnosis``, such as ``obverse dropout
        diagnose --json`` prints. Fields may be missing or null. All text from it is escaped.
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
            "record must be a mapping, such as what obverse dropout diagnose --json prints, got "
            f"{type(record).__name__}"
        )
    return write_page("dropout.html.j2", _content(Record.of(record)), path)


def _content(record: Record) -> dict[str, Any]:
    found = record.record("diagnosis")
    model, data = record.text("model.name", 80), record.text("data.name", 80)
    squared = found.text("loss") == "squared"
    units = _unit_figure(found)
    return {
        "title": " on ".join(part for part in (model, data) if part) or "A model under dropout",
        "version": record.text("obverse", 40),
        "sentence": _sentence(found),
        "tiles": _tiles(found),
        "spectra": [figure for figure in (_spectrum_figure(found, squared), units) if figure is not None],
        "values": _value_rows(found),
        "values_left_out": max(0, len(found.items("singular_values")) - _MOST_ROWS),
        "layers": _layer_rows(found),
        "losses": _loss_rows(found),
        "caveats": [as_text(caveat, 600) for caveat in found.items("caveats")[:20]],
        "command": record.text("command", 4000),
        "recipe": as_yaml(record.get("recipe")),
        "facts": _facts(record, found),
        "versions": version_rows(record),
    }


def _sentence(found: Record) -> str:
    """The diagnosis in one sentence; a clause whose figures are missing is left out."""
    units, outputs = amount(found.number("units"), "unit"), amount(found.number("outputs"), "output")
    where = f"the {found.text('kind', 40) or 'last layer'}" + (
        f" of {units} and {outputs}" if units and outputs else ""
    )
    value, ratio = found.number("regularizer"), found.number("ratio")
    clauses = []
    if value is not None:
        clauses.append(f"adds {number(value)} to the {found.text('loss', 40) or 'expected'} loss")
    if ratio is not None:
        clauses.append(f"costs {number(ratio)} times the least that its predictions allow")
    if not clauses:
        return f"Dropout on {where} has no results on record."
    return f"Dropout on {where} {' and '.join(clauses)}."


def _tiles(found: Record) -> list[dict[str, str]]:
    form = "exact" if found.get("exact") is True else "quadratic form"
    tiles = [
        ("Regularizer", number(found.number("regularizer")), f"{found.text('loss', 40)} loss, {form}".lstrip()),
        ("Times the least possible", number(found.number("ratio")), "by its product; 1 is equalized"),
        ("Effective rank", number(found.number("effective_rank")), f"stable {number(found.number('stable_rank'))}"),
        ("Predicted rank", count(found.number("predicted_rank")), f"of {count(found.number('outputs'))} outputs"),
    ]
    return [{"name": name, "value": value, "context": context} for name, value, context in tiles]


def _columns(found: Record) -> list[tuple[str, list[float]]]:
    stack = found.text("kind") == "linear stack"
    named = (
        ("actual", "singular_values"),
        ("targets", "target_singular_values"),
        ("optimum" if stack else "free features", "predicted_singular_values"),
        ("fixed features", "fixed_singular_values"),
    )
    columns = [(name, found.numbers(field)) for name, field in named]
    length = len(columns[0][1])
    return [(name, values) for name, values in columns if values and len(values) == length]


def _spectrum_figure(found: Record, squared: bool) -> Figure | None:
    """Singular values by their number; as shares of their sum where the scales differ."""
    columns = _columns(found)
    if not columns:
        return None
    drawn = []
    for name, values in columns:
        total = math.fsum(values)
        drawn.append((name, values if squared or total <= 0 else [value / total for value in values]))
    indices = [float(i) for i in range(1, len(drawn[0][1]) + 1)]
    top = max(indices)
    text = axis_number if squared else axis_percent
    plot = Plot(
        Linear(0.5, top + 0.5) if top < 12 else Linear.counting(indices),
        Linear.around([value for _, values in drawn for value in values]),
        label=f"Chart of {plural(len(indices), 'singular value')}: {', '.join(name for name, _ in drawn)}.",
        x_title="number",
        y_title="singular value" if squared else "share of the sum",
        x_text=axis_number,
        y_text=text,
    )
    keys = []
    for place, (name, values) in enumerate(drawn):
        tone = "tone-quiet" if name == "targets" else f"tone-m{place if place < 2 else place - 1}"
        spots = [
            Spot(x, y, None, f"{name}, number {x:.0f}: {text(y)}")
            for x, y in thinned([*zip(indices, values, strict=True)], _MOST_VALUES)
            if x is not None and y is not None
        ]
        plot.spots(spots, tone, shape=SHAPES[place], shift=0.0)
        keys.append(Key(name, tone.removeprefix("tone-"), "own" if tone != "tone-quiet" else ""))
    caption = "Singular values of the predictions, those of the targets, and those at the optimum under this dropout."
    if not squared:
        caption += " Each column is divided by its sum: the prediction is that of the squared loss, on another scale."
    return Figure("Singular values", plot.svg(), caption, tuple(keys))


def _unit_figure(found: Record) -> Figure | None:
    """The share of every unit, from the largest down."""
    shares = found.get("unit_shares")
    lines = []
    for name, values in list(shares.items())[:10] if isinstance(shares, dict) else []:
        sizes = sorted(as_numbers(values), reverse=True)
        if sizes:
            lines.append((as_text(name, 60), sizes))
    positive = [size for _, sizes in lines for size in sizes if size > 0]
    y = Logarithmic.around(positive)
    if y is None:
        return None
    most = max(len(sizes) for _, sizes in lines)
    plot = Plot(
        Linear.counting([1.0, float(most)]),
        y,
        label=f"Line chart of the share of each unit in the regularizer of its layer, {plural(len(lines), 'layer')}.",
        x_title="unit, by its share",
        y_title="share (log)",
        x_text=axis_number,
        y_text=axis_percent,
    )
    keys = []
    for i, (name, sizes) in enumerate(lines):
        equal = 1 / len(sizes)
        plot.line([(1.0, equal), (float(len(sizes)), equal)], "quiet", style="dashed")
        points = [(float(x), size) for x, size in enumerate(sizes, 1)]
        plot.line(thinned(points, _MOST_UNITS), f"tone-m{i}", style="own")
        keys.append(Key(name or "last layer", f"m{i}", "own"))
    keys.append(Key("equal shares", "quiet", "dashed"))
    caption = "The bound is attained where all units have equal shares."
    none = sum(size <= 0 for _, sizes in lines for size in sizes)
    caption += f" {plural(none, 'unit')} without a share {'is' if none == 1 else 'are'} not drawn." if none else ""
    return Figure("Shares of the units", plot.svg(), caption, tuple(keys))


def _value_rows(found: Record) -> dict[str, Any]:
    columns = _columns(found)
    rows = (
        [[number(values[i], 4) for _, values in columns] for i in range(min(len(columns[0][1]), _MOST_ROWS))]
        if columns
        else []
    )
    return {"head": [name for name, _ in columns], "rows": rows}


def _layer_rows(found: Record) -> list[dict[str, Any]]:
    values = found.get("layer_values")
    laws = [as_text(law, 80) for law in found.items("laws")]
    known = (
        [(as_text(name, 80), as_number(value)) for name, value in values.items()] if isinstance(values, dict) else []
    )
    most = max((value for _, value in known if value is not None and math.isfinite(value)), default=0.0)
    total = math.fsum(value for _, value in known if value is not None and math.isfinite(value))
    rows = []
    for i, (name, value) in enumerate(known[:_MOST_LAYERS]):
        usable = value is not None and math.isfinite(value) and value >= 0
        rows.append(
            {
                "name": name or f"layer {i + 1}",
                "law": laws[i] if len(laws) == len(known) else MISSING,
                "value": number(value),
                "share": percent(value / total) if usable and value is not None and total > 0 else MISSING,
                "width": f"{100 * value / most:.2f}%" if usable and value is not None and most > 0 else None,
            }
        )
    return rows


def _loss_rows(found: Record) -> list[tuple[str, str]]:
    free = "weights" if found.text("kind") == "linear stack" else "features"
    rows = [
        ("Squared error without masks", "mean_squared_error"),
        ("Expected under dropout", "expected_loss"),
        ("Least with these features", "fixed_optimum"),
        (f"Least with free {free}", "free_optimum"),
        ("Regularizer of the squared loss", "squared_regularizer"),
        ("Of it, saved by centered units", "mean_cost"),
        ("Lower bound by the product", "bound"),
        ("Strength in the bound", "strength"),
        ("Equalization gap", "equalization_gap"),
    ]
    known = [(name, found.number(field)) for name, field in rows]
    return [(name, number(value, 5)) for name, value in known if value is not None]


def _facts(record: Record, found: Record) -> list[tuple[str, str]]:
    laws = list(dict.fromkeys(as_text(law, 120) for law in found.items("laws")[:40]))
    facts = [
        ("Model", record.text("model.name", 80)),
        ("Run", record.text("run", 200)),
        ("Diagnosed", " ".join(part for part in (found.text("kind", 40), found.text("layer", 80)) if part)),
        ("Masks", ", ".join(laws)),
        ("Rates", found.text("rate_source", 200)),
        ("Loss", found.text("loss", 40)),
        ("Data", " ".join(part for part in (record.text("data.name", 80), record.text("data.part", 20)) if part)),
        ("Examples", count(found.number("examples"))),
    ]
    return [(name, value) for name, value in facts if value and value != MISSING]
