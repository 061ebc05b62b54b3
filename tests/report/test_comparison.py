"""The page of a comparison: whatever the record holds, one valid, self-contained, escaped document."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
from page_document import Document, contrast

from obverse.errors import InvalidArgumentError
from obverse.report import write_comparison

METHODS = ("proximal", "mcp:kappa=2@reweighted", "magnitude", "random", "dense", "small")


def entry(method: str, budget: float | None, mean: float, half: float | None, **more: Any) -> dict[str, Any]:
    return {
        "method": method,
        "budget": budget,
        "seeds": 3,
        "missing": 0,
        "failed": 0,
        "test_error": {"mean": mean, "interval": half},
        "validation_error": {"mean": mean, "interval": half},
        "kept": {"mean": 1.0 if budget is None else 1 - budget, "interval": 0.0},
        "weights": 1000.0,
        "seconds": 2.0,
        "best": False,
        "note": None,
        **more,
    }


def comparison(methods: tuple[str, ...] = METHODS, seeds: int = 3) -> dict[str, Any]:
    half = 0.004 if seeds > 1 else None
    rows = [
        entry(method, budget, 0.02 + 0.01 * i + (budget or 0) / 10, half)
        for i, method in enumerate(methods)
        for budget in ((None,) if method == "dense" else (0.8, 0.95))
    ]
    rows[0]["best"] = True
    cells = [
        {
            "method": row["method"],
            "budget": row["budget"],
            "seed": seed,
            "state": "done",
            "sparsity": row["budget"] or 0.0,
            "weights": 1000,
            "kept": 1 - (row["budget"] or 0.0),
            "test_error": row["test_error"]["mean"],
            "test_loss": 0.3,
            "validation_error": 0.05,
            "seconds": 2.0,
            "width": 1.0,
            "error": None,
            "note": None,
            "folder": "cells/x",
        }
        for row in rows
        for seed in range(seeds)
    ]
    return {
        "obverse": "0.1.0",
        "command": "obverse compare",
        "storage": "study.log",
        "recipe": {"data": "digits", "epochs": 3},
        "data": {"name": "digits"},
        "model": {"name": "mlp", "weights": 17_024},
        "versions": {"python": "3.12.1"},
        "methods": list(methods),
        "budgets": [0.8, 0.95],
        "seeds": list(range(seeds)),
        "cells": cells,
        "summary": rows,
    }


def written(record: Any, tmp_path: Path) -> tuple[str, Document]:
    page = write_comparison(record, tmp_path / "page.html").read_text("utf-8")
    document = Document(page)
    assert len(document.ids) == len(set(document.ids))
    assert document.tags.count("h1") == 1
    for tag, name, value in document.attributes:
        assert name not in ("src", "href", "srcset", "xlink:href", "action"), f"<{tag}> loads {value}"
        assert not name.startswith("on"), f"<{tag}> runs {value}"
        assert tag == "meta" or "nan" not in value.lower().split(), f"<{tag} {name}> is not a number"
    assert {v for _, n, v in document.attributes if n == "aria-labelledby"} <= set(document.ids)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    return page, document


def test_every_section(tmp_path: Path) -> None:
    page, document = written(comparison(), tmp_path)
    assert {"findings", "pareto", "table", "cells", "provenance"} <= set(document.ids)
    text = document.text
    for words in (
        "mlp on digits",
        "6 methods at 2 budgets with 3 seeds: all 33 runs are done.",
        "At 80% zeros, proximal has the lowest mean test error: 10.0% ± 0.40."
        " Gradual magnitude pruning has 12.0% ± 0.40. The intervals of 0 of 4 other methods overlap",
        "the test set has chosen neither an epoch nor a setting",
        "Student's t",
        "17,024",
        *METHODS,
    ):
        assert words in text.replace("10.00%", "10.0%").replace("12.00%", "12.0%"), words
    assert page.count("<strong>") == 1
    (plot,) = [v for t, n, v in document.attributes if t == "svg" and n == "aria-label"]
    assert "6 methods" in plot
    # One mark per measured mean, and one per method in the legend and in the table.
    assert len(re.findall(r'<path class="spot ', page)) == 11 + 6 + 6


def test_the_intervals_stand_where_they_belong(tmp_path: Path) -> None:
    record = comparison(("dense",))
    record["summary"] = [entry("dense", None, 0.5, 0.25)]
    page, _ = written(record, tmp_path)
    # A linear axis from 0 to 0.75 and 6 % of air.
    top = 0.75 * 1.06
    (low, high) = re.findall(r'<line class="whisker[^"]*"[^>]*y1="([\d.]+)%" y2="([\d.]+)%"', page)[0]
    assert float(low) == pytest.approx(100 * (1 - 0.25 / top), abs=0.01)
    assert float(high) == pytest.approx(100 * (1 - 0.75 / top), abs=0.01)


def test_one_seed_has_no_intervals(tmp_path: Path) -> None:
    page, document = written(comparison(seeds=1), tmp_path)
    assert '<line class="whisker' not in page
    assert "One seed, so no intervals." in document.text
    assert "Without several seeds" in document.text


def test_what_failed_and_what_is_missing_is_said(tmp_path: Path) -> None:
    record = comparison()
    record["cells"][0].update(state="failed", error="the loss is nan", test_error=None, sparsity=None)
    record["summary"][0].update(seeds=1, missing=2, failed=1)
    record["summary"][1].update(test_error={"mean": None, "interval": None}, kept={"mean": None}, seeds=0, missing=3)
    record["summary"][-1]["note"] = "no width comes nearer"
    _, document = written(record, tmp_path)
    for words in ("32 of 33 runs are done, 1 run failed", "failed: the loss is nan", "1 of 3 seeds", "no width comes"):
        assert words in document.text


@pytest.mark.parametrize("attack", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"])
def test_text_is_escaped(attack: str, tmp_path: Path) -> None:
    record = comparison()
    record["command"] = record["obverse"] = record["data"]["name"] = record["model"]["name"] = attack
    record["recipe"], record["versions"] = {attack: attack}, {attack: attack}
    for row in [*record["summary"], *record["cells"]]:
        row["method"] = row["note"] = attack
    for cell in record["cells"]:
        cell["state"] = cell["error"] = cell["seed"] = attack
    page, document = written(record, tmp_path)
    assert document.tags.count("script") == 1
    assert "img" not in document.tags
    assert attack in document.text
    assert "<" not in attack or attack not in page


def spoiled(part: Any, field: str, wrong: Any) -> Any:
    if isinstance(part, dict):
        return {k: wrong if k == field else spoiled(v, field, wrong) for k, v in part.items()}
    return [spoiled(item, field, wrong) for item in part] if isinstance(part, list) else part


def names(part: Any) -> set[str]:
    if isinstance(part, dict):
        return set(part) | {name for value in part.values() for name in names(value)}
    return {name for item in part for name in names(item)} if isinstance(part, list) else set()


WRONG = (None, "text", [], {}, [None], math.nan, math.inf, -1, 0)


@pytest.mark.parametrize("place", range(len(WRONG)), ids=lambda place: repr(WRONG[place]))
def test_fields_of_a_wrong_shape_are_left_out(place: int, tmp_path: Path) -> None:
    # Every field meets a third of what is wrong: all pairs would say little more, and take long.
    for field in sorted(names(comparison()))[place % 3 :: 3]:
        written(spoiled(comparison(("proximal", "dense"), 1), field, WRONG[place]), tmp_path)


@pytest.mark.parametrize("record", [{}, {"cells": []}, {"summary": [{}], "cells": [{}]}])
def test_almost_nothing(record: dict[str, Any], tmp_path: Path) -> None:
    written(record, tmp_path)


@pytest.mark.parametrize("wrong", [None, [], "compare.json"])
def test_only_a_mapping_is_a_record(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="mapping"):
        write_comparison(wrong, tmp_path / "page.html")


def test_same_record_same_bytes(tmp_path: Path) -> None:
    record = comparison()
    before = copy.deepcopy(record)
    first = write_comparison(record, tmp_path / "a.html").read_bytes()
    assert write_comparison(before, tmp_path / "b" / "c.html").read_bytes() == first
    assert record == before


def test_many_methods_can_be_told_apart(tmp_path: Path) -> None:
    many = tuple(f"method-{i}" for i in range(20))
    page, _ = written(comparison(many), tmp_path)
    legend = page[page.index('<ul class="legend">') : page.index("</ul>", page.index('<ul class="legend">'))]
    marks = re.findall(r'swatch (tone-\w+)".*?<path class="(spot \w*)" d="([^"]+)"', legend)
    assert len(marks) == len(set(marks)) == 20


def test_colors_of_methods_are_readable(tmp_path: Path) -> None:
    page, _ = written(comparison(), tmp_path)
    for theme in re.findall(r":root \{(.*?)\}", page, re.S)[:2]:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", theme))
        assert all(contrast(colors[f"m{i}"], colors["card"]) >= 4.5 for i in range(10))
