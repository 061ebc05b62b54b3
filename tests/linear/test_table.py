"""Tables as features: kinds of columns, categories, gaps, and what is refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.linear._encoding import Encoding, refuse_missing
from obverse.linear._table import Table, missing_cells, read_table, table_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CSV = """age, city,smoker,income,y
31,Rome,true,1.5,0
45, Oslo ,false,2.5,1
28,Rome,true,-1e3,0
52,Lima,false,4,1
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def encoded(table: Table, columns: list[str], **options: Any) -> Any:
    return Encoding.of(table, columns, **options).encode(table)


def test_kinds_of_columns(write: Any) -> None:
    table = read_table(write(CSV))
    assert list(table.columns) == ["age", "city", "smoker", "income", "y"]
    assert {name: column.kind for name, column in table.columns.items()} == {
        "age": "number",
        "city": "text",
        "smoker": "boolean",
        "income": "number",
        "y": "number",
    }
    assert table.n_rows == 4
    assert table.columns["age"].is_whole
    assert not table.columns["income"].is_whole
    assert table.columns["city"].values.tolist() == ["Rome", "Oslo", "Rome", "Lima"]
    assert table.columns["smoker"].values.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_features_in_order_with_names(write: Any) -> None:
    table = read_table(write(CSV))
    encoding = Encoding.of(table, ["age", "city", "smoker", "income"])
    assert encoding.features == ["age", "city=Lima", "city=Oslo", "city=Rome", "smoker", "income"]
    result = encoding.encode(table)
    expected = [
        [31, 0, 0, 1, 1, 1.5],
        [45, 0, 1, 0, 0, 2.5],
        [28, 0, 0, 1, 1, -1000],
        [52, 1, 0, 0, 0, 4],
    ]
    np.testing.assert_array_equal(result.X, expected)
    assert result.kept.all()
    assert result.unknown == {}


def test_two_categories_are_one_feature(write: Any) -> None:
    table = read_table(write("sex,y\nm,1\nf,2\nm,3\n"))
    encoding = Encoding.of(table, ["sex"])
    assert encoding.features == ["sex=m"]
    np.testing.assert_array_equal(encoding.encode(table).X, [[1], [0], [1]])


@pytest.mark.parametrize("form", ["csv.gz", "parquet", "pandas"])
def test_other_forms_give_the_same(form: str, write: Any, tmp_path: Path) -> None:
    plain = read_table(write(CSV))
    if form == "csv.gz":
        path = tmp_path / "data.csv.gz"
        path.write_bytes(gzip.compress(CSV.encode()))
        other = read_table(path)
    else:
        cells = {name: column.values for name, column in plain.columns.items()}
        cells["smoker"] = cells["smoker"].astype(bool)
        arrow = pa.table({name: pa.array(values.tolist()) for name, values in cells.items()})
        if form == "pandas":
            other = table_of(arrow.to_pandas(), "the frame")
        else:
            arrow = arrow.set_column(1, "city", arrow.column("city").dictionary_encode())
            pq.write_table(arrow, tmp_path / "data.parquet")
            other = read_table(tmp_path / "data.parquet")
    columns = ["age", "city", "smoker", "income"]
    np.testing.assert_array_equal(encoded(other, columns).X, encoded(plain, columns).X)


def test_many_categories_are_held_sparse() -> None:
    rng = np.random.default_rng(0)
    cells = [f"c{i}" for i in rng.integers(0, 200, 1000)]
    numbers = rng.normal(size=1000)
    table = table_of(pa.table({"c": cells, "x": numbers}), "t")
    encoding = Encoding.of(table, ["c", "x"])
    X = encoding.encode(table).X
    assert sp.issparse(X)
    names = np.array(encoding.features)
    dense = X.toarray()
    np.testing.assert_array_equal(dense[:, -1], numbers)
    np.testing.assert_array_equal(dense[:, :-1].sum(axis=1), 1)
    assert [f"c={cell}" for cell in cells] == names[dense[:, :-1].argmax(axis=1)].tolist()


