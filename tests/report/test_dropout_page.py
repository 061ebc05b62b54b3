"""The page of a diagnosis: whatever the record holds, one valid, self-contained, escaped document."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from page_document import Document
from torch import nn

from obverse.dropout import diagnose
from obverse.errors import InvalidArgumentError
from obverse.report import write_dropout


def record(stack: bool = False, labels: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator)
    y = torch.arange(60) % 4 if labels else x @ torch.randn(5, 4, generator=generator)
    torch.manual_seed(0)
    between = [nn.Dropout(0.2)] if stack else [nn.ReLU(), nn.Dropout(0.2)]
    model = nn.Sequential(nn.Linear(5, 6), *between, nn.Linear(6, 6), nn.Dropout(0.4), nn.Linear(6, 4))
    return {
        "obverse": "0.1.0",
        "command": "obverse dropout diagnose run",
        "run": "runs/digits",
        "model": {"name": "mlp"},
        "data": {"name": "digits", "part": "test"},
        "diagnosis": diagnose(model, (x, y)).to_dict(),
        "recipe": {"model": "mlp", "epochs": 3},
        "versions": {"python": "3.12.1"},
    }


def written(content: Any, tmp_path: Path) -> tuple[str, Document]:
    page = write_dropout(content, tmp_path / "page.html").read_text("utf-8")
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


def test_every_section_of_a_last_layer(tmp_path: Path) -> None:
    page, document = written(record(), tmp_path)
    assert {"figures", "spectrum", "cost", "caveats", "provenance"} <= set(document.ids)
    for words in ("mlp on digits", "6 units and 4 outputs", "squared loss, exact", "fixed features", "free features"):
        assert words in document.text, words
    for words in (
        "Equalization gap",
        "read from '4' (Dropout)",
        "The layer has a bias",
        "equal shares",
        "last layer 5",
    ):
        assert words in document.text, words
    assert "Shares of the units" in document.text
    # Four singular values of four kinds.
    assert page.count('<path class="spot ') == 16
    assert page.count('<rect class="fill"') == 1


def test_a_linear_stack_has_a_bar_for_each_layer(tmp_path: Path) -> None:
    page, document = written(record(stack=True), tmp_path)
    assert page.count('<rect class="fill"') == 2
    assert "Least with free weights" in document.text
    assert "optimum" in document.text
    assert "fixed features" not in document.text


def test_units_without_a_share_are_counted(tmp_path: Path) -> None:
    content = record()
    content["diagnosis"]["unit_shares"] = {"5": [0.5, 0.0, 0.5, 0.0]}
    _, document = written(content, tmp_path)
    assert "2 units without a share are not drawn" in document.text


def test_other_losses_are_drawn_as_shares(tmp_path: Path) -> None:
    _, document = written(record(labels=True), tmp_path)
    assert "share of the sum" in document.text
    assert "cross-entropy loss, quadratic form" in document.text
    assert "Expected under dropout" not in document.text


@pytest.mark.parametrize("attack", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"])
def test_text_is_escaped(attack: str, tmp_path: Path) -> None:
    def spoil(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: spoil(value) for key, value in part.items()}
        if isinstance(part, list):
            return [spoil(item) for item in part]
        return attack if isinstance(part, str) else part

    content = spoil(record())
    shares = content["diagnosis"]["unit_shares"]
    content["diagnosis"]["unit_shares"] = {attack: next(iter(shares.values()))}
    content["diagnosis"]["layer_values"], content["versions"] = {attack: 1.0}, {attack: attack}
    page, document = written(content, tmp_path)
    assert document.tags.count("script") == 1
    assert "img" not in document.tags
    assert attack in document.text
    assert "<" not in attack or attack not in page


WRONG = (None, "text", [], {}, [None], math.nan, math.inf, -1, 0, True)


@pytest.mark.parametrize("place", range(len(WRONG)), ids=lambda place: repr(WRONG[place]))
def test_fields_of_a_wrong_shape_are_left_out(place: int, tmp_path: Path) -> None:
    content, wrong = record(), WRONG[place]
    # Every field meets a third of what is wrong: all pairs would say little more, and take long.
    for field in list(content["diagnosis"])[place % 3 :: 3]:
        written({**content, "diagnosis": {**content["diagnosis"], field: wrong}}, tmp_path)
    for field in list(content)[place % 3 :: 3]:
        written({**content, field: wrong}, tmp_path)
    for field in ("layer_values", "unit_shares"):
        written({**content, "diagnosis": {**content["diagnosis"], field: {"5": wrong}}}, tmp_path)


def test_almost_nothing_and_no_mapping(tmp_path: Path) -> None:
    _, document = written({}, tmp_path)
    assert "no results on record" in document.text
    for wrong in (None, [], "record.json"):
        with pytest.raises(InvalidArgumentError, match="mapping"):
            write_dropout(wrong, tmp_path / "page.html")  # type: ignore[arg-type]


def test_same_record_same_bytes(tmp_path: Path) -> None:
    content = record()
    before = copy.deepcopy(content)
    first = write_dropout(content, tmp_path / "a.html").read_bytes()
    assert write_dropout(before, tmp_path / "b" / "c.html").read_bytes() == first
    assert content == before
