"""Two processes that share each batch end where one process ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import obverse
from obverse._core.files import read_json
from obverse.training import Recipe, run_recipe

SOURCE = str(Path(obverse.__file__).parents[1])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without distributed"),
]


def launch(fields, processes, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), "--num_cpu_threads_per_process", "1", "-m", "obverse.cli"]
    return subprocess.run(
        [*command, "sparsify", *options, *more],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"face": "proximal"},
        {"face": "dropout"},
        {"labels": "adaptive"},
        {"labels": "online"},
        {"labels": "progressive"},
    ],
    ids=lambda changes: "".join(changes.values()),
)
def test_two_equal_one(quick, tmp_path, changes):
    fields = quick(**changes, epochs=3, optimizer="sgd", learning_rate=0.05)
    one = run_recipe(Recipe.from_mapping(fields | {"out": str(tmp_path / "one")}))
    result = launch(fields | {"out": str(tmp_path / "two")}, 2)
    assert result.returncode == 0, result.stdout + result.stderr
    two = read_json(tmp_path / "two" / "metrics.json")
    for ours, theirs in zip(one["runs"][0]["history"], two["runs"][0]["history"], strict=True):
        assert theirs["step"] == ours["step"]
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-3)
        assert theirs["sparsity"] == pytest.approx(ours["sparsity"], abs=2e-3)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # Sums are taken in another order; a weight on the boundary may fall on its other side.
    for key in ours:
        close = torch.isclose(ours[key], theirs[key], rtol=1e-3, atol=1e-4)
        assert close.float().mean() > 0.99, key
    assert result.stdout.count("test error") == 1
