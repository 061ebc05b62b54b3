"""The command `obverse compare`: one study that is resumed, shared and extended, and in which nothing is run twice."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

import obverse
from obverse import cli
from obverse._core.files import read_json
from obverse.errors import InvalidArgumentError, NonFiniteError, UnknownNameError
from obverse.training import InterruptedRunError, Recipe, Trainer, compare, comparison_table
from obverse.training import _compare as module
from obverse.training._cells import Cell
from obverse.training._comparison import summarize
from obverse.training._methods import parse_method, parse_methods
from obverse.training._storage import hide_password, without_password
from obverse.training._width import count_weights, matching_width

pytest.importorskip("optuna")
SOURCE = str(Path(obverse.__file__).parents[1])
GRID = {"methods": "proximal,dense", "budgets": "80%"}


def call(*options):
    return CliRunner().invoke(cli.app, ["compare", *options], catch_exceptions=True)


def options(fields):
    return [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]


@pytest.fixture
def shared(quick):
    """Fields of a recipe for a comparison: the grid has the budgets."""

    def fields(**changes):
        return quick(**({"budget": None, "epochs": 2, "seeds": 2} | changes))

    return fields


@pytest.fixture
def runs(monkeypatch):
    """The cells that are trained from now on, by folder name."""
    trained = []
    original = Trainer.fit

    def fit(trainer, *arguments):
        trained.append(Path(trainer.recipe.out).name)
        return original(trainer, *arguments)

    monkeypatch.setattr(Trainer, "fit", fit)
    return trained


def states(comparison):
    return {Cell(c["method"], c["budget"], c["seed"]).name: c["state"] for c in comparison["cells"]}


# ---------------------------------------------------------------------------------------------- the whole journey
def test_the_journey_on_digits(tmp_path):
    out = tmp_path / "out"
    fields = {"data": "digits", "epochs": 1, "seeds": 2, "out": str(out), "device": "cpu", "threads": 1}
    fields |= {"methods": "proximal,small", "budgets": "90%"}
    result = call(*options(fields))
    assert result.exit_code == 0, (result.output, result.exception)
    for text in ("[4/4]", "proximal", "small", "90%", "±", "compare.html"):
        assert text in result.output
    record = read_json(out / "compare.json", sealed=True)
    assert {
        "obverse",
        "command",
        "storage",
        "recipe",
        "data",
        "model",
        "versions",
        "methods",
        "budgets",
        "seeds",
    } < set(record)
    assert record["methods"] == ["proximal", "small"]
    assert record["budgets"] == [0.9]
    assert record["model"] == {"name": "mlp", "weights": 64 * 128 + 128 * 64 + 64 * 10}
    assert set(record["cells"][0]) == {
        "method", "budget", "seed", "state", "sparsity", "weights", "kept", "test_error", "test_loss",
        "validation_error", "seconds", "width", "error", "note", "folder",
    }  # fmt: skip
    for cell in record["cells"]:
        assert cell["state"] == "done"
        assert cell["sparsity"] == pytest.approx(0.9, abs=0.002)
        assert cell["weights"] == round(cell["kept"] * record["model"]["weights"])
        metrics = read_json(out / cell["folder"] / "metrics.json")
        (run,) = metrics["runs"]
        assert (run["seed"], run["test"]["error"]) == (cell["seed"], cell["test_error"])
        assert metrics["data"] == record["data"]  # one split for all seeds
    # A cell is the run that `obverse sparsify` would have made.
    again = Recipe.read(out / "cells" / "proximal-0.9-seed-1" / "recipe.yaml").but(out=str(tmp_path / "again"))
    from obverse.training import run_recipe

    repeated = run_recipe(again)["runs"][1]
    assert repeated["test"] == read_json(out / "cells" / "proximal-0.9-seed-1" / "metrics.json")["runs"][0]["test"]
    assert "<html" in (out / "compare.html").read_text()


def test_a_finished_study_is_only_drawn_again(shared, runs, tmp_path, blobs):
    first = compare(Recipe.from_mapping(shared()), **GRID)
    assert sorted(runs) == ["dense-seed-0", "dense-seed-1", "proximal-0.8-seed-0", "proximal-0.8-seed-1"]
    assert set(states(first).values()) == {"done"}
    (tmp_path / "out" / "compare.html").unlink()
    runs.clear()
    blobs.rename(tmp_path / "elsewhere.csv")  # not even the data are needed
    second = compare(Recipe.from_mapping({"data": str(blobs), "out": str(tmp_path / "out")}))
    assert runs == []
    assert second == first
    assert (tmp_path / "out" / "compare.html").exists()


@pytest.mark.slow
def test_methods_budgets_and_seeds_may_be_added(shared, runs, tmp_path):
    compare(Recipe.from_mapping(shared(seeds=1)), **GRID)
    runs.clear()
    out = {"out": str(tmp_path / "out"), "data": shared()["data"]}
    compare(Recipe.from_mapping(out), methods=["reweighted"])
    assert runs == ["reweighted-0.8-seed-0"]
    compare(Recipe.from_mapping(out), methods="proximal", budgets=[0.5])
    assert runs[1:] == ["proximal-0.5-seed-0"]
    record = compare(Recipe.from_mapping({**out, "seeds": 2}))
    assert sorted(runs[2:]) == [
        *("dense-seed-1", "proximal-0.5-seed-1", "proximal-0.8-seed-1"),
        *("reweighted-0.5-seed-0", "reweighted-0.5-seed-1", "reweighted-0.8-seed-1"),
    ]
    assert record["methods"] == ["proximal", "dense", "reweighted"]
    assert record["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"epochs": 3}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"model": "lenet-300-100"}, "model"),
    ],
)
def test_other_settings_are_refused_by_name(shared, runs, tmp_path, changes, field):
    compare(Recipe.from_mapping(shared(seeds=1)), **GRID)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    runs.clear()
    for storage in (None, str(tmp_path / "other.log")):  # the folder remembers, whatever the storage
        with pytest.raises(InvalidArgumentError, match=rf"^{field} was .* in the study of .* and is .* now.*--out"):
            compare(Recipe.from_mapping({**shared(), **changes}), **GRID, storage=storage)
    assert runs == []
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_changed_data_are_refused(shared, blobs):
    compare(Recipe.from_mapping(shared(seeds=1)), **GRID)
    blobs.write_text(blobs.read_text().replace("label\n", "label\n9,9,9,9,9,9,1\n", 1))
    with pytest.raises(InvalidArgumentError, match="changed since"):
        compare(Recipe.from_mapping(shared()), **GRID)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": "proximl"},
        {"methods": "dense@proximal"},
        {"methods": "log-sum@small"},
        {"methods": "log-sum:epsilon=-1@proximal"},
        {"methods": ","},
        {"budgets": "110%"},
        {"budgets": ""},
        {"augment": "flip"},
        {"data": "./absent.csv"},
        {"model": "lenet-5"},
        {"groups": "wheights"},
        {"storage": "nosuch://x"},
    ],
    ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()),
)
def test_refusals_write_nothing(shared, tmp_path, monkeypatch, capsys, changes):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["obverse", "compare", *options(shared() | GRID | changes)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("obverse: ")
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_folder_of_something_else_is_left_alone(shared, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidArgumentError, match=r"not empty; choose another with --out$"):
        compare(Recipe.from_mapping(shared()), **GRID)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_stored_study_does_not_get_to_run_code(shared, tmp_path, monkeypatch):
    (tmp_path / "nets_to_compare.py").write_text(
        "from torch import nn\ndef f(width=1.0):\n    n = round(20 * width)\n"
        "    return nn.Sequential(nn.Linear(6, n), nn.ReLU(), nn.Linear(n, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    fields = shared(seeds=1, model="nets_to_compare:f")
    record = compare(Recipe.from_mapping(fields), "small", [0.5])
    assert record["cells"][0]["weights"] == 90
    del fields["model"]
    with pytest.raises(InvalidArgumentError, match="if you trust it, say so with --model nets_to_compare:f"):
        compare(Recipe.from_mapping(fields))


# ---------------------------------------------------------------------------------------------- failures
def test_a_cell_that_fails_is_recorded_and_tried_again(shared, runs, tmp_path, monkeypatch):
    original = Trainer._step

    def step(trainer, batch):
        if trainer.recipe.face == "proximal" and trainer.seed == 0:
            raise NonFiniteError("the loss <b>is</b> nan\nand more")
        return original(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
        record = compare(Recipe.from_mapping(shared()), **GRID, console=console)
        console.file.close()
    failed = [cell for cell in record["cells"] if cell["state"] == "failed"]
    assert [(cell["folder"], cell["error"]) for cell in failed] == [
        ("cells/proximal-0.8-seed-0", "the loss <b>is</b> nan")
    ]
    assert "failed: the loss" in console.export_text()
    assert list(states(record).values()).count("done") == 3
    (row,) = [row for row in record["summary"] if row["method"] == "proximal"]
    assert (row["seeds"], row["missing"], row["failed"]) == (1, 1, 1)
    assert row["test_error"]["interval"] is None
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "the loss &lt;b&gt;is" in page
    runs.clear()
    record = compare(Recipe.from_mapping(shared()), **GRID)
    assert runs == ["proximal-0.8-seed-0"]
    assert set(states(record).values()) == {"done"}


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_was(shared, runs, tmp_path, monkeypatch):
    whole = compare(Recipe.from_mapping(shared(out=str(tmp_path / "whole"))), **GRID)
    runs.clear()
    steps = []
    original = Trainer._step

    def step(trainer, batch):
        steps.append(trainer.step)
        if len(steps) == 20:  # in the second cell
            os.kill(os.getpid(), signal.SIGINT)
        return original(trainer, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(InterruptedRunError):
        compare(Recipe.from_mapping(shared()), **GRID)
    left = read_json(tmp_path / "out" / "compare.json")
    assert list(states(left).values()) == ["done", "waiting", "waiting", "waiting"]
    record = compare(Recipe.from_mapping(shared()), **GRID)
    assert len(runs) == 5
    assert len(steps) == 4 * 14

    def numbers(comparison):
        return [{k: v for k, v in cell.items() if k != "seconds"} for cell in comparison["cells"]]

    assert numbers(record) == numbers(whole)


# ---------------------------------------------------------------------------------------------- several processes
def start(fields):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "obverse.cli", "compare", *options(fields)],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("storage", [None, pytest.param("sqlite", marks=pytest.mark.slow)])
def test_two_processes_share_a_study(shared, tmp_path, storage):
    fields = shared(epochs=6, seeds=3) | {"methods": "proximal", "budgets": "50%,80%"}
    if storage:
        fields["storage"] = f"sqlite:///{tmp_path / 'study.db'}"
    outputs = []
    processes = [start(fields) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        outputs.append(output)
    record = read_json(tmp_path / "out" / "compare.json")
    assert len(record["cells"]) == 6
    assert set(states(record).values()) == {"done"}
    # Each cell was run by exactly one of them, and both saw the same end.
    ends = [
        line.partition("] ")[2].partition(":")[0]
        for o in outputs
        for line in o.splitlines()
        if "test error " in line and line[0] == "["
    ]
    assert len(ends) == len(set(ends)) == 6
    tables = [output[output.index("┏") :] for output in outputs]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_the_cell_of_a_killed_process_is_taken_up_again(shared, tmp_path, storage):
    fields = shared(epochs=200, seeds=1) | {"methods": "proximal", "budgets": "80%"}
    if storage:
        fields["storage"] = f"sqlite:///{tmp_path / 'study.db'}"
    process = start(fields)
    state = tmp_path / "out" / "cells" / "proximal-0.8-seed-0" / "checkpoint" / "state.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    assert states(read_json(tmp_path / "out" / "compare.json")) == {"proximal-0.8-seed-0": "waiting"}
    given = {name: fields.pop(name) for name in ("methods", "budgets", "storage") if name in fields}
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    began = time.monotonic()
    record = compare(Recipe.from_mapping(fields), **given, console=console)
    console.file.close()
    assert "resumed at step" in console.export_text()
    assert states(record) == {"proximal-0.8-seed-0": "done"}
    assert time.monotonic() - began < 30  # the system says that the process is gone: no lease has to run out


def test_a_silent_process_on_another_machine_loses_its_cell(shared, tmp_path, monkeypatch):
    from obverse.training import _shared_study

    monkeypatch.setattr(_shared_study, "LEASE_SECONDS", 0.3)
    recipe = Recipe.from_mapping(shared(seeds=1))

    def die(claim, *_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(module._Work, "_run", lambda self, claim, display: die(claim))
        patch.setattr(_shared_study.platform, "node", lambda: "elsewhere")
        with pytest.raises(SystemExit):
            compare(recipe, "proximal", [0.8])
    assert states(read_json(tmp_path / "out" / "compare.json")) == {"proximal-0.8-seed-0": "running"}
    began = time.monotonic()
    assert states(compare(recipe, "proximal", [0.8])) == {"proximal-0.8-seed-0": "done"}
    assert time.monotonic() - began > 0.3


def test_who_lost_its_cell_stops_and_says_nothing(shared, tmp_path, monkeypatch):
    from obverse.training import _shared_study

    monkeypatch.setattr(_shared_study, "BEAT_SECONDS", 0.01)
    original = Trainer._end_epoch
    works = []
    init = module._Work.__init__
    monkeypatch.setattr(module._Work, "__init__", lambda self, *a: (works.append(self), init(self, *a))[1])

    def end_epoch(trainer):
        if not works[0].__dict__.get("robbed"):
            works[0].robbed = True
            # What another process does that takes this one for dead.
            (trial,) = [t for t in works[0].shared._trials() if t.state.name == "RUNNING"]
            works[0].shared._end(trial.number, "FAIL")
            time.sleep(0.2)
        return original(trainer)

    monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
    record = compare(Recipe.from_mapping(shared(seeds=1)), "proximal", [0.8])
    assert record["cells"][0]["state"] == "failed"
    assert record["cells"][0]["error"] == "interrupted"


# ---------------------------------------------------------------------------------------------- the parts
def test_methods_by_name():
    names = [m.name for m in parse_methods("proximal, scad:a=3.7,threshold=1@reweighted ,dense,proximal")]
    assert names == ["proximal", "scad:a=3.7,threshold=1@reweighted", "dense"]
    method = parse_method("scad:a=4,threshold=1@reweighted")
    assert (method.face, method.penalty.name, method.penalty.parameters) == (
        "reweighted",
        "scad",
        {"a": 4, "threshold": 1},
    )
    with pytest.raises(UnknownNameError, match="did you mean 'proximal'"):
        parse_method("proximl")
    with pytest.raises(UnknownNameError, match="penalty"):
        parse_method("logsum@proximal")


def test_cells_have_names_of_their_own():
    cells = [Cell("proximal", 0.95, 0), Cell("proximal", 0.95, 1), Cell("proximal", 0.951, 0), Cell("dense", None, 0)]
    cells += [Cell("mcp:kappa=2@proximal", 0.95, 0), Cell("mcp:kappa=-2@proximal", 0.95, 0)]
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(not set(cell.name) & set('/\\:*?"<>| ') for cell in cells)


@pytest.mark.parametrize("model", ["mlp", "lenet-300-100", "lenet-5", "resnet20"])
@pytest.mark.parametrize("budget", [0.5, 0.9, 0.98])
def test_the_width_of_a_small_network(model, budget):
    shape = (1, 28, 28)
    wanted = count_weights(model, shape, 10) * (1 - budget)
    width = matching_width(model, shape, 10, wanted)
    found = count_weights(model, shape, 10, width)
    assert abs(found - wanted) < 0.1 * wanted
    # No width nearby comes nearer.
    for factor in (0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1):
        assert abs(count_weights(model, shape, 10, width * factor) - wanted) >= abs(found - wanted)


def test_a_network_that_cannot_be_small_enough(shared):
    record = compare(Recipe.from_mapping(shared(seeds=1)), "small", ["99.99%"])
    (cell,) = record["cells"]
    assert cell["weights"] == 6 + 1 + 3
    assert "more than the 0.01% asked for" in cell["note"]
    assert record["summary"][0]["note"] == cell["note"]


def cell(method, budget, seed, error):
    numbers = {"test_error": error, "validation_error": error, "kept": 0.1, "weights": 10, "seconds": 1.0}
    return {"method": method, "budget": budget, "seed": seed, "state": "done", "note": None, **numbers}


def test_intervals_and_what_is_marked():
    errors = {"magnitude": [0.10, 0.11, 0.12], "proximal": [0.05, 0.06, 0.055], "reweighted": [0.07, 0.13, 0.09]}
    cells = [cell(m, 0.9, seed, e) for m, values in errors.items() for seed, e in enumerate(values)]
    rows = {row["method"]: row for row in summarize(cells, list(errors), [0.9])}
    for method, values in errors.items():
        low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / 3, scale=stats.sem(values))
        spread = rows[method]["test_error"]
        assert spread["mean"] - spread["interval"] == pytest.approx(low)
        assert spread["mean"] + spread["interval"] == pytest.approx(high)
    assert [rows[method]["best"] for method in errors] == [False, True, False]
    # The best is not marked where the intervals overlap, with one seed, or without the yardstick.
    close = [c | {"test_error": c["test_error"] + 0.03} if c["method"] == "proximal" else c for c in cells]
    for others in (close, [c for c in cells if c["seed"] == 0], [c for c in cells if c["method"] != "magnitude"]):
        assert not any(row["best"] for row in summarize(others, list(errors), [0.9]))


def test_the_table_marks_and_remarks():
    errors = {"magnitude": [0.10, 0.11, 0.12], "proximal": [0.05, 0.06, 0.055]}
    cells = [cell(m, 0.9, seed, e) for m, values in errors.items() for seed, e in enumerate(values)]
    cells.append(cell("dense", None, 0, 0.02) | {"note": None})
    cells += [cell("small", 0.9, 0, None) | {"state": "failed"}]
    methods = ["magnitude", "proximal", "dense", "small"]
    record = {"summary": summarize(cells, methods, [0.9]), "methods": methods, "budgets": [0.9], "seeds": [0, 1, 2]}
    console = Console(record=True, width=100, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(comparison_table(record))
    console.file.close()
    text = console.export_text(styles=True)
    assert re.search(r"\x1b\[1m *5\.50 ±1\.24", text)
    assert not re.search(r"\x1b\[1m *11\.00", text)
    assert "2.00" in text
    assert "failed" in text


def test_passwords_are_not_kept():
    url = "postgresql://me:secret@host/db"
    assert without_password(url) == "postgresql://me:***@host/db"
    assert hide_password(f"--storage={url}", url) == "--storage=postgresql://me:***@host/db"
    assert without_password("runs/study.log") == "runs/study.log"


def test_the_study_can_be_read_with_optuna(shared, tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    record = compare(Recipe.from_mapping(shared(seeds=1)), **GRID, storage=url)
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute("select study_name from studies").fetchall() == [("out",)]
    database.close()
    study = optuna.load_study(study_name="out", storage=url)
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert [t.values[0] for t in done] == [c["validation_error"] for c in record["cells"]]
    assert done[0].params == {"sparsity": 0.8, "seed": 0}
    assert record["storage"] == url
    assert read_json(tmp_path / "out" / "compare.json", sealed=True) == record
