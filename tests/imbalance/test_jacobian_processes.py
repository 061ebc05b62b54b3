"""Two data-parallel processes train as one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("jacobian_processes.py")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["double-backward", "finite-difference", "last-layer"])
def test_two_processes_are_one(backend: str, tmp_path: Path) -> None:
    for world in (1, 2):
        processes = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), backend, str(rank), str(world), str(tmp_path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output
    one, two = (load_file(tmp_path / f"{backend}-{world}.safetensors") for world in (1, 2))
    tolerance = 1e-5 if backend == "finite-difference" else 1e-10
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=tolerance, atol=tolerance)
