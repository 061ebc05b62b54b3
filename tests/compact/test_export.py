"""Export: what leaves Python computes the same, and a clear word where it cannot leave."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from compact_models import Attention, Residual, perceptron
from torch import Tensor, nn

from obverse.compact import ExportError, export_onnx, export_program
from obverse.errors import InvalidArgumentError

EXPORTED = {
    "perceptron": (lambda: perceptron(20, 10), lambda: torch.randn(3, 784)),
    "residual": (lambda: Residual(8), lambda: torch.randn(2, 3, 6, 6)),
    "attention": (lambda: Attention(20, 2, 5), lambda: torch.randn(2, 7, 20)),
}


@pytest.mark.parametrize("case", EXPORTED)
def test_torch_export(case: str, tmp_path: Path) -> None:
    build, inputs = EXPORTED[case]
    model, x = build(), inputs()
    parity = export_program(model, x, tmp_path / "m.pt2")
    assert model.training
    assert parity.difference <= 1e-5
    assert parity.batches == (len(x), 2 * len(x))
    assert parity.bytes == (tmp_path / "m.pt2").stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt2"]
    module = torch.export.load(tmp_path / "m.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(module(x[:1]), model.eval()(x[:1]))


@pytest.mark.parametrize("case", EXPORTED)
def test_onnx(case: str, tmp_path: Path) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    build, inputs = EXPORTED[case]
    x = inputs()
    parity = export_onnx(build(), x, tmp_path / "m.onnx")
    assert parity.difference <= 1e-4
    assert parity.batches == (len(x), 2 * len(x))
    assert "relative difference" in str(parity)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_one_sample_and_a_fixed_batch(tmp_path: Path) -> None:
    model = perceptron(5, 4)
    assert export_program(model, torch.randn(1, 784), tmp_path / "m.pt2").batches == (2, 4)
    assert export_program(model, torch.randn(1, 784), tmp_path / "m.pt2", dynamic_batch=False).batches == (1,)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool((x > 0).all()) else -x

    with pytest.raises(ExportError, match="cannot be exported"):
        export_program(Branching(), torch.randn(2, 3), tmp_path / "m.pt2")
    with pytest.raises(ExportError, match="differs"):
        export_program(nn.Linear(3, 3), torch.randn(2, 3), tmp_path / "m.pt2", tolerance=-1.0)
    with pytest.raises(InvalidArgumentError, match="batch dimension"):
        export_program(nn.Linear(3, 3), [torch.tensor(1.0)], tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from obverse.compact import _export

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(_export.importlib, "import_module", absent)
    with pytest.raises(InvalidArgumentError, match=r"obverse\[export\]"):
        export_onnx(nn.Linear(2, 2), torch.randn(2, 2), tmp_path / "m.onnx")


class Prototypes(nn.Module):
    """Compares with rows of the data, which it holds as a slice."""

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", data[:5])
        self.scale = nn.Parameter(data[0, :1])

    def forward(self, x: Tensor) -> Tensor:
        rows: Any = self.rows
        return self.scale * x @ rows.T


SECRET = torch.arange(20_000.0).reshape(1000, 20) + 0.123


@pytest.mark.parametrize("dynamic_batch", [True, False])
@pytest.mark.parametrize("build", [lambda: nn.Linear(20, 3), lambda: Prototypes(SECRET)], ids=["layer", "slices"])
@pytest.mark.parametrize("export", [export_program, export_onnx])
def test_no_row_of_the_data_gets_into_the_file(export: Any, build: Any, dynamic_batch: bool, tmp_path: Path) -> None:
    if export is export_onnx:
        pytest.importorskip("onnxscript")
    model = build()
    file = tmp_path / "m.out"
    export(model, SECRET[100:104], file, dynamic_batch=dynamic_batch)
    content = b"".join([file.read_bytes(), *(zipfile.ZipFile(file).read(n) for n in _entries(file))])
    assert len(file.read_bytes()) < 30_000
    for row in (100, 103, 500, 999):
        assert SECRET[row].numpy().tobytes() not in content


def _entries(file: Path) -> list[str]:
    return zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
