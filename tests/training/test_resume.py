"""However a run is cut short, resuming ends at the bits of a run that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interruptions import StopAt, same_result

import obverse
from obverse._core.files import write_sealed
from obverse.errors import InvalidArgumentError, NonFiniteError
from obverse.training import InterruptedRunError, Recipe, StopRequest, Trainer, read_recipe, run_recipe
from obverse.training._checkpoint import read_checkpoint

SOURCE = Path(obverse.__file__).parents[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.05, "schedule": "linear"},
        {"face": "reweighted"},
        {"face": "dropout"},
        {"face": "variational-dropout"},
        {"face": "hard-concrete", "optimizer": "sgd", "learning_rate": 0.05},
        {"face": "learned-eta", "precision": "bf16"},
        {"precision": "bf16"},
        {"strength": 1e-4, "budget": None},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())) or "default",
)
@pytest.mark.parametrize(
    "step", [pytest.param(14, marks=pytest.mark.slow), 21]
)  # the end of an epoch, the middle of one
def test_resume_equals_uninterrupted(quick, tmp_path, monkeypatch, changes, step):
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    run_recipe(Recipe.from_mapping(quick(**changes, out=whole)))
    with monkeypatch.context() as patch:
        StopAt(patch, step)
        with pytest.raises(InterruptedRunError, match=f"step {step} of 42"):
            run_recipe(Recipe.from_mapping(quick(**changes, out=cut)))
    assert not (Path(cut) / "metrics.json").exists()
    assert read_checkpoint(Path(cut) / "checkpoint" / "state.pt")["position"]["step"] == step
    torch.manual_seed(12345)  # what the caller draws in between does not matter
    run_recipe(Recipe.from_mapping(quick(**changes, out=cut)), resume=True)
    same_result(whole, cut)


def test_a_run_repeats_and_leaves_the_callers_generator_alone(quick, tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name in ("a", "b"):
        run_recipe(Recipe.from_mapping(quick(out=str(tmp_path / name))))
        torch.rand(3)
    same_result(tmp_path / "a", tmp_path / "b")
    torch.set_rng_state(state)
    run_recipe(Recipe.from_mapping(quick(out=str(tmp_path / "c"))))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_written_recipe_repeats_the_run(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick(epochs=None, threads=None, out=str(tmp_path / "a"), batch_size=135)))
    again = Recipe.read(tmp_path / "a" / "recipe.yaml")
    assert again.epochs == 200
    assert again.threads is not None
    run_recipe(again.but(out=str(tmp_path / "b")))
    same_result(tmp_path / "a", tmp_path / "b")


def test_several_seeds_resume_where_they_were(quick, tmp_path, monkeypatch):
    fields = quick(seeds=3, out=str(tmp_path / "whole"))
    run_recipe(Recipe.from_mapping(fields))
    cut = Recipe.from_mapping(fields | {"out": str(tmp_path / "cut")})
    with monkeypatch.context() as patch:
        calls = []
        original = Trainer._end_epoch
        patch.setattr(Trainer, "_end_epoch", lambda self: (calls.append(1), original(self))[1])
        patch.setattr(
            StopRequest, "asked", property(lambda self: len(calls) == 8, lambda self, value: None), raising=False
        )
        with pytest.raises(InterruptedRunError):
            run_recipe(cut)
    assert (tmp_path / "cut" / "seed-0" / "checkpoint" / "result.json").exists()
    assert not (tmp_path / "cut" / "seed-1" / "checkpoint" / "result.json").exists()
    finished = (tmp_path / "cut" / "seed-0" / "model.safetensors").stat().st_mtime_ns
    run_recipe(cut, resume=True)
    assert (tmp_path / "cut" / "seed-0" / "model.safetensors").stat().st_mtime_ns == finished
    same_result(tmp_path / "whole", tmp_path / "cut")
    # More seeds can be added afterwards.
    assert len(run_recipe(cut.but(seeds=4), resume=True)["runs"]) == 4


def test_resume_of_a_finished_run_changes_nothing(quick, tmp_path):
    recipe = Recipe.from_mapping(quick())
    first = run_recipe(recipe)
    assert run_recipe(recipe, resume=True) == first


def test_resume_refuses_another_recipe_or_data(quick, blobs, tmp_path):
    recipe = Recipe.from_mapping(quick())
    run_recipe(recipe)
    with pytest.raises(InvalidArgumentError, match=r"learning_rate was 0.002 and is 0.01 now"):
        run_recipe(recipe.but(learning_rate=0.01), resume=True)
    blobs.write_text(blobs.read_text().replace("label\n", "label\n9,9,9,9,9,9,1\n", 1))
    with pytest.raises(InvalidArgumentError, match="data_statistics"):
        run_recipe(recipe, resume=True)


def tree(folder):
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_refused_resume_writes_nothing(quick, tmp_path, monkeypatch):
    recipe = Recipe.from_mapping(quick())
    with monkeypatch.context() as patch:
        StopAt(patch, 14)
        with pytest.raises(InterruptedRunError):
            run_recipe(recipe)
    for finished in (False, True):
        before = tree(tmp_path / "out")
        for changes in ({"budget": 0.5}, {"budget": 0.5, "seeds": 2}, {"seed": 1}):
            with pytest.raises(InvalidArgumentError, match="cannot resume"):
                run_recipe(recipe.but(**changes), resume=True)
            assert tree(tmp_path / "out") == before
        # What was refused does not stand in the way of a plain resume.
        if not finished:
            run_recipe(read_recipe({"out": str(tmp_path / "out")}, resume=True), resume=True)


@pytest.mark.parametrize("step", [None, 21], ids=["finished", "begun"])
def test_a_seed_that_was_alone_is_kept_when_others_join(quick, tmp_path, monkeypatch, step):
    recipe = Recipe.from_mapping(quick(tracker="csv"))
    with monkeypatch.context() as patch:
        if step is None:
            run_recipe(recipe)
        else:
            StopAt(patch, step)
            with pytest.raises(InterruptedRunError):
                run_recipe(recipe)
    steps = []
    original = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: (steps.append(self.seed), original(self, batch))[1])
    run_recipe(recipe.but(seeds=2), resume=True)
    assert steps.count(0) == (0 if step is None else 42 - step)
    assert steps.count(1) == 42
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert not (tmp_path / "out" / "history.csv").exists()
    names = {"checkpoint", "model.safetensors", "history.csv"}
    assert all({path.name for path in (tmp_path / "out" / f"seed-{n}").iterdir()} == names for n in (0, 1))
    run_recipe(recipe.but(seeds=2, out=str(tmp_path / "whole")))
    same_result(tmp_path / "whole", tmp_path / "out")


def test_a_study_does_not_shrink(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, seeds=2))
    run_recipe(recipe)
    before = tree(tmp_path / "out")
    for changes in ({"seeds": 1}, {"seed": 1, "seeds": 1}):
        with pytest.raises(InvalidArgumentError, match=r"holds seed [01].*leaves out.*not shrink"):
            run_recipe(recipe.but(**changes), resume=True)
    assert tree(tmp_path / "out") == before


def test_a_seed_of_a_study_may_go_on_alone(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, seeds=2))
    first = run_recipe(recipe)["runs"][0]
    shutil.rmtree(tmp_path / "out" / "seed-1")
    assert run_recipe(recipe.but(seeds=1), resume=True)["runs"] == [first]
    own = (tmp_path / "out" / "seed-0" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == own


def test_a_factory_that_changed_its_shape(quick, tmp_path, monkeypatch):
    code = "from torch import nn\ndef f():\n    return nn.Sequential(nn.Linear(6, {0}), nn.Linear({0}, 3))\n"
    (tmp_path / "nets_that_change.py").write_text(code.format(9))
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_mapping(quick(model="nets_that_change:f"))
    with monkeypatch.context() as patch:
        StopAt(patch, 14)
        with pytest.raises(InterruptedRunError):
            run_recipe(recipe)
    before = tree(tmp_path / "out")
    (tmp_path / "nets_that_change.py").write_text(code.format(11))
    monkeypatch.delitem(sys.modules, "nets_that_change")
    with pytest.raises(InvalidArgumentError, match=r"does not fit the model .*size mismatch") as caught:
        run_recipe(recipe.but(tracker="csv"), resume=True)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04K\x01."], ids=["empty", "garbage", "pickle"])
def test_broken_checkpoint(quick, tmp_path, content):
    folder = tmp_path / "out" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"state\.pt is damaged: .*; delete it and --resume"):
        run_recipe(Recipe.from_mapping(quick()), resume=True)


class _Payload:
    def __reduce__(self):
        return (os.system, ("true",))


def test_checkpoints_load_no_pickled_objects(tmp_path):
    write_sealed(tmp_path / "state.pt", lambda file: torch.save({"recipe": _Payload()}, file))
    with pytest.raises(InvalidArgumentError, match="cannot read checkpoint"):
        read_checkpoint(tmp_path / "state.pt")


def test_a_loss_that_is_not_finite_stops_the_run(quick):
    recipe = Recipe.from_mapping(quick(optimizer="sgd", learning_rate=1e30, schedule="constant"))
    with pytest.raises(NonFiniteError, match="step"):
        run_recipe(recipe)


def start(fields, folder, *more):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items() if name != "out"]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "obverse.cli", "sparsify", "--out", str(folder), *options, *more],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "face"),
    [
        (signal.SIGINT, "proximal"),
        (signal.SIGKILL, "proximal"),
        pytest.param(signal.SIGKILL, "variational-dropout", marks=pytest.mark.slow),
    ],
    ids=["ctrl-c", "kill -9", "kill -9, learned"],
)
def test_signals_to_a_process(quick, tmp_path, number, face):
    fields = quick(epochs=40, face=face)
    run_recipe(Recipe.from_mapping(fields | {"out": str(tmp_path / "whole")}))
    folder = tmp_path / "cut"
    # The signal comes at the first checkpoint, with most of the run still ahead.
    process = start(fields, folder)
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, output
        assert "go on with: obverse sparsify --resume --out" in output
        assert "Traceback" not in output
    else:
        assert process.returncode == -signal.SIGKILL, output
    position = read_checkpoint(folder / "checkpoint" / "state.pt")["position"]
    assert 0 < position["step"] < 280
    assert not (folder / "metrics.json").exists()
    run_recipe(Recipe.from_mapping(fields | {"out": str(folder)}), resume=True)
    same_result(tmp_path / "whole", folder)
