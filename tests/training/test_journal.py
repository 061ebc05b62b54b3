"""The journal of a comparison: what damages it, what it survives, and that a study is made again from its cells."""

from __future__ import annotations

import json
import random
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from obverse import cli
from obverse._core import files
from obverse._core.files import read_json
from obverse.errors import DamagedFileError, FileWriteError
from obverse.training import InterruptedRunError, Recipe, StopRequest, Trainer, compare, run_recipe
from obverse.training._journal import journal

pytest.importorskip("optuna")

LOGS: list[dict[str, Any]] = [
    {"op_code": 0, "worker_id": "a-1", "study_name": "out", "directions": [1, 1]},
    {"op_code": 2, "study_id": 0, "user_attr": {"about": {"mean": [0.1, 1e-9, -3.5], "name": "über"}}},
    {"op_code": 8, "trial_id": 0, "user_attr": {"result": {"test_error": 0.25, "kept": None, "state": True}}},
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "study.log"
    journal(str(path)).append_logs(LOGS)
    return path


def read(path: Path, start: int = 0) -> list[dict[str, Any]]:
    return list(journal(str(path)).read_logs(start))


def test_what_is_appended_is_read_from_any_place(written: Path) -> None:
    assert read(written) == LOGS
    backend = journal(str(written))
    assert list(backend.read_logs(0)) == LOGS
    backend.append_logs(LOGS[:2])
    for start in range(6):
        assert list(backend.read_logs(start)) == [*LOGS, *LOGS[:2]][start:]


def test_optuna_reads_it_and_what_others_add_is_read(written: Path) -> None:
    from optuna.storages.journal import JournalFileBackend

    plain = JournalFileBackend(str(written))
    found = list(plain.read_logs(0))
    assert [{name: value for name, value in log.items() if name != "digest"} for log in found] == LOGS
    plain.append_logs(LOGS[:1])
    assert read(written) == [*LOGS, LOGS[0]]


def test_a_torn_end_is_no_operation_and_the_next_writer_removes_it(written: Path) -> None:
    whole = written.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    for length in (*range(last, len(whole), 9), len(whole) - 1):
        written.write_bytes(whole[:length])
        assert read(written) == LOGS[:2]
        journal(str(written)).append_logs(LOGS[2:])
        assert written.read_bytes() == whole
    written.write_bytes(b"torn in the first line")
    journal(str(written)).append_logs(LOGS)
    assert written.read_bytes() == whole


def test_every_flipped_bit_is_refused_or_only_tears_the_end(written: Path) -> None:
    whole, draw = written.read_bytes(), random.Random(0)
    lines = whole.splitlines(keepends=True)
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        written.write_bytes(flipped)
        try:
            found = read(written)
        except DamagedFileError as error:
            message = str(error)
            assert str(written) in message
            assert "delete it, and the same command makes the study again" in message
            assert "\n" not in message
            continue
        if place == len(whole) - 1:
            assert found == LOGS[:2]  # the end of the last line
        else:
            # A digest that is not called so any more leaves a line as others write it.
            number = sum(place >= len(b"".join(lines[: n + 1])) for n in range(3))
            assert b'"digest"' not in bytes(flipped).splitlines()[number]
            assert all({**LOGS[n], **log} == log for n, log in enumerate(found))


def test_what_does_not_fit_on_the_disk_is_taken_back(written: Path) -> None:
    before, limits = written.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    backend = journal(str(written))
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(FileWriteError, match=rf"^cannot write {written}: File too large$"):
            backend.append_logs(LOGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == ["study.log"]
    backend.append_logs(LOGS)
    assert read(written) == LOGS * 2


# ------------------------------------------------------------------------------------------------------ whole studies
@pytest.fixture
def study(quick: Any) -> Recipe:
    return Recipe.from_mapping(quick(budget=None, epochs=1, width=0.1))


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "command"}


def joined(recipe: Recipe) -> dict[str, Any]:
    """The same command as a user gives it again: with the folder only."""
    return compare(Recipe.from_mapping({"data": recipe.data, "out": recipe.out}))


def test_a_journal_cut_anywhere_is_made_again_from_the_cells(study: Recipe, tmp_path: Path, monkeypatch: Any) -> None:
    first = compare(study, "dense,magnitude", [0.5])
    path = tmp_path / "out" / "study.log"
    whole = path.read_bytes()
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("what is done is not trained again"))
    # A cut between the claim of a cell and the name of its holder leaves one that may be at work elsewhere.
    monkeypatch.setattr("obverse.training._shared_study.LEASE_SECONDS", 0.1)
    for length in (len(whole) - 7, len(whole) // 2, 300, 0):
        path.write_bytes(whole[:length])
        assert timeless(joined(study)) == timeless(first)
    path.unlink()
    assert timeless(joined(study)) == timeless(first)


def test_a_damaged_middle_is_refused_and_the_way_out_leads_on(
    study: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = compare(study, "dense", [0.5])
    path = tmp_path / "out" / "study.log"
    content = bytearray(path.read_bytes())
    content[content.index(b'"learning_rate"') + 18] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["obverse", "compare", f"--data={study.data}", f"--out={study.out}"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.strip() == (
        f"obverse: {path} is damaged in line 2; delete it, and the same command makes the study again from "
        "compare.json and cells"
    )
    path.unlink()
    assert timeless(joined(study)) == timeless(first)


def test_a_damaged_record_is_refused_and_written_again(study: Recipe, tmp_path: Path) -> None:
    first = compare(study, "dense", [0.5])
    path = tmp_path / "out" / "compare.json"
    content = bytearray(path.read_bytes())
    content[content.index(b'"learning_rate"') + 18] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"compare\.json is damaged: .*; delete it and it is written again"):
        joined(study)
    path.unlink()
    assert timeless(joined(study)) == timeless(first)
    assert timeless(read_json(path, sealed=True)) == timeless(first)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_cell_ends_the_comparison_and_the_others_stay(
    study: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    steps: list[int] = []
    original = Trainer._step

    def step(trainer: Trainer, batch: Any) -> float:
        steps.append(trainer.step)
        return original(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        patch.setattr(StopRequest, "asked", property(lambda self: len(steps) == 11, lambda *_: None), raising=False)
        with pytest.raises(InterruptedRunError, match="step"):
            compare(study, "dense,magnitude", [0.5])
    state = tmp_path / "out" / "cells" / "magnitude-0.5-seed-0" / "checkpoint" / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match=rf"{state} is damaged: .*; delete it and"):
        joined(study)
    record = read_json(tmp_path / "out" / "compare.json", sealed=True)
    assert [cell["state"] for cell in record["cells"]] == ["done", "waiting"]
    state.unlink()
    assert [cell["state"] for cell in joined(study)["cells"]] == ["done", "done"]


def test_a_full_disk_ends_the_comparison(study: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = files.write_atomically

    def full(path: Any, write: Any) -> Path:
        if "magnitude" in str(path) and str(path).endswith("state.pt"):
            raise FileWriteError(f"cannot write {path}: No space left on device")
        return original(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", full)
        with pytest.raises(FileWriteError, match=r"^cannot write \S+state\.pt: No space left on device$"):
            compare(study, "dense,magnitude", [0.5])
    record = read_json(tmp_path / "out" / "compare.json", sealed=True)
    assert [cell["state"] for cell in record["cells"]] == ["done", "waiting"]
    assert [cell["state"] for cell in joined(study)["cells"]] == ["done", "done"]


def test_a_database_that_refuses_is_one_line(study: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    from obverse.training._shared_study import SharedStudy

    def full(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(SharedStudy, "add", full)
    with pytest.raises(FileWriteError, match=r"^cannot use the storage sqlite:.*database or disk is full$"):
        compare(study, "dense", [0.5], storage=f"sqlite:///{tmp_path / 'study.db'}")


def test_a_study_that_lost_some_cells_keeps_them_in_the_table(study: Recipe, tmp_path: Path) -> None:
    compare(study, "dense,magnitude", [0.5])
    path = tmp_path / "out" / "study.log"
    lines = path.read_bytes().splitlines(keepends=True)
    keep = next(n for n, line in enumerate(lines) if json.loads(line)["op_code"] == 4) + 1
    path.write_bytes(b"".join(lines[:keep]))
    record = compare(Recipe.from_mapping({"data": study.data, "out": study.out}), methods="random")
    assert [cell["method"] for cell in record["cells"]] == ["dense", "magnitude", "random"]
    assert {cell["state"] for cell in record["cells"]} == {"done"}
    assert run_recipe(
        Recipe.read(tmp_path / "out" / "cells" / "random-0.5-seed-0" / "recipe.yaml").but(out=str(tmp_path / "again"))
    )["runs"]
