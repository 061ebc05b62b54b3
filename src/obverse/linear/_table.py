"""Tables from csv and parquet files: named columns of numbers, truth values or text, and where they are missing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError, UnknownNameError

__all__ = ["Column", "Table", "missing_cells", "option", "read_table", "table_of"]

Bools = npt.NDArray[np.bool_]
Kind = Literal["number", "boolean", "text", "other"]

_SUFFIXES = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    kind : {"number", "boolean", "text", "other"}
        What is none of the first three, such as dates and lists, can be named but not used.
    values : array of shape (rows,)
        Float64, NaN where a cell is missing (truth values are 0 and 1); or objects, str or None.
    is_whole : bool
        Whether the source holds integers.
    type_name : str
        The type as the source calls it.
    """

    kind: Kind
    values: npt.NDArray[Any]
    is_whole: bool = False
    type_name: str = ""

    @property
    def missing(self) -> Bools:
        """Which cells are missing."""
        if self.values.dtype == object:
            return np.array([value is None for value in self.values], dtype=np.bool_)
        gaps: Bools = np.isnan(self.values)
        return gaps

    def rows(self, index: npt.NDArray[Any]) -> Column:
        """The same column with some of its rows."""
        return Column(self.kind, self.values[index], self.is_whole, self.type_name)


@dataclass(frozen=True)
class Table:
    """Columns of one length, by name.

    Attributes
    ----------
    where : str
        What the table is, for error messages.
    columns : dict of str to Column
    n_rows : int
    doubled : dict of str to tuple of int
        Names that several columns have, and the places of these columns, from 1. None of them is in ``columns``: a
        table may have them as long as nobody asks for one.
    """

    where: str
    columns: dict[str, Column]
    n_rows: int
    doubled: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def rows(self, index: npt.NDArray[Any]) -> Table:
        """The same table with some of its rows, by number or by a mask."""
        columns = {name: column.rows(index) for name, column in self.columns.items()}
        return Table(self.where, columns, int(np.arange(self.n_rows)[index].size), self.doubled)

    def require(self, names: Iterable[str]) -> None:
        """Raise unless the table has these columns.

        Raises
        ------
        InvalidArgumentError
            With the names of all columns that are missing, or the places of columns that share a name.
        """
        names = list(names)
        for name in names:
            self._refuse_doubled(name)
        absent = [name for name in names if name not in self.columns]
        if absent:
            listed = ", ".join(repr(name) for name in absent[:12]) + (", ..." if len(absent) > 12 else "")
            some = "column" if len(absent) == 1 else f"{len(absent)} columns"
            raise InvalidArgumentError(f"{self.where} lacks the {some} {listed}; it has {_names(self.columns)}")

    def known(self, name: str, what: str) -> Column:
        """The column of that name; ``what`` says what it is for.

        Raises
        ------
        UnknownNameError
            With the nearest names.
        InvalidArgumentError
            Several columns have the name.
        """
        self._refuse_doubled(name)
        if name not in self.columns:
            raise UnknownNameError(f"{what} column in {self.where}:", name, self.columns)
        return self.columns[name]

    def has(self, name: str) -> bool:
        """Whether there is a column of that name, or several."""
        return name in self.columns or name in self.doubled

    def _refuse_doubled(self, name: str) -> None:
        if name in self.doubled:
            places = [str(place) for place in self.doubled[name]]
            raise InvalidArgumentError(
                f"{self.where}: columns {', '.join(places[:-1])} and {places[-1]} have the same name {name!r}; rename "
                "all but one of them"
            )


def option(name: str, value: str) -> str:
    """An option of the command line as a message advises it, in one line whatever the value holds."""
    return f"{name} {shlex.quote(value) if value.isprintable() else repr(value)}"


def read_table(path: str | os.PathLike[str], *, as_text: Sequence[str] = ()) -> Table:
    """Read a csv file (gzipped or not) or a parquet file.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.csv``, ``.csv.gz`` or ``.parquet``. A csv file has a header line, is in UTF-8, and leaves
        a cell empty, or says ``NA``, ``NaN``, ``null`` or the like, where a value is missing.
    as_text : sequence of str
        Columns to take as text whatever they look like.

    Raises
    ------
    InvalidArgumentError
        No such file, another kind of file, a broken one, or one without rows; or pyarrow is not installed.
    """
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:
        raise InvalidArgumentError(f"{path}: there is no such home") from error
    where = str(path)
    if not file.name.endswith(_SUFFIXES):
        raise InvalidArgumentError(f"{where}: tables are .csv, .csv.gz or .parquet files")
    if file.is_dir():
        raise InvalidArgumentError(f"{where} is a folder; give the file in it")
    if not file.is_file():
        raise InvalidArgumentError(f"no such file: {where}")
    pyarrow = _pyarrow()
    _refuse_other_kinds(file, where)
    try:
        arrow = _read_parquet(file) if file.name.endswith(".parquet") else _read_csv(file, as_text)
        arrow.column_names  # noqa: B018 - names that are not in UTF-8 are refused here
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InvalidArgumentError(f"cannot read {where}: {line}") from error
    return table_of(arrow, where, as_text=as_text)


