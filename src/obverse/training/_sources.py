"""Where data come from: a built-in name, a hub name, or files on disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from ..errors import InvalidArgumentError, UnknownNameError
from ._columns import Columns, read_csv, read_hub, read_image_folder, read_parquet
from ._idx import find_idx, read_idx
from ._labels import encode_labels
from ._samples import Samples, Source

__all__ = ["SOURCES", "read_source", "source_name"]

SOURCES = ("digits", "mnist", "fashion-mnist", "cifar10")
"""Names that need no path; all but ``digits`` are local copies where found, else hub data sets."""

_HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}
# Debian's package dataset-fashion-mnist installs here.
_SYSTEM = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
_SUFFIXES = (".parquet", ".csv", ".csv.gz")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_source(data: str, target: str | None = None, metadata: str | None = None) -> Source:
    """Read a data set into memory.

    Parameters
    ----------
    data : str
        ``digits`` (embedded), ``mnist``, ``fashion-mnist``, ``cifar10``, a hub name ``owner/name``, or a path:
        a parquet or csv file, a folder with such files or IDX files, or a folder with one subfolder
        of images per class. The named sets are looked for in the folder that the environment variable
        ``OBVERSE_DATA`` names before the hub is asked. Nothing else uses the network.
    target : str, optional
        Label column of a table; by default ``label``, ``labels``, ``target``, ``class`` or ``y``.
    metadata : str, optional
        Column of a table whose values are the groups of the rows; it is no input then.

    Returns
    -------
    Source

    Raises
    ------
    InvalidArgumentError
        When the data are missing, empty, corrupt, of several sizes, or not labeled with classes.
    UnknownNameError
        When ``data`` is neither a known name nor a path nor a hub name.
    """
    columns = Columns(target, metadata)
    if data == "digits":
        _refuse_columns(columns, data)
        return _digits()
    if data in _HUB:
        local = _local_copy(data)
        return _read_path(local, data, columns) if local is not None else read_hub(_HUB[data], data, columns)
    try:
        path = Path(data).expanduser()
    except RuntimeError as error:
        raise InvalidArgumentError(f"{data}: there is no such home") from error
    if path.exists():
        return _read_path(path, source_name(data), columns)
    if _means_path(data):
        raise InvalidArgumentError(f"no such file or folder: {data}")
    if data.startswith("hub:") or re.fullmatch(r"[\w.-]+/[\w.-]+", data):
        return read_hub(data.removeprefix("hub:"), source_name(data), columns)
    raise UnknownNameError("data set", data, SOURCES)


def source_name(data: str) -> str:
    """A short name for ``data`` that is safe as part of a folder name."""
    last = data.removeprefix("hub:").rstrip("/").rsplit("/", 1)[-1]
    for suffix in _SUFFIXES:
        last = last.removesuffix(suffix)
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "data"


def _means_path(data: str) -> bool:
    """Whether a name that does not exist was meant as a path: by its look, or because its parent exists."""
    return (
        data.startswith((".", "/", "~"))
        or data.endswith((*_SUFFIXES, "/"))
        or data.count("/") > 1
        or ("/" in data and Path(data).parent.is_dir())
    )


def _local_copy(name: str) -> Path | None:
    root = os.environ.get("OBVERSE_DATA")
    places = [Path(root).expanduser() / name] if root else []
    places += [_SYSTEM[name]] if name in _SYSTEM else []
    return next((place for place in places if place.exists()), None)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels, classes = encode_labels(digits.target.tolist(), None, "digits")
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    return Source("digits", classes, Samples(images, labels), None)


def _refuse_columns(columns: Columns, where: str) -> None:
    if columns.metadata is not None:
        raise InvalidArgumentError(f"{where} is no table, and has no column {columns.metadata!r} of groups")


def _read_path(path: Path, name: str, columns: Columns) -> Source:
    if path.is_file():
        if path.name.endswith(".parquet"):
            return read_parquet({"train": [path]}, name, columns, str(path))
        if path.name.endswith((".csv", ".csv.gz")):
            return read_csv({"train": [path]}, name, columns, str(path))
        raise InvalidArgumentError(f"{path}: data files are .parquet or .csv")
    if idx := find_idx(path):
        _refuse_columns(columns, str(path))
        return _read_idx(idx, name)
    files = sorted(file for file in path.iterdir() if file.is_file())
    for suffixes, read in (((".parquet",), read_parquet), ((".csv", ".csv.gz"), read_csv)):
        matching = [file for file in files if file.name.endswith(suffixes)]
        if matching:
            return read(_by_split(matching), name, columns, str(path))
    if any(file.suffix.lower() in _IMAGES for file in path.rglob("*")):
        _refuse_columns(columns, str(path))
        return read_image_folder(path, name)
    raise InvalidArgumentError(
        f"{path} holds no parquet, csv or IDX files and no subfolders of images: nothing to learn from"
    )


def _by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Files named test are the test split, validation files are left alone, the rest is training."""
    splits: dict[str, list[Path]] = {"train": [], "test": []}
    for file in files:
        words = re.split(r"[^a-z]+", file.name.lower())
        if "test" in words:
            splits["test"].append(file)
        elif not {"validation", "valid", "val", "dev"} & set(words):
            splits["train"].append(file)
    if not splits["train"]:
        raise InvalidArgumentError(f"{files[0].parent} has no training files: all are named test or validation")
    return {split: part for split, part in splits.items() if part}


def _read_idx(files: list[Path], name: str) -> Source:
    parts = [read_idx(file) for file in files]
    for images, labels, file in ((parts[0], parts[1], files[0]), (parts[2], parts[3], files[2])):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InvalidArgumentError(f"{file} has shape {tuple(images.shape)} and {tuple(labels.shape)} labels")
    train, classes = encode_labels(parts[1].tolist(), None, str(files[1]))
    test, _ = encode_labels(parts[3].tolist(), classes, str(files[3]))
    return Source(name, classes, Samples(parts[0].unsqueeze(1), train), Samples(parts[2].unsqueeze(1), test))
