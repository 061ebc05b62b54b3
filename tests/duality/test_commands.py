"""The commands `penalties` and `duality`, the curves and the picture, and the guide's code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from obverse.duality import faces
from obverse.errors import InvalidArgumentError
from obverse.penalties import LogSum, penalty
from obverse.report import plot_faces


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "obverse.cli", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_penalties_lists_the_catalogue() -> None:
    rows = json.loads(run("penalties", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["log-sum"]["tail"] == "logarithmic"
    assert by_name["l0"]["slope_at_zero"] == "inf"
    assert "variational-dropout" in run("penalties").stdout


def test_duality_prints_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "faces.svg"
    done = run("duality", "log-sum", "--epsilon", "0.5", "--strength", "0.2", "--out", str(picture), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["slope_at_zero"] == 2.0
    assert summary["table"]["value"][5] == pytest.approx(np.log(3))
    assert picture.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    done = run("duality", "--keep-probability", "1/(1+exp(-w))")
    assert "no exact zeros" in done.stdout
    assert run("duality", "variational-dropout", "--set", "kl=fit", "--set", "scale=2").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("duality", "lgsum"),
        ("duality", "log-sum", "--set", "epsilon=-1"),
        ("duality", "log-sum", "--set", "epsilon"),
        ("duality", "--keep-probability", "w.__class__"),
        ("duality", "--keep-probability", "exp(-w)"),
        ("duality",),
        ("duality", "log-sum", "--strength", "0"),
        ("duality", "log-sum", "--strength", "-1"),
        ("duality", "log-sum", "--strength", "nan"),
        ("duality", "log-sum", "--set", "epsilon=1e300"),
        ("duality", "log-sum", "--epsilon", "1", "--set", "epsilon=2"),
        ("duality", "--keep-probability", "0*w + 1e-300"),
        ("duality", "--keep-probability", "-(w < 1)"),
        ("duality", "--keep-probability", "1if w else 2"),
        ("duality", "--keep-probability", "w/(w+1)", "--strength", "1e300"),
        ("duality", "log-sum", "--out", "faces.txt"),
    ],
)
def test_bad_input_is_one_line_and_code_two(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("obverse: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_faces_and_picture(tmp_path: Path) -> None:
    curves = faces(LogSum(0.5), 0.3)
    assert curves.w[0] == 0
    for column in (curves.value, curves.slope, curves.keep_probability, curves.eta, curves.prox, curves.dual):
        assert column.shape == curves.w.shape
    assert (np.diff(curves.keep_probability) >= 0).all()
    for name in ("hard-concrete", "ridge", "l0", "l0.5"):
        path = plot_faces(penalty(name), 0.3, tmp_path / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidArgumentError, match=r"\.png or \.svg"):
        plot_faces(LogSum(), 1.0, tmp_path / "faces.pdf")
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        plot_faces(LogSum(), 1.0, tmp_path / "missing" / "faces.png")


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[2] / "docs" / "duality.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(guide), "exec"), scope)
