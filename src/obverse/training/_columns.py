"""Columns of a Hugging Face data set as tensors: an image column and a label, or numbers and a label."""

from __future__ import annotations

import csv
import glob
import gzip
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError, UnknownNameError
from ._images import decode_images
from ._labels import encode_labels
from ._samples import Samples, Source
from ._words import encode_words

__all__ = ["Columns", "read_csv", "read_hub", "read_image_folder", "read_parquet"]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are no inputs: the label, by default a usual name, and the groups of the rows."""

    target: str | None = None
    metadata: str | None = None


def read_hub(hub_name: str, name: str, columns: Columns) -> Source:
    """Read a data set by its name on the hub; the only reader that may use the network."""
    try:
        loaded = _load(hub_name, hub_name)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"{error}; a local copy is read with --data PATH, or from the folder that OBVERSE_DATA names"
        ) from error
    return _source(loaded, name, columns, hub_name)


def read_parquet(files: dict[str, list[Path]], name: str, columns: Columns, where: str) -> Source:
    """Read parquet shards, given per split."""
    for split, part in files.items():
        if not any(map(_parquet_rows, part)):
            raise InvalidArgumentError(f"{where} ({split}) is empty: no rows to learn from")
    with tempfile.TemporaryDirectory() as cache:
        loaded = _load(
            "parquet",
            where,
            data_files=_as_named(files),
            cache_dir=cache,
        )
        return _source(loaded, name, columns, where)


def read_csv(files: dict[str, list[Path]], name: str, columns: Columns, where: str) -> Source:
    """Read csv files with a header, given per split; cells are read as text, to name a bad one."""
    with tempfile.TemporaryDirectory() as cache:
        datasets = _datasets()
        header, _ = _begins(next(iter(files.values()))[0])
        for split, part in files.items():
            begins = [_begins(file) for file in part]
            for file, (found, _) in zip(part, begins, strict=True):
                if found != header:
                    raise InvalidArgumentError(f"{file} has other columns than the first file; they must agree")
            if not any(rows for _, rows in begins):
                raise InvalidArgumentError(f"{where} ({split}) is empty: a header, and no rows to learn from")
        loaded = _load(
            "csv",
            where,
            data_files=_as_named(files),
            features=datasets.Features({column: datasets.Value("string") for column in header}),
            keep_default_na=False,
            skipinitialspace=True,
            cache_dir=cache,
        )
        return _source(loaded, name, columns, where)


def read_image_folder(folder: Path, name: str) -> Source:
    """Read a folder with one subfolder of images per class, or ``train/`` and ``test/`` of such."""
    with tempfile.TemporaryDirectory() as cache:
        loaded = _load(
            "imagefolder",
            str(folder),
            data_dir=glob.escape(os.path.abspath(folder)),
            drop_labels=False,
            cache_dir=cache,
        )
        return _source(loaded, name, Columns(), str(folder))


# ---------------------------------------------------------------------------------------------- loading
def _datasets() -> Any:
    # Read at import: a local file needs no count of downloads, and nobody asked to be counted.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    try:
        import datasets
    except ImportError as error:
        raise InvalidArgumentError(
            "reading data from files or the hub needs the extra: pip install 'obverse[train]'"
        ) from error
    return datasets


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars and no log lines of the reader: errors come back as one line of ours."""
    verbosity, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.CRITICAL)
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if not bars:
            datasets.enable_progress_bars()


def _load(builder: str, where: str, **options: Any) -> Any:
    datasets = _datasets()
    with _quiet(datasets):
        try:
            return datasets.load_dataset(builder, **options)
        except Exception as error:  # any of a dozen types, from the reader, the parser or the network
            cause = error.__cause__ or error
            line = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
            raise InvalidArgumentError(f"cannot read {where}: {line}") from error


def _as_named(files: dict[str, list[Path]]) -> dict[str, list[str]]:
    """Files by their whole names: the reader would take brackets and stars for patterns, and read other files."""
    return {split: [glob.escape(os.path.abspath(file)) for file in part] for split, part in files.items()}


def _parquet_rows(file: Path) -> bool:
    """Whether a parquet file has rows; a file that is broken is left to the reader, which says how."""
    _datasets()  # pyarrow comes with it
    import pyarrow
    import pyarrow.parquet

    try:
        return bool(pyarrow.parquet.read_metadata(file).num_rows > 0)
    except (OSError, pyarrow.ArrowException):
        return True


def _begins(file: Path) -> tuple[list[str], bool]:
    """The header of a csv file, and whether any row follows."""
    opener: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", newline="", encoding="utf-8-sig") as lines:
            cells = csv.reader(lines, skipinitialspace=True)
            header, rows = next(cells, []), any(cells)
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise InvalidArgumentError(f"cannot read {file}: {error}") from error
    if not header:
        raise InvalidArgumentError(f"{file} is empty: expected a header line and rows")
    if len(set(header)) != len(header):
        raise InvalidArgumentError(f"{file}: two columns have the same name in the header")
    return header, rows


