"""The commands after a run: timing and export, each on the folder that `obverse sparsify` leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from obverse import cli, save
from obverse.errors import InvalidArgumentError, ObverseError
from obverse.training import Recipe, bench_run, export_run, read_run, run_recipe


@pytest.fixture
def folder(quick: Any) -> Path:
    recipe = Recipe(**quick())
    run_recipe(recipe, console=Console(quiet=True))
    return recipe.folder()


def answer(*words: str) -> str:
    done = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_bench_keeps_a_receipt(folder: Path) -> None:
    text = answer("bench", str(folder), "--batch", "2,300", "--repeats", "5", "--threads", "1")
    assert "batch 300, 1 thread" in text
    assert "dense float32" in text
    record = json.loads((folder / "receipt.json").read_text())
    assert set(record["receipts"]) == {"trained"}
    assert record["receipts"]["trained"]["2"]["batch"] == 2
    save(read_run(folder).model, folder / "compact.safetensors")
    again = json.loads(answer("bench", str(folder), "--batch", "2", "--repeats", "5", "--json"))
    assert set(again["receipts"]) == {"trained", "compact"}
    assert set(again["receipts"]["compact"]) == {"2"}


def test_export_compares_what_it_writes(folder: Path) -> None:
    assert "relative difference" in answer("export", str(folder), "--format", "torch")
    run = read_run(folder)
    inputs = next(run.batches("test"))[0][:3]
    program = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(inputs), run.model(inputs))
    found = json.loads(answer("export", str(folder), "--format", "torch", "--out", str(folder / "x.pt2"), "--json"))
    assert found["path"] == str(folder / "x.pt2")
    assert found["difference"] <= 1e-5


def test_export_to_onnx(folder: Path) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    parity = export_run(folder)
    assert parity.difference <= 1e-4
    assert (folder / "model.onnx").stat().st_size == parity.bytes


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    for call, words in [
        (lambda: bench_run(tmp_path), "no finished run"),
        (lambda: bench_run(folder, batches=(0,)), "at least 1"),
        (lambda: bench_run(folder, batches=()), "none"),
        (lambda: bench_run(folder, threads=0), "threads"),
        (lambda: bench_run(folder, repeats=1), "repeats"),
        (lambda: export_run(folder, "tflite"), "unknown format"),
    ]:
        with pytest.raises(InvalidArgumentError, match=words):
            call()
    with pytest.raises(ObverseError, match="whole numbers"):
        answer("bench", str(folder), "--batch", "one")
    (folder / "compact.safetensors").write_bytes(b"nothing")
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        export_run(folder, "torch")
    export_run(folder, "torch", trained=True)
