"""Every source reads to the same shape of thing, and says in one line what is wrong with bad data."""

from __future__ import annotations

import gzip
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from obverse._core import resources
from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.training import _images, read_source

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a local source must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refused(data, match, target=None):
    with pytest.raises(InvalidArgumentError, match=match) as caught:
        read_source(str(data), target)
    assert "\n" not in str(caught.value)


def test_digits():
    source = read_source("digits")
    assert source.train.inputs.shape == (1797, 1, 8, 8)
    assert source.train.inputs.dtype == torch.uint8
    assert source.classes == tuple("0123456789")
    assert source.test is None


# ------------------------------------------------------------------ csv
def test_csv_with_numbers(blobs):
    source = read_source(str(blobs))
    assert source.train.inputs.shape == (150, 6)
    assert source.train.inputs.dtype == torch.float32
    assert source.train.labels.tolist() == [i % 3 for i in range(150)]


def test_csv_target_names_and_split_files(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "train.csv").write_text("kind,x\ncat,1\ndog,2\ncat,3\n")
    (folder / "test.csv").write_text("kind,x\ndog,5\n")
    source = read_source(str(folder), target="kind")
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 0]
    assert source.test is not None
    assert source.test.labels.tolist() == [1]


def test_gzipped_csv(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"x,label\n1,0\n2,1\n"))
    assert len(read_source(str(path)).train) == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty: expected"),
        ("x,label\n", r"\(train\) is empty: a header, and no rows"),
        ("x,label\n\n", r"\(train\) is empty: a header, and no rows"),
        ("x,label\n1,0\noops,1\n", r"row 1, column 'x': 'oops' is not a finite number"),
        ("x,label\n1,0\n,1\n", r"row 1, column 'x': '' is not a finite number"),
        ("x,label\n1,0\nnan,1\n", "not a finite number"),
        ("x,label\n1,0\n1e300,1\n", "not a finite number"),
        ("x,label\n1,0\n2,-1\n", r"row 1: label -1 is negative"),
        ("x,label\n1,0\n2,0.5\n", r"row 1: label '0.5' is not an integer"),
        ("x,label\n1,0\n2,7\n", "no row has label 1"),
        ("x,label\n1,0\n2,0\n", "single class"),
        ("x,label\n1,a\n2,\n", "row 1: the label is missing"),
        ("x,y2\n1,0\n2,1\n", r"no column 'label'.*--target"),
        ("label\n0\n1\n", "no column besides"),
        ("x,x,label\n1,1,0\n", "same name"),
        ("x,label\n1,0\n1,2,3,4\n", "cannot read"),
    ],
)
def test_bad_csv(tmp_path, text, match):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    refused(path, match)


def test_unknown_target_column(blobs):
    refused(blobs, "labl.*did you mean 'label'", target="labl")


def test_csv_files_with_other_columns(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "train-1.csv").write_text("x,label\n1,0\n2,1\n")
    (folder / "train-2.csv").write_text("z,label\n1,0\n2,1\n")
    refused(folder, "other columns")


def test_test_label_unknown_to_training(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "train.csv").write_text("x,label\n1,0\n2,1\n")
    (folder / "test.csv").write_text("x,label\n1,5\n")
    refused(folder, "label 5 is out of range 0..1")


# ------------------------------------------------------------------ parquet
def test_parquet_of_images(png, parquet):
    labels = [0, 1, 2] * 4
    folder = parquet([png(y) for y in labels], labels)
    parquet([png(1)], [1], "test-00000-of-00001.parquet")
    source = read_source(str(folder))
    assert source.train.inputs.shape == (12, 1, 8, 8)
    assert int(source.train.inputs[2, 0, 2, 0]) == 255
    assert source.test is not None
    assert len(source.test) == 1
    assert read_source(str(folder / "train-00000-of-00001.parquet")).test is None


def test_gray_and_color_become_color(png, parquet):
    source = read_source(str(parquet([png(0), png(1, mode="RGB")], [0, 1])))
    assert source.train.inputs.shape == (2, 3, 8, 8)
    assert torch.equal(source.train.inputs[0, 0], source.train.inputs[0, 2])