def test_unknown_categories_count_as_none(write: Any) -> None:
    train = read_table(write(CSV))
    other = read_table(write("city\nRome\nParis\nParis\nBonn\n", "other.csv"))
    result = Encoding.of(train, ["city"]).encode(other)
    np.testing.assert_array_equal(result.X, [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert result.unknown == {"city": (3, "Paris")}


GAPS = "a,c,f,y\n1,x,true,1\n,x,,2\n5,NA,true,3\n7,z,false,\n9,z,true,5\n"


def test_gaps_are_an_error_that_names_columns_and_counts(write: Any) -> None:
    table = read_table(write(GAPS))
    assert missing_cells(table, ["a", "c", "f", "y"]) == {"a": 1, "c": 1, "f": 1, "y": 1}
    with pytest.raises(InvalidArgumentError, match=r"missing values in 'a' \(1\), 'c' \(1\), 'f' \(1\), of 5 rows"):
        Encoding.of(table, ["a", "c", "f"])
    with pytest.raises(InvalidArgumentError, match=r"'y' \(1\)"):
        refuse_missing(table, ["y"])


def test_rows_with_gaps_are_dropped(write: Any) -> None:
    table = read_table(write(GAPS))
    result = encoded(table, ["a", "c", "f"], missing="drop")
    assert result.kept.tolist() == [True, False, False, True, True]
    np.testing.assert_array_equal(result.X, [[1, 0, 1], [7, 1, 0], [9, 1, 1]])


def test_gaps_are_filled_with_median_and_mode_of_training(write: Any) -> None:
    table = read_table(write(GAPS))
    encoding = Encoding.of(table, ["a", "c", "f"], missing="median")
    np.testing.assert_array_equal(encoding.encode(table).X, [[1, 0, 1], [6, 0, 1], [5, 0, 1], [7, 1, 0], [9, 1, 1]])
    other = read_table(write("a,c,f\n,,\n100,z,false\n", "other.csv"))
    np.testing.assert_array_equal(encoding.encode(other).X, [[6, 0, 1], [100, 1, 0]])


def test_only_the_columns_in_use_are_looked_at(write: Any) -> None:
    table = read_table(write(CSV))
    encoding = Encoding.of(table, ["age", "city", "smoker", "income"])
    assert encoding.needed([2, 5]) == ["city", "income"]
    other = read_table(write("income,city\n3,Oslo\n", "other.csv"))
    result = encoding.encode(other, ["city", "income"])
    np.testing.assert_array_equal(result.X, [[0, 0, 1, 0, 0, 3]])
    with pytest.raises(InvalidArgumentError, match="lacks the 2 columns 'age', 'smoker'; it has income, city"):
        encoding.encode(other)


def test_encoding_survives_json(write: Any) -> None:
    table = read_table(write(GAPS))
    for missing in ("drop", "median"):
        encoding = Encoding.of(table, ["a", "c", "f"], missing=missing)
        assert Encoding.from_plain(json.loads(json.dumps(encoding.to_plain()))) == encoding


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"codes": [], "missing": "guess"},
        {"missing": "error", "codes": [{"column": "a", "kind": "evil", "categories": [], "fill": None}]},
        {"missing": "error", "codes": [{"column": "a", "kind": "category", "categories": [1], "fill": None}]},
        {"missing": "error", "codes": [{"column": "a", "kind": "number", "categories": [], "fill": "x"}]},
        {"missing": "error", "codes": [{"column": 1, "kind": "number", "categories": [], "fill": None}]},
    ],
)
def test_a_foreign_encoding_is_refused(content: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="not an encoding"):
        Encoding.from_plain(content)


