"""`obverse robust`: two stages on a source of data, resumable, with tables by class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from obverse import cli
from obverse._core.files import read_json
from obverse.errors import InvalidArgumentError, StateError
from obverse.training import RobustChoices, train_robust

Fields = Callable[..., dict[str, Any]]


@pytest.fixture
def choices(blobs: Path) -> Callable[..., RobustChoices]:
    def make(**changes: Any) -> RobustChoices:
        return RobustChoices(**{"data": str(blobs), "epochs": 5, "batch_size": 16, "threads": 1, **changes})

    return make


def test_stages_tables_and_files(choices: Callable[..., RobustChoices], tmp_path: Path) -> None:
    told: list[str] = []
    result = train_robust(choices(), tmp_path / "run", tell=told.append)
    assert told
    assert result.test.balanced_error < 0.15
    assert len(result.stages.strengths) == 3
    assert float(result.stages.strengths.max()) == pytest.approx(1.0)
    record = read_json(tmp_path / "run" / "robust.json")
    assert record["choices"]["epochs"] == 5
    assert [row["group"] for row in record["test"]["rows"]] == ["0", "1", "2"]
    assert (tmp_path / "run" / "groups.png").read_bytes().startswith(b"\x89PNG")
    state = load_file(tmp_path / "run" / "stages" / "model.safetensors")
    assert state.keys() == result.stages.model.state_dict().keys()


def test_resume_reads_what_is_there(choices: Callable[..., RobustChoices], tmp_path: Path) -> None:
    first = train_robust(choices(deferred=3), tmp_path / "run")
    model = tmp_path / "run" / "stages" / "model.safetensors"
    content = model.read_bytes()
    with pytest.raises(InvalidArgumentError, match="is not empty"):
        train_robust(choices(deferred=3), tmp_path / "run")
    model.unlink()  # as if it had been cut short in the second stage
    again = train_robust(choices(deferred=3), tmp_path / "run", resume=True)
    assert model.read_bytes() == content
    assert str(again) == str(first)
    with pytest.raises(StateError, match="belongs to other data or arguments"):
        train_robust(choices(deferred=2), tmp_path / "run", resume=True)
    replaced = train_robust(choices(deferred=2), tmp_path / "run", overwrite=True)
    assert replaced.stages.strengths.shape == first.stages.strengths.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet-5"}, "needs images"),
        ({"augment": "flip"}, "is for images"),
        ({"augment": "rotate"}, "unknown augmentation"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_refusals_leave_no_folder(
    choices: Callable[..., RobustChoices], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        train_robust(choices(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_tables(blobs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--data", str(blobs), "--epochs", "4", "--every", "2", "--threads", "1", "--out", str(folder)]
    result = CliRunner().invoke(cli.app, ["robust", *options])
    assert result.exit_code == 0, result.output
    for words in ("strength", "What adaptivity can buy", "balanced error", "groups.png"):
        assert words in result.output
