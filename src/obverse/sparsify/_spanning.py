"""Taking up groups that span several tensors, as a watched run of the model shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError, UnknownNameError
from ..graph import KINDS, Family, Removable, removable
from ..penalties import penalty as penalty_named
from ._groups import grouping
from ._member import Member
from ._metric import Metric
from ._recruiting import check_free
from ._rules import Rule, Selected, select
from ._shards import is_sharded
from ._span import Part, Span
from ._zeros import hold
from .faces import Face

__all__ = ["check_spans", "hold_spans", "recruit_spans"]


def check_spans(face: Face, curvature: str) -> None:
    """Raise where groups that span tensors cannot be run through a face.

    Raises
    ------
    InvalidArgumentError
    """
    if face.acts_in_forward or face.learns:
        raise InvalidArgumentError(
            f"face={face.name!r} shows every layer a noisy or gated weight of its own, and a group that spans several "
            "layers (example_inputs=...) would need one draw that all of them share; use 'proximal', 'reweighted' or "
            "'magnitude', or leave example_inputs out for groups within a tensor"
        )
    if curvature in ("gradients", "inputs"):
        raise InvalidArgumentError(
            f"curvature={curvature!r} is measured tensor by tensor; groups that span several (example_inputs=...) take "
            "curvature='optimizer'"
        )


def recruit_spans(
    model: nn.Module, rules: Sequence[Rule], default: Rule, metric: Metric, example_inputs: Any
) -> tuple[list[Span], Removable]:
    """The families of groups to regularize, in the order of the model, and all that the graph has.

    A family goes by the rule of the tensor that names it, and is left alone where a tensor that writes its channels is
    skipped, and where any tensor it touches is frozen.

    Raises
    ------
    InvalidArgumentError, StateError
        If there are none, a tensor is sharded, the optimizer does not train one, or another Sparsifier holds it.
    """
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise InvalidArgumentError(
                f"{name!r} is sharded over processes (FSDP), where no process can see or scale a group that spans "
                "several tensors; leave example_inputs out for groups within a tensor, or train without shards"
            )
    for rule in (default, *rules):
        if rule.groups is not None and rule.groups not in KINDS:
            raise UnknownNameError("groups (with example_inputs)", rule.groups, KINDS)
    found = removable(model, example_inputs)
    by_name = {name: one for one in select(model, rules, default) for name in one.names}
    members: list[Span] = []
    names: Counter[str] = Counter()
    for family in found.families:
        chosen = _chosen(family, by_name)
        if chosen is None:
            continue
        parts = _parts(model, family, metric)
        if parts is None:
            continue
        for part in parts:
            check_free(part.name, part.parameter)
        name = chosen.name
        names[name] += 1
        assert chosen.rule.penalty is not None
        members.append(
            Span(
                selected=chosen,
                grouping=grouping("weights", name, chosen.parameter, chosen.owners[0][0]),
                penalty=penalty_named(chosen.rule.penalty),
                metric=metric,
                option_group=metric.group(chosen.parameter, name),
                parts=parts,
                roots=family.roots,
                label=name if names[name] == 1 else f"{name} ({names[name]})",
            )
        )
    if not members:
        why = "; ".join(dict.fromkeys(f"{name} stays: {reason}" for name, reason in found.kept.items()))
        raise InvalidArgumentError(
            f"nothing to regularize: no groups={default.groups!r} of the model can be taken out whole"
            + (f" ({why[:300]})" if why else "")
        )
    return members, found


def hold_spans(members: Sequence[Member], optimizer: torch.optim.Optimizer | None) -> None:
    """Keep what fell at zero; a tensor that several families reach keeps the zeros of all."""
    keep: dict[nn.Parameter, torch.Tensor] = {}
    for member in members:
        for parameter, mask in member.nonzero_masks():
            keep[parameter] = keep[parameter] * mask if parameter in keep else mask
    for parameter, mask in keep.items():
        hold(parameter, mask.expand_as(parameter) != 0, optimizer)


def _chosen(family: Family, by_name: dict[str, Selected]) -> Selected | None:
    """What the rules say of a family; None where it is left alone."""
    if any(writer not in by_name for writer in family.writers):
        return None
    chosen = by_name[family.writers[0]]
    rule = chosen.rule
    if rule.budget is None and rule.strength is None:
        return None
    return chosen if rule.groups == "channels" or rule.groups in family.kinds else None


def _parts(model: nn.Module, family: Family, metric: Metric) -> tuple[Part, ...] | None:
    """The tensors of a family; None where one is frozen."""
    named = dict(model.named_parameters(remove_duplicate=False))
    parts = []
    for name, axes in family.axes.items():
        parameter = named[name]
        if not parameter.requires_grad or len(axes) > 2:
            return None
        index = {
            axis: torch.where(groups < 0, len(family), groups).to(parameter.device) for axis, groups in axes.items()
        }
        parts.append(Part(name, parameter, metric.group(parameter, name), index))
    return tuple(parts)