def test_parquet_of_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1.0, 2.0], "n": [3, 4], "label": [0, 1]}), tmp_path / "n.parquet")
    assert read_source(str(tmp_path / "n.parquet")).train.inputs.tolist() == [[1, 3], [2, 4]]


def test_class_names_of_parquet_metadata(tmp_path, png):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"image": [{"bytes": png(y), "path": None} for y in (0, 1)], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "named.parquet"))
    assert read_source(str(tmp_path / "named.parquet")).classes == ("no", "yes")


def test_corrupt_image_names_its_row(png, parquet):
    refused(parquet([png(0), b"not an image"], [0, 1]), "row 1: cannot read the image: not an image file")


def test_truncated_image_names_its_row(png, parquet):
    refused(parquet([png(0), png(1)[:48]], [0, 1]), "row 1: cannot read the image")


def test_images_of_two_sizes(png, parquet):
    refused(parquet([png(0), png(1, (9, 8))], [0, 1]), "row 1: the image is 9x8 pixels and the first one 8x8")


@pytest.mark.parametrize(
    ("labels", "match"),
    [([0, -1], "negative"), ([0, None], "not an integer|missing"), ([0, 0.5], "not an integer"), ([1, 1], "no row")],
)
def test_bad_labels_in_parquet(png, parquet, labels, match):
    refused(parquet([png(0), png(1)], labels), match)


def test_corrupt_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    refused(tmp_path / "x.parquet", "cannot read")


def test_a_shard_or_split_without_rows(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "train-0.csv").write_text("x,label\n")
    (folder / "train-1.csv").write_text("x,label\n1,0\n2,1\n")
    assert len(read_source(str(folder)).train) == 2
    (folder / "test.csv").write_text("x,label\n")
    refused(folder, r"\(test\) is empty")


def test_no_such_home():
    refused("~nobody-of-that-name/x.csv", "no such home")


def test_empty_parquet(parquet):
    refused(parquet([], []), r"\(train\) is empty: no rows")


def test_train_and_test_of_two_sizes(png, parquet):
    folder = parquet([png(0), png(1)], [0, 1])
    parquet([png(1, (4, 4))], [1], "test.parquet")
    refused(folder, "they must agree")


# ------------------------------------------------------------------ folders, IDX, names
def test_image_folder(tmp_path, png):
    for name, label in (("cat", 0), ("dog", 1)):
        for split in ("train", "test"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                (folder / f"{i}.png").write_bytes(png(label))
    source = read_source(str(tmp_path / "pets"))
    assert source.classes == ("cat", "dog")
    assert len(source.train) == 6
    assert source.test is not None
    single = read_source(str(tmp_path / "pets" / "train"))
    assert sorted(single.train.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_corrupt_image_in_folder_is_named(tmp_path, png):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "a.png").write_bytes(png(0))
    (tmp_path / "pets" / "dog" / "broken.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "pets", r"broken\.png")


def idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def idx_folder(folder: Path) -> Path:
    folder.mkdir()
    for part, rows in (("train", 6), ("t10k", 2)):
        idx(folder / f"{part}-images-idx3-ubyte.gz", np.arange(rows * 16).reshape(rows, 4, 4))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(rows) % 2)
    return folder


def test_idx_files(tmp_path):
    source = read_source(str(idx_folder(tmp_path / "fashion")))
    assert source.train.inputs.shape == (6, 1, 4, 4)
    assert source.train.inputs.flatten().tolist() == list(range(96))
    assert source.test is not None


def test_truncated_idx(tmp_path):
    file = idx_folder(tmp_path / "fashion") / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-3]))
    refused(tmp_path / "fashion", "truncated")


def test_idx_with_bytes_too_many(tmp_path):
    file = idx_folder(tmp_path / "fashion") / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"x"))
    refused(tmp_path / "fashion", "too long")


