"""From a recipe to the Sparsifier that acts on its model, or to nothing where it trains dense."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._penalty import build_penalty
from ._recipe import Recipe
from ._split import Data

__all__ = ["DenseTraining", "attach", "prunable"]

# Rows of the batch with which a model is traced.
_EXAMPLES = 8


def attach(
    recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, total_steps: int, seed: int, data: Data
) -> Any:
    """The Sparsifier of a recipe, with what its face learns in the optimizer."""
    from ..sparsify import SPANNING, Budget, Sparsifier

    if recipe.face == "none":
        return DenseTraining(model)
    budget = None
    if recipe.budget is not None:
        # Random pruning knows at the start what it will drop: there is nothing to wait for.
        budget = Budget(recipe.budget, ramp=0, hold=0) if recipe.face == "random" else Budget(recipe.budget)
    sparsifier = Sparsifier(
        model,
        optimizer,
        penalty=None if recipe.penalty is None else build_penalty(recipe.penalty),
        face=recipe.face,
        groups=recipe.groups,
        budget=budget,
        strength=recipe.strength,
        total_steps=total_steps,
        seed=seed,
        examples=len(data.train),
        # Groups that span tensors are found by tracing the model.
        example_inputs=data.normalize(data.train.inputs[:_EXAMPLES]) if recipe.groups in SPANNING else None,
    )
    sparsifier.join()
    return sparsifier


def prunable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The weights that a Sparsifier without rules would regularize."""
    from ..sparsify import regularized

    return regularized(model)


class DenseTraining:
    """Stands where a Sparsifier would, and leaves the model alone."""

    strength, phase, sparsity = 0.0, "train", 0.0

    def __init__(self, model: nn.Module) -> None:
        self._weights = prunable(model)
        self.trajectory: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def penalty(self) -> Tensor:
        """Zero."""
        return self._weights[0][1].new_zeros(())

    def step(self) -> None:
        """Nothing is done."""

    def finish(self) -> None:
        """Nothing is done."""

    def layers(self) -> list[dict[str, Any]]:
        """Name, shape, number of weights and of nonzero weights of what could have been regularized."""
        return [
            {
                "name": name,
                "shape": list(weight.shape),
                "weights": weight.numel(),
                "nonzero": int(weight.detach().count_nonzero()),
            }
            for name, weight in self._weights
        ]

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is loaded."""