def test_text_may_be_asked_for(write: Any) -> None:
    path = write("code, y\n1,2\n02,3\n1,4\n")
    assert read_table(path).columns["code"].kind == "number"
    table = read_table(path, as_text=["code", "y"])
    assert table.columns["code"].values.tolist() == ["1", "02", "1"]
    assert table.columns["y"].values.tolist() == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read .*[Ee]mpty"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
    ],
)
def test_broken_files_are_refused(text: str, message: str, write: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_table(write(text))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_one_name_are_refused_where_they_are_used(kind: str, write: Any, tmp_path: Path) -> None:
    if kind == "csv":
        path = write("a,b, a,c\n1,2,3,4\n5,6,7,8\n")
    else:
        from pyarrow import parquet

        path = tmp_path / "doubled.parquet"
        columns = [pa.array([number, number + 4]) for number in range(1, 5)]
        parquet.write_table(pa.Table.from_arrays(columns, names=["a", "b", "a", "c"]), path)
    table = read_table(path)
    assert list(table.columns) == ["b", "c"]
    assert table.rows(np.array([1])).doubled == {"a": (1, 3)}
    assert table.known("c", "target").values.tolist() == [4, 8]
    for use in (lambda: table.known("a", "target"), lambda: table.require(["b", "a"])):
        with pytest.raises(InvalidArgumentError, match="columns 1 and 3 have the same name 'a'; rename"):
            use()
    encoding = Encoding.of(table, ["b", "c"])
    np.testing.assert_array_equal(encoding.encode(table).X, [[2, 4], [6, 8]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"%PDF-1.4\n1 0 obj\n", "a PDF"),
        ("a,b\n1,2\n".encode("utf-16"), "text in UTF-16"),
        (b"PAR1" + bytes(20), "a parquet file"),
        (b"\xe9,b\n1,2\n", "cannot read"),
        (b"\n\n", "cannot read"),
        (bytes(300), "cannot read"),
    ],
    ids=["zip", "pdf", "utf-16", "parquet", "latin", "newlines", "zeros"],
)
def test_files_of_another_kind_are_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidArgumentError, match="is a folder"):
        read_table(tmp_path / "folder.csv")


def test_files_that_are_none_are_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InvalidArgumentError, match="tables are"):
        read_table(write("a\n1\n", "data.xlsx"))
    with pytest.raises(InvalidArgumentError, match="cannot read"):
        read_table(write("not parquet", "data.parquet"))
    path = tmp_path / "latin.csv"
    path.write_bytes("a,b\nñ,1\n".encode("latin-1"))
    with pytest.raises(InvalidArgumentError, match="'a' is not text in UTF-8"):
        read_table(path)


def test_columns_that_are_no_features_are_refused(write: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"column 'day' holds date32.*--drop day"):
        encoded(read_table(write("day,x\n2020-01-01,1\n2020-01-02,2\n")), ["day", "x"])
    with pytest.raises(InvalidArgumentError, match="'x' has 1 infinite value, in row 2"):
        encoded(read_table(write("x\n1\ninf\n")), ["x"])
    with pytest.raises(InvalidArgumentError, match="'x' has no values"):
        encoded(read_table(write("x,y\n,1\n,2\n")), ["x"], missing="median")
    with pytest.raises(InvalidArgumentError, match="two features would be called 'c=1a'"):
        encoded(read_table(write("c,c=1a\n1a,1\n2b,2\n3c,3\n")), ["c", "c=1a"])


def test_numbers_spoilt_by_a_text_are_refused(write: Any) -> None:
    cells = [str(i) for i in range(40)]
    cells[13] = "?"
    path = write("\n".join(["x", *cells]) + "\n")
    with pytest.raises(InvalidArgumentError, match=r"mostly numbers, but row 14 has '\?'"):
        encoded(read_table(path), ["x"])
    assert encoded(read_table(path), ["x"], categorical=["x"]).X.shape == (40, 40)


def test_an_identifier_is_no_category() -> None:
    table = table_of(pa.table({"name": [f"person {i}" for i in range(1500)]}), "t")
    with pytest.raises(InvalidArgumentError, match="1,500 distinct texts"):
        Encoding.of(table, ["name"])


def test_another_kind_than_in_training_is_refused(write: Any) -> None:
    encoding = Encoding.of(read_table(write(CSV)), ["age", "city"])
    with pytest.raises(InvalidArgumentError, match=r"'age' holds number values in training.*'old' in row 2"):
        encoding.encode(read_table(write("age,city\n3,Rome\nold,Rome\n")))
    with pytest.raises(InvalidArgumentError, match="'city' holds categories in training, and int64"):
        encoding.encode(read_table(write("age,city\n3,1\n")))


def test_unknown_names_suggest_the_nearest(write: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'income'"):
        read_table(write(CSV)).known("incom", "target")
