"""What ``obverse fit`` and ``obverse predict`` do with odd tables, damaged models and full disks."""

from __future__ import annotations

import csv
import json
import os
import stat
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

pytest.importorskip("pyarrow")
pytest.importorskip("jinja2")


def write_csv(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def call(*words: Any) -> Any:
    """The command in this process; a refusal comes out as the error itself."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def fitted(path: Path, columns: dict[str, Any], *words: Any, target: str = "y") -> Path:
    """Fit a table that is written beside ``path``, the folder of the fit."""
    data = write_csv(path.with_suffix(".csv"), columns)
    call("fit", data, "--target", target, "--penalty", "lasso", *words, "--out", path)
    return path


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 4))
    y = 2 * X[:, 0] - X[:, 2] + 0.1 * rng.normal(size=rows)
    return {**{f"x{j}": X[:, j].tolist() for j in range(4)}, "y": y.tolist()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------- units
@pytest.mark.parametrize("scale", [1e100, 1e-100, 1e140, 1e-140])
def test_units_of_the_columns_do_not_matter(scale: float, tmp_path: Path) -> None:
    columns = table()
    expected = record_of(fitted(tmp_path / "plain", columns))["test"]["predicted"]
    scaled = {**columns, "y": np.asarray(columns["y"]) * scale}
    found = record_of(fitted(tmp_path / "target", scaled))["test"]["predicted"]
    np.testing.assert_allclose(np.array(found) / scale, expected, rtol=1e-4)
    scaled = {name: np.asarray(values) * (1 if name == "y" else scale) for name, values in columns.items()}
    record = record_of(fitted(tmp_path / "features", scaled))
    np.testing.assert_allclose(record["test"]["predicted"], expected, rtol=1e-4)
    assert all(0 < row["keep_probability"] <= 1 for row in record["features"])


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300, 1e-300])
@pytest.mark.parametrize("column", ["y", "x1"])
def test_numbers_whose_squares_have_no_number_are_refused(column: str, scale: float, tmp_path: Path) -> None:
    columns = table()
    columns[column] = np.asarray(columns[column]) * scale
    for loss in ("squared", "huber"):
        with pytest.raises(InvalidArgumentError, match=f"column '{column}' reach .* leave the range of a double"):
            fitted(tmp_path / "out", columns, "--loss", loss)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e305])
def test_the_unit_of_weights_does_not_matter(scale: float, tmp_path: Path) -> None:
    weights = np.arange(60) % 3 + 1.0
    plain = record_of(fitted(tmp_path / "plain", {**table(), "w": weights}, "--weights", "w"))
    found = record_of(fitted(tmp_path / "scaled", {**table(), "w": weights * scale}, "--weights", "w"))
    np.testing.assert_allclose(found["test"]["predicted"], plain["test"]["predicted"], rtol=1e-5)
    for one, other in zip(found["test"]["measures"], plain["test"]["measures"], strict=True):
        assert one["model"] == pytest.approx(other["model"], rel=1e-4)
    for one, other in zip(found["features"], plain["features"], strict=True):
        assert one["keep_probability"] == pytest.approx(other["keep_probability"], rel=1e-4)


# ------------------------------------------------------------------------------------------------- rows
def test_a_constant_target_is_predicted(tmp_path: Path) -> None:
    record = record_of(fitted(tmp_path / "constant", {**table(), "y": [3.5] * 60}))
    assert record["features"] == []
    assert record["test"]["predicted"] == [3.5] * 12


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (1, ("--test-fraction", 0), "1 training row is too few for 5 folds"),
        (2, ("--test-fraction", 0), "2 training rows are too few for 5 folds"),
        (9, (), "7 training rows are too few for 5 folds"),
        (1, ("--test-fraction", 0, "--criterion", "bic"), "1 training row is too few for --criterion bic"),
        (3, ("--test-fraction", 0, "--criterion", "stability"), "3 training rows are too few"),
        (60, ("--test-fraction", 0.999), "1 training row is too few"),
        (60, ("--seed", 2**32 - 1, "--folds", 100), "48 training rows are too few for 100 folds"),
    ],
)
def test_too_few_rows_are_refused(rows: int, options: tuple[Any, ...], message: str, tmp_path: Path) -> None:
    columns = {name: values[:rows] for name, values in table().items()}
    with pytest.raises(InvalidArgumentError, match=message):
        fitted(tmp_path / "few", columns, *options)
    assert not (tmp_path / "few").exists()


def test_bounds_that_do_not_bind(tmp_path: Path) -> None:
    two = {name: values[:2] for name, values in table().items()}
    out = fitted(tmp_path / "two", two, "--test-fraction", 0, "--criterion", "bic")
    assert record_of(out)["data"]["train"] == 2
    assert record_of(fitted(tmp_path / "many", table(), "--features", 10**21))["model"]["selected"] <= 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1] + [1] * 59, "must be finite numbers, at least 0"),
        (["inf"] + [1] * 59, "must be finite numbers, at least 0"),
        (["nan"] + [1] * 59, r"missing values in 'w' \(1\)"),
        (["a"] * 60, "must be finite numbers, at least 0"),
        ([0] * 60, "are 0 in all rows"),
        ([1] + [0] * 59, "weights 'w' are 0 in all training rows|all rows that a fold trains on"),
    ],
    ids=["negative", "infinite", "nan", "text", "zero", "one row"],
)
def test_weights_that_cannot_be(weights: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        fitted(tmp_path / "out", {**table(), "w": weights}, "--weights", "w")
    assert not (tmp_path / "out").exists()


def test_rows_that_are_left_out_are_said(tmp_path: Path) -> None:
    gaps = ["" if i % 7 == 0 else value for i, value in enumerate(table()["y"])]
    path = write_csv(tmp_path / "t.csv", {**table(), "y": gaps})
    with pytest.raises(InvalidArgumentError, match=r"missing values in 'y' \(9\).*never filled in; use --missing drop"):
        call("fit", path, "--target", "y", "--missing", "median", "--out", tmp_path / "out")
    done = call("fit", path, "--target", "y", "--penalty", "lasso", "--missing", "drop", "--out", tmp_path / "out")
    assert "60 rows (9 with missing values left out)" in done.output


# ------------------------------------------------------------------------------------------------- names
def test_columns_of_one_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", {**table(), "z": [1] * 60})
    body = path.read_text().split("\n", 1)[1]
    for head, message in (
        ("x0,x0,x2,x3,y,z", "columns 1 and 2 have the same name 'x0'"),
        ("x0,x1,y,x3,y,z", "columns 3 and 5 have the same name 'y'"),
        ("x0,x1,,x3,y,", "columns 3 and 6 have the same name ''"),
    ):
        path.write_text(f"{head}\n{body}")
        with pytest.raises(InvalidArgumentError, match=message):
            call("fit", path, "--target", "y", "--out", tmp_path / "out")
    path.write_text(f"x0,q,x2,q,y,z\n{body}")
    call("fit", path, "--target", "y", "--penalty", "lasso", "--drop", "q", "--out", tmp_path / "out")
    call("predict", tmp_path / "out", path, "--out", tmp_path / "p.csv")
    assert len(rows_of(tmp_path / "p.csv")) == 60


NAMES = ["", "[/b]", "a\0b", "a\nb", 'q"q', "=1+1", "@cmd", "[red]x", "é☃", "a,b", "x" * 5000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:9]))
def test_names_are_kept_as_they_are(name: str, tmp_path: Path) -> None:
    columns = {name if key == "x0" else key: values for key, values in table().items()}
    out = fitted(tmp_path / "feature", columns)
    assert record_of(out)["features"][0]["name"] == name
    assert rows_of(out / "features.csv")[0]["feature"] == name
    call("predict", out, tmp_path / "feature.csv", "--out", tmp_path / "p.csv")
    assert len(rows_of(tmp_path / "p.csv")) == 60
    with pytest.raises(InvalidArgumentError, match="1 infinite value") as caught:
        fitted(tmp_path / "gap", {**columns, name: ["inf", *columns[name][1:]]})
    assert "\n" not in str(caught.value)
    # The same as the name of the target, and as a class; an option cannot be an empty text.
    columns = {name if key == "y" else key: values for key, values in table().items()}
    if name:
        assert record_of(fitted(tmp_path / "target", columns, target=name))["data"]["target"] == name
        labels = np.where(np.asarray(table()["y"]) > 0, name, "other")
        out = fitted(tmp_path / "class", {**table(), "y": labels})
        call("predict", out, tmp_path / "class.csv", "--probabilities", "--out", tmp_path / "c.csv")
        rows = rows_of(tmp_path / "c.csv")
        assert {row["prediction"] for row in rows} == {name, "other"}
        assert f"probability[{name}]" in rows[0]


def test_classes_that_are_no_plain_labels(tmp_path: Path) -> None:
    large = [2**60 + i % 2 for i in range(60)]
    for values in (large, [0.5 * (i % 2) for i in range(60)]):
        with pytest.raises(InvalidArgumentError, match="text with --categorical y"):
            fitted(tmp_path / "out", {**table(), "y": values}, "--task", "classification")
    out = fitted(tmp_path / "out", {**table(), "y": large}, "--categorical", "y")
    assert record_of(out)["data"]["classes"] == [str(2**60), str(2**60 + 1)]


# ------------------------------------------------------------------------------------------------- predictions
def test_tables_that_cannot_be_predicted(tmp_path: Path) -> None:
    columns = {**table(), "b": ["true", "false"] * 30, "c": ["u", "v", "w"] * 20}
    y = np.asarray(columns["y"]) + 3 * (np.array(columns["b"]) == "true")
    columns["y"] = y + 2 * (np.array(columns["c"]) == "v")
    out = fitted(tmp_path / "out", columns)
    assert {"b", "c=v", "x0"} <= {row["name"] for row in record_of(out)["features"]}
    few = {name: list(values[:3]) for name, values in columns.items()}
    for change, message in (
        ({"x0": ["", 1, 2]}, r"missing values in 'x0' \(1\), of 3 rows; mend them"),
        ({"x0": ["inf", 1, 2]}, "1 infinite value, in row 1; mend it"),
        ({"x0": ["a", 1, 2]}, "holds number values in training, and here string such as 'a'"),
        ({"b": [0, 5, 1]}, "holds truth values in training, and here 5 in row 2"),
    ):
        path = write_csv(tmp_path / "few.csv", {**few, **change})
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            call("predict", out, path, "--out", tmp_path / "p.csv")
        assert "--" not in str(caught.value)  # this command has no such option
        assert not (tmp_path / "p.csv").exists()


def test_predictions_out_of_range_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = fitted(tmp_path / "out", table())
    few = {name: list(values[:3]) for name, values in table().items()}
    done = call("predict", out, write_csv(tmp_path / "huge.csv", {**few, "x0": [1e308, -1e308, 1]}), "--out", "-")
    said = done.output + done.stderr + capfd.readouterr().err
    assert "2 predictions are beyond the range of a double" in said
    assert done.stdout.splitlines()[-3:-1] == ["inf", "-inf"]


def test_models_that_are_damaged_or_foreign(tmp_path: Path) -> None:
    out = fitted(tmp_path / "out", table())
    content = (out / "model.safetensors").read_bytes()
    changed = bytearray(content)
    changed[-5] ^= 4
    for bad, message in (
        (bytes(changed), "is damaged: its content does not match its digest"),
        (content[:-40], "cannot read|is damaged"),
        (content[:100], "cannot read"),
        (b"", "cannot read"),
        (b"PK\x03\x04" + content, "cannot read"),
    ):
        (out / "model.safetensors").write_bytes(bad)
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            call("predict", out, tmp_path / "out.csv", "--out", tmp_path / "p.csv")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "p.csv").exists()


# ------------------------------------------------------------------------------------------------- files
def test_the_results_of_a_fit_are_replaced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file is the one that cannot be written, all old ones stay."""
    out = fitted(tmp_path / "out", table())
    command = ("fit", tmp_path / "out.csv", "--target", "y", "--out", out, "--overwrite", "--penalty", "mcp")
    before, synchronize = contents(out), os.fsync
    for broken in range(1, 5):
        calls: list[int] = []

        def full(descriptor: int, calls: list[int] = calls, broken: int = broken) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return
            calls.append(descriptor)
            if len(calls) == broken:
                raise OSError(28, "No space left on device")
            synchronize(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            call(*command)
        monkeypatch.undo()
        assert contents(out) == before
    call(*command)
    assert all(content != before[name] for name, content in contents(out).items())


def test_a_fit_that_finished_first_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fits into one folder, neither of which finds anything there when it begins."""
    from obverse.linear import _table_fit

    linear_model = _table_fit.linear_model

    def slow(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        fitted(tmp_path / "out", table())
        return linear_model(*args, **kwargs)

    monkeypatch.setattr(_table_fit, "linear_model", slow)
    with pytest.raises(InvalidArgumentError, match="is not empty"):
        fitted(tmp_path / "out", table(), "--criterion", "bic")
    assert record_of(tmp_path / "out")["settings"]["criterion"] == "cv"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the limit on files is that of a shell")
def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    out = fitted(tmp_path / "out", table())
    before = contents(out)
    (tmp_path / "p.csv").write_text("old")
    rows = write_csv(tmp_path / "rows.csv", {name: list(values) * 20 for name, values in table().items()})
    fit = f"fit {tmp_path / 'out.csv'} --target y --penalty mcp"
    for command in (
        f"{fit} --out new",
        f"{fit} --out {out} --overwrite",
        f"predict {out} {rows} --overwrite --out {tmp_path / 'p.csv'}",
    ):
        script = f'trap "" XFSZ; ulimit -f 8; {sys.executable} -m obverse.cli {command}'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=240, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("obverse: cannot write")
        assert done.stderr.count("\n") == 1
        assert contents(out) == before
        assert (tmp_path / "p.csv").read_text() == "old"
        assert not (tmp_path / "new").exists()
