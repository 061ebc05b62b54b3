"""How a classifier is trained on tensors in memory: the recipe that both stages share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, final

import torch
from torch import Tensor, nn

from .._core import checks
from ..errors import InvalidArgumentError, NonFiniteError
from ._deferred import DeferredReweighting
from ._jacobian import HeteroskedasticRegularizer
from ._weighted_loss import CrossEntropyLoss

__all__ = ["Build", "TrainingPlan", "probabilities", "trained"]

_HINT = "a lower learning rate or strength may help"

Build = Callable[[], nn.Module]


@final
@dataclass(frozen=True)
class TrainingPlan:
    """SGD with Nesterov momentum, the rate falling to zero along half a cosine.

    Parameters
    ----------
    epochs, batch_size : int
        An epoch is a permutation of the rows, without those that fill no batch.
    learning_rate, momentum, weight_decay : float
    deferred : int, optional
        Epoch from which the second stage weighs classes, as `DeferredReweighting`; by default never.
    beta : float
        Of these weights.
    augment : callable, optional
        ``augment(inputs, generator)`` gives a changed batch.
    device : str
        Where the model trains.

    Raises
    ------
    InvalidArgumentError
        For a value out of range.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    deferred: int | None = None
    beta: float = 0.9999
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        checks.count("epochs", self.epochs)
        checks.count("batch_size", self.batch_size)
        checks.positive("learning_rate", self.learning_rate)
        checks.fraction("momentum", self.momentum, zero=False, one=False)
        checks.nonnegative("weight_decay", self.weight_decay)
        checks.fraction("beta", self.beta)
        if self.deferred is not None:
            checks.count("deferred", self.deferred, 0)

    @property
    def identity(self) -> list[tuple[str, Any]]:
        """What a result depends on, as far as it can be written down."""
        found = [(part.name, getattr(self, part.name)) for part in fields(self)]
        return [(name, getattr(value, "__qualname__", value)) for name, value in found]

    def built(self, build: Build, inputs: Tensor, classes: int, seed: int) -> nn.Module:
        """A new model, which gives one logit for each class."""
        with _seeded(seed, self.device):
            model = build()
            if not isinstance(model, nn.Module):
                raise InvalidArgumentError(f"build must return a torch.nn.Module, got {type(model).__name__}")
            model = model.to(self.device)
            with torch.no_grad():
                logits = model.eval()(inputs[:2].to(self.device))
        if not isinstance(logits, Tensor) or logits.shape != (min(2, len(inputs)), classes):
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidArgumentError(f"the model must give logits of {classes} classes, got {given} for 2 rows")
        return model


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """The global generators under a seed, and as they were afterwards."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def trained(
    plan: TrainingPlan,
    model: nn.Module,
    inputs: Tensor,
    codes: Tensor,
    seed: int,
    regularizer: HeteroskedasticRegularizer | None = None,
    members: Tensor | None = None,
    classes: int = 0,
) -> nn.Module:
    """Train in place by cross-entropy, plus the penalty of ``regularizer`` with the groups ``members``."""
    criterion: nn.Module = CrossEntropyLoss()
    if regularizer is not None and plan.deferred is not None:
        counts = torch.bincount(codes, minlength=classes)
        criterion = DeferredReweighting(criterion, counts, start=plan.deferred, beta=plan.beta).to(plan.device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=plan.learning_rate,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=True,
    )
    generator = torch.Generator().manual_seed(seed)
    batch = min(plan.batch_size, len(codes))
    per_epoch = len(codes) // batch
    with _seeded(seed, plan.device):
        for epoch in range(plan.epochs):
            model.train()
            order = torch.randperm(len(codes), generator=generator)
            total = torch.zeros((), device=plan.device)
            for step in range(per_epoch):
                progress = (epoch + step / per_epoch) / plan.epochs
                optimizer.param_groups[0]["lr"] = plan.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
                rows = order[step * batch : (step + 1) * batch]
                x, y = inputs[rows], codes[rows].to(plan.device)
                x = (x if plan.augment is None else plan.augment(x, generator)).to(plan.device)
                with nullcontext() if regularizer is None else regularizer.capture():
                    logits = model(x)
                try:
                    loss = criterion(logits, y)
                    if regularizer is not None:
                        within = None if members is None else members[rows].to(plan.device)
                        loss = regularizer.total(loss, logits, y, within)
                except NonFiniteError as error:
                    raise NonFiniteError(f"{error}, in epoch {epoch}; {_HINT}") from error
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            if not bool(torch.isfinite(total)):
                raise NonFiniteError(f"the loss is {float(total)} in epoch {epoch}; {_HINT}")
            if isinstance(criterion, DeferredReweighting):
                criterion.step()
    return model


def probabilities(plan: TrainingPlan, model: nn.Module, inputs: Tensor) -> Tensor:
    """Predicted probabilities (N, K) in float32 on the CPU, the model in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [model(rows.to(plan.device)).float().softmax(1).cpu() for rows in torch.split(inputs, 1024)]
    return torch.cat(parts)
