"""The folder that a fit leaves, and what it prints."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from .._core.files import LOCK, check_output_folder, locked, sealing, write_together
from ._model import LinearModel
from ._model_file import model_bytes

__all__ = ["FILES", "default_folder", "features_grid", "measures_grid", "write_fit"]

FILES = ("model.safetensors", "report.html", "features.csv", "record.json")
"""What a fit writes into its folder."""

_SHOWN = 25
_MOST_OUTPUTS = 6
# Letters of a name that go into that of a folder, whose name may have 255 bytes.
_LONGEST = 40


def default_folder(data: str, target: str, penalty: str) -> Path:
    """``runs/fit-<data>-<target>-<penalty>``."""
    name = Path(data).name
    for suffix in (".csv.gz", ".csv", ".parquet"):
        name = name.removesuffix(suffix)
    parts = [re.sub(r"[^\w.-]+", "-", part)[:_LONGEST].strip("-.") for part in ("fit", name, target, penalty)]
    return Path("runs") / "-".join(part for part in parts if part)


def write_fit(
    folder: Path,
    model: LinearModel,
    record: dict[str, Any],
    *,
    page: Callable[[Path], object] | None = None,
    overwrite: bool | None = None,
) -> None:
    """Write the model, the table of features, the record and the page: all of them, or none where one fails.

    Other files in the folder are left alone.

    Parameters
    ----------
    folder : Path
    model : LinearModel
    record : dict
        As `fit_table` gives it.
    page : callable, optional
        Writes the report to the path that it is given.
    overwrite : bool, optional
        If False, a folder that another fit has filled in the meantime is refused.

    Raises
    ------
    InvalidArgumentError
        The folder is not empty, or another process is writing to it.
    FileWriteError
        The disk is full, or the folder cannot be written to; what it held is as it was.
    """
    content = model_bytes(model)
    features = _features_csv(record).encode("utf-8")
    text = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode("utf-8")
    writers: dict[str, Callable[[Path], object]] = {} if page is None else {"report.html": page}
    writers["model.safetensors"] = sealing(lambda file: file.write_bytes(content))
    writers["features.csv"] = lambda file: file.write_bytes(features)
    # Last: with the record, the fit is done.
    writers["record.json"] = lambda file: file.write_bytes(text)
    is_new = not folder.exists()
    try:
        with locked(folder):
            try:
                if overwrite is not None:
                    check_output_folder(folder, overwrite=overwrite)
                write_together(folder, writers)
            finally:
                # While it is held, so that no other process holds a file that is gone.
                with suppress(OSError):
                    (folder / LOCK).unlink()
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _features_csv(record: dict[str, Any]) -> str:
    outputs = record["data"]["outputs"]
    several = len(outputs) > 1
    optional = [name for name in ("keep_probability", "frequency") if any(name in row for row in record["features"])]
    head = [f"coefficient[{name}]" for name in outputs] if several else ["coefficient"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["feature", *head, "importance", *optional])
    for row in record["features"]:
        numbers = row["coefficients"] if several else [row["coefficient"]]
        cells = [*numbers, row["importance"], *(row.get(name) for name in optional)]
        writer.writerow([row["name"], *("" if cell is None else repr(cell) for cell in cells)])
    return buffer.getvalue()


def features_grid(record: dict[str, Any]) -> Grid:
    """The selected features as a table for the terminal."""
    features, outputs = record["features"], record["data"]["outputs"]
    several = 1 < len(outputs) <= _MOST_OUTPUTS
    model = record["model"]
    parameters = ", ".join(f"{name} {value:.4g}" for name, value in record["penalty"]["parameters"].items())
    title = ", ".join(
        part for part in (record["penalty"]["name"], parameters, f"alpha {record['alpha']:.4g}: ") if part
    )
    grid = Grid(title=f"{title}{model['selected']} of {model['features']} features")
    grid.add_column("feature", overflow="fold")
    heads = [*(outputs if several else ["coefficient"]), "scaled importance"]
    optional = [name for name in ("frequency", "keep_probability") if any(name in row for row in features)]
    for heading in (*heads, *(name.replace("_", " ") for name in optional)):
        grid.add_column(_plain(heading), justify="right", no_wrap=True)
    for row in features[:_SHOWN]:
        numbers = row["coefficients"] if several else [row["coefficient"]]
        shares = [_shown(row.get(name), ".1%") for name in optional]
        grid.add_row(_plain(row["name"]), *(_shown(x) for x in (*numbers, row["importance"])), *shares)
    if len(features) > _SHOWN:
        grid.add_row(f"... {len(features) - _SHOWN} more in features.csv")
    return grid


def measures_grid(record: dict[str, Any]) -> Grid | None:
    """The errors on held-out rows as a table for the terminal; None where no rows were held out."""
    test = record["test"]
    if not test:
        return None
    grid = Grid(title=f"{test['rows']:,} held-out rows")
    grid.add_column("")
    for heading in ("model", "without features"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in test["measures"]:
        form = ".2%" if row.get("is_share") else ".4g"
        grid.add_row(row["name"], _shown(row["model"], form), _shown(row["null"], form))
    return grid


def _shown(value: Any, form: str = ".4g") -> str:
    """A number of a record; null where there is none, the string ``"inf"`` where it leaves the range of a double."""
    return "" if value is None else value if isinstance(value, str) else f"{value:{form}}"


def _plain(text: str) -> Any:
    """Text from a table as it is: it is no markup."""
    from rich.text import Text

    return Text(str(text))
