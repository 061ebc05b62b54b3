"""Threads of the linear algebra under a fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["single_threaded"]

P = ParamSpec("P")
R = TypeVar("R")


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def single_threaded(solve: Callable[P, R]) -> Callable[P, R]:
    """Hold BLAS to one thread while ``solve`` runs.

    A path is made of many small products and factorizations. Shared among threads, each costs more in waiting than it
    saves.
    """

    @wraps(solve)
    def held(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return solve(*args, **kwargs)

    return held
