"""`obverse robust` by a column of metadata and by clusters: noise and strengths follow these groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from obverse import cli
from obverse._core.files import read_json
from obverse.errors import InvalidArgumentError
from obverse.training import RobustChoices, train_robust
from obverse.training._sources import read_source


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """Two classes and two sensors that lie apart; a third of the labels of the cheap one, 60 of 300 rows, are wrong."""
    rng = np.random.default_rng(0)
    labels, cheap = np.arange(300) % 2, np.arange(300) >= 240
    points = rng.normal(size=(300, 4)) + 5 * np.outer(labels, [1, 0, 0, 0]) + 12 * np.outer(cheap, [0, 1, 0, 0])
    given = np.where(cheap & (rng.random(300) < 1 / 3), 1 - labels, labels)
    path = tmp_path / "readings.csv"
    lines = ["a,b,sensor,c,d,label"]
    for (a, b, c, d), is_cheap, label in zip(points, cheap, given, strict=True):
        lines.append(f"{a:.4f},{b:.4f},{'cheap' if is_cheap else 'good'},{c:.4f},{d:.4f},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("groups", ["column:sensor", "clusters:2"])
def test_strengths_follow_the_groups(readings: Path, tmp_path: Path, groups: str) -> None:
    if groups != "column:sensor":  # words are no numbers
        readings.write_text(readings.read_text().replace("cheap", "0").replace("good", "0"))
    choices = RobustChoices(data=str(readings), epochs=8, batch_size=16, threads=1, groups=groups)
    result = train_robust(choices, tmp_path / "run")
    by_rows = sorted(result.stages.noise.rows, key=lambda row: row.count)
    assert [row.count for row in by_rows] == pytest.approx([43, 173], abs=4)
    assert by_rows[0].noise > 0.2 > 0.1 > by_rows[1].noise
    assert sorted(result.stages.strengths.tolist())[0] < 0.4
    record = read_json(tmp_path / "run" / "robust.json")
    names = {"column:sensor": ["cheap", "good"], "clusters:2": ["cluster 0", "cluster 1"]}[groups]
    assert [row["group"] for row in record["test"]["rows"]] == names
    assert sum(row["count"] for row in record["test"]["rows"]) == record["data"]["test"]
    assert sum(row["train_count"] for row in record["test"]["rows"]) == record["data"]["train"]
    assert record["data"]["input_shape"] == ([4] if groups == "column:sensor" else [5])


def test_the_command_takes_a_column_of_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    words = {"good": ["great", "fine"], "bad": ["awful", "poor"]}
    lines = ["text,site,label"]
    for place in range(80):
        label = ("good", "bad")[place % 2]
        lines.append(
            f"{rng.choice(words[label])} room and {rng.choice(words[label])} staff,{'ab'[place % 3 == 0]},{label}"
        )
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(lines) + "\n")
    options = ["--data", str(path), "--model", "text-bag", "--groups", "column:site", "--epochs", "2", "--threads", "1"]
    result = CliRunner().invoke(cli.app, ["robust", *options, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert [row["group"] for row in read_json(tmp_path / "run" / "robust.json")["test"]["rows"]] == ["a", "b"]
    refused = CliRunner().invoke(
        cli.app, ["robust", *options[:4], "--groups", "clusters:2", "--out", str(tmp_path / "other")]
    )
    assert refused.exit_code != 0
    assert "texts" in str(refused.exception)
    assert not (tmp_path / "other").exists()


def test_groups_travel_with_their_rows(readings: Path) -> None:
    source = read_source(str(readings), metadata="sensor")
    assert source.train.inputs.shape == (300, 4)
    assert source.train.groups is not None
    assert (source.train.groups == np.where(np.arange(300) >= 240, "cheap", "good")).all()
    folder = readings.parent / "split"
    folder.mkdir()
    text = readings.read_text()
    (folder / "train.csv").write_text(text)
    (folder / "test.csv").write_text("a,b,sensor,c,d,label\n1,2,new,3,4,0\n")
    test = read_source(str(folder), metadata="sensor").test
    assert test is not None
    assert test.groups is not None
    assert test.groups.tolist() == ["new"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("sensor", "groups must be"),
        ("classes:2", "groups must be"),
        ("column:", "groups must be"),
        ("clusters:two", "number of clusters"),
        ("clusters:0", "number of clusters"),
        ("clusters:5000", "clusters must be"),
        ("column:place", "column of groups"),
        ("column:label", "column of groups"),
    ],
)
def test_bad_groups_leave_no_folder(readings: Path, tmp_path: Path, groups: str, message: str) -> None:
    readings.write_text(readings.read_text().replace("cheap", "0").replace("good", "0"))
    with pytest.raises(InvalidArgumentError, match=message):
        train_robust(RobustChoices(data=str(readings), groups=groups), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_table_has_no_column(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is no table"):
        train_robust(RobustChoices(data="digits", groups="column:hospital"), tmp_path / "run")
