"""From the record of a run to one page that opens anywhere, offline."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._charts import Figure, budget_figures, history_table, phases, training_figures
from ._confusion import confusion_table
from ._dense_headline import dense_sentence, dense_tiles, is_dense
from ._headline import Headline, mean
from ._penalty_charts import Survivors, face_figures, final_strength, in_boundary_units, rebuilt, survivors_figure
from ._provenance import as_yaml, version_rows
from ._record import Record, as_text
from ._relations import relation_table
from ._reliability import reliability_figure
from ._shipping import shipping_section
from ._template import write_page
from ._wording import MISSING, TIMES, byte_size, count, duration, number, percent, plural

__all__ = ["write_report"]

# Rows beyond these say little and weigh much.
_MOST_LAYERS = 160
_MOST_SEEDS = 100


def write_report(metrics: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a run: one HTML file that needs no network, no script and no font of its own.

    The page has the headline figures, the curves of training and budget, the sparsity of each layer, the
    weights that are left, what became of the model (``certificate`` and ``receipt``), the two faces of the
    penalty, the confusion matrix, and where it all came from.
    What the record does not hold is left out. The same record gives the same bytes.

    Parameters
    ----------
    metrics : mapping
        The record of a run, as in ``metrics.json``; errors and sparsities are fractions, sizes bytes.
        Fields may be missing or null. All text from it is escaped.
    path : path-like
        Where the page goes; missing folders are made, an existing file is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgumentError
        If ``metrics`` is not a mapping.
    OSError
        If the file cannot be written.
    """
    if not isinstance(metrics, Mapping):
        raise InvalidArgumentError(
            f"metrics must be a mapping, such as the content of metrics.json, got {type(metrics).__name__}"
        )
    return write_page("page.html.j2", _content(metrics), path)


