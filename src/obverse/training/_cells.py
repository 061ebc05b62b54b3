"""One cell of a comparison: a method, a budget and a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ._methods import DENSE, Method, parse_method

__all__ = ["Cell", "grid"]


@dataclass(frozen=True)
class Cell:
    """What is trained once.

    Attributes
    ----------
    method : str
        Name of a `Method`.
    budget : float or None
        Sparsity asked for; None for dense training.
    seed : int
    """

    method: str
    budget: float | None
    seed: int

    @property
    def name(self) -> str:
        """Unique in a study, and safe as the name of a folder."""
        # No name of a penalty has an underscore, so the first one always stands for the colon after it.
        parts = [self.method.replace(":", "_"), *([] if self.budget is None else [f"{self.budget:.12g}"])]
        return "-".join([*parts, f"seed-{self.seed}"])

    @property
    def title(self) -> str:
        """For a reader."""
        budget = "" if self.budget is None else f" {100 * self.budget:.6g}%"
        return f"{self.method}{budget} seed {self.seed}"

    def recipe_fields(self) -> dict[str, Any]:
        """The fields of the recipe that this cell decides, but for the width of a small network."""
        method = parse_method(self.method)
        if method.face == "none":
            return {"face": "none"}
        penalty = {} if method.penalty is None else {"penalty": method.penalty.model_dump()}
        return {"face": method.face, "budget": self.budget, **penalty}

    def to_dict(self) -> dict[str, Any]:
        """As a study's storage keeps it."""
        return {"method": self.method, "budget": self.budget, "seed": self.seed}


def grid(methods: Iterable[Method], budgets: Iterable[float], seeds: Iterable[int]) -> list[Cell]:
    """All cells; seed by seed, so that an early look compares all methods. Dense training has no budget."""
    methods, budgets = list(methods), list(budgets)
    return [
        Cell(method.name, budget, seed)
        for seed in seeds
        for method in methods
        for budget in ([None] if method.name == DENSE else budgets)
    ]