def test_a_header_that_announces_more_than_memory_holds(tmp_path):
    file = idx_folder(tmp_path / "fashion") / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, *[2**31] * 3)))
    refused(tmp_path / "fashion", r"need .* of memory and .* are available")


def test_images_are_sized_before_they_are_decoded(parquet, png, monkeypatch):
    """Nothing is decoded of a data set that would not fit; the line names its size and what there is."""
    folder = parquet([png(k % 2, (100, 80), "RGB") for k in range(4)], [0, 1, 0, 1])
    needed = 2 * 4 * 3 * 80 * 100
    monkeypatch.setattr(_images, "_decode", lambda *arguments: pytest.fail("nothing is to be decoded"))
    monkeypatch.setattr(resources, "available_memory", lambda: needed - 1)
    refused(
        folder, r"4 images of 100x80 pixels need 187\.5 KiB of memory and 187\.5 KiB are available: use fewer or small"
    )
    monkeypatch.undo()
    monkeypatch.setattr(resources, "available_memory", lambda: needed)
    assert read_source(str(folder)).train.inputs.shape == (4, 3, 80, 100)


def test_images_that_look_like_bombs_are_one_line(parquet, png, monkeypatch, recwarn):
    folder = parquet([png(k % 2) for k in range(4)], [0, 1, 0, 1])
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 40)  # a warning from here on, an error beyond twice as many
    assert read_source(str(folder)).train.inputs.shape == (4, 1, 8, 8)
    assert not [warning for warning in recwarn if "bomb" in str(warning.message).lower()]
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 30)
    refused(folder, "row 0.*exceeds limit")


@pytest.mark.parametrize("name", ["x[ab]", "x*", "x?", "[!x]"])
def test_a_name_with_brackets_or_stars_is_no_pattern(name, tmp_path):
    """Neighbors that the name would match as a pattern are left alone."""
    rows = "\n".join(f"{k},{k % 2}" for k in range(8))
    (tmp_path / "xa.csv").write_text(f"a,label\n{rows.replace('1', '5')}\n")
    (tmp_path / "ya.csv").write_text(f"a,label\n{rows.replace('1', '5')}\n")
    (tmp_path / f"{name}.csv").write_text(f"a,label\n{rows}\n")
    assert read_source(str(tmp_path / f"{name}.csv")).train.inputs.flatten().tolist() == list(range(8))


def test_an_image_folder_with_brackets(tmp_path, png):
    for where, shade in (("pets[ab]", 1), ("petsa", 2)):
        for label in ("cat", "dog"):
            (tmp_path / where / label).mkdir(parents=True)
            (tmp_path / where / label / "0.png").write_bytes(png(shade))
    source = read_source(str(tmp_path / "pets[ab]"))
    assert len(source.train) == 2
    assert source.train.inputs[0, 0, 0, 0] == 50


def test_local_copy_of_a_named_source(tmp_path, monkeypatch):
    idx_folder(tmp_path / "fashion-mnist")
    monkeypatch.setenv("OBVERSE_DATA", str(tmp_path))
    source = read_source("fashion-mnist")
    assert source.name == "fashion-mnist"
    assert len(source.train) == 6


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        read_source("digit")


@pytest.mark.parametrize("data", ["./nowhere", "/nowhere/at/all", "missing.csv", "a/b/c"])
def test_missing_path(data):
    refused(data, "no such file or folder")


def test_missing_neighbor_is_not_taken_for_a_hub_name(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    refused("data/mnits", "no such file or folder")


def test_other_file(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    refused(tmp_path / "x.txt", "parquet or .csv")


def test_folder_without_data(tmp_path):
    refused(tmp_path, "nothing to learn from")


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs a copy of MNIST beside the repository")
def test_mnist(monkeypatch):
    monkeypatch.setenv("OBVERSE_DATA", str(SHARED))
    source = read_source("mnist")
    assert source.train.inputs.shape == (60_000, 1, 28, 28)
    assert source.test is not None
    assert source.test.inputs.shape == (10_000, 1, 28, 28)
    assert source.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
