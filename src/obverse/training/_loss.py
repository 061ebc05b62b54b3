"""The loss of a run: the cross-entropy, or a criterion that regularizes labels, with what it needs from the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidArgumentError, NonFiniteError
from ..labels import label_criterion
from ._recipe import Recipe
from ._split import Data

__all__ = ["CriterionLoss", "SmoothedLoss", "training_loss"]

Forward = Callable[[Tensor], Tensor]


def training_loss(recipe: Recipe, data: Data, model: nn.Module, seed: int) -> SmoothedLoss | CriterionLoss:
    """The loss that a recipe asks for."""
    if recipe.labels is None:
        return SmoothedLoss(recipe.label_smoothing)
    return CriterionLoss(recipe, data, model, seed)


class SmoothedLoss:
    """Cross-entropy with smoothed labels; no state."""

    pairs = False

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def __call__(self, forward: Forward, inputs: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the loss summed over rows."""
        scores = forward(inputs).float()
        return scores, functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=self.smoothing)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Nothing is learned."""
        return []

    def start_epoch(self) -> None:
        """Nothing is done."""

    def end_epoch(self) -> None:
        """Nothing is done."""

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is loaded."""

    def record(self) -> dict[str, Any] | None:
        """Nothing is told."""
        return None


class CriterionLoss:
    """A criterion of `obverse.labels` on the batches of a trainer.

    Parameters
    ----------
    recipe : Recipe
        With ``labels`` and ``epochs``.
    data : Data
    model : torch.nn.Module
        Its last linear layer is the head: what the layer is given are the features that some criteria read. Midpoints
        of texts are taken of these features, since ids have none.
    seed : int
        Of the criterion's own draws.
    """

    def __init__(self, recipe: Recipe, data: Data, model: nn.Module, seed: int) -> None:
        assert recipe.labels is not None
        self.name, classes = recipe.labels.name, len(data.classes)
        self._mixes_features = data.tokens is not None
        head = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
        options = dict(recipe.labels.parameters)
        defaults: dict[str, dict[str, Any]] = {
            "progressive": {"epochs": recipe.epochs, "num_samples": len(data.train)},
            "early-learning": {"num_samples": len(data.train)},
            "pairwise": {"seed": seed, **({} if head is None else {"num_features": head.in_features})},
            "disturb": {"seed": seed},
        }
        given = defaults.get(self.name, {})
        self.criterion = label_criterion(self.name, classes, **{**given, **options, "reduction": "sum"})
        self.criterion.to(data.train.labels.device).train()
        self.pairs = self.criterion.needs_pairs
        self._reads_features = self.criterion.needs_features
        if head is None and (self._reads_features or (self._mixes_features and self.criterion.needs_prepare)):
            raise InvalidArgumentError(f"labels {self.name} need a model whose last layer is linear; this one has none")
        self._head = head

    def __call__(self, forward: Forward, inputs: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the loss summed over rows; ``rows`` are the ids of the samples."""
        prepares = self.criterion.needs_prepare
        if prepares and not self._mixes_features:
            inputs, labels = self.criterion.prepare(inputs, labels)
        with self._watching_head(labels if prepares and self._mixes_features else None) as seen:
            scores = forward(inputs).float()
        labels = seen.get("target", labels)
        features = seen.get("features") if self._reads_features else None
        try:
            return scores, self.criterion(scores, labels, index=rows, features=features)
        except NonFiniteError:
            # The trainer stops at it, and says in which step and with which parameter.
            return scores, scores.sum() * torch.nan

    @contextlib.contextmanager
    def _watching_head(self, labels: Tensor | None) -> Iterator[dict[str, Tensor]]:
        """Keep what the head is given, after mixing it with ``labels`` where there are any."""
        seen: dict[str, Tensor] = {}
        if self._head is None or not (self._reads_features or labels is not None):
            yield seen
            return

        def watch(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            features = given[0]
            if labels is not None:
                features, seen["target"] = self.criterion.prepare(features, labels)
            seen["features"] = features.float()
            return (features, *given[1:])

        handle = self._head.register_forward_pre_hook(watch)
        try:
            yield seen
        finally:
            handle.remove()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the criterion learns by gradients."""
        return self.criterion.parameter_groups()

    def start_epoch(self) -> None:
        """Before the first batch of an epoch."""
        self.criterion.start_epoch()

    def end_epoch(self) -> None:
        """After the last batch of an epoch, in every process."""
        self.criterion.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The criterion's state over all processes; called in every process."""
        self.criterion.synchronize()
        return self.criterion.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.criterion.load_state_dict(state)

    def record(self) -> dict[str, Any]:
        """Name, size of the state, and the soft label that each class has learned, where there is one."""
        relations: torch.Tensor | None = self.criterion.class_relations()
        return {
            "name": self.name,
            "description": repr(self.criterion),
            "state_bytes": self.criterion.state_bytes,
            "relations": None if relations is None else relations.double().tolist(),
        }
