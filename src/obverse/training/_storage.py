"""Where a comparison keeps its state: a journal file, or a database that machines share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._one_line import one_line

__all__ = [
    "JOURNAL",
    "create_study",
    "find_study",
    "hide_password",
    "open_storage",
    "quiet_optuna",
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
        When it cannot be opened, with one line that holds no password.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    try:
        if "://" in storage:
            # What is busy for a moment is not broken.
            waits = {"connect_args": {"timeout": _BUSY_SECONDS}} if storage.startswith("sqlite") else {}
            return _patiently(lambda: RDBStorage(storage, engine_kwargs={"pool_pre_ping": True, **waits}))
        path = os.path.abspath(os.path.expanduser(storage))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # A lock that is a file of its own: it works on network drives, and one left by a kill ends by itself.
        return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    except Exception as error:  # drivers of databases raise errors of their own, and Optuna those of the driver
        where = without_password(storage)
        raise InvalidArgumentError(f"cannot open the storage {where}: {one_line(error)}") from error


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
