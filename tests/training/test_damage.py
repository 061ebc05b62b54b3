"""Run folders whose files are damaged, missing or cannot be written: refused in one line, or the right result."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interruptions import StopAt, same_result
from safetensors.torch import load_file

import obverse
from obverse import cli
from obverse._core import files
from obverse._core.files import LOCK, locked, read_json, write_sealed
from obverse.errors import DamagedFileError, FileWriteError, InvalidArgumentError, ObverseError, StateError
from obverse.training import (
    InterruptedRunError,
    Recipe,
    RobustChoices,
    Trainer,
    _study,
    read_recipe,
    read_run,
    run_recipe,
    train_robust,
)
from obverse.training._checkpoint import read_checkpoint, write_checkpoint
from obverse.training._replaced import Replaced

ROOT = Path(__file__).resolve().parents[2]
SOURCE = str(Path(obverse.__file__).parents[1])


def options(fields: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def damages(path: Path, many: bool = True) -> Iterator[None]:
    """A flipped bit in the middle, at the start and the end of a file, and the file halved, cut and emptied."""
    whole, draw = path.read_bytes(), random.Random(0)
    size = len(whole)
    places = (draw.randrange(size), draw.randrange(min(size, 40)), size - 1 - draw.randrange(min(size, 40)))
    for place in places if many else places[:1]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        yield
    for length in (size // 2, size - 1, 0) if many else (size // 2,):
        path.write_bytes(whole[:length])
        yield


def interrupt(recipe: Recipe, step: int, **more: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, step)
        with pytest.raises(InterruptedRunError):
            run_recipe(recipe, **more)


# ------------------------------------------------------------------------------------------------------ every file
def refused_or_same(folder: Path, resume: Callable[[], object], is_right: Callable[[], bool], many: bool = True) -> int:
    """Damage every file of a folder and go on from it; returns how often that was refused."""
    pristine = folder.with_name(f"{folder.name}.pristine")
    shutil.copytree(folder, pristine)
    refused = 0
    names = [path.relative_to(pristine) for path in sorted(pristine.rglob("*")) if path.is_file()]
    for name in [name for name in names if (pristine / name).stat().st_size]:
        for _ in damages(folder / name, many):
            refusal = None
            try:
                resume()
            except ObverseError as error:
                refusal = str(error)
            if refusal is None:
                assert is_right(), name
            else:
                assert "\n" not in refusal
                assert str(folder / name) in refusal
                refused += 1
            broken = (folder / name).read_bytes() if (folder / name).exists() else b""
            shutil.rmtree(folder)
            shutil.copytree(pristine, folder)
            (folder / name).write_bytes(broken)
        shutil.copy(pristine / name, folder / name)
    return refused


@pytest.mark.parametrize(
    ("command", "step", "many"),
    [
        ("sparsify", None, False),
        pytest.param("sparsify", None, True, marks=pytest.mark.slow),
        pytest.param("sparsify", 5, True, marks=pytest.mark.slow),
        pytest.param("train", None, True, marks=pytest.mark.slow),
        pytest.param("train", 5, True, marks=pytest.mark.slow),
    ],
)
def test_every_damaged_file_of_a_run(quick, tmp_path, command, step, many):
    changes = {"tracker": "csv"} if command == "sparsify" else {"budget": None, "face": "none", "labels": "adaptive"}
    fields = quick(**changes, epochs=2, width=0.1)
    recipe = Recipe.from_mapping(fields)
    out, whole = tmp_path / "out", tmp_path / "whole"
    run_recipe(recipe.but(out=str(whole)))
    if step is None:
        run_recipe(recipe)
    else:
        interrupt(recipe, step)

    def is_right() -> bool:
        same_result(whole, out)
        assert (out / "recipe.yaml").read_bytes() == (whole / "recipe.yaml").read_bytes()
        assert (
            fields.get("tracker") != "csv" or (out / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
        )
        return "<html" in (out / "report.html").read_text()

    refused = refused_or_same(out, lambda: run_recipe(recipe, resume=True), is_right, many)
    # The model and the record of a finished run, or the state of one that is not.
    assert refused == (2 if step is None else 1) * (6 if many else 2)


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_every_damaged_file_of_two_stages(blobs, tmp_path, finished):
    choices = RobustChoices(data=str(blobs), epochs=2, batch_size=32, folds=2, threads=1)
    out = tmp_path / "out"
    whole = train_robust(choices, tmp_path / "whole")
    if finished:
        train_robust(choices, out)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("obverse.imbalance._two_stage.HeteroskedasticRegularizer.__init__", _interrupts(2))
            with pytest.raises(KeyboardInterrupt):
                train_robust(choices, out)
    results: list[Any] = []

    def is_right() -> bool:
        state = results[-1].stages.model.state_dict()
        return str(results[-1]) == str(whole) and all(
            torch.equal(value, whole.stages.model.state_dict()[name]) for name, value in state.items()
        )

    refused = refused_or_same(out, lambda: results.append(train_robust(choices, out, resume=True)), is_right)
    # The choices, the study of the folds, both folds, the record of the stages; and the model.
    assert refused == (36 if finished else 30)


def _interrupts(call: int) -> Callable[..., None]:
    from obverse.imbalance import HeteroskedasticRegularizer

    original, calls = HeteroskedasticRegularizer.__init__, []

    def init(self: Any, *arguments: Any, **more: Any) -> None:
        calls.append(self)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(self, *arguments, **more)

    return init


@pytest.mark.slow
def test_many_damages_at_random(tmp_path):
    """The benchmark at a small size: all commands, finished and interrupted, and real processes."""
    table = tmp_path / "table.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "damage.py"), "--trials", "80", "--json", str(table)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = json.loads(table.read_text())
    assert sum(sum(row.values()) for row in counts.values()) == 84
    assert {row: ends for row, ends in counts.items() if row.endswith("a process")} == {
        f"{name}, a process": {"refused": 1} for name in ("sparsify", "train", "robust", "compare")
    }


def test_a_model_of_another_run_is_not_taken_for_this_one(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, width=0.1))
    run_recipe(recipe)
    run_recipe(recipe.but(seed=1, out=str(tmp_path / "other")))
    model = tmp_path / "out" / "model.safetensors"
    shutil.copy(tmp_path / "other" / "model.safetensors", model)
    with pytest.raises(DamagedFileError, match=r"not the model that .*result\.json belongs to; delete it and --resume"):
        run_recipe(recipe, resume=True)
    model.unlink()
    run_recipe(recipe, resume=True)
    run_recipe(recipe.but(out=str(tmp_path / "whole")))
    same_result(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.yaml"])
def test_commands_that_read_a_run_refuse_damage(quick, tmp_path, name):
    run_recipe(Recipe.from_mapping(quick(epochs=1, width=0.1)))
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{name} is damaged: .*; (delete it and|if you edited it)"):
        read_run(tmp_path / "out")


def test_a_recipe_that_was_edited_on_purpose_is_read(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick(epochs=1, width=0.1)))
    path = tmp_path / "out" / "recipe.yaml"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]).replace("batch_size: 16", "batch_size: 8"))
    assert read_run(tmp_path / "out").recipe.batch_size == 8


# ------------------------------------------------------------------------------------------------------ checkpoints
ENTRIES = ("recipe", "model", "optimizer", "scaler", "sparsifier", "labels", "random", "position", "sums", "history")


@pytest.fixture
def half(quick, tmp_path) -> Recipe:
    recipe = Recipe.from_mapping(quick(epochs=3, width=0.1))
    interrupt(recipe, 10)
    return recipe


@pytest.mark.parametrize("value", [None, "text", 3, "absent"], ids=repr)
@pytest.mark.parametrize("name", [*ENTRIES, "seconds"])
def test_wrong_types_in_a_checkpoint(half, tmp_path, name, value):
    path = tmp_path / "out" / "checkpoint" / "state.pt"
    state = read_checkpoint(path)
    if name == "seconds" and value == 3:
        pytest.skip("a number is what it should be")
    state[name] = value
    if value == "absent":
        del state[name]
    write_checkpoint(path, state)
    before = tree(tmp_path / "out")
    with pytest.raises(DamagedFileError, match=rf"checkpoint {path} is (damaged|incomplete): '{name}' is .*delete it"):
        run_recipe(half, resume=True)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("value", [None, -1, "1", 1.0, True])
@pytest.mark.parametrize("name", ["epoch", "index", "step"])
def test_wrong_positions_in_a_checkpoint(half, tmp_path, name, value):
    path = tmp_path / "out" / "checkpoint" / "state.pt"
    state = read_checkpoint(path)
    state["position"][name] = value
    write_checkpoint(path, state)
    with pytest.raises(DamagedFileError, match=rf"{path} is damaged: its {name} is"):
        run_recipe(half, resume=True)


def test_wrong_entries_deeper_in_a_checkpoint(half, tmp_path):
    path = tmp_path / "out" / "checkpoint" / "state.pt"
    whole = read_checkpoint(path)
    changed = [(first, second) for first in ("model", "optimizer", "sparsifier") for second in whole[first]]
    changed = [(first, second) for first, second in changed if whole[first][second] is not False]  # None means no, too
    changed.remove(("sparsifier", "metric"))  # None where nothing is measured
    changed += [("history", 0), ("random", 0)]
    for first, second in changed:
        write_checkpoint(path, whole)
        state = read_checkpoint(path)
        state[first][second] = None
        write_checkpoint(path, state)
        with pytest.raises(InvalidArgumentError, match=str(path)):
            run_recipe(half, resume=True)


# ------------------------------------------------------------------------------------------------------ what is resumed
def test_what_a_killed_first_write_leaves_is_no_run(quick, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".recipe.yaml.tmp").touch()
    recipe = Recipe.from_mapping(quick(epochs=1, width=0.1, face="magnitude"))
    with pytest.raises(InvalidArgumentError, match=rf"^cannot resume {out}: it holds no run; leave out --resume"):
        run_recipe(read_recipe({"out": str(out)}, resume=True), resume=True)
    assert [path.name for path in out.iterdir()] == [".recipe.yaml.tmp"]
    run_recipe(recipe)
    assert Recipe.read(out / "recipe.yaml").face == "magnitude"
    assert not (out / ".recipe.yaml.tmp").exists()


def test_a_folder_that_is_not_there_is_not_resumed(quick, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"^cannot resume .*out: there is no such folder"):
        run_recipe(Recipe.from_mapping(quick()), resume=True)
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_a_state_is_gone_on_with_and_no_other(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, width=0.1, face="magnitude", seed=3))
    run_recipe(recipe.but(out=str(tmp_path / "whole")))
    with pytest.MonkeyPatch.context() as patch:  # a kill before the first checkpoint
        patch.setattr(Trainer, "save", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe)
    assert set(tree(tmp_path / "out")) == {"recipe.yaml"}
    for other in ({"face": "proximal"}, {"learning_rate": 0.1}, {"seed": 1}, {"epochs": 3}):
        with pytest.raises(InvalidArgumentError, match=r"cannot resume .*recipe\.yaml: \w+ was .* and is .* now"):
            run_recipe(recipe.but(**other), resume=True)
    for _ in damages(tmp_path / "out" / "recipe.yaml"):
        with pytest.raises(DamagedFileError, match=r"recipe\.yaml is damaged: .*--recipe"):
            read_recipe({"out": str(tmp_path / "out")}, resume=True)
        with pytest.raises(DamagedFileError, match=r"recipe\.yaml is damaged"):
            run_recipe(recipe, resume=True)
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "out" / "recipe.yaml")
    run_recipe(read_recipe({"out": str(tmp_path / "out")}, resume=True), resume=True)
    same_result(tmp_path / "whole", tmp_path / "out")


def test_temporary_files_of_killed_processes_go(half, tmp_path):
    out = tmp_path / "out"
    for name in (".report.1-0badf00d.tmp.html", "checkpoint/.state.1-0badf00d.tmp.pt"):
        (out / name).write_text("half")
    run_recipe(half, resume=True)
    assert not [name for name in tree(out) if ".tmp" in name]


def test_robust_resumes_its_own_choices_only(blobs, tmp_path):
    choices = RobustChoices(data=str(blobs), epochs=1, batch_size=32, folds=2, threads=1)
    with pytest.raises(InvalidArgumentError, match=r"holds no run; leave out --resume"):
        train_robust(choices, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()
    with pytest.MonkeyPatch.context() as patch:  # a kill right after the first write
        patch.setattr("obverse.training._robust.train_two_stage", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            train_robust(choices, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"choices.json"}
    for name, value in (("epochs", 2), ("strength", 1.0), ("model", "lenet-300-100"), ("validation_fraction", 0.2)):
        with pytest.raises(
            StateError, match=f"to other data or arguments: {name} was .* and is '?{value}'? now; .*--over"
        ):
            train_robust(RobustChoices(**{**vars(choices), name: value}), tmp_path / "out", resume=True)
    train_robust(choices, tmp_path / "out", resume=True)


# ------------------------------------------------------------------------------------------------------ one writer
def test_a_folder_that_another_process_writes_to_is_refused(quick, blobs, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=1, width=0.1))
    out = tmp_path / "out"
    with locked(out), pytest.raises(InvalidArgumentError, match=r"another process is writing to .*out"):
        run_recipe(recipe)
    assert not tree(out)
    run_recipe(recipe)
    before = tree(out)
    for more in ({"resume": True}, {"overwrite": True}):
        with locked(out), pytest.raises(InvalidArgumentError, match="another process is writing to"):
            run_recipe(recipe, **more)
    choices = RobustChoices(data=str(blobs), epochs=1, threads=1)
    with locked(out), pytest.raises(InvalidArgumentError, match="another process is writing to"):
        train_robust(choices, out, overwrite=True)
    assert tree(out) == before


def test_a_run_that_ended_in_the_meantime_is_kept(quick, tmp_path, monkeypatch):
    """Both found the folder empty; the other one was faster."""
    recipe = Recipe.from_mapping(quick(epochs=1, width=0.1))
    original = _study.check_tracker

    def slower(kind: str) -> None:
        monkeypatch.setattr(_study, "check_tracker", original)
        run_recipe(recipe)
        original(kind)

    monkeypatch.setattr(_study, "check_tracker", slower)
    with pytest.raises(InvalidArgumentError, match="is not empty"):
        run_recipe(recipe.but(seed=1))
    assert read_json(tmp_path / "out" / "metrics.json", sealed=True)["runs"][0]["seed"] == 0


@pytest.mark.slow
def test_two_processes_with_one_folder(quick, tmp_path):
    fields = quick(epochs=20)
    command = [sys.executable, "-m", "obverse.cli", "sparsify", *options(fields)]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([*command, f"--seed={seed}"], env=environment, stderr=subprocess.PIPE, text=True)
        for seed in (0, 1)
    ]
    lines = [process.communicate(timeout=120)[1].strip() for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes) == [0, 2]
    refusal = lines[codes.index(2)]
    assert "\n" not in refusal
    assert refusal.startswith(("obverse: another process is writing to", "obverse: output folder"))
    run = read_json(tmp_path / "out" / "checkpoint" / "result.json", sealed=True)["run"]
    assert run["seed"] == codes.index(0)


# ------------------------------------------------------------------------------------------------------ full disks
class FullDisk:
    """From the given write on, none is possible."""

    def __init__(self, patch: pytest.MonkeyPatch, write: int) -> None:
        self.writes, self.allowed = 0, write
        original = os.fsync

        def fsync(descriptor: int) -> None:
            self.writes += os.readlink(f"/proc/self/fd/{descriptor}").count(".tmp")
            if self.writes > self.allowed:
                raise OSError(28, "No space left on device")
            original(descriptor)

        patch.setattr(files.os, "fsync", fsync)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")


@needs_proc
@pytest.mark.parametrize(
    "chosen", [slice(2, None, 4), pytest.param(slice(None), marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_a_full_disk_at_any_write_loses_nothing(quick, tmp_path, chosen):
    recipe = Recipe.from_mapping(quick(epochs=2, width=0.1, tracker="csv"))
    out, whole = tmp_path / "out", tmp_path / "whole"
    with pytest.MonkeyPatch.context() as patch:
        count = FullDisk(patch, 10**9)
        run_recipe(recipe.but(out=str(whole)))
    assert count.writes >= 8
    run_recipe(recipe.but(seed=5))
    old = tree(out)
    for write in range(count.writes)[chosen]:
        # A new run in the place of an old one: that is back.
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, write)
            with pytest.raises(FileWriteError, match=r"^cannot write \S+: No space left on device$"):
                run_recipe(recipe, overwrite=True)
        assert tree(out) == old
        # A run in a folder of its own: it goes on when there is space again.
        fresh = recipe.but(out=str(tmp_path / f"fresh-{write}"))
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, write)
            with pytest.raises(FileWriteError, match="No space left"):
                run_recipe(fresh)
        assert not [name for name in tree(fresh.folder()) if ".tmp" in name]
        run_recipe(fresh, resume=write > 0)
        same_result(whole, fresh.folder())
    run_recipe(recipe, overwrite=True)
    same_result(whole, out)
    assert not (out / ".replaced").exists()


@needs_proc
@pytest.mark.slow
def test_a_full_disk_at_any_write_of_two_stages(blobs, tmp_path):
    choices = RobustChoices(data=str(blobs), epochs=1, batch_size=32, folds=2, threads=1)
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        count = FullDisk(patch, 10**9)
        whole = train_robust(choices, tmp_path / "whole")
    train_robust(RobustChoices(**{**vars(choices), "seed": 5}), out)
    old = tree(out)
    for write in range(count.writes):
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, write)
            with pytest.raises(FileWriteError, match="No space left"):
                train_robust(choices, out, overwrite=True)
        assert tree(out) == old
        fresh = tmp_path / f"fresh-{write}"
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, write)
            with pytest.raises(FileWriteError, match="No space left"):
                train_robust(choices, fresh)
        assert str(train_robust(choices, fresh, resume=write > 0)) == str(whole)


def test_a_checkpoint_that_does_not_fit_on_the_disk(tmp_path):
    """The limit is real: torch says of it that its archive has a wrong length."""
    path = tmp_path / "state.pt"
    write_checkpoint(path, {"old": torch.zeros(3)})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(FileWriteError, match=rf"^cannot write {path}: File too large$"):
            write_checkpoint(path, {"new": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sparsify", "train", "robust", "compare"])
def test_a_command_on_a_full_disk(blobs, tmp_path, command):
    """A real process whose files may have 24 KiB."""
    out = tmp_path / "out"
    more = ["--device=cpu", "--methods=dense"] if command == "compare" else []
    line = [sys.executable, "-m", "obverse.cli", command, f"--data={blobs}", "--epochs=2", f"--out={out}", *more]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 * 1024, 24 * 1024))

    def call(*extra: str, full: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*line, *extra], env=environment, capture_output=True, text=True, preexec_fn=limit if full else None
        )

    ended = call(full=True)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stderr.strip().startswith("obverse: cannot write")
    assert ended.stderr.strip().endswith("File too large")
    assert "\n" not in ended.stderr.strip()
    again = [] if command == "compare" else ["--resume"] if command == "robust" else ["--overwrite"]
    assert call(*again, full=False).returncode == 0
    if command != "compare":
        before = tree(out)
        assert call("--overwrite", full=True).returncode == 2
        assert tree(out) == before


# ------------------------------------------------------------------------------------------------------ --overwrite
def test_results_are_replaced_when_the_new_ones_are_there(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, width=0.1))
    out = tmp_path / "out"
    run_recipe(recipe.but(seeds=2))
    (out / "notes.txt").write_text("mine")
    (out / "seed-1" / "notes.txt").write_text("mine")
    old = {name: content for name, content in tree(out).items() if "notes" not in name}
    new = recipe.but(seed=7)
    interrupt(new, 10, overwrite=True)
    assert tree(out / ".replaced") == old
    assert set(tree(out)) - {f".replaced/{name}" for name in old} == {
        *("recipe.yaml", "checkpoint/state.pt", "notes.txt", "seed-1/notes.txt")
    }
    with pytest.raises(InvalidArgumentError, match="is not empty"):
        run_recipe(new)
    run_recipe(new, resume=True)
    run_recipe(new.but(out=str(tmp_path / "whole")))
    same_result(tmp_path / "whole", out)
    assert not (out / ".replaced").exists()
    assert (out / "seed-1" / "notes.txt").read_text() == (out / "notes.txt").read_text() == "mine"
    assert not (out / "seed-0").exists()


def test_an_interruption_says_where_the_old_results_are(quick, tmp_path):
    recipe = Recipe.from_mapping(quick(epochs=2, width=0.1))
    run_recipe(recipe)
    old = tree(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 3)
        with pytest.raises(
            InterruptedRunError, match=r"until the run is finished, .*\.replaced keeps what it replaces"
        ):
            run_recipe(recipe.but(seed=1), overwrite=True)
    # Another try replaces the unfinished run, not what it would have replaced; when that fails, the first is back.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obverse.report.write_report", lambda *_: (_ for _ in ()).throw(RuntimeError("no fonts")))
        with pytest.raises(RuntimeError, match="no fonts"):
            run_recipe(recipe.but(seed=2), overwrite=True)
    assert tree(tmp_path / "out") == old


def test_a_run_that_fails_brings_the_old_results_back(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick(epochs=1, width=0.1)))
    old = tree(tmp_path / "out")
    with pytest.raises(ObverseError, match="the loss is"):
        run_recipe(Recipe.from_mapping(quick(optimizer="sgd", learning_rate=1e30, schedule="constant")), overwrite=True)
    assert tree(tmp_path / "out") == old


@pytest.mark.parametrize("moved", range(4))
def test_a_move_that_was_cut_short_is_undone(tmp_path, moved):
    def renames(allowed: int) -> Callable[..., None]:
        original, calls = os.replace, []

        def replace(*paths: Any) -> None:
            calls.append(paths)
            if len(calls) > allowed:
                raise SystemExit  # a kill
            original(*paths)

        return replace

    patterns = ("recipe.yaml", "model", "seed-*/model")
    for name in ("recipe.yaml", "model", "seed-0/model", "notes"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    old = tree(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obverse.training._replaced.os.replace", renames(moved))
        with pytest.raises(SystemExit):
            Replaced(tmp_path, patterns).set_aside()
    # The recipe, by which --resume finds the run, is the last to go.
    assert (tmp_path / "recipe.yaml").exists() == (moved < 3)
    Replaced(tmp_path, patterns).recover()
    assert tree(tmp_path) == old
    Replaced(tmp_path, patterns).set_aside()
    (tmp_path / "model").write_text("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obverse.training._replaced.os.replace", renames(moved))
        with pytest.raises(SystemExit):
            Replaced(tmp_path, patterns).put_back()
    Replaced(tmp_path, patterns).recover()
    Replaced(tmp_path, patterns).put_back()
    assert tree(tmp_path) == old


def test_robust_keeps_what_it_would_replace(blobs, tmp_path):
    choices = RobustChoices(data=str(blobs), epochs=1, batch_size=32, folds=2, threads=1)
    out = tmp_path / "out"
    train_robust(choices, out)
    old = tree(out)
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obverse.training._robust._write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_robust(RobustChoices(**{**vars(choices), "seed": 1}), out, overwrite=True, tell=told.append)
    assert told[-1] == f"until the run is finished, {out / '.replaced'} keeps what it replaces"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obverse.training._robust._write", lambda *_: (_ for _ in ()).throw(RuntimeError("no fonts")))
        with pytest.raises(RuntimeError, match="no fonts"):
            train_robust(RobustChoices(**{**vars(choices), "seed": 2}), out, overwrite=True)
    assert tree(out) == old


def test_a_refusal_in_the_command_is_one_line(quick, tmp_path, monkeypatch, capsys):
    fields = quick(epochs=1, width=0.1)
    del fields["width"]  # no option of the command
    run_recipe(Recipe.from_mapping(fields))
    (tmp_path / "out" / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["obverse", "sparsify", "--resume", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(
        f"obverse: {tmp_path / 'out' / 'model.safetensors'} is damaged: it is cut short; delete it"
    )
    assert "\n" not in message


def test_sealed_models_load_as_before(quick, tmp_path):
    run_recipe(Recipe.from_mapping(quick(epochs=1, width=0.1)))
    run = read_run(tmp_path / "out")
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(run.model.state_dict()[name], value)
    assert write_sealed(tmp_path / "a.npz", lambda file: np.savez(file, a=np.ones(2))).exists()
