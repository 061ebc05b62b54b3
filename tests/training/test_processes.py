"""Two processes that share each batch end where one process ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import obverse
from obverse._core.files import read_json
from obverse.errors import InvalidArgumentError
from obverse.labels import label_criteria
from obverse.training import Recipe, run_recipe
from obverse.training._faces import face_names
from obverse.training._machine import accelerator_of

SOURCE = str(Path(obverse.__file__).parents[1])
HERE = Path(__file__).parent
# Each process draws noise of its own for its rows, or groups the rows that it has.
OWN_NOISE = ("dropout", "standout", "variational-dropout")
OWN_ROWS = ("pairwise", "disturb", "class-wise")
EQUAL = {
    **{face: {"face": face} for face in face_names() if face not in OWN_NOISE},
    # A group's mask is noise on weights.
    **{f"{face} of groups": {"face": face, "groups": "units"} for face in ("dropout", "standout")},
    **{labels: {"labels": labels} for labels in label_criteria() if labels not in OWN_ROWS},
}
ALIKE = {**{face: {"face": face} for face in OWN_NOISE}, **{labels: {"labels": labels} for labels in OWN_ROWS}}

needs_distributed = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without it")


def launch(*program: str) -> subprocess.CompletedProcess[str]:
    """Start a program in two processes, which meet at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    result = subprocess.run(
        [*command, *program],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def ended(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``one`` and ``two``, with a run of every case by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    recipes: dict[str, list[dict[str, Any]]] = {}
    for name in ("one", "two"):
        base = {"data": str(table), "epochs": 3, "batch_size": 16, "budget": 0.8, "device": "cpu", "threads": 1}
        base |= {"optimizer": "sgd", "learning_rate": 0.05}
        cases = (EQUAL | ALIKE).items()
        recipes[name] = [
            base | changes | {"out": str(folder / name / case)} | ({"budget": None} if case == "none" else {})
            for case, changes in cases
        ]
    for fields in recipes["one"]:
        run_recipe(Recipe.from_mapping(fields))
    path = folder / "recipes.json"
    path.write_text(json.dumps({"recipes": recipes["two"]}))
    launch(str(HERE / "training_processes.py"), str(path))
    return folder


def runs(ended: Path, case: str) -> list[dict[str, Any]]:
    found = [read_json(ended / name / case / "metrics.json")["runs"][0] for name in ("one", "two")]
    assert [run["processes"] for run in found] == [1, 2]
    return found


@pytest.mark.slow
@needs_distributed
@pytest.mark.parametrize("case", EQUAL)
def test_two_equal_one(ended: Path, case: str) -> None:
    one, two = runs(ended, case)
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert theirs["step"] == ours["step"]
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-3)
        assert theirs["sparsity"] == pytest.approx(ours["sparsity"], abs=2e-3)
    ours, theirs = (load_file(ended / name / case / "model.safetensors") for name in ("one", "two"))
    # Sums are taken in another order; a weight on the boundary may fall on its other side.
    for key in ours:
        close = torch.isclose(ours[key], theirs[key], rtol=1e-3, atol=1e-4)
        assert close.float().mean() > 0.99, key


@pytest.mark.slow
@needs_distributed
@pytest.mark.parametrize("case", ALIKE)
def test_two_are_like_one_where_each_draws_for_its_own_rows(ended: Path, case: str) -> None:
    one, two = runs(ended, case)
    assert one["history"] != two["history"]
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert theirs["step"] == ours["step"]
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=0.1)
        assert theirs["sparsity"] == pytest.approx(ours["sparsity"], abs=2e-3)


@pytest.mark.slow
@needs_distributed
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_the_command_says_how_many_processes_train(table: Path, tmp_path: Path, device: str) -> None:
    """Without any accelerator, processes find each other whatever the device is said to be."""
    out = tmp_path / "out"
    options = [f"--data={table}", "--epochs=2", "--threads=1", f"--device={device}", f"--out={out}"]
    result = launch("-m", "obverse.cli", "sparsify", *options)
    assert "2 processes share each batch" in result.stdout
    assert result.stdout.count("test error") == 1
    assert [run["processes"] for run in read_json(out / "metrics.json")["runs"]] == [2]


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_cannot_meet_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train the whole run by itself, on a device whose processes do not find each other."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv(variable, "2")
    with pytest.raises(InvalidArgumentError, match=r"a launcher started 2 processes, .* choose --device cpu"):
        accelerator_of(Recipe())
