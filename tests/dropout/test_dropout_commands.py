"""The commands `dropout diagnose` and `dropout spectrum`, the picture, and the guide's code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from obverse.cli import app
from obverse.dropout import deep_linear
from obverse.errors import InvalidArgumentError, ObverseError
from obverse.report import plot_spectrum
from obverse.training import Recipe, diagnose_run, read_run, run_recipe


def answer(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["dropout", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run_recipe(Recipe(epochs=2, budget=0.5, device="cpu", out=str(path)))
    return path


def test_spectrum_shows_the_phases_of_the_theory() -> None:
    found = json.loads(answer("spectrum", "--singular-values", "1, 3 2", "--depth", "2", "--width", "4", "--json"))
    assert found["singular_values"] == [3.0, 2.0, 1.0]
    steps = found["phases"]
    assert [round(step["keep_probability"], 4) for step in steps] == [0.7415, 0.4319]
    assert [round(step["relaxed_keep_probability"], 4) for step in steps] == [0.6177, 0.2546]
    assert not any(step["continuous"] for step in steps)
    row = next(row for row in found["rates"] if row["keep_probability"] == 0.7)
    best = deep_linear.global_optimum(None, np.diag([3.0, 2.0, 1.0]), keep_probability=0.7, widths=[4, 4])
    np.testing.assert_allclose(row["singular_values"], best.singular_values, atol=1e-9)
    assert row["loss"] == pytest.approx(best.value)
    assert row["relaxed_loss"] == pytest.approx(best.relaxation_value)
    text = answer("spectrum", "--singular-values", "3,2,1", "--width", "4", "--keep", "0.9,0.2")
    assert "0.4286" in text
    assert "smooth" in text
    # The rank of one direction never falls.
    assert "at no keep probability" in answer("spectrum", "--singular-values", "3", "--width", "4")


def test_spectrum_of_blocks() -> None:
    found = json.loads(
        answer("spectrum", "--singular-values", "3,2,1", "--width", "4", "--block-size", "2", "--keep", "0.5", "--json")
    )
    best = deep_linear.global_optimum(None, np.diag([3.0, 2.0, 1.0]), keep_probability=0.5, widths=4, block_size=2)
    np.testing.assert_allclose(found["rates"][0]["singular_values"], best.singular_values, atol=1e-9)
    assert found["proven_rank_one_below"] is None


def test_spectrum_of_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((80, 5)) + 3
    y = x @ generator.standard_normal((5, 2)) + 0.1 * generator.standard_normal((80, 2))
    np.savez(tmp_path / "numbers.npz", X=x, y=y)
    found = json.loads(answer("spectrum", "--data", str(tmp_path / "numbers.npz"), "--width", "8", "--json"))
    best = deep_linear.global_optimum(*deep_linear.second_moments(x, y, center=True), keep_probability=0.9, widths=8)
    np.testing.assert_allclose(found["singular_values"], best.target_singular_values, rtol=1e-8)
    np.savez(tmp_path / "labels.npz", X=x, y=np.arange(80) % 4)
    found = json.loads(answer("spectrum", "--data", str(tmp_path / "labels.npz"), "--width", "8", "--json"))
    assert len(found["singular_values"]) == 3


def test_a_picture(tmp_path: Path) -> None:
    for depth, suffix in (("1", "png"), ("2", "svg")):
        path = tmp_path / f"picture.{suffix}"
        text = answer("spectrum", "--singular-values", "3,2,1", "--depth", depth, "--width", "4", "--out", str(path))
        assert str(path) in text.replace("\n", "")
        assert path.stat().st_size > 10_000
    with pytest.raises(InvalidArgumentError, match=r"\.png or \.svg"):
        plot_spectrum({}, tmp_path / "picture.pdf")


def test_diagnose_reads_a_run(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    found = json.loads(answer("diagnose", str(folder), "--rate", "0.2", "--json", "--out", str(page)))
    diagnosis = found["diagnosis"]
    assert diagnosis["laws"] == ["Bernoulli(keep_probability=0.8)"]
    assert (diagnosis["units"], diagnosis["outputs"], diagnosis["loss"]) == (64, 10, "cross-entropy")
    assert found["data"] == {"name": "digits", "part": "test", "classes": [str(i) for i in range(10)]}
    assert "64 units and 10 outputs" in page.read_text("utf-8")
    run = read_run(folder)
    assert diagnosis["examples"] == len(run.data.test)
    # The weights are those of the run: its error on the test rows is that on record.
    wrong = sum(int((run.model(x).argmax(1) != y).sum()) for x, y in run.batches("test"))
    record = json.loads((folder / "metrics.json").read_text())
    assert wrong / len(run.data.test) == pytest.approx(record["runs"][0]["test"]["error"])
    text = answer("diagnose", str(folder), "--part", "train")
    assert f"{len(run.data.train):,} examples" in text
    assert "assumed" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("spectrum", "--width", "4"), "--singular-values or --data"),
        (("spectrum", "--width", "4", "--singular-values", "3", "--data", "x.npz"), "one of them"),
        (("spectrum", "--width", "4", "--singular-values", "3,two"), "takes numbers with commas"),
        (("spectrum", "--width", "4", "--singular-values", "3,-1"), "nonnegative"),
        (("spectrum", "--width", "0", "--singular-values", "3"), "at least 1"),
        (("spectrum", "--width", "4", "--singular-values", "3", "--depth", "0"), "at least 1"),
        (("spectrum", "--width", "4", "--singular-values", "3", "--keep", "1.5"), r"\(0, 1\]"),
        (("spectrum", "--width", "4", "--singular-values", "3", "--block-size", "3"), "do not divide"),
        (("spectrum", "--width", "4", "--singular-values", "3", "--out", "picture.pdf"), r"\.png or \.svg"),
        (("spectrum", "--width", "4", "--data", "missing.npz"), "no such file"),
        (("spectrum", "--width", "4", "--data", __file__), "cannot read"),
        (("diagnose", "missing"), "no such run"),
        (("diagnose", "."), "no finished run"),
        (("diagnose", "RUN", "--rate", "1"), r"\[0, 1\)"),
        (("diagnose", "RUN", "--part", "tset"), "'test'"),
        (("diagnose", "RUN", "--out", "page.png"), r"\.html"),
        (("diagnose", "RUN", "--model", "lenet-5"), "does not fit"),
    ],
)
def test_bad_input_is_refused(
    arguments: tuple[str, ...], words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ObverseError, match=words):
        answer(*(str(folder) if word == "RUN" else word for word in arguments))
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_and_code_two(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", X=np.array([{}], dtype=object), y=np.zeros(1))
    command = [sys.executable, "-m", "obverse.cli", "dropout", "spectrum", "--width", "4", "--data"]
    done = subprocess.run([*command, str(tmp_path / "pickled.npz")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("obverse: cannot read")
    assert done.stdout == ""


def test_a_broken_run_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InvalidArgumentError, match=r"model\.safetensors is damaged"):
        read_run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("model: some.module:factory\n")
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(InvalidArgumentError, match="names code to import"):
        diagnose_run(tmp_path)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[2] / "docs" / "dropout.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(guide), "exec"), scope)