def table_of(source: Any, where: str, *, as_text: Sequence[str] = ()) -> Table:
    """The table in a pyarrow table or a pandas data frame.

    Raises
    ------
    InvalidArgumentError
        There are no rows, or the frame cannot be converted.
    """
    pyarrow = _pyarrow()
    if not isinstance(source, pyarrow.Table):
        try:
            source = pyarrow.Table.from_pandas(source, preserve_index=False)
        except (pyarrow.ArrowException, AttributeError, TypeError, ValueError) as error:
            line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise InvalidArgumentError(f"cannot read {where}: {line}") from error
    names = [_trimmed(str(name)) for name in source.column_names]
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    if source.num_rows == 0:
        raise InvalidArgumentError(f"{where} is empty: no rows")
    columns = {
        name: _column(source.column(place), name in as_text and _column_kind(source.column(place)) != "other")
        for name, (place, *others) in places.items()
        if not others
    }
    doubled = {name: tuple(place + 1 for place in found) for name, found in places.items() if len(found) > 1}
    return Table(where, columns, int(source.num_rows), doubled)


def missing_cells(table: Table, names: Iterable[str]) -> dict[str, int]:
    """How many cells are missing in each of some columns; columns without a gap are left out."""
    counts = {name: int(table.columns[name].missing.sum()) for name in names}
    return {name: count for name, count in counts.items() if count}


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InvalidArgumentError(
            "reading tables needs pyarrow, which comes with: pip install 'obverse[train]'"
        ) from error
    return pyarrow


# How files of other kinds begin.
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive, as spreadsheets are",
    b"%PDF": "a PDF",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PAR1": "a parquet file",
    b"\x1f\x8b": "compressed by gzip",
    b"\x89PNG": "a picture",
    b"SQLite format 3": "a database",
}


def _refuse_other_kinds(file: Path, where: str) -> None:
    """Raise where a file of another kind has the name of a csv file."""
    if not file.name.endswith(".csv"):
        return
    try:
        with open(file, "rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {where}: {error.strerror or error}") from error
    for start, kind in _OTHER_KINDS.items():
        if head.startswith(start):
            raise InvalidArgumentError(f"cannot read {where}: it is {kind}; save the table as csv in UTF-8")


def _read_csv(file: Path, as_text: Sequence[str]) -> Any:
    import pyarrow
    from pyarrow import csv

    # A forced type must come with the name as the file spells it, spaces included.
    header = csv.open_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True)).schema.names if as_text else []
    types = {name: pyarrow.string() for name in header if _trimmed(name) in as_text}
    arrow = csv.read_csv(
        file,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(strings_can_be_null=True, column_types=types),
    )
    spoilt = [field.name for field in arrow.schema if pyarrow.types.is_binary(field.type)]
    if spoilt:
        raise InvalidArgumentError(
            f"cannot read {file}: column {spoilt[0]!r} is not text in UTF-8; save the file as UTF-8"
        )
    return arrow


def _read_parquet(file: Path) -> Any:
    import pyarrow.parquet

    # By place: a table may have columns of one name.
    with pyarrow.parquet.ParquetFile(file) as opened:
        return opened.read()


def _column_kind(column: Any) -> Kind:
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "other"


def _column(column: Any, as_text: bool) -> Column:
    """A column of arrow as arrays; memory is copied."""
    import pyarrow
    from pyarrow import compute, types

    kind, name = _column_kind(column), str(column.type)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if as_text and kind != "text":
        column, kind = compute.cast(column, pyarrow.string()), "text"
    if kind == "text":
        cells = [None if cell is None else _trimmed(cell) or None for cell in column.to_pylist()]
        values = np.empty(len(cells), dtype=object)
        values[:] = cells
        return Column("text", values, type_name=name)
    if kind == "other":
        values = np.empty(len(column), dtype=object)
        values[:] = [None if cell is None else str(cell) for cell in column.to_pylist()]
        return Column("other", values, type_name=name)
    numbers = compute.cast(column, pyarrow.float64(), safe=False).to_numpy()
    return Column(
        kind, np.array(numbers, dtype=np.float64), is_whole=bool(types.is_integer(column.type)), type_name=name
    )


def _trimmed(text: str) -> str:
    """Without the spaces and NULs that pad it, which fixed-width text in NumPy does not keep either."""
    return text.strip().strip("\0").strip()


def _names(columns: dict[str, Column]) -> str:
    names = list(columns)
    return ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
