"""The benchmark of models: one row is measured, kept in its file, and shown in tables and on the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_row_is_measured_kept_and_shown(tmp_path: Path) -> None:
    results, page = tmp_path / "zoo.json", tmp_path / "models.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "zoo.py"), "--json", str(results), "--page", str(page)]
    command += ["--families", "plain", "--only", "perceptron"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    row = json.loads(results.read_text())["plain: perceptron"]
    assert row["zeroed"]["exact"]
    assert row["zeroed"]["reload"] is True
    assert row["zeroed"]["removable"] > 0.99
    assert 0.25 < row["zeroed"]["left"] < 0.35
    assert "| plain | 1 | 1 | 1 | 0 | 1 |" in done.stdout
    assert "| perceptron |" in page.read_text()
    before = results.read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0
    assert results.read_bytes() == before  # nothing is measured twice
