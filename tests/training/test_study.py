"""The command `obverse sparsify`: what it writes, what it refuses, and that refusals write nothing."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from typer.testing import CliRunner

import obverse
from obverse import cli
from obverse._core.files import LOCK, read_json
from obverse.errors import InvalidArgumentError, NonFiniteError, ObverseError
from obverse.training import Recipe, build_model, results_table, run_recipe
from obverse.training._record import plain_json, t_interval

SOURCE = str(Path(obverse.__file__).parents[1])


def call(*options):
    return CliRunner().invoke(cli.app, ["sparsify", *options], catch_exceptions=True)


def names_in(folder):
    return {path.name for path in Path(folder).iterdir()} - {LOCK}


def options(fields):
    return [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]


def test_output_folder(quick, tmp_path):
    result = call(*options(quick()))
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert names_in(out) == {"checkpoint", "metrics.json", "model.safetensors", "recipe.yaml", "report.html"}
    metrics = read_json(out / "metrics.json", sealed=True)
    assert set(metrics) == {"obverse", "command", "recipe", "versions", "data", "model", "penalty", "runs", "summary"}
    assert metrics["data"]["classes"] == ["0", "1", "2"]
    assert metrics["data"]["train"] + metrics["data"]["validation"] + metrics["data"]["test"] == 150
    (run,) = metrics["runs"]
    assert [entry["epoch"] for entry in run["history"]] == list(range(1, 7))
    assert set(run["history"][0]) == {
        "epoch", "step", "train_loss", "train_accuracy", "validation_loss", "validation_error", "sparsity",
        "strength", "learning_rate", "phase",
    }  # fmt: skip
    assert run["trajectory"][-1]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    weights = sum(layer["weights"] for layer in run["layers"])
    nonzero = sum(layer["nonzero"] for layer in run["layers"])
    assert metrics["model"]["weights"] == weights == 6 * 128 + 128 * 64 + 64 * 3
    assert run["size"]["nonzero"] == nonzero == sum(run["weights_histogram"]["counts"])
    assert run["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert run["size"]["dense_bytes"] == 4 * metrics["model"]["parameters"]
    assert len(run["weights_histogram"]["edges"]) == len(run["weights_histogram"]["counts"]) + 1
    confusion = torch.tensor(run["test"]["confusion"])
    assert int(confusion.sum()) == metrics["data"]["test"]
    assert run["test"]["error"] == pytest.approx(1 - float(confusion.trace() / confusion.sum()))
    assert run["test"]["error"] < 0.2
    with safe_open(out / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["0", "1", "2"]
        model = build_model("mlp", (6,), 3)
        model.load_state_dict({key: file.get_tensor(key) for key in file.keys()}, strict=True)  # noqa: SIM118
    assert sum(int((p == 0).sum()) for p in model.parameters() if p.ndim == 2) == weights - nonzero
    assert "<html" in (out / "report.html").read_text().lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": "100%"},
        {"budget": "0"},
        {"penalty": "logsum"},
        {"penalty": "log-sum:epsilon=-1"},
        {"penalty": "log-sum:width=1"},
        {"face": "proximl"},
        {"groups": "wheights"},
        {"model": "lenet-5"},
        {"model": "nowhere.module:f"},
        {"data": "./absent.csv"},
        {"target": "absent"},
        {"epochs": "0"},
        {"augment": "flip"},
        {"optimizer": "adamm"},
        {"budget": "0.9", "strength": "1"},
        {"recipe": "absent.yaml"},
    ],
    ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()),
)
def test_refusals_write_nothing(quick, tmp_path, monkeypatch, capsys, changes):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    fields = quick(**changes)
    monkeypatch.setattr(sys, "argv", ["obverse", "sparsify", *options(fields)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("obverse: ")
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_bad_rows_write_nothing(quick, blobs, tmp_path):
    blobs.write_text(blobs.read_text().replace("\n", "\nx,1,1,1,1,1,0\n", 1))
    result = call(*options(quick()))
    assert isinstance(result.exception, ObverseError)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_left_alone(quick, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    recipe = Recipe.from_mapping(quick())
    with pytest.raises(InvalidArgumentError, match=r"not empty.*--out.*--resume.*--overwrite"):
        run_recipe(recipe)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    run_recipe(recipe.but(seeds=2), overwrite=True)
    assert (out / "seed-1").is_dir()
    run_recipe(recipe, overwrite=True)
    assert not (out / "seed-1").exists()
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(InvalidArgumentError, match="one of them"):
        run_recipe(recipe, overwrite=True, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match="is a file"):
        run_recipe(recipe.but(out=str(tmp_path / "file")))


def test_bad_recipe_keeps_the_run_it_would_overwrite(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick()))
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    with pytest.raises(ObverseError):
        run_recipe(Recipe.from_mapping(quick(penalty="nope")), overwrite=True)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("place", ["file/x", "/proc/nowhere", "~nobody-of-that-name/x"])
def test_folders_that_cannot_be_made(quick, tmp_path, monkeypatch, capsys, place):
    (tmp_path / "file").write_text("mine")
    out = place if place[0] in "/~" else str(tmp_path / place)
    monkeypatch.setattr(sys, "argv", ["obverse", "sparsify", *options(quick(out=out))])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("obverse: ")
    assert "output folder" in message
    assert "\n" not in message
    assert (tmp_path / "file").read_text() == "mine"


def test_what_the_disk_refuses_is_one_line(quick, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("obverse.report.write_report", full)
    monkeypatch.setattr(sys, "argv", ["obverse", "sparsify", *options(quick(epochs=1))])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    report = tmp_path / "out" / "report.html"
    assert capsys.readouterr().err.strip() == f"obverse: cannot write {report}: No space left on device"
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_report_that_fails_leaves_no_metrics(quick, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("obverse.report.write_report", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        run_recipe(Recipe.from_mapping(quick(epochs=1)))
    assert names_in(tmp_path / "out") == {"checkpoint", "model.safetensors", "recipe.yaml"}


def test_a_run_that_diverged_at_once_may_be_tried_again(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(optimizer="sgd", learning_rate=1e30, schedule="constant"))
    with pytest.raises(NonFiniteError):
        run_recipe(recipe)
    assert names_in(tmp_path / "out") == {"recipe.yaml"}
    with pytest.raises(NonFiniteError):
        run_recipe(recipe)
    assert run_recipe(recipe.but(learning_rate=0.01, epochs=1))["runs"]


def test_recipe_file_and_override_on_the_command_line(quick, tmp_path):
    call(*options(quick()))
    again = call("--recipe", str(tmp_path / "out" / "recipe.yaml"), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.output
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("out", "again"))
    assert first["runs"][0]["history"] == second["runs"][0]["history"]
    assert first["runs"][0]["test"] == second["runs"][0]["test"]


def test_resume_needs_the_folder_only(quick, tmp_path):
    call(*options(quick()))
    (tmp_path / "out" / "metrics.json").unlink()
    result = call("--resume", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "metrics.json").exists()


def test_several_seeds(quick, tmp_path):
    metrics = run_recipe(Recipe.from_mapping(quick(seeds=3, epochs=2)))
    errors = [run["test"]["error"] for run in metrics["runs"]]
    assert [run["seed"] for run in metrics["runs"]] == [0, 1, 2]
    assert metrics["summary"]["test_error"]["mean"] == pytest.approx(sum(errors) / 3)
    assert metrics["summary"]["test_error"]["interval"] == t_interval(errors)
    kept = metrics["summary"]["selected_seed"]
    chosen = (tmp_path / "out" / f"seed-{kept}" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == chosen
    console = Console(width=120, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(metrics))
    console.file.close()
    assert "mean" in console.export_text()
    # A seed gives the same numbers alone, in its own data split, as it does first in a study.
    alone = run_recipe(Recipe.from_mapping(quick(epochs=2, out=str(tmp_path / "alone"))))
    assert alone["runs"][0]["history"] == metrics["runs"][0]["history"]


def test_t_interval():
    # Student's t for 4 degrees of freedom: 2.7764.
    assert t_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2.7764451 * math.sqrt(2.5 / 5))
    assert t_interval([1.0]) is None


def test_plain_json():
    assert plain_json({"a": (math.inf, math.nan, True, 2)}) == {"a": ["inf", None, True, 2]}


def test_images_with_augmentation_and_a_convolution(png, parquet, tmp_path):
    labels = [0, 1, 2] * 12
    folder = parquet([png(y) for y in labels], labels)
    fields = {"data": str(folder), "model": "lenet-5", "epochs": 2, "batch_size": 8, "augment": "shift+flip"}
    metrics = run_recipe(Recipe.from_mapping({**fields, "device": "cpu", "out": str(tmp_path / "out")}))
    assert metrics["data"]["input_shape"] == [1, 8, 8]
    assert metrics["runs"][0]["sparsity"] == pytest.approx(0.95, abs=1e-3)


def test_csv_tracker(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick(tracker="csv")))
    with open(tmp_path / "out" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["sparsity"]) == pytest.approx(0.8, abs=1e-3)


def test_importing_and_help_stay_light():
    code = (
        "import sys, obverse, obverse.cli; from typer.testing import CliRunner; "
        "r = CliRunner().invoke(obverse.cli.app, ['sparsify', '--help']); assert r.exit_code == 0, r.output; "
        "heavy = {'torch', 'sklearn', 'datasets', 'accelerate', 'yaml', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": SOURCE})
