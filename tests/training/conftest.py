"""Small data sets on disk, and the recipe of a run that takes a fraction of a second."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("datasets")
pytest.importorskip("accelerate")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """Three Gaussian blobs in six dimensions, as csv."""
    return _blobs(tmp_path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, once for all tests of a file."""
    return _blobs(tmp_path_factory.mktemp("table"))


def _blobs(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    points = rng.normal(size=(150, 6)) + 3 * np.eye(6)[labels]
    path = folder / "blobs.csv"
    lines = ["a,b,c,d,e,f,label"]
    lines += [",".join([*(f"{x:.5f}" for x in row), str(y)]) for row, y in zip(points, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def quick(blobs: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Fields of a recipe that trains on the blobs in a moment."""

    def fields(**changes: Any) -> dict[str, Any]:
        base = {"data": str(blobs), "epochs": 6, "batch_size": 16, "budget": 0.8, "out": str(tmp_path / "out")}
        base |= {"device": "cpu", "threads": 1}
        return {name: value for name, value in (base | changes).items() if value is not None}

    return fields


@pytest.fixture
def png() -> Callable[..., bytes]:
    """An encoded image: a class-dependent gray square, or colored."""

    def encode(label: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> bytes:
        pixels = np.full((size[1], size[0]), 40 * label + 10, dtype=np.uint8)
        pixels[label % size[1]] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    """Write a parquet shard in the layout of the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(images: list[bytes], labels: list[Any], name: str = "train-00000-of-00001.parquet") -> Path:
        rows = [{"bytes": image, "path": None} for image in images]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": pa.array(rows, struct), "label": labels}), folder / name)
        return folder

    return write


@pytest.fixture(autouse=True)
def _same_generator() -> Any:
    """The suite's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        yield
