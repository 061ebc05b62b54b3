"""Two data-parallel processes end where one process ends, with every criterion that learns or counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from label_cases import STATEFUL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without distributed"),
]
HERE = Path(__file__).parent
KINDS = ("outside", "inside", "resumed")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """What every process has saved, by kind and number."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found: dict[str, Any] = {}
    for kind in ("one", *KINDS):
        world = 1 if kind == "one" else 2
        running = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "label_processes.py", kind, str(rank), str(world), str(folder)],
                cwd=HERE,
                env=environment,
                stderr=subprocess.PIPE,
            )
            for rank in range(world)
        ]
        for rank, process in enumerate(running):
            _, complaint = process.communicate(timeout=240)
            assert process.returncode == 0, complaint.decode()[-2000:]
            found[f"{kind}-{rank}"] = torch.load(folder / f"{kind}-{rank}.pt", weights_only=True)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", STATEFUL)
def test_two_processes_end_where_one_does(case: str, kind: str, ended: Any) -> None:
    one, first, second = (ended[name][case] for name in ("one-0", f"{kind}-0", f"{kind}-1"))
    assert set(one) == set(first) == set(second)
    assert any(name.startswith("criterion.") for name in one)
    for name, expected in one.items():
        # A memory grows with the ids that a process has met; what was written is the same everywhere.
        written = slice(24) if name.startswith("criterion.memory.") else slice(None)
        ours, theirs = (each if not each.dim() else each[written] for each in (first[name], second[name]))
        assert torch.equal(ours, theirs), name
        if case == "disturb" and "." in name and not name.startswith("criterion."):
            continue  # processes draw differently, as rows of one process do
        if name.startswith("criterion.memory."):
            continue  # compared as what they mean, below
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [case for case in STATEFUL if case.startswith(("early", "progressive"))])
def test_memories_hold_the_same_distributions(case: str, kind: str, ended: Any) -> None:
    tables = []
    for name in ("one-0", f"{kind}-0"):
        values = ended[name][case]["criterion.memory.values"].float()
        classes = ended[name][case]["criterion.memory.classes"].long()
        if classes.shape[1]:
            values = torch.zeros(len(values), 5).scatter_(1, classes, values)
        tables.append(values[:24])
    assert (tables[0] >= 0).all()
    # Stored in half precision: a rounding may differ, and so may what it did to the next step.
    torch.testing.assert_close(tables[1], tables[0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_two_processes_are_those_of_one(kind: str, ended: Any) -> None:
    one = ended["one-0"]["metrics"]
    for rank in (0, 1):
        for name, value in ended[f"{kind}-{rank}"]["metrics"].items():
            torch.testing.assert_close(value, one[name], rtol=1e-9, atol=1e-12)