# ---------------------------------------------------------------------------------------------- columns
def _source(loaded: Any, name: str, columns: Columns, where: str) -> Source:
    splits = list(loaded)
    train_name = "train" if "train" in splits else splits[0]
    train = loaded[train_name]
    label = _label_column(train.column_names, columns.target, where)
    image = _image_column(train, label)
    if columns.metadata is not None:
        others = [column for column in train.column_names if column not in (label, image)]
        if columns.metadata not in others:
            raise UnknownNameError(f"column of groups in {where}:", columns.metadata, others)
    columns = Columns(label, columns.metadata)
    names = getattr(train.features[label], "names", None)
    train_samples, classes = _samples(train, columns, image, names, f"{where} ({train_name})")
    words = train_samples.inputs.shape[1] if train_samples.is_text else None
    test_samples = None
    if "test" in splits and train_name != "test":
        for column in (label, columns.metadata):
            if column is not None and column not in loaded["test"].column_names:
                raise InvalidArgumentError(f"{where} (test) has no column {column!r}")
        test_samples, _ = _samples(loaded["test"], columns, image, classes, f"{where} (test)", words)
    return Source(name=name, classes=classes, train=train_samples, test=test_samples)


def _label_column(columns: list[str], target: str | None, where: str) -> str:
    if target is None:
        for usual in ("label", "labels", "target", "class", "y"):
            if usual in columns:
                return usual
        raise InvalidArgumentError(
            f"{where} has no column 'label'; name the label with --target (columns: {', '.join(columns)})"
        )
    if target not in columns:
        raise UnknownNameError(f"label column in {where}:", target, columns)
    return target


def _image_column(split: Any, label: str) -> str | None:
    """The first column that holds encoded images; None when the data are numbers."""
    for column, feature in split.features.items():
        if column == label:
            continue
        kind = type(feature).__name__
        if kind == "Image" or (isinstance(feature, dict) and "bytes" in feature):
            return str(column)
        if getattr(feature, "dtype", None) in {"binary", "large_binary"}:
            return str(column)
    return None


def _samples(
    split: Any, columns: Columns, image: str | None, names: Any, where: str, words: int | None = None
) -> tuple[Samples, tuple[str, ...]]:
    if len(split) == 0:
        raise InvalidArgumentError(f"{where} is empty: no rows to learn from")
    if image is not None and type(split.features[image]).__name__ == "Image":
        import datasets

        split = split.cast_column(image, datasets.Image(decode=False))
    table = split.with_format("arrow")[:]
    label, metadata = columns.target, columns.metadata
    labels, classes = encode_labels(table.column(label).to_pylist(), names, where)
    groups = None if metadata is None else np.array([_word(cell) for cell in table.column(metadata).to_pylist()])
    if image is not None:
        if image not in table.column_names:
            raise InvalidArgumentError(f"{where} has no column {image!r}")
        return Samples(decode_images(table.column(image).to_pylist(), where), labels, groups), classes
    features = [column for column in table.column_names if column not in (label, metadata)]
    if not features:
        beside = "" if metadata is None else f" and the groups {metadata!r}"
        raise InvalidArgumentError(f"{where} has no column besides the label {label!r}{beside}")
    cells = [table.column(column).to_pylist() for column in features]
    if words is not None or all(map(_is_text, cells)):
        texts = [" ".join(map(_word, row)) for row in zip(*cells, strict=True)]
        return Samples(encode_words(texts, words), labels, groups), classes
    numbers = [_numbers(column, name, where) for column, name in zip(cells, features, strict=True)]
    return Samples(torch.stack(numbers, dim=1), labels, groups), classes


def _is_text(cells: list[Any]) -> bool:
    """Whether a column holds words: most of its cells are text and no number."""
    words = sum(isinstance(cell, str) and bool(cell.strip()) and math.isnan(_number(cell)) for cell in cells)
    return 2 * words > len(cells)


def _word(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _numbers(cells: list[Any], name: str, where: str) -> Tensor:
    try:
        values = np.asarray(cells, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([_number(cell) for cell in cells])
    finite = np.isfinite(values) & (np.abs(values) <= np.finfo(np.float32).max)
    if values.ndim != 1 or not finite.all():
        row = int(np.argmin(finite)) if values.ndim == 1 else 0
        raise InvalidArgumentError(f"{where}, row {row}, column {name!r}: {cells[row]!r} is not a finite number")
    return torch.from_numpy(values.astype(np.float32))


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")