def _content(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the template shows."""
    record = Record.of(metrics)
    runs = record.records("runs")
    headline = Headline.of(record, runs)
    dense = is_dense(record)
    name = record.text("penalty.name", 60)
    parameters = record.get("penalty.parameters")
    penalty = rebuilt(name, parameters if isinstance(parameters, dict) else {})
    survivors = None if dense else Survivors.of(runs)
    strength = final_strength(runs)
    scaled = in_boundary_units(penalty, runs) if penalty is not None else None
    if scaled is not None:
        penalty, strength = scaled
    head, rows = history_table(runs)
    model, data = record.text("model.name", 80), record.text("data.name", 80)
    return {
        "title": " on ".join(part for part in (model, data) if part) or "A run",
        "version": record.text("obverse", 40),
        "penalty": name,
        "dense": dense,
        "sentence": dense_sentence(headline, record, runs) if dense else headline.sentence(record),
        "tiles": dense_tiles(headline, runs) if dense else headline.tiles(),
        "notes": _notes(runs),
        "training": training_figures(runs),
        "history_head": head,
        "history_rows": rows,
        "budget": [] if dense else budget_figures(runs),
        "phases": _phase_sentence(runs),
        "seeds": len(runs),
        "layers": None if dense else _layers(runs),
        "shipping": shipping_section(record),
        "survivors": survivors_figure(survivors, penalty, name) if survivors else None,
        "faces": face_figures(penalty, name, strength, survivors) if penalty is not None else [],
        "strength": strength,
        "confusion": confusion_table(record, runs),
        "reliability": _reliability(runs),
        "relations": next((found for found in (_relations(record, run) for run in runs) if found), None),
        "seed_rows": [_seed_row(i, run) for i, run in enumerate(runs[:_MOST_SEEDS])],
        "seeds_left_out": max(0, len(runs) - _MOST_SEEDS),
        "command": record.text("command", 4000),
        "recipe": as_yaml(record.get("recipe")),
        "facts": _facts(record, headline),
        "versions": version_rows(record),
    }


def _notes(runs: list[Record]) -> list[str]:
    """What the runs had to say, such as a budget that was missed, each line once."""
    lines = [as_text(line, 600) for run in runs for line in run.items("notes") if isinstance(line, str)]
    return list(dict.fromkeys(lines))[:_MOST_SEEDS]


def _phase_sentence(runs: list[Record]) -> str:
    """The phases of the first run in words."""
    found = next((p for p in (phases(run.records("trajectory")) for run in runs) if p), [])
    parts = [f"{name} to step {count(end)}" for name, _, end in found]
    return f"{', '.join(parts)}." if len(parts) > 1 else ""


def _layers(runs: list[Record]) -> dict[str, Any] | None:
    """Rows of the layer table; the mean over the seeds where they have the same layers."""
    stacks = [run.records("layers") for run in runs if run.records("layers")]
    if not stacks:
        return None
    names = [layer.text("name") for layer in stacks[0]]
    same = [stack for stack in stacks if [layer.text("name") for layer in stack] == names]
    rows = []
    for i, name in enumerate(names[:_MOST_LAYERS]):
        layer = stacks[0][i]
        weights, nonzero = layer.number("weights"), mean(stack[i].number("nonzero") for stack in same)
        sparsity = mean(stack[i].number("sparsity") for stack in same)
        if sparsity is None and nonzero is not None and weights:
            sparsity = 1 - nonzero / weights
        if nonzero is None and sparsity is not None and weights:
            nonzero = weights * (1 - sparsity)
        shape = layer.items("shape")
        kept = None if sparsity is None else min(max(1 - sparsity, 0.0), 1.0)
        rows.append(
            {
                "name": name or f"layer {i + 1}",
                "shape": TIMES.join(as_text(side, 12) for side in shape[:8]) or MISSING,
                "kept_width": None if kept is None else f"{100 * kept:.2f}%",
                "kept": count(nonzero),
                "weights": count(weights),
                "weights_key": weights if weights is not None and math.isfinite(weights) else -1,
                "kept_key": nonzero if nonzero is not None else -1,
                "sparsity": percent(sparsity, 2),
                "sparsity_key": sparsity if sparsity is not None else -1,
            }
        )
    return {"rows": rows, "seeds": len(same), "left_out": len(names) - len(rows)}


def _reliability(runs: list[Record]) -> Figure | None:
    """The reliability diagram, one line for each seed."""
    names = [f"seed {as_text(run.get('seed'), 24)}" if len(runs) > 1 else "test" for run in runs]
    return reliability_figure({name: run.get("test.reliability") for name, run in zip(names, runs, strict=True)})


def _relations(record: Record, run: Record) -> dict[str, Any] | None:
    return relation_table(run.get("labels.relations"), record.items("data.classes"))


def _seed_row(i: int, run: Record) -> list[dict[str, Any]]:
    """One line of the table of seeds: text to show and value to sort by."""
    seed = run.get("seed")
    sparsity = [layer.number("nonzero") for layer in run.records("layers")]
    weights = [layer.number("weights") for layer in run.records("layers")]
    share: float | None = None
    if sparsity and None not in sparsity and None not in weights:
        amount = math.fsum(w for w in weights if w is not None)
        share = 1 - math.fsum(n for n in sparsity if n is not None) / amount if amount > 0 else None
    if share is None:
        last = (run.records("trajectory") or run.records("history"))[-1:]
        share = last[0].number("sparsity") if last else None
    cells: list[tuple[str, float | None]] = [
        (str(i + 1) if seed is None else as_text(seed, 24), run.number("seed")),
        (percent(run.number("test.error"), 2), run.number("test.error")),
        (number(run.number("test.loss")), run.number("test.loss")),
        (percent(run.number("validation.error"), 2), run.number("validation.error")),
        (percent(share, 2), share),
        (count(run.number("size.nonzero")), run.number("size.nonzero")),
        (byte_size(run.number("size.bitmask_bytes")), run.number("size.bitmask_bytes")),
        (duration(run.number("seconds")), run.number("seconds")),
    ]
    return [{"text": text, "key": -1 if key is None or math.isinf(key) else key} for text, key in cells]


def _facts(record: Record, headline: Headline) -> list[tuple[str, str]]:
    """What was trained on what, as name and value; unknown ones are left out."""
    classes = [as_text(name, 40) for name in record.items("data.classes")]
    listed = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    shape = TIMES.join(as_text(side, 12) for side in record.items("data.input_shape")[:8])
    parameters = record.get("penalty.parameters")
    settings = ""
    if isinstance(parameters, dict):
        settings = ", ".join(f"{as_text(k, 30)} = {as_text(v, 40)}" for k, v in list(parameters.items())[:12])
    penalty = record.text("penalty.name", 60)
    facts = [
        ("Model", record.text("model.name", 80)),
        ("Parameters", count(record.number("model.parameters"))),
        ("Regularized weights", count(headline.weights)),
        ("Penalty", f"{penalty} ({settings})" if penalty and settings else penalty),
        ("Data", record.text("data.name", 80)),
        ("Train, validation, test", _splits(record)),
        ("Input shape", shape),
        ("Classes", f"{plural(len(classes), 'class', 'classes')}: {listed}" if classes else ""),
    ]
    return [(name, value) for name, value in facts if value and value != MISSING]


def _splits(record: Record) -> str:
    sizes = [record.number(f"data.{split}") for split in ("train", "validation", "test")]
    return " · ".join(count(size) for size in sizes) if any(size is not None for size in sizes) else ""
