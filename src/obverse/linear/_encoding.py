"""From the columns of a table to the features of a linear model, the same way for training and for prediction."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import InvalidArgumentError
from ._table import Column, Table, missing_cells, option

__all__ = ["MISSING", "Code", "Encoded", "Encoding", "refuse_missing"]

Bools = npt.NDArray[np.bool_]
Missing = Literal["error", "drop", "median"]

MISSING = ("error", "drop", "median")
_MOST_CATEGORIES = 1000
# A column of text with more distinct cells than this, nearly all of them numbers, is one of numbers with a flaw.
_FEW_CATEGORIES = 20
_MOSTLY = 0.8
# Indicators beyond this number are held sparse.
_MOST_DENSE = 64
_WAYS = "leave rows out with --missing drop, fill them with --missing median, or leave columns out with --drop"


@dataclass(frozen=True)
class Code:
    """How one column becomes features.

    Attributes
    ----------
    column : str
    kind : {"number", "boolean", "category"}
    categories : tuple of str
        Sorted. With two of them the feature is the indicator of the second; otherwise each has an indicator.
    fill : float, str or None
        What a missing cell counts as, where missing cells are filled.
    """

    column: str
    kind: Literal["number", "boolean", "category"]
    categories: tuple[str, ...] = ()
    fill: float | str | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """Categories that have an indicator."""
        return self.categories[1:] if len(self.categories) == 2 else self.categories

    @property
    def features(self) -> list[str]:
        """Names of the features."""
        return [f"{self.column}={name}" for name in self.shown] if self.kind == "category" else [self.column]


@dataclass(frozen=True)
class Encoded:
    """Features of a table.

    Attributes
    ----------
    X : dense array or CSC array of shape (rows kept, features)
        float64, finite.
    kept : bool array of shape (rows of the table,)
        Rows without a missing cell, where those are dropped; all rows otherwise.
    unknown : dict of str to (int, str)
        Columns with categories that training did not have: in how many rows, and one of them.
    """

    X: Any
    kept: Bools
    unknown: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Encoding:
    """How a table becomes features.

    Attributes
    ----------
    codes : tuple of Code
        One for each column, in the order of the features.
    missing : {"error", "drop", "median"}
        What is done about missing cells.
    """

    codes: tuple[Code, ...]
    missing: Missing = "error"

    @property
    def features(self) -> list[str]:
        """Names of all features, in order."""
        return [name for code in self.codes for name in code.features]

    @classmethod
    def of(
        cls,
        table: Table,
        columns: Sequence[str],
        *,
        missing: Missing = "error",
        categorical: Collection[str] = (),
    ) -> Encoding:
        """The encoding that a training table asks for.

        Parameters
        ----------
        table : Table
            The rows that training sees, and no others.
        columns : sequence of str
        missing : {"error", "drop", "median"}
            ``median`` fills a number with the median of its column, and a category or truth value with the most
            frequent one.
        categorical : collection of str
            Columns whose text is not to be doubted.

        Raises
        ------
        InvalidArgumentError
            A column has a type that is no feature, too many categories, numbers spoilt by text, infinite numbers, or no
            values at all; or two features would have one name.
        """
        if missing == "error":
            refuse_missing(table, columns)
        codes = tuple(_code(table, name, missing, name in categorical) for name in columns)
        encoding = cls(codes, missing)
        names = encoding.features
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidArgumentError(
                f"{table.where}: two features would be called {twice!r}; rename a column, or leave one out with --drop"
            )
        return encoding

    def needed(self, used: Collection[int]) -> list[str]:
        """Columns that give the features of these numbers."""
        columns, start = [], 0
        for code in self.codes:
            stop = start + len(code.features)
            if any(start <= feature < stop for feature in used):
                columns.append(code.column)
            start = stop
        return columns

    def encode(self, table: Table, columns: Collection[str] | None = None) -> Encoded:
        """The features of a table's rows.

        Parameters
        ----------
        table : Table
        columns : collection of str, optional
            The columns to look at; features of the others are zero. By default all of them.

        Raises
        ------
        InvalidArgumentError
            A column is missing or of another kind than in training, has infinite numbers, or missing cells where they
            are an error.
        """
        looked = [code for code in self.codes if columns is None or code.column in columns]
        table.require(code.column for code in looked)
        if self.missing == "error":
            refuse_missing(table, [code.column for code in looked], ways="mend them, or leave these rows out")
        kept = np.ones(table.n_rows, dtype=np.bool_)
        if self.missing == "drop":
            for code in looked:
                kept &= ~table.columns[code.column].missing
            table = table.rows(kept)
        unknown: dict[str, tuple[int, str]] = {}
        parts: list[Any] = []
        seen = {code.column for code in looked}
        for code in self.codes:
            if code.column not in seen:
                parts.append(sp.csc_array((table.n_rows, len(code.features))))
            elif code.kind == "category":
                parts.append(_indicators(code, table, unknown))
            else:
                parts.append(_numbers(code, table)[:, None])
        indicators = sum(len(code.features) for code in self.codes if code.kind == "category")
        if indicators > _MOST_DENSE:
            X: Any = sp.hstack([sp.csc_array(part) for part in parts], format="csc")
        else:
            dense = [part if isinstance(part, np.ndarray) else part.toarray() for part in parts]
            X = np.asfortranarray(np.hstack(dense)) if dense else np.zeros((table.n_rows, 0))
        return Encoded(X, kept, unknown)

    def to_plain(self) -> dict[str, Any]:
        """The encoding in types that JSON knows."""
        codes = [
            {"column": c.column, "kind": c.kind, "categories": list(c.categories), "fill": c.fill} for c in self.codes
        ]
        return {"missing": self.missing, "codes": codes}

    @classmethod
    def from_plain(cls, content: Any) -> Encoding:
        """The encoding that `to_plain` gave.

        Raises
        ------
        InvalidArgumentError
            The content is not of that form.
        """
        try:
            codes = tuple(_plain_code(item) for item in content["codes"])
            missing = content["missing"]
            if missing not in MISSING:
                raise ValueError(f"missing is {missing!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"not an encoding of columns: {error}") from error
        return cls(codes, missing)


def _plain_code(item: Mapping[str, Any]) -> Code:
    column, kind, categories, fill = item["column"], item["kind"], item["categories"], item["fill"]
    if not isinstance(column, str) or kind not in ("number", "boolean", "category"):
        raise ValueError(f"column {column!r} of kind {kind!r}")
    if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
        raise ValueError(f"categories of {column!r}")
    if isinstance(fill, str) != (kind == "category") and fill is not None:
        raise ValueError(f"fill of {column!r}")
    if isinstance(fill, int | float) and not math.isfinite(fill):
        raise ValueError(f"fill of {column!r}")
    return Code(column, kind, tuple(categories), fill)


def _code(table: Table, name: str, missing: Missing, trusted: bool) -> Code:
    """The code of one column, from the values it has."""
    column, drop = table.columns[name], option("--drop", name)
    if column.kind == "other":
        raise InvalidArgumentError(
            f"{table.where}: column {name!r} holds {column.type_name}, which is no feature of a linear model; "
            f"turn it into numbers or text, or leave it out with {drop}"
        )
    present = column.values[~column.missing]
    if present.size == 0:
        raise InvalidArgumentError(f"{table.where}: column {name!r} has no values; leave it out with {drop}")
    if column.kind == "text":
        return _category(table, name, present, missing, trusted)
    _refuse_infinite(table, name, column)
    if column.kind == "boolean":
        return Code(name, "boolean", fill=float(present.mean() >= 0.5) if missing == "median" else None)
    return Code(name, "number", fill=float(np.median(present)) if missing == "median" else None)


def _category(table: Table, name: str, present: npt.NDArray[Any], missing: Missing, trusted: bool) -> Code:
    found, counts = np.unique(present.astype(str), return_counts=True)
    categories = tuple(str(value) for value in found)
    drop, as_category = option("--drop", name), option("--categorical", name)
    if not trusted and len(categories) > _FEW_CATEGORIES:
        odd = [value for value in categories if not _is_number(value)]
        if len(odd) < (1 - _MOSTLY) * len(categories):
            row = int(np.flatnonzero(table.columns[name].values == odd[0])[0]) + 1 if odd else 0
            raise InvalidArgumentError(
                f"{table.where}: column {name!r} is mostly numbers, but row {row} has {odd[0]!r}"
                f"{f' and {len(odd) - 1} other texts are there too' if len(odd) > 1 else ''}; mend it, leave the "
                f"column out with {drop}, or say that it holds categories with {as_category}"
                if odd
                else f"{table.where}: column {name!r} holds numbers as text; store them as numbers, leave the column "
                f"out with {drop}, or say that it holds categories with {as_category}"
            )
    if len(categories) > _MOST_CATEGORIES:
        raise InvalidArgumentError(
            f"{table.where}: column {name!r} has {len(categories):,} distinct texts in {present.size:,} rows; at most "
            f"{_MOST_CATEGORIES:,} categories become features: leave it out with {drop}, or merge rare ones"
        )
    fill = categories[int(np.argmax(counts))] if missing == "median" else None
    return Code(name, "category", categories, fill)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_missing(table: Table, names: Sequence[str], *, ways: str = _WAYS) -> None:
    """Raise where cells are missing, naming the columns and how many cells.

    Parameters
    ----------
    table : Table
    names : sequence of str
    ways : str
        What the message advises.

    Raises
    ------
    InvalidArgumentError
    """
    gaps = missing_cells(table, names)
    if gaps:
        listed = ", ".join(f"{name!r} ({count:,})" for name, count in list(gaps.items())[:12])
        more = f" and {len(gaps) - 12} other columns" if len(gaps) > 12 else ""
        raise InvalidArgumentError(
            f"{table.where} has missing values in {listed}{more}, of {table.n_rows:,} rows; {ways}"
        )


def _refuse_infinite(table: Table, name: str, column: Column, advice: str = "") -> None:
    infinite = np.isinf(column.values)
    if infinite.any():
        count = int(infinite.sum())
        values = "1 infinite value, in row" if count == 1 else f"{count:,} infinite values, the first in row"
        raise InvalidArgumentError(
            f"{table.where}: column {name!r} has {values} {int(np.argmax(infinite)) + 1}; "
            + (advice or f"mend it, or leave it out with {option('--drop', name)}")
        )


def _numbers(code: Code, table: Table) -> npt.NDArray[np.float64]:
    """A column of numbers or truth values, the missing ones filled."""
    column = table.columns[code.column]
    if column.kind in ("text", "other"):
        row = next((i for i, cell in enumerate(column.values) if cell is not None and not _is_number(cell)), 0)
        raise InvalidArgumentError(
            f"{table.where}: column {code.column!r} holds {code.kind} values in training, and here "
            f"{column.type_name} such as {column.values[row]!r} in row {row + 1}"
        )
    _refuse_infinite(table, code.column, column, advice="mend it")
    if code.kind == "boolean" and column.kind == "number":
        odd = np.flatnonzero(~column.missing & (column.values != 0) & (column.values != 1))
        if odd.size:
            raise InvalidArgumentError(
                f"{table.where}: column {code.column!r} holds truth values in training, and here "
                f"{column.values[odd[0]]:g} in row {odd[0] + 1}; give true and false, or 1 and 0"
            )
    values: npt.NDArray[np.float64] = column.values.copy()
    values[column.missing] = np.nan if code.fill is None else float(code.fill)
    return values


def _indicators(code: Code, table: Table, unknown: dict[str, tuple[int, str]]) -> Any:
    """Indicators of the categories, sparse; a category that is not known has none."""
    column = table.columns[code.column]
    if column.kind != "text" and not column.missing.all():
        raise InvalidArgumentError(
            f"{table.where}: column {code.column!r} holds categories in training, and {column.type_name} here; "
            "give text"
        )
    place = {name: number for number, name in enumerate(code.shown)}
    known = set(code.categories)
    cells = [code.fill if gap else cell for cell, gap in zip(column.values, column.missing, strict=True)]
    strange = [cell for cell in cells if cell is not None and cell not in known]
    if strange:
        unknown[code.column] = (len(strange), str(strange[0]))
    rows = np.array([row for row, cell in enumerate(cells) if cell in place], dtype=np.int64)
    columns = np.array([place[str(cell)] for cell in cells if cell in place], dtype=np.int64)
    return sp.csc_array((np.ones(rows.size), (rows, columns)), shape=(len(cells), len(code.shown)))
