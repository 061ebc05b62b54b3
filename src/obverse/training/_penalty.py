"""From the penalty a recipe names to the object that `Sparsifier` takes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from ._recipe import PenaltyChoice

if TYPE_CHECKING:
    from ..penalties import Penalty

__all__ = ["build_penalty", "penalty_parameters"]


def build_penalty(choice: PenaltyChoice) -> Penalty:
    """The penalty of a recipe.

    Raises
    ------
    UnknownNameError
        When there is no penalty of that name.
    InvalidArgumentError
        When a parameter is unknown or has a value that the penalty refuses.
    """
    from ..penalties import penalty

    return penalty(choice.name, **choice.parameters)


def penalty_parameters(penalty: Penalty) -> dict[str, float]:
    """The numbers a penalty was made with, defaults included."""
    found = {name: getattr(penalty, name, None) for name in inspect.signature(type(penalty)).parameters}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, float | int) and not isinstance(value, bool)
    }
