"""From what a model may cost to the sparsity that meets it: parameters, products, bytes of the file, seconds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError, StateError
from ..graph import Removable, as_inputs, estimated_bytes, latency, macs, parameters
from ._budget import Budget
from ._member import Member
from ._rules import Rule
from ._span import Span

__all__ = ["Aims", "check_aims"]

Keep = Callable[[float], list[torch.Tensor]]

# The sparsity is known to this much of the parameters; a measured time deserves less.
_HALVINGS = {"parameters": 14, "bytes": 12, "macs": 12, "latency": 7}
_REPEATS = 15
# Nothing but the least that floors leave.
_ALL = 1 - 1e-9


def check_aims(rules: Sequence[Rule], *, spans: bool, budget: Budget | None) -> None:
    """Raise where a cost is asked for that the groups, or several budgets, cannot tell.

    Raises
    ------
    InvalidArgumentError
    """
    for rule in rules:
        if isinstance(rule.budget, Budget) and rule.budget.costs:
            raise InvalidArgumentError(
                f"rule {rule.match!r}: {', '.join(rule.budget.costs)} are costs of the whole model; a rule's budget is "
                "a sparsity"
            )
    if budget is None or not budget.costs:
        return
    if any(rule.budget is not None or rule.strength is not None for rule in rules):
        raise InvalidArgumentError(
            f"a budget of {', '.join(budget.costs)} is of the whole model, and rules with a budget or a strength of "
            "their own would take their part of it: leave out one or the other"
        )
    measured = [name for name in budget.costs if name in ("macs", "latency")]
    if measured and not spans:
        raise InvalidArgumentError(
            f"a budget of {' and '.join(measured)} needs groups that can be taken out, for zeros in a tensor cost what "
            "other numbers cost: give example_inputs (one batch of the size that counts), and groups such as 'channels'"
        )


class Aims:
    """The costs that a budget states, and the sparsity that meets the tightest.

    Parameters
    ----------
    budget : Budget
        With costs.
    model : nn.Module
    members : sequence of Member
        All that is regularized.
    removable : Removable or None
        What the graph knows, for groups that span tensors.
    example_inputs : tensor or tuple, or None
        The batch whose products and time count.

    Raises
    ------
    InvalidArgumentError
        If the model costs no more than that as it is.
    """

    def __init__(
        self,
        budget: Budget,
        model: nn.Module,
        members: Sequence[Member],
        removable: Removable | None,
        example_inputs: Any,
    ) -> None:
        self.budget = budget
        self._model = weakref.ref(model)
        self._members = list(members)
        self._removable = removable
        self._inputs = None if example_inputs is None else as_inputs(example_inputs)
        for name, limit in budget.costs.items():
            now = self._of(name, model, None)
            if now <= limit:
                raise InvalidArgumentError(
                    f"the budget asks for {name} of at most {limit:g}, and the model has {now:g} as it is"
                )

    def sparsity(self, keep: Keep) -> float:
        """The sparsity that meets the tightest aim, as nearly as whole groups can.

        Parameters
        ----------
        keep : callable
            The masks of the groups that a sparsity keeps now.
        """
        needed = self.budget.sparsity or 0.0
        for name, limit in self.budget.costs.items():
            needed = max(needed, self._meeting(name, limit, keep))
        return needed

    def costs(self, masks: Sequence[torch.Tensor]) -> dict[str, float]:
        """What the model costs with these groups, by the names of the budget."""
        smaller = self._smaller(masks)
        return {name: self._of(name, smaller, masks) for name in self.budget.costs}

    def _meeting(self, name: str, limit: float, keep: Keep) -> float:
        low, high = 0.0, _ALL
        nearest, miss = high, float("inf")
        seen: dict[tuple[int, ...], float] = {}
        for _ in range(_HALVINGS[name]):
            middle = (low + high) / 2
            masks = keep(middle)
            key = tuple(int(mask.sum()) for mask in masks)
            if key not in seen:
                seen[key] = self._of(name, self._smaller(masks), masks)
            if abs(seen[key] - limit) < miss:  # whole groups cost more or less by steps
                nearest, miss = middle, abs(seen[key] - limit)
            low, high = (low, middle) if seen[key] <= limit else (middle, high)
        return nearest

    def _smaller(self, masks: Sequence[torch.Tensor]) -> nn.Module:
        model = self._model()
        if model is None:
            raise StateError("the model is gone")
        if self._removable is None:
            return model
        spans = [member for member in self._members if isinstance(member, Span)]
        gone = [member.roots[~mask.cpu()] for member, mask in zip(spans, masks, strict=True)]
        return self._removable.without(model, gone)

    def _of(self, name: str, model: nn.Module, masks: Sequence[torch.Tensor] | None) -> float:
        """A cost of the model; without the graph, where zeros are left out."""
        if name == "macs":
            return float(macs(model, self._inputs))
        if name == "latency":
            return latency(model, self._inputs, repeats=_REPEATS).median
        kept: dict[str, int] = {}
        if self._removable is None and masks is not None:
            for member, mask in zip(self._members, masks, strict=True):
                kept[member.name] = int(mask.sum()) * member.group_size
        if name == "bytes":
            return float(estimated_bytes(model, kept))
        fallen = sum(member.count - kept[member.name] for member in self._members) if kept else 0
        return float(parameters(model) - fallen)
