"""The page and the picture of confidence: whatever the record holds, valid, escaped, and in the right places."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from page_document import Document

from obverse.errors import InvalidArgumentError
from obverse.labels import CalibrationError, OnlineLabelSmoothing, WinningScores
from obverse.report import plot_calibration, write_calibration, write_report

NAMES = ["plane", "car", "bird", "cat", "deer"]


def record() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 5, generator=generator)
    labels = torch.multinomial((0.5 * logits).softmax(1), 1, generator=generator)[:, 0]
    raw, half, scores, online = CalibrationError(10), CalibrationError(10), WinningScores(), OnlineLabelSmoothing(5)
    raw.update(logits, labels)
    half.update(logits / 2, labels)
    scores.update(logits, labels)
    online(logits, labels)
    online.end_epoch()
    return {
        "obverse": "0.1.0",
        "command": "python measure.py",
        "model": {"name": "small cnn"},
        "data": {"name": "cifar10", "classes": NAMES},
        "calibration": {
            "rows": 500,
            "accuracy": 0.61,
            "calibration_error": raw.compute(),
            "negative_log_likelihood": 1.5,
            "brier_score": 0.6,
            "temperature": 1.9,
            "reliability": {"test": raw.reliability_table(), "scaled": half.reliability_table()},
            "winning_scores": {name: vars(group) for name, group in scores.compute().items()},
            "relations": online.class_relations().tolist(),
            "criterion": "online",
        },
        "versions": {"python": "3.12.1"},
    }


def written(content: Any, tmp_path: Path) -> tuple[str, Document]:
    page = write_calibration(content, tmp_path / "page.html").read_text("utf-8")
    document = Document(page)
    assert len(document.ids) == len(set(document.ids))
    assert document.tags.count("h1") == 1
    for tag, name, value in document.attributes:
        assert name not in ("src", "href", "srcset", "xlink:href", "action"), f"<{tag}> loads {value}"
        assert not name.startswith("on"), f"<{tag}> runs {value}"
        assert tag == "meta" or name == "aria-label" or "nan" not in value.lower().split()
    assert {v for _, n, v in document.attributes if n == "aria-labelledby"} <= set(document.ids)
    assert len(page) < 400_000
    return page, document


def test_every_section_of_confidence(tmp_path: Path) -> None:
    content = record()
    page, document = written(content, tmp_path)
    assert {"headline", "confidence", "relations", "provenance"} <= set(document.ids)
    for words in ("Right in 61.0% of cases", "temperature of 1.9 it is surer", "Brier score", "Trained with"):
        assert words in document.text, words
    tables = content["calibration"]["reliability"]
    filled = sum(row.rows > 0 for table in tables.values() for row in table)
    assert page.count('<path class="spot ') == filled
    assert "correct, " in document.text
    assert "outside, " not in document.text  # no such inputs were counted
    # The share of a cell stands where its classes cross.
    cell = content["calibration"]["relations"][3][1]
    assert f'title="cat is related to car by {100 * cell:.1f}'[:-1] in page
    assert document.text.count("plane") >= 2


def test_marks_stand_where_the_table_says(tmp_path: Path) -> None:
    content = record()
    content["calibration"] = {"reliability": {"test": [[0.4, 0.5, 40, 0.45, 0.7], [0.9, 1.0, 0, math.nan, math.nan]]}}
    page, document = written(content, tmp_path)
    assert page.count('<path class="spot ') == 1
    assert '<svg class="at" x="45%" y="30%">' in page
    assert "test: 70.0% right at 45.0% sure, 40 rows" in page
    # Wilson: 0.546 to 0.819.
    drawn = re.search(r'<path class="line tone-m0 thin" d="M(\d+) (\d+)l0(-?\d+)', page)
    assert drawn is not None
    x, low, change = (int(part) for part in drawn.groups())
    assert (x, round(1 - low / 4000, 3), round(1 - (low + change) / 4000, 3)) == (1800, 0.546, 0.819)
    assert "Mean gap: test 25.0%" in document.text
    content["calibration"] = {
        "reliability": {
            "test": [
                dict(zip(["lower", "upper", "rows", "confidence", "accuracy"], [0.4, 0.5, 40, 0.45, 0.7], strict=True))
            ]
        }
    }
    assert written(content, tmp_path)[0].count('<path class="spot ') == 1


def test_of_many_classes_the_strongest_relations_are_listed(tmp_path: Path) -> None:
    content = record()
    matrix = [[0.0] * 30 for _ in range(30)]
    matrix[4][7], matrix[2][9] = 0.5, 0.25
    content["calibration"]["relations"] = matrix
    content["data"]["classes"] = [f"class {i}" for i in range(30)]
    _, document = written(content, tmp_path)
    assert "The strongest relations among 30 classes." in document.text
    text = document.text
    assert text.index("class 4 class 7 50.0%") < text.index("class 2 class 9 25.0%")


def test_a_run_report_shows_confidence_and_relations(tmp_path: Path) -> None:
    own = record()["calibration"]
    run = {"test": {"reliability": own["reliability"]["test"]}, "labels": {"relations": own["relations"]}}
    content = {"data": {"classes": NAMES}, "runs": [{"seed": 1, **run}, {"seed": 2, **run}]}
    document = Document(write_report(content, tmp_path / "report.html").read_text("utf-8"))
    assert {"confidence", "relations"} <= set(document.ids)
    assert "seed 1" in document.text
    assert "seed 2" in document.text
    assert "plane" in document.text
    without = Document(write_report({"runs": [{"seed": 1}]}, tmp_path / "plain.html").read_text("utf-8"))
    assert not {"confidence", "relations"} & set(without.ids)


@pytest.mark.parametrize("attack", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"])
def test_text_of_confidence_is_escaped(attack: str, tmp_path: Path) -> None:
    content = record()
    own = content["calibration"]
    own["reliability"] = {attack: own["reliability"]["test"]}
    own["winning_scores"] = {attack: own["winning_scores"]["wrong"]}
    own["criterion"] = content["command"] = content["model"]["name"] = attack
    content["data"]["classes"] = [attack] * 5
    content["versions"] = {attack: attack}
    page, document = written(content, tmp_path)
    assert document.tags.count("script") == 1
    assert "img" not in document.tags
    assert attack in document.text
    assert "<" not in attack or attack not in page


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({"accuracy": 0.61}, "Right in 61.0% of cases."),
        ({"calibration_error": 0.02}, "Confidence is off by 2.00% on average."),
        ({"temperature": 0.5}, "By its temperature of 0.5 it is less sure than it could be."),
        (
            {"calibration_error": 0.02, "temperature": 1.5},
            "Confidence is off by 2.00% on average; by its temperature of 1.5 it is surer than it should be.",
        ),
    ],
)
def test_the_sentence_says_what_is_known(known: dict[str, float], sentence: str, tmp_path: Path) -> None:
    assert sentence in written({"calibration": known}, tmp_path)[1].text


WRONG = (None, "text", [], {}, [None], [[1.0]], math.nan, math.inf, -1, 0, True)


@pytest.mark.parametrize("place", range(len(WRONG)), ids=lambda place: repr(WRONG[place]))
def test_fields_of_confidence_of_a_wrong_shape_are_left_out(place: int, tmp_path: Path) -> None:
    content, wrong = record(), WRONG[place]
    # Every field meets a third of what is wrong: all pairs would say little more, and take long.
    for field in list(content["calibration"])[place % 3 :: 3]:
        written({**content, "calibration": {**content["calibration"], field: wrong}}, tmp_path)
    for field in list(content)[place % 3 :: 3]:
        written({**content, field: wrong}, tmp_path)
    own = content["calibration"]
    for field, inner in (("reliability", "test"), ("winning_scores", "wrong")):
        written({**content, "calibration": {**own, field: {inner: wrong}}}, tmp_path)
    written(
        {**content, "calibration": {**own, "reliability": {"test": [wrong, [wrong] * 5, [0, 1, 9, 2.0, 5.0]]}}},
        tmp_path,
    )
    written({**content, "calibration": {**own, "winning_scores": {"wrong": {"histogram": wrong}}}}, tmp_path)


def test_nothing_to_say_about_confidence(tmp_path: Path) -> None:
    _, document = written({}, tmp_path)
    assert "No figures are on record" in document.text
    for wrong in (None, [], "record.json"):
        with pytest.raises(InvalidArgumentError, match="mapping"):
            write_calibration(wrong, tmp_path / "page.html")  # type: ignore[arg-type]


def test_pictures_of_confidence(tmp_path: Path) -> None:
    content = record()
    before = copy.deepcopy(content)
    for part in ("reliability", "relations", None):
        own = content["calibration"] if part is None else {part: content["calibration"][part]}
        target = plot_calibration({**content, "calibration": own}, tmp_path / "picture.svg")
        text = target.read_text("utf-8")
        assert ("Confidence and accuracy" in text) == (part != "relations")
        assert ("What is related to what" in text) == (part != "reliability")
    again = plot_calibration(before, tmp_path / "again.svg")
    assert again.read_bytes() == target.read_bytes()
    assert plot_calibration(content, tmp_path / "picture.png").stat().st_size > 20_000
    with pytest.raises(InvalidArgumentError, match="neither"):
        plot_calibration({}, tmp_path / "nothing.png")
    with pytest.raises(InvalidArgumentError, match="mapping"):
        plot_calibration([], tmp_path / "nothing.png")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"\.png"):
        plot_calibration(content, tmp_path / "picture.jpg")
    assert not (tmp_path / "nothing.png").exists()
