"""From what a model may cost to the sparsity that meets it: parameters, products, bytes of the file, seconds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .._core.distributed import average, is_parallel
from ..errors import InvalidArgumentError, StateError
from ..graph import Removable, as_inputs, estimated_bytes, latency, macs, parameters, time_ratio
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
        # Time is measured against the whole model in turn, so that the speed of the machine may drift meanwhile.
        self._seconds = 0.0
        if "latency" in budget.costs:
            self._seconds = self._agreed(latency(model, self._inputs, repeats=_REPEATS).median)
        self.whole: dict[str, float] = {}  # what the model costs as it is
        for name, limit in budget.costs.items():
            self.whole[name] = now = self._seconds if name == "latency" else self._of(name, model, None)
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
        """The sparsity at which a cost is nearest to its limit: all that may fall where nothing else is enough."""
        low, high = 0.0, _ALL
        seen: dict[tuple[int, ...], tuple[float, float]] = {}
        for _ in range(_HALVINGS[name]):
            middle = (low + high) / 2
            masks = keep(middle)
            key = tuple(int(mask.sum()) for mask in masks)
            if key not in seen:
                seen[key] = (self._of(name, self._smaller(masks), masks), middle)
            low, high = (low, middle) if seen[key][0] <= limit else (middle, high)
        nearest = sorted(seen.values(), key=lambda one: abs(one[0] - limit))
        if nearest[0][0] > limit and high == _ALL:
            return high
        if name != "latency":
            return nearest[0][1]
        # Among what is near by one short measurement a longer one decides.
        again = []
        for _, sparsity in nearest[:3]:
            masks = keep(sparsity)
            again.append((abs(self._of(name, self._smaller(masks), masks, longer=3) - limit), sparsity))
        return min(again)[1]

    def _smaller(self, masks: Sequence[torch.Tensor]) -> nn.Module:
        model = self._model()
        if model is None:
            raise StateError("the model is gone")
        if self._removable is None:
            return model
        gone = [member.roots[~mask.cpu()] for member, mask in zip(self._spans, masks, strict=True)]
        return self._removable.without(model, gone)

    @property
    def _spans(self) -> list[Span]:
        return [member for member in self._members if isinstance(member, Span)]

    def _agreed(self, measured: float) -> float:
        """One number for all processes: what they measure differs, and what they prune may not."""
        if not is_parallel():
            return measured
        shared = torch.tensor([measured], dtype=torch.float64, device=self._members[0].parameter.device)
        average(shared)
        return float(shared)

    def _of(self, name: str, model: nn.Module, masks: Sequence[torch.Tensor] | None, longer: int = 1) -> float:
        """A cost of the model; without the graph, where zeros are left out."""
        if name == "macs":
            return float(macs(model, self._inputs))
        if name == "latency":
            whole = self._smaller([torch.ones(len(member.roots), dtype=torch.bool) for member in self._spans])
            ratio = time_ratio(model.eval(), whole.eval(), self._inputs, repeats=longer * _REPEATS)
            return self._seconds * self._agreed(ratio)
        kept: dict[str, int] = {}
        if self._removable is None and masks is not None:
            for member, mask in zip(self._members, masks, strict=True):
                kept[member.name] = int(mask.sum()) * member.group_size
        if name == "bytes":
            return float(estimated_bytes(model, kept))
        fallen = sum(member.count - kept[member.name] for member in self._members) if kept else 0
        return float(parameters(model) - fallen)
