"""The page of a linear model: whatever the record holds, one valid, self-contained, escaped document."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
from page_document import Document

from obverse.errors import InvalidArgumentError
from obverse.report import write_linear


def record(classes: int = 0, features: int = 4) -> dict[str, Any]:
    alphas = [10.0 / 1.3**i for i in range(20)]
    outputs = [f"class-{k}" for k in range(classes)] if classes > 2 else ["y"]
    rows: list[dict[str, Any]] = []
    for j in range(features):
        row: dict[str, Any] = {
            "name": f"feature {j}",
            "coefficient": (-1.0) ** j * (5 - j),
            "importance": 10.0 / (j + 1),
            "keep_probability": 0.9 / (j + 1),
            "frequency": 0.8,
        }
        if len(outputs) > 1:
            row["coefficients"] = [float(k - j) for k in range(classes)]
        rows.append(row)
    test: dict[str, Any] = {
        "rows": 30,
        "measures": [{"name": "root mean squared error", "model": 2.5, "null": 5.0}],
        "measured": [1.0, 2.0, 3.0],
        "predicted": [1.5, 2.0, 2.5],
    }
    if classes:
        test = {
            "rows": 30,
            "measures": [{"name": "error rate", "model": 0.1, "null": 0.4, "is_share": True}],
            "confusion": [[10 if i == j else 1 for j in range(classes)] for i in range(classes)],
        }
    return {
        "obverse": "0.1.0",
        "command": "obverse fit data.csv --target y",
        "settings": {"penalty": "mcp", "folds": 5},
        "versions": {"python": "3.12.1"},
        "task": "classification" if classes else "regression",
        "loss": "logistic" if classes else "squared",
        "penalty": {"name": "mcp", "parameters": {"kappa": 2.0}},
        "alpha": alphas[9],
        "choice": "lowest error over 5 folds",
        "data": {
            "name": "data.csv",
            "target": "y",
            "weights": "w",
            "train": 120,
            "test": 30,
            "dropped_rows": 7,
            "dropped_columns": ["id"],
            "classes": [f"class-{k}" for k in range(classes)] if classes else None,
            "outputs": outputs,
        },
        "model": {
            "selected": features,
            "features": 12,
            "columns": 3,
            "intercept": 0.5,
            "violation": 1e-8,
            "converged": True,
        },
        "features": rows,
        "faces": {"strength": 0.3, "width": 2.0},
        "path": {
            "alphas": alphas,
            "n_features": list(range(20)),
            "curves": [
                {"name": f"feature {j}", "selected": j < features, "values": [float(i * (j - 2)) for i in range(20)]}
                for j in range(features + 3)
            ],
        },
        "cv": {
            "alphas": alphas,
            "errors": [3 + (i - 9) ** 2 / 50 for i in range(20)],
            "standard_errors": [0.2] * 20,
            "folds": 5,
            "measure": "mean squared error",
        },
        "candidates": [
            {"name": "mcp:kappa=2", "error": 3.0, "standard_error": 0.2, "alpha": 1.0, "features": 4, "chosen": True},
            {"name": "lasso", "error": 3.1, "standard_error": 0.2, "alpha": 0.5, "features": 9, "chosen": False},
        ],
        "test": test,
        "seconds": 1.5,
    }


def written(content: Any, tmp_path: Path) -> tuple[str, Document]:
    page = write_linear(content, tmp_path / "page.html").read_text("utf-8")
    document = Document(page)
    assert len(document.ids) == len(set(document.ids))
    assert document.tags.count("h1") == 1
    for tag, name, value in document.attributes:
        assert name not in ("src", "href", "srcset", "xlink:href", "action"), f"<{tag}> loads {value}"
        assert not name.startswith("on"), f"<{tag}> runs {value}"
        assert tag == "meta" or name == "aria-label" or "nan" not in value.lower().split(), (
            f"<{tag} {name}> is not a number"
        )
    assert {v for _, n, v in document.attributes if n == "aria-labelledby"} <= set(document.ids)
    assert "url(" not in page[page.index("<style>") : page.index("</style>")]
    assert len(page) < 400_000
    return page, document


def test_every_section_of_a_regression(tmp_path: Path) -> None:
    page, document = written(record(), tmp_path)
    sections = {"figures", "test", "features", "path", "choice", "faces", "provenance"}
    assert sections <= set(document.ids)
    assert "confusion" not in document.ids
    for words in (
        "y in data.csv",
        "uses 4 of 12 features and has a root mean squared error of 2.5 on held-out rows, "
        "where a model without features has 5.",
        "from 3 columns",
        "50.0%",
        "feature 3",
        "Keep probability",
        "Selected",
        "mcp:kappa=2",
        "lowest error over 5 folds",
        "one standard error over 5 folds",
        "obverse fit data.csv",
        "mcp (kappa = 2.0)",
        "id",
    ):
        assert words in document.text, words
    plots = [v for t, n, v in document.attributes if t == "svg" and n == "aria-label"]
    assert any("coefficients of 7 features" in label for label in plots)
    assert any("lowest, 3, at alpha 0.943" in label for label in plots)
    # Two of the four coefficients are negative.
    assert page.count('class="fill minus"') == 2
    # One spot and two whisker ends for every alpha.
    assert len(re.findall(r'<path class="spot tone-m0', page)) == 20
    assert "not converged" not in document.text


def test_two_and_more_classes(tmp_path: Path) -> None:
    _, two = written(record(2), tmp_path)
    assert "confusion" in two.ids
    assert "has an error rate of 10.00% on held-out rows" in two.text
    page, three = written(record(3), tmp_path)
    head = page[page.index('<table class="layers features"') : page.index("</thead>", page.index("layers features"))]
    assert all(f"class-{k}" in head for k in range(3))
    assert "Coefficient" not in head
    assert "confusion" in three.ids


def test_a_model_without_features_says_so(tmp_path: Path) -> None:
    content = record(features=0)
    content["test"] = None
    content["model"]["converged"] = False
    _, document = written(content, tmp_path)
    assert "No feature is used" in document.text
    assert "not converged" in document.text


def test_more_features_than_fit_a_page(tmp_path: Path) -> None:
    content = record(features=500)
    content["path"] = {}
    page, document = written(content, tmp_path)
    assert "200 further features are in features.csv" in document.text
    assert page.count('<th scope="row" class="text"><span title="feature') == 300


@pytest.mark.parametrize("attack", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"])
def test_text_is_escaped(attack: str, tmp_path: Path) -> None:
    content = record(3)

    def spoil(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: spoil(value) for key, value in part.items()}
        if isinstance(part, list):
            return [spoil(item) for item in part]
        return attack if isinstance(part, str) else part

    content = spoil(content)
    content["penalty"]["name"] = "mcp"
    content["versions"], content["settings"] = {attack: attack}, {attack: attack}
    page, document = written(content, tmp_path)
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


WRONG = (None, "text", [], {}, [None], math.nan, math.inf, -1, 0, True)


@pytest.mark.parametrize("place", range(len(WRONG)), ids=lambda place: repr(WRONG[place]))
def test_fields_of_a_wrong_shape_are_left_out(place: int, tmp_path: Path) -> None:
    content = record(3, features=2)
    # Every field meets a third of what is wrong: all pairs would say little more, and take long.
    for field in sorted(names(content))[place % 3 :: 3]:
        written(spoiled(content, field, WRONG[place]), tmp_path)


@pytest.mark.parametrize("content", [{}, {"features": []}, {"features": [{}], "candidates": [{}, {}], "test": {}}])
def test_almost_nothing(content: dict[str, Any], tmp_path: Path) -> None:
    written(content, tmp_path)


@pytest.mark.parametrize("wrong", [None, [], "record.json"])
def test_only_a_mapping_is_a_record(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="mapping"):
        write_linear(wrong, tmp_path / "page.html")


def test_same_record_same_bytes(tmp_path: Path) -> None:
    content = record()
    before = copy.deepcopy(content)
    first = write_linear(content, tmp_path / "a.html").read_bytes()
    assert write_linear(before, tmp_path / "b" / "c.html").read_bytes() == first
    assert content == before
