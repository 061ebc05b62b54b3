"""Whole journeys of ``obverse fit`` and ``obverse predict``, from a file on disk to predictions on disk."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from obverse import cli
from obverse.errors import InvalidArgumentError
from obverse.linear._model_file import load_model
from obverse.linear._table import read_table

pytest.importorskip("pyarrow")
pytest.importorskip("jinja2")

FILES = ["features.csv", "model.safetensors", "record.json", "report.html"]


def write_csv(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def table(rows: int = 160, features: int = 8, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * np.geomspace(0.1, 10, features)
    return {f"x{j}": X[:, j] for j in range(features)}


def call(*words: Any) -> Any:
    """The command in this process; a refusal comes out as the error itself."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def record_of(folder: Path) -> dict[str, Any]:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def regression(tmp_path: Path) -> Path:
    columns = table()
    noise = np.random.default_rng(1).normal(size=160)
    columns["y"] = 30 * columns["x0"] - 2 * columns["x5"] + 10 + 0.5 * noise
    return write_csv(tmp_path / "line.csv", columns)


def test_a_regression_from_file_to_predictions(regression: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("fit", regression, "--target", "y", "--penalty", "mcp", "--out", out)
    record = record_of(out)
    assert record["task"] == "regression"
    assert record["penalty"]["name"] == "mcp"
    assert [row["name"] for row in record["features"]] == ["x5", "x0"]
    assert record["data"]["train"] == 128
    assert record["data"]["test"] == 32
    measures = {row["name"]: row for row in record["test"]["measures"]}
    assert measures["root mean squared error"]["model"] < 0.7
    assert measures["root mean squared error"]["null"] > 5
    assert measures["R²"]["model"] > 0.98
    for words in ("x0", "x5", "scaled importance", "keep probability", "without features", "held-out", "report.html"):
        assert words in done.output
    assert "x1" not in done.output
    page = (out / "report.html").read_text()
    assert "y in line.csv" in page

    features = rows_of(out / "features.csv")
    assert [row["feature"] for row in features] == ["x5", "x0"]
    assert abs(float(features[1]["coefficient"]) - 30) < 2
    assert all(0 < float(row["keep_probability"]) <= 1 for row in features)

    predictions = tmp_path / "predictions.csv"
    call("predict", out, regression, "--out", predictions)
    predicted = np.array([float(row["prediction"]) for row in rows_of(predictions)])
    model = load_model(out / "model.safetensors")
    columns = read_table(regression).columns
    by_hand = columns["x0"].values * model.coef[0] + columns["x5"].values * model.coef[5] + model.intercept
    np.testing.assert_allclose(predicted, by_hand, rtol=1e-12)
    np.testing.assert_array_equal(
        predicted, model.predict(np.column_stack([columns[f"x{j}"].values for j in range(8)]))
    )
    # What the record says of the held-out rows is what the stored model does on them.
    held = [float(value) for value in record["test"]["predicted"]]
    assert set(held) <= set(predicted.tolist())


def test_the_model_is_that_of_the_estimator(regression: Path, tmp_path: Path) -> None:
    from obverse.linear import SparseRegressorCV

    call("fit", regression, "--target", "y", "--penalty", "lasso", "--out", tmp_path / "out", "--test-fraction", 0)
    model = load_model(tmp_path / "out" / "model.safetensors")
    columns = read_table(regression).columns
    X = np.asfortranarray(np.column_stack([columns[f"x{j}"].values for j in range(8)]))
    own = SparseRegressorCV("lasso", shapes="auto", cv=5, standardize=True, random_state=0).fit(X, columns["y"].values)
    # Sums over rows depend on where in memory they begin, in the last bit.
    np.testing.assert_allclose(model.predict(X), own.predict(X), rtol=1e-12)
    assert model.alpha == pytest.approx(own.alpha_, rel=1e-12)
    record = record_of(tmp_path / "out")
    assert record["test"] is None
    assert record["data"]["test"] == 0


def test_a_classification_by_text(tmp_path: Path) -> None:
    columns = table(200)
    noise = np.random.default_rng(2).logistic(size=200)
    columns["label"] = np.where(20 * columns["x0"] + columns["x5"] + 0.5 * noise > 0, "good", "bad")
    path = write_csv(tmp_path / "two.csv", columns)
    out = tmp_path / "out"
    done = call("fit", path, "--target", "label", "--penalty", "mcp", "--out", out)
    record = record_of(out)
    assert record["task"] == "classification"
    assert record["loss"] == "logistic"
    assert record["data"]["classes"] == ["bad", "good"]
    errors = {row["name"]: row for row in record["test"]["measures"]}
    assert errors["error rate"]["model"] < 0.2 < errors["error rate"]["null"]
    assert np.sum(record["test"]["confusion"]) == record["test"]["rows"]
    assert "because the target is not a number" in done.output

    call("predict", out, path, "--out", tmp_path / "p.csv", "--probabilities")
    rows = rows_of(tmp_path / "p.csv")
    shares = np.array([[float(row["probability[bad]"]), float(row["probability[good]"])] for row in rows])
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert [row["prediction"] for row in rows] == [["bad", "good"][int(good > bad)] for bad, good in shares]


def test_three_classes_in_whole_numbers(tmp_path: Path) -> None:
    columns = table(240)
    columns["y"] = np.digitize(columns["x7"] / 10 + 0.1 * columns["x0"], [-0.4, 0.4]) + 4
    path = write_csv(tmp_path / "three.csv", columns)
    out = tmp_path / "out"
    done = call("fit", path, "--target", "y", "--penalty", "lasso", "--out", out)
    record = record_of(out)
    assert record["loss"] == "multinomial"
    assert "because the target has 3 whole values" in done.output
    assert record["test"]["measures"][0]["model"] < 0.3
    head = (out / "features.csv").read_text().splitlines()[0]
    assert head.startswith("feature,coefficient[4],coefficient[5],coefficient[6],importance")
    call("predict", out, path, "--out", tmp_path / "p.csv")
    predicted = [int(row["prediction"]) for row in rows_of(tmp_path / "p.csv")]
    assert np.mean(np.array(predicted) == columns["y"]) > 0.7
    call("fit", path, "--target", "y", "--penalty", "lasso", "--out", tmp_path / "r", "--task", "regression")
    assert record_of(tmp_path / "r")["task"] == "regression"


def test_counts(tmp_path: Path) -> None:
    columns = table(300)
    rate = np.exp(3 * columns["x0"] + 0.5)
    columns["claims"] = np.random.default_rng(3).poisson(rate)
    path = write_csv(tmp_path / "counts.csv", columns)
    out = tmp_path / "out"
    call("fit", path, "--target", "claims", "--loss", "poisson", "--penalty", "lasso", "--out", out)
    record = record_of(out)
    assert record["loss"] == "poisson"
    assert record["features"][0]["name"] == "x0"
    first = record["test"]["measures"][0]
    assert first["name"] == "mean Poisson deviance"
    assert first["model"] < first["null"]
    call("predict", out, path, "--out", tmp_path / "p.csv")
    assert all(float(row["prediction"]) > 0 for row in rows_of(tmp_path / "p.csv"))
    with pytest.raises(InvalidArgumentError, match="negative values"):
        call("fit", path, "--target", "x0", "--loss", "poisson", "--out", tmp_path / "o")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Numbers, text, truth values and gaps."""
    rng = np.random.default_rng(4)
    columns = table(200)
    city = np.array(["Rome", "Oslo", "Lima"])[rng.integers(0, 3, 200)]
    member = rng.integers(0, 2, 200).astype(bool)
    columns["y"] = 5 * (city == "Oslo") + 3 * member + 10 * columns["x0"] + 0.3 * rng.normal(size=200)
    columns["x0"] = [f"{value!r}" if i % 25 else "" for i, value in enumerate(columns["x0"].tolist())]
    columns["city"] = [str(name) if i % 40 != 7 else "NA" for i, name in enumerate(city)]
    columns["member"] = ["true" if value else "false" for value in member]
    return write_csv(tmp_path / "mixed.csv", columns)


def test_categories_and_gaps(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"missing values in 'x0' \(8\), 'city' \(5\), of 200 rows"):
        call("fit", mixed, "--target", "y", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()

    filled, dropped = tmp_path / "filled", tmp_path / "dropped"
    call("fit", mixed, "--target", "y", "--penalty", "lasso", "--missing", "median", "--out", filled)
    call("fit", mixed, "--target", "y", "--penalty", "lasso", "--missing", "drop", "--out", dropped)
    assert record_of(filled)["data"]["dropped_rows"] == 0
    assert record_of(dropped)["data"]["dropped_rows"] == 13
    for folder in (filled, dropped):
        names = [row["name"] for row in record_of(folder)["features"]]
        assert {"city=Oslo", "member", "x0"} <= set(names)

    call("predict", filled, mixed, "--out", tmp_path / "f.csv")
    call("predict", dropped, mixed, "--out", tmp_path / "d.csv")
    whole, partly = rows_of(tmp_path / "f.csv"), rows_of(tmp_path / "d.csv")
    assert len(whole) == len(partly) == 200
    assert all(row["prediction"] for row in whole)
    assert [i for i, row in enumerate(partly) if not row["prediction"]] == [
        i for i in range(200) if i % 25 == 0 or i % 40 == 7
    ]


def test_unknown_categories_are_remarked(mixed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    call("fit", mixed, "--target", "y", "--penalty", "lasso", "--missing", "median", "--out", out)
    other = write_csv(tmp_path / "other.csv", {**table(3), "city": ["Oslo", "Bonn", "Bonn"], "member": ["true"] * 3})
    done = call("predict", out, other, "--out", "-")
    assert "column 'city': 2 rows have a category that training did not have, such as 'Bonn'" in (
        done.output + done.stderr + capfd.readouterr().err
    )
    assert done.stdout.startswith("prediction\n")


def test_only_the_columns_of_the_model_are_needed(regression: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("fit", regression, "--target", "y", "--penalty", "mcp", "--out", out)
    few = write_csv(tmp_path / "few.csv", {"x5": [1.5, -2], "x0": [0.25, 1]})
    call("predict", out / "model.safetensors", few, "--out", tmp_path / "p.csv")
    model = load_model(out / "model.safetensors")
    expected = np.array([1.5, -2]) * model.coef[5] + np.array([0.25, 1]) * model.coef[0] + model.intercept
    np.testing.assert_allclose([float(row["prediction"]) for row in rows_of(tmp_path / "p.csv")], expected, rtol=1e-12)
    poor = write_csv(tmp_path / "poor.csv", {"x5": [1.5], "other": [1]})
    with pytest.raises(InvalidArgumentError, match="lacks the column 'x0'; it has x5, other"):
        call("predict", out, poor, "--out", tmp_path / "q.csv")
    assert not (tmp_path / "q.csv").exists()


def test_weights_and_dropped_columns(tmp_path: Path) -> None:
    columns = table(120)
    columns["y"] = 10 * columns["x0"] + np.random.default_rng(5).normal(size=120)
    columns["id"] = [f"row {i}" for i in range(120)]
    # Rows of weight zero that would ruin the fit.
    columns["w"] = [0 if i % 4 == 0 else 2 for i in range(120)]
    columns["y"] = np.where(np.array(columns["w"]) == 0, 1e3, columns["y"])
    path = write_csv(tmp_path / "weighted.csv", columns)
    out = tmp_path / "out"
    call(
        "fit", path, "--target", "y", "--penalty", "mcp", "--weights", "w", "--drop", "id", "--drop", "x7", "--out", out
    )
    record = record_of(out)
    assert record["features"][0]["name"] == "x0"
    assert abs(record["features"][0]["coefficient"] - 10) < 2
    assert record["test"]["measures"][0]["model"] < 3
    names = load_model(out / "model.safetensors").feature_names
    assert names == tuple(f"x{j}" for j in range(7))


def test_several_penalties_and_the_other_options(regression: Path, tmp_path: Path) -> None:
    out = tmp_path / "several"
    call("fit", regression, "--target", "y", "--penalty", "lasso,mcp", "--folds", 3, "--rule", "1se", "--out", out)
    record = record_of(out)
    assert {row["name"].split(":")[0] for row in record["candidates"]} == {"lasso", "mcp"}
    assert sum(row["chosen"] for row in record["candidates"]) == 1
    one = tmp_path / "one"
    call("fit", regression, "--target", "y", "--penalty", "mcp", "--features", 1, "--out", one)
    assert [row["name"] for row in record_of(one)["features"]] == ["x5"]
    for criterion in ("bic", "ebic", "stability"):
        folder = tmp_path / criterion
        call("fit", regression, "--target", "y", "--penalty", "mcp", "--criterion", criterion, "--out", folder)
        assert {row["name"] for row in record_of(folder)["features"]} == {"x0", "x5"}
    plain = tmp_path / "plain"
    call("fit", regression, "--target", "y", "--penalty", "lasso", "--no-standardize", "--out", plain)
    assert record_of(plain)["settings"]["standardize"] is False


def test_the_same_command_gives_the_same_numbers(regression: Path, tmp_path: Path) -> None:
    models = []
    for name in ("a", "b"):
        call("fit", regression, "--target", "y", "--penalty", "scad", "--out", tmp_path / name, "--seed", 3)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_what_is_there_is_not_overwritten(regression: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("fit", regression, "--target", "y", "--penalty", "lasso", "--out", out)
    call(*command)
    (out / "notes.txt").write_text("mine")
    before = (out / "record.json").read_bytes()
    with pytest.raises(InvalidArgumentError, match=r"is not empty.*--overwrite"):
        call(*command)
    assert (out / "record.json").read_bytes() == before
    call(*command, "--overwrite")
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match="is a file"):
        call("fit", regression, "--target", "y", "--out", tmp_path / "file")
    (tmp_path / "p.csv").write_text("mine")
    with pytest.raises(InvalidArgumentError, match="is there already"):
        call("predict", out, regression, "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "mine"
    call("predict", out, regression, "--out", tmp_path / "p.csv", "--overwrite")
    assert len(rows_of(tmp_path / "p.csv")) == 160


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "z"], "unknown target column in .* 'z'"),
        (["--target", "y", "--weights", "v"], "unknown weights column"),
        (["--target", "y", "--weights", "x2"], "weights 'x2' must be finite numbers, at least 0"),
        (["--target", "y", "--weights", "y"], "'y' is the target"),
        (["--target", "y", "--drop", "q"], "unknown dropped column"),
        (["--target", "y", "--drop", "y"], "'y' is the target"),
        (["--target", "y", "--penalty", "mcpp"], "unknown penalty 'mcpp'; did you mean 'mcp'"),
        (["--target", "y", "--penalty", "mcp:gamma=3"], "no parameter gamma"),
        (["--target", "y", "--penalty", ","], "give a penalty"),
        (["--target", "y", "--task", "ranking"], "task must be one of regression, classification"),
        (["--target", "y", "--task", "classification"], "classes in 160 rows"),
        (["--target", "y", "--loss", "hinge"], "loss must be one of"),
        (["--target", "y", "--loss", "poisson"], "negative values"),
        (["--target", "y", "--task", "regression", "--loss", "logistic"], "for classification"),
        (["--target", "y", "--criterion", "aic"], "criterion must be one of cv, bic, ebic, stability"),
        (["--target", "y", "--rule", "max"], "rule must be one of min, 1se"),
        (["--target", "y", "--missing", "zero"], "missing must be one of"),
        (["--target", "y", "--shapes", "round"], "shapes must be one of auto, given"),
        (["--target", "y", "--folds", "1"], "folds must be at least 2"),
        (["--target", "y", "--features", "0"], "features must be at least 1"),
        (["--target", "y", "--test-fraction", "1"], "test fraction must be"),
        (["--target", "y", "--test-fraction", "0.97"], "too few for 5 folds"),
        (["--target", "y", "--seed", "-1"], "seed must be"),
    ],
    ids=lambda value: " ".join(value[2:] or value) if isinstance(value, list) else "",
)
def test_refusals_write_nothing(options: list[str], message: str, regression: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        call("fit", regression, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    columns = {"x": list(range(30)), "one": ["a"] * 30, "gap": ["", *range(29)], "text": [f"t{i}" for i in range(30)]}
    path = write_csv(tmp_path / "odd.csv", columns)
    for options, message in (
        (["--target", "one", "--drop", "text", "--drop", "gap"], "has the one class a"),
        (["--target", "gap", "--drop", "text"], r"missing values in 'gap' \(1\)"),
        (["--target", "gap", "--drop", "text", "--missing", "median"], r"missing values in 'gap' \(1\)"),
        (["--target", "one", "--task", "regression", "--drop", "gap"], "holds text such as 'a'"),
        (["--target", "text", "--drop", "gap"], "30 classes in 30 rows"),
        (["--target", "x", "--drop", "one", "--drop", "gap", "--drop", "text"], "no column besides the target"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            call("fit", path, "--out", tmp_path / "out", *options)


def documented() -> list[tuple[str, str]]:
    """The commands of the guide's examples, each with what the guide says that it prints."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "fit-command.md").read_text()
    text = guide[guide.index("## An example") : guide.index("## What is read")]
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for part in block.split("$ ")[1:]:
            # A quoted command may go on over lines.
            end = part.index('"', part.index('"') + 1) + 1 if part.startswith("python") else part.index("\n")
            found.append((part[:end], part[end:].strip()))
    return found


def test_the_guide_prints_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    commands = documented()
    assert len(commands) == 6
    for command, expected in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": paths, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        given, said = done.stdout.split(), expected.split()
        assert len(given) == len(said), done.stdout
        for word, other in zip(given, said, strict=True):
            try:
                # Machines may differ in late digits.
                assert float(word.rstrip("%")) == pytest.approx(float(other.rstrip("%")), rel=1e-3, abs=1e-3), word
            except ValueError:
                assert word == other or set(word) <= set("┏━┳┓┡╇┩└─┴┘")


@pytest.mark.slow
def test_real_processes(regression: Path, tmp_path: Path) -> None:
    def run(*words: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "obverse.cli", *(str(word) for word in words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)

    fitted = run("fit", regression.name, "--target", "y", "--penalty", "mcp")
    assert fitted.returncode == 0, fitted.stderr
    out = tmp_path / "runs" / "fit-line-y-mcp"
    record = record_of(out)
    assert record["command"] == "obverse fit line.csv --target y --penalty mcp"
    predicted = run("predict", out, regression.name)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout == "predictions.csv: 160 predictions\n"
    again = run("fit", regression.name, "--target", "y", "--penalty", "mcp")
    assert again.returncode == 2
    assert again.stderr.startswith("obverse: output folder runs/fit-line-y-mcp is not empty")
    assert again.stderr.count("\n") == 1
    broken = run("predict", regression.name, regression.name, "--out", "other.csv")
    assert broken.returncode == 2
    assert "cannot read line.csv" in broken.stderr
