"""The number of threads: what was given, what the environment says, and what a few steps say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from obverse.training import Recipe, RobustChoices, run_recipe, train_robust
from obverse.training import _threads as threads_module
from obverse.training._machine import decided
from obverse.training._study import read_data
from obverse.training._threads import chosen_threads, environment_threads, faster


@pytest.fixture(autouse=True)
def _eight_idle_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads_module, "available_cores", lambda: 8)


def never(*arguments: Any) -> int:
    raise AssertionError("nothing is to be timed here")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": " 3 "}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"MKL_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}, 1),
        ({"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "-1"}, None),
        ({"OMP_NUM_THREADS": "999999"}, 1024),
    ],
)
def test_the_environment(environment: dict[str, str], threads: int | None) -> None:
    assert environment_threads(environment) == threads


@pytest.mark.parametrize(
    ("one", "many", "chosen"),
    [
        ([1.0], [0.5], 4),
        ([1.0], [0.95], 1),  # not worth it
        ([1.0], [10.0], 1),
        ([1.0, 1.0, 9.0], [0.5, 0.5, 20.0], 4),  # a median: what one step says does not count
    ],
)
def test_the_faster_number_is_chosen(one: list[float], many: list[float], chosen: int) -> None:
    asked: list[int] = []

    def seconds(threads: int) -> float:
        asked.append(threads)
        times = one if threads == 1 else many
        return times[(asked.count(threads) - 1) % len(times)]

    assert faster(seconds, 4) == chosen
    assert asked[:4] == [1, 4, 1, 4]


def test_slow_steps_are_timed_once() -> None:
    asked: list[int] = []
    assert faster(lambda threads: asked.append(threads) or 5.0 / threads, 2) == 2  # type: ignore[func-returns-value]
    assert asked == [1, 2, 1, 2]


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_mapping({"data": "digits", "device": "cpu", **changes})


def test_an_order_of_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads_module, "faster", lambda seconds, most: most)
    data = read_data(recipe())
    assert decided(recipe(model="lenet-5", threads=3), data, 1).threads == 3
    assert decided(recipe(model="lenet-5"), data, 1).threads == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert decided(recipe(model="lenet-5"), data, 1).threads == 5
    assert decided(recipe(model="lenet-5", threads=3), data, 1).threads == 3
    stored = tmp_path / "recipe.yaml"
    stored.write_text(recipe(threads=2).to_yaml())
    assert decided(recipe(model="lenet-5"), data, 1, stored).threads == 2
    stored.write_text("threads: [")
    assert decided(recipe(model="lenet-5"), data, 1, stored).threads == 5


def test_a_small_dense_model_and_a_single_core_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "faster", never)
    data = read_data(recipe())
    assert decided(recipe(model="mlp"), data, 1).threads == 1
    monkeypatch.setattr(threads_module, "available_cores", lambda: 1)
    assert decided(recipe(model="lenet-5"), data, 1).threads == 1


def test_a_model_that_cannot_be_timed_gets_one_thread() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x: Any) -> Any:
            raise ZeroDivisionError

    before = torch.get_num_threads()
    assert chosen_threads(Broken, read_data(recipe()), 8) == 1
    assert torch.get_num_threads() == before


def test_timing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose number of threads was timed equals the run that was given that number, to the last bit."""
    monkeypatch.setattr(threads_module, "available_cores", lambda: 2)
    monkeypatch.setattr(threads_module, "_SECONDS", 0.0)
    data = read_data(recipe())
    random, before = torch.get_rng_state(), torch.get_num_threads()
    decided(recipe(model="lenet-5", batch_size=16), data, 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == before
    fields = {"data": "digits", "model": "lenet-5", "face": "none", "epochs": 1, "batch_size": 512, "device": "cpu"}
    timed = run_recipe(Recipe.from_mapping({**fields, "out": str(tmp_path / "timed")}))
    chosen = yaml.safe_load((tmp_path / "timed" / "recipe.yaml").read_text())["threads"]
    given = run_recipe(Recipe.from_mapping({**fields, "out": str(tmp_path / "given"), "threads": chosen}))
    assert timed["runs"][0]["history"] == given["runs"][0]["history"]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("timed", "given")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_resumed_run_keeps_the_number_that_it_began_with(
    quick: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**quick(), "model": "lenet-300-100"}
    del fields["threads"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_recipe(Recipe.from_mapping(fields))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    metrics = run_recipe(Recipe.from_mapping({**fields, "seeds": 2}), resume=True)
    assert metrics["recipe"]["threads"] == 1


def test_robust_training_records_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blobs: Path) -> None:
    import json

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    choices = RobustChoices(data=str(blobs), epochs=1, folds=2)
    train_robust(choices, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "robust.json").read_text())["choices"]["threads"] == 1


def test_a_command_respects_the_environment(blobs: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "obverse.cli", "sparsify", "--data", str(blobs), "--model", "lenet-300-100"]
    words += ["--epochs", "1", "--out", str(tmp_path / "out")]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["threads"] == 1
