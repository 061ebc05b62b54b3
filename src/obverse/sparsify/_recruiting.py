"""Which tensors a Sparsifier takes up, and which of them share an aim."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import InvalidArgumentError, StateError
from ..penalties import penalty as penalty_named
from ._groups import grouping
from ._member import Member
from ._metric import Metric
from ._pool import Pool
from ._rules import Rule, output_parameter, select
from ._shards import check_shards

__all__ = ["check_free", "holder_of", "pooled", "recruit", "release", "take"]

_HELD: Any = WeakIdKeyDictionary()


def holder_of(parameter: nn.Parameter) -> object | None:
    """The Sparsifier that holds a parameter."""
    reference = _HELD.get(parameter)
    return None if reference is None else reference()


def take(members: Sequence[Member], holder: object) -> None:
    """Note who holds the members' parameters."""
    for member in members:
        for parameter in member.parameters:
            _HELD[parameter] = weakref.ref(holder)


def release(member: Member) -> None:
    """Let others have the member's parameters."""
    for parameter in member.parameters:
        _HELD.pop(parameter, None)


def check_free(name: str, parameter: nn.Parameter) -> None:
    """Raise where another Sparsifier holds a parameter.

    Raises
    ------
    StateError
    """
    if holder_of(parameter) is not None:
        raise StateError(f"{name!r} is held by another Sparsifier: finish() that one first, or skip it with a Rule")


def recruit(model: nn.Module, rules: Sequence[Rule], default: Rule, metric: Metric) -> list[Member]:
    """The tensors to regularize, in the order of the model.

    Raises
    ------
    InvalidArgumentError, StateError
        If there are none, the optimizer does not train one, or another Sparsifier holds it.
    """
    members = []
    outputs = output_parameter(model)
    for selected in select(model, rules, default):
        rule, owner = selected.rule, selected.owners[0][0]
        if rule.budget is None and rule.strength is None:
            continue
        # Whole groups: without a rule that asks for it, layers that have no such groups are left alone, and so is
        # the last layer, whose units are the outputs themselves.
        if rule.groups != "weights" and rule == default:
            fits = rule.groups != "filters" or isinstance(owner, nn.modules.conv._ConvNd)
            if not fits or (selected.parameter is outputs and rule.groups != "inputs"):
                continue
        check_free(selected.name, selected.parameter)
        assert rule.penalty is not None
        assert rule.groups is not None
        check_shards(selected.name, selected.parameter)
        members.append(
            Member(
                selected=selected,
                grouping=grouping(rule.groups, selected.name, selected.parameter, owner),
                penalty=penalty_named(rule.penalty),
                metric=metric,
                option_group=metric.group(selected.parameter, selected.name),
            )
        )
    if not members:
        raise InvalidArgumentError(f"nothing to regularize with groups={default.groups!r}")
    return members


def pooled(
    members: Sequence[Member],
    total_steps: int | None,
    every: int | None,
    first_strength: float,
    continuation: float,
) -> list[Pool]:
    """The members in pools of one aim each."""
    # The common aim, and every rule's own, is one object shared by its members.
    together: dict[tuple[int, float | None], list[Member]] = {}
    for member in members:
        rule = member.selected.rule
        key = (id(rule.budget), None) if rule.budget is not None else (0, rule.strength)
        together.setdefault(key, []).append(member)
    pools: list[Pool] = []
    for alike in together.values():
        rule = alike[0].selected.rule
        assert not isinstance(rule.budget, float | int)
        strength = first_strength if rule.budget is not None else rule.strength or 0.0
        pools.append(Pool(alike, rule.budget, strength, total_steps, every, continuation))
    return pools
