"""A comparison: methods by budgets by seeds, as one study that is resumed, extended and shared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from .._core.files import check_output_folder, read_json, write_atomically, write_sealed
from .._core.text import one_line
from ..errors import DamagedFileError, InvalidArgumentError, ObverseError
from ._cells import Cell, grid
from ._compare_progress import CompareDisplay
from ._comparison import cell_result, comparison_record
from ._interrupt import InterruptedRunError, StopRequest
from ._locks import FOLDER, Locks
from ._machine import accelerator_of, decided, torch_settings
from ._methods import SMALL, Method, parse_methods
from ._models import is_factory
from ._recipe import Recipe, parse_budget
from ._record import plain_json
from ._shared_study import Claim, SharedStudy
from ._sources import source_name
from ._split import Data
from ._storage import (
    JOURNAL,
    create_study,
    find_study,
    open_storage,
    quiet_optuna,
    storage_errors,
    without_password,
)
from ._study import read_data, run_seeds
from ._trainer import Trainer
from ._width import count_weights, matching_width

__all__ = ["BUDGETS", "METHODS", "compare", "compare_folder"]

METHODS = ("proximal", "magnitude", "random", "dense", "small")
"""What is compared where nothing else is named."""

BUDGETS = (0.8, 0.95, 0.98)
"""The budgets, where none are named."""

# What the cells decide for themselves, and what does not change a number.
_OF_A_CELL = ("penalty", "face", "budget", "strength", "seeds", "tracker")
_OPEN = ("epochs", "threads")
_POLL_SECONDS = 0.5

_RECORD = "compare.json"


def compare(
    recipe: Recipe,
    methods: str | Iterable[str] | None = None,
    budgets: str | Iterable[float | str] | None = None,
    *,
    storage: str | None = None,
    command: str = "",
    console: Console | None = None,
) -> dict[str, Any]:
    """Train every method to every budget with every seed, and write ``compare.json`` and ``compare.html``.

    The cells of the grid are trials of one Optuna study. Any number of processes may work on it at once, each started
    with the same arguments; a cell is run by one of them at a time, from its checkpoint where another left one.
    Cells that are done are never run again, those that failed are tried again by the next call, and a call with
    more methods, budgets or seeds adds theirs.

    Parameters
    ----------
    recipe : Recipe
        What all cells share, the seeds, and the output folder. Its penalty, face, budget and strength are not used.
        For a study that exists, fields that were not set are those of the study.
    methods : str or iterable of str, optional
        ``dense``; ``small``, the same architecture at the width that has as many weights as the budget keeps;
        any face of `obverse.Sparsifier`, such as ``proximal``, ``random`` or ``magnitude``; or ``penalty@face``.
        By default those of the study, or `METHODS`.
    budgets : str or iterable, optional
        Sparsities, as `parse_budget` takes them. By default those of the study, or `BUDGETS`.
    storage : str, optional
        URL of a database, or path of an Optuna journal file; by default ``study.log`` in the output folder. In a
        database the study has the name of the output folder.
    command : str
        The command line, for the record.
    console : rich.console.Console, optional
        Where progress is shown; by default nowhere.

    Returns
    -------
    dict
        The content of ``compare.json``.

    Raises
    ------
    InvalidArgumentError
        For bad data, methods, budgets or a bad recipe; for settings that differ from those of the study, naming the
        field; for a folder or storage that cannot be used. Nothing was run then.
    DamagedFileError
        A file of the study, or of a run that it goes on from, is not what was written. What is done stays.
    FileWriteError
        The disk or the database refuses to write. What is done stays, and the same call goes on from it.
    InterruptedRunError
        After Ctrl-C; the same call goes on where this one stopped.
    """
    chosen = None if methods is None else parse_methods(methods)
    wanted = None if budgets is None else _parse_budgets(budgets)
    folder = compare_folder(recipe)
    place = str(folder / JOURNAL) if storage is None else storage
    if not _holds_comparison(folder):
        check_output_folder(folder)
    if accelerator_of(recipe).num_processes > 1:
        raise InvalidArgumentError(
            "a comparison is not run under a launcher of several processes: start the same command several times"
        )
    with quiet_optuna(), storage_errors(place):
        work = _Work(recipe, folder, place, command)
        cells = work.cells(chosen, wanted)
        work.prepare(cells)
        work.open(cells)
        try:
            work.run(CompareDisplay(console))
        except BaseException:
            with suppress(ObverseError, OSError):  # what ended the run says more
                work.write()
            raise
        return work.write()


def compare_folder(recipe: Recipe) -> Path:
    """The output folder: ``out``, or ``runs/compare-<data>-<model>``."""
    if recipe.out is not None:
        return recipe.folder()
    return Path("runs") / f"compare-{source_name(recipe.data)}-{source_name(recipe.model.replace(':', '-'))}"


class _Work:
    """One process's share of a comparison."""

    def __init__(self, recipe: Recipe, folder: Path, storage: str, command: str) -> None:
        self.folder, self.storage, self.command = folder, storage, command
        self.locks = Locks(folder)
        self.data: Data | None = None
        self._backend: Any = None
        self.shared: SharedStudy | None = None
        # A journal that is not there yet is made after all that may refuse the study.
        if "://" in storage or Path(storage).expanduser().exists():
            self._backend = open_storage(storage)
            study = find_study(self._backend, self._study_name)
            self.shared = None if study is None else SharedStudy(study, self.locks)
        self.about = {} if self.shared is None else self.shared.about
        self.written = self._written()
        self.recipe = self._joined(recipe)

    @property
    def _study_name(self) -> str:
        return self.folder.resolve().name

    # ------------------------------------------------------------------ what to run
    def cells(self, methods: list[Method] | None, budgets: list[float] | None) -> list[Cell]:
        """The cells asked for, what is not named as the study has it, after those that the study has lost."""
        stored = [] if self.shared is None else list(self.shared.records())
        known = list(dict.fromkeys([*self._written_cells(), *stored]))
        lost = [cell for cell in known if cell not in stored]
        if methods is None:
            methods = parse_methods(list(dict.fromkeys(cell.method for cell in known)) or METHODS)
        if budgets is None:
            budgets = list(dict.fromkeys(cell.budget for cell in known if cell.budget is not None)) or list(BUDGETS)
        seeds = self.recipe.seeds
        if "seeds" not in self.recipe.model_fields_set and known:
            seeds = 1 + max(cell.seed for cell in known) - self.recipe.seed
        self.recipe = self.recipe.model_copy(update={"seeds": seeds})
        asked = grid(methods, budgets, range(self.recipe.seed, self.recipe.seed + seeds))
        return list(dict.fromkeys([*lost, *asked]))

    def _joined(self, recipe: Recipe) -> Recipe:
        """The recipe with what it leaves open as the study has it; raises where the two differ."""
        stored = self.about.get("recipe") or self.written.get("recipe")
        if stored is None:
            return recipe
        if is_factory(str(stored.get("model"))) and "model" not in recipe.model_fields_set:
            raise InvalidArgumentError(
                f"the study of {self.folder} names code to import; "
                f"if you trust it, say so with --model {stored['model']}"
            )
        given = _shared_fields(recipe)
        for field in sorted(given.keys() | stored.keys()):
            if field not in recipe.model_fields_set or (field in _OPEN and given[field] is None):
                continue
            ours, theirs = given.get(field), stored.get(field)
            if ours != theirs:
                raise InvalidArgumentError(
                    f"{field} was {theirs!r} in the study of {self.folder} and is {ours!r} now: "
                    "all of its cells share it; choose another folder with --out"
                )
        joined = Recipe.from_mapping({**stored, "out": recipe.out, "seeds": recipe.seeds, "tracker": recipe.tracker})
        joined.model_fields_set.clear()
        joined.model_fields_set.update(recipe.model_fields_set)
        return joined

    def _written(self) -> dict[str, Any]:
        """What the folder's record says; it outlives a journal that was cut short, and knows of other storages."""
        path = self.folder / _RECORD
        if not path.is_file():
            return {}
        found = read_json(path, sealed=True, advice="delete it and it is written again from the study")
        return found if isinstance(found, dict) else {}

    def _written_cells(self) -> list[Cell]:
        """The cells of the record, in the order of the study, if it is that of this storage."""
        if self.written.get("storage") != without_password(self.storage):
            return []
        return [Cell(cell["method"], cell["budget"], cell["seed"]) for cell in self.written.get("cells", [])]

    # ------------------------------------------------------------------ before anything is written
    def prepare(self, cells: Sequence[Cell]) -> None:
        """Read the data and build what would be trained, unless all is done; whatever is refused comes up here."""
        records = {} if self.shared is None else self.shared.records()
        todo = [cell for cell in cells if cell not in records or records[cell].state != "done"]
        others = [record.cell for record in records.values() if record.state in ("waiting", "running")]
        if not todo and not others:
            return
        data = self._read()
        tried = set()
        with torch_settings():
            for cell in todo:
                if cell.method in tried:
                    continue
                tried.add(cell.method)
                try:
                    Trainer(self._recipe(cell, data), data, cell.seed, accelerator_of(self.recipe))
                except InvalidArgumentError as error:
                    raise InvalidArgumentError(f"method {cell.method}: {error}") from error

    def _read(self) -> Data:
        if self.data is None:
            accelerator = accelerator_of(self.recipe)
            data = read_data(self.recipe)
            given = self.recipe.model_fields_set
            self.recipe = decided(self.recipe, data, 1)
            self.recipe.model_fields_set.intersection_update(given)
            known = self.about.get("data") or self.written.get("data")
            if known is not None and known != plain_json(data.describe()):
                raise InvalidArgumentError(
                    f"the data {self.recipe.data} are not those of the study of {self.folder}: they changed since"
                )
            self.data = data.to(accelerator.device)
        return self.data

    def _recipe(self, cell: Cell, data: Data) -> Recipe:
        fields = {**_shared_fields(self.recipe), **cell.recipe_fields(), "seeds": self.recipe.seeds}
        fields |= {"tracker": self.recipe.tracker, "out": str(self.folder / "cells" / cell.name)}
        if cell.method == SMALL and cell.budget is not None:
            full, target = self.recipe.width, self._weights(data) * (1 - cell.budget)
            fields["width"] = matching_width(
                self.recipe.model, data.input_shape, len(data.classes), target, full, data.tokens
            )
        return Recipe.from_mapping(fields)

    def _weights(self, data: Data, width: float | None = None) -> int:
        width = self.recipe.width if width is None else width
        return count_weights(self.recipe.model, data.input_shape, len(data.classes), width, data.tokens)

    # ------------------------------------------------------------------ the study
    def open(self, cells: Sequence[Cell]) -> None:
        """Make the study, or join it, and queue what it lacks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locks.alone():
            if self._backend is None:
                self._backend = open_storage(self.storage)
            study = create_study(self._backend, self._study_name)
            self.shared = SharedStudy(study, self.locks)
            self.about = self.shared.about
            # Another process may have made the study in the meantime, with settings of its own.
            self.recipe = self._joined(self.recipe)
            if not self.about and self.data is not None:
                self.about = {
                    "recipe": _shared_fields(self.recipe),
                    "data": plain_json(self.data.describe()),
                    "model": {"name": self.recipe.model, "weights": self._weights(self.data)},
                }
                self.shared.describe(self.about)
            self.shared.add(cells)
        self.write()

    def run(self, display: CompareDisplay) -> None:
        """Take cells until none is left, here or elsewhere."""
        shared = self._opened
        with StopRequest() as stop, display:
            while True:
                if stop.asked:
                    raise InterruptedRunError("interrupted between two cells")
                claim = shared.claim(stop)
                records = shared.records().values()
                ended = sum(record.state in ("done", "failed") for record in records)
                if claim is not None:
                    display.cell(claim.cell, ended, len(records))
                    with claim:
                        self._run(claim, display)
                    self.write()
                elif elsewhere := shared.running():
                    display.waiting(elsewhere, ended, len(records))
                    time.sleep(_POLL_SECONDS)
                else:
                    return

    def _run(self, claim: Claim, display: CompareDisplay) -> None:
        cell = claim.cell
        try:
            data = self._read()
            recipe = self._recipe(cell, data)
            seeds = range(cell.seed, cell.seed + 1)
            metrics = run_seeds(
                recipe,
                seeds,
                nullcontext(display),
                nullcontext(claim),
                resume=True,
                command=self.command,
                data=data,
                is_held=True,
            )
        except KeyboardInterrupt:  # InterruptedRunError too
            if claim.lost:
                return
            claim.put_back()
            raise
        except (OSError, DamagedFileError):  # the other cells use the same disk
            with suppress(ObverseError, OSError):
                claim.put_back()
            raise
        except Exception as error:  # one cell that fails must not take the others with it
            claim.failed(one_line(error))
            display.ended(f"failed: {one_line(error)}")
        else:
            result = cell_result(metrics, self._weights(data, recipe.width), self._weights(data))
            claim.done(result)
            display.ended(
                f"test error {result['test_error']:.2%}, keeps {result['kept']:.3%} of the weights, "
                f"{result['seconds']:.1f} s"
            )

    # ------------------------------------------------------------------ the results
    def write(self) -> dict[str, Any]:
        """Write what is known by now."""
        from ..report import write_comparison

        shared = self._opened
        with self.locks.alone():
            records = shared.records()
            folders = {cell: f"cells/{cell.name}" for cell in records}
            where = without_password(self.storage)
            record: dict[str, Any] = plain_json(
                comparison_record(self.about, records.values(), folders, self.command, where)
            )
            write_atomically(self.folder / "compare.html", lambda file: write_comparison(record, file))
            write_sealed(self.folder / _RECORD, record)
        return record

    @property
    def _opened(self) -> SharedStudy:
        assert self.shared is not None
        return self.shared


def _shared_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields that all cells have in common."""
    return {name: value for name, value in recipe.numbers().items() if name not in _OF_A_CELL}


def _parse_budgets(given: str | Iterable[float | str]) -> list[float]:
    parts: list[float | str] = [p for p in given.split(",") if p.strip()] if isinstance(given, str) else list(given)
    budgets = list(dict.fromkeys(parse_budget(part) for part in parts))
    if not budgets:
        raise InvalidArgumentError("name at least one budget, such as 95%")
    return budgets


def _holds_comparison(folder: Path) -> bool:
    with suppress(OSError):
        return any((folder / name).exists() for name in (JOURNAL, _RECORD, FOLDER))
    return False
