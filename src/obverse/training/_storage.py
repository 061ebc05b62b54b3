"""Where a comparison keeps its state: a journal file, or a database that machines share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._core.text import one_line
from ..errors import FileWriteError, InvalidArgumentError, ObverseError
from ._journal import journal

__all__ = [
    "JOURNAL",
    "create_study",
    "find_study",
    "hide_password",
    "open_storage",
    "quiet_optuna",
    "storage_errors",
    "without_password",
]

JOURNAL = "study.log"
"""Name of the journal in the output folder, where no other storage is given."""

_BUSY_SECONDS = 60
_TRIES, _TRY_SECONDS = 4, 0.5


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing of its own meanwhile."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(
            "a comparison needs Optuna; install it with: pip install 'obverse[train]'"
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(storage: str) -> Any:
    """An Optuna storage from a URL of a database or the path of a journal file.

    Raises
    ------
    InvalidArgumentError
        When it cannot be opened, with one line that holds no password (`DamagedFileError` where a journal file is
        not what was written).
    """
    from optuna.storages import JournalStorage, RDBStorage

    try:
        if "://" in storage:
            # What is busy for a moment is not broken.
            waits = {"connect_args": {"timeout": _BUSY_SECONDS}} if storage.startswith("sqlite") else {}
            return _patiently(lambda: RDBStorage(storage, engine_kwargs={"pool_pre_ping": True, **waits}))
        path = os.path.abspath(os.path.expanduser(storage))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(journal(path))
    except ObverseError:
        raise
    except Exception as error:  # drivers of databases raise errors of their own, and Optuna those of the driver
        where = without_password(storage)
        raise InvalidArgumentError(f"cannot open the storage {where}: {one_line(error)}") from error


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """What a database refuses while a comparison runs, as one line that holds no password."""
    if "://" not in storage:
        yield  # a journal speaks for itself
        return
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        raise FileWriteError(f"cannot use the storage {without_password(storage)}: {one_line(cause)}") from error


def _patiently(connect: Callable[[], Any]) -> Any:
    """Try again for a while: two processes that make the tables of a new database get in each other's way."""
    from sqlalchemy.exc import DBAPIError

    for _ in range(_TRIES - 1):
        try:
            return connect()
        except DBAPIError:
            time.sleep(_TRY_SECONDS)
    return connect()


def find_study(storage: Any, name: str) -> Any:
    """The study of that name, or None."""
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=storage, sampler=_sampler())
    except KeyError:
        return None


def create_study(storage: Any, name: str) -> Any:
    """The study of that name, made if there is none: validation error and kept fraction are to be small."""
    import optuna

    return optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=_sampler(),
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )


def _sampler() -> Any:
    """Every trial says what it is; there is nothing to sample."""
    import optuna

    return optuna.samplers.RandomSampler(seed=0)


def without_password(storage: str) -> str:
    """A storage as it may be shown."""
    if "://" not in storage:
        return storage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return f"{storage.partition('://')[0]}://..."


def hide_password(word: str, storage: str | None) -> str:
    """A word of a command line with the ``storage`` in it as it may be shown."""
    return word if storage is None else word.replace(storage, without_password(storage))
