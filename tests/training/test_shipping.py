"""The commands after a run: timing and export, each on the folder that `obverse sparsify` leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

from obverse import cli, load
from obverse.errors import DamagedFileError, InvalidArgumentError, ObverseError
from obverse.training import Recipe, bench_run, export_run, read_run, run_recipe
from obverse.training._shipping import _show


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
    answer("compact", str(folder))
    again = json.loads(answer("bench", str(folder), "--batch", "2", "--repeats", "5", "--json"))
    assert set(again["receipts"]) == {"trained", "compact"}
    assert set(again["receipts"]["compact"]) == {"2"}
    page = (folder / "report.html").read_text()
    assert "Smaller and timed" in page
    assert "The receipt: one forward pass" in page


def test_compact_leaves_a_smaller_equal_model(folder: Path) -> None:
    run = read_run(folder)
    with torch.no_grad():
        first = next(m for m in run.model.modules() if isinstance(m, torch.nn.Linear))
        first.weight[::2] = 0
    save_file(run.model.state_dict(), folder / "model.safetensors")
    assert "parameters" in answer("compact", str(folder))
    found = json.loads((folder / "certificate.json").read_text())
    assert found["after"]["parameters"] < found["before"]["parameters"]
    small = load(folder / "compact.safetensors", into=read_run(folder).model)
    inputs = next(run.batches("test"))[0]
    with torch.no_grad():
        torch.testing.assert_close(small(inputs), run.model(inputs), rtol=1e-5, atol=1e-5)
    again = json.loads(answer("compact", str(folder), "--json"))
    assert again["after"] == found["after"]
    page = (folder / "report.html").read_text()
    assert "The certificate: outputs before and after" in page
    assert f"{found['after']['parameters']:,}" in page
    assert "The receipt" not in page  # nothing was timed


def test_what_a_run_with_channels_zeroes_is_what_compact_removes(tmp_path: Path) -> None:
    out = tmp_path / "channels"
    recipe = Recipe(model="lenet-5", groups="channels", budget=0.6, epochs=2, threads=1, out=str(out))
    run_recipe(recipe, console=Console(quiet=True))
    answer("compact", str(out))
    found = json.loads((out / "certificate.json").read_text())
    assert found["after"]["parameters"] == pytest.approx(0.4 * found["before"]["parameters"], rel=0.05)


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


@pytest.mark.parametrize("name", ["metrics.json", "certificate.json"])
def test_a_page_is_not_made_of_damaged_records(folder: Path, name: str) -> None:
    answer("compact", str(folder))
    path, page = folder / name, folder / "report.html"
    whole, before = path.read_bytes(), page.read_bytes()
    place = whole.rindex(b"1")
    path.write_bytes(whole[:place] + b"3" + whole[place + 1 :])
    with pytest.raises(DamagedFileError, match=rf"{name} is damaged: .*; delete it and obverse \w+ .*makes it again"):
        _show(folder)
    assert page.read_bytes() == before
    path.write_bytes(whole)
    _show(folder)
    assert page.read_bytes() == before
