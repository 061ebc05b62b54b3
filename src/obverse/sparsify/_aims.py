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

__all__ = ["ALL", "Aims", "Masks", "check_aims"]

ALL = 1 - 1e-9
"""The sparsity at which nothing stays but the least that floors leave."""

Masks = Sequence[torch.Tensor]

Keep = Callable[[float], Masks]

# Halvings of the sparsity that meets a cost, the freeze gives back what they leave over; a measured time deserves less.
_HALVINGS = {"parameters": 14, "bytes": 12, "macs": 12, "latency": 7}
_REPEATS = 15


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
    """The costs that a budget states, all upper bounds, and the sparsity that meets the tightest.

    Masks of groups are always those of the given members, in their order.

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
        self._device = members[0].parameter.device
        self._removable = removable
        self._inputs = None if example_inputs is None else as_inputs(example_inputs)
        # Time is measured against the whole model in turn, so that the speed of the machine may drift meanwhile.
        self._seconds = 0.0
        if "latency" in budget.costs:
            self._seconds = self._agreed(latency(model, self._inputs, repeats=_REPEATS).median)
        self.whole: dict[str, float] = {}  # what the model costs as it is
        for name, limit in budget.costs.items():
            self.whole[name] = now = self._seconds if name == "latency" else self._of(name, model, {})
            if now <= limit:
                raise InvalidArgumentError(
                    f"the budget asks for {name} of at most {limit:g}, and the model has {now:g} as it is"
                )

    def check_floor(self, members: Sequence[Member], least: Masks) -> None:
        """Raise where a cost is lower than that of the smallest model that groups and floors allow.

        Raises
        ------
        InvalidArgumentError
        """
        smaller, kept = self._smaller(members, least), self._kept(members, least)
        for name, limit in self.budget.costs.items():
            # The time of the smallest model is measured as late as that of any other.
            floor = 0.0 if name == "latency" else self._of(name, smaller, kept)
            if floor > limit:
                raise InvalidArgumentError(
                    f"the smallest model that these groups and the floor of every layer allow has {floor:,.0f} {name}; "
                    f"the budget of {limit:,.0f} cannot be met: use smaller groups, a lower floor, or another budget"
                )

    def sparsity(self, members: Sequence[Member], keep: Keep) -> float:
        """The least sparsity found that meets all aims; all that may fall where none does.

        Parameters
        ----------
        members : sequence of Member
        keep : callable
            The masks of the groups that a sparsity keeps now, at most.
        """
        needed = self.budget.sparsity or 0.0
        for name, limit in self.budget.costs.items():
            needed = max(needed, self._meeting(name, limit, members, keep))
        return needed

    def costs(self, members: Sequence[Member], masks: Masks) -> dict[str, float]:
        """What the model costs with these groups, by the names of the budget."""
        smaller, kept = self._smaller(members, masks), self._kept(members, masks)
        return {name: self._of(name, smaller, kept) for name in self.budget.costs}

    def fits(self, members: Sequence[Member], masks: Masks) -> bool:
        """Whether the model costs no more than the budget with these groups; time is not measured again."""
        smaller, kept = self._smaller(members, masks), self._kept(members, masks)
        limits = [(name, limit) for name, limit in self.budget.costs.items() if name != "latency"]
        return all(self._of(name, smaller, kept) <= limit for name, limit in limits)

    def _meeting(self, name: str, limit: float, members: Sequence[Member], keep: Keep) -> float:
        """The sparsity that just meets a cost: all that may fall where nothing else is enough."""
        if name == "parameters" and self._removable is None:
            # Every weight that falls is one parameter less.
            return min(ALL, max(0.0, (self.whole[name] - limit) / sum(member.count for member in members)))
        low, high = 0.0, ALL
        seen: dict[tuple[int, ...], tuple[float, float]] = {}
        for _ in range(_HALVINGS[name]):
            middle = (low + high) / 2
            masks = keep(middle)
            key = tuple(int(torch.count_nonzero(mask)) for mask in masks)
            if key not in seen:
                seen[key] = (self._measured(name, members, masks), middle)
            low, high = (low, middle) if seen[key][0] <= limit else (middle, high)
        if name != "latency":
            return max((one for one in seen.values() if one[0] <= limit), default=(limit, ALL))[1]
        nearest = sorted(seen.values(), key=lambda one: abs(one[0] - limit))
        if nearest[0][0] > limit and high == ALL:
            return high
        # Among what is near by one short measurement a longer one decides.
        again = [
            (abs(self._measured(name, members, keep(sparsity), longer=3) - limit), sparsity)
            for _, sparsity in nearest[:3]
        ]
        return min(again)[1]

    def _measured(self, name: str, members: Sequence[Member], masks: Masks, longer: int = 1) -> float:
        return self._of(name, self._smaller(members, masks), self._kept(members, masks), longer)

    def _smaller(self, members: Sequence[Member], masks: Masks) -> nn.Module:
        """The model without the groups that have fallen; as it is where groups cannot be taken out."""
        model = self._model()
        if model is None:
            raise StateError("the model is gone")
        if self._removable is None:
            return model
        pairs = zip(members, masks, strict=True)
        return self._removable.without(
            model, [member.roots[~mask.cpu()] for member, mask in pairs if isinstance(member, Span)]
        )

    def _kept(self, members: Sequence[Member], masks: Masks) -> dict[str, int]:
        """Entries of every tensor that are not zero, where groups cannot be taken out."""
        if self._removable is not None:
            return {}
        return {m.name: int(torch.count_nonzero(mask)) * m.group_size for m, mask in zip(members, masks, strict=True)}

    def _agreed(self, measured: float) -> float:
        """One number for all processes: what they measure differs, and what they prune may not."""
        if not is_parallel():
            return measured
        shared = torch.tensor([measured], dtype=torch.float64, device=self._device)
        average(shared)
        return float(shared)

    def _of(self, name: str, model: nn.Module, kept: dict[str, int], longer: int = 1) -> float:
        """A cost of a model of which these tensors have zeros."""
        if name == "macs":
            return float(macs(model, self._inputs))
        if name == "latency":
            whole = self._smaller([], [])
            ratio = time_ratio(model.eval(), whole.eval(), self._inputs, repeats=longer * _REPEATS)
            return self._seconds * self._agreed(ratio)
        if name == "bytes":
            return float(estimated_bytes(model, kept))
        tensors = dict(model.named_parameters())
        return float(parameters(model) - sum(tensors[one].numel() - count for one, count in kept.items()))
