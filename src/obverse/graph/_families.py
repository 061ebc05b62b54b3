"""Families of removable groups: what training may zero so that all of it can be taken out afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import UnknownNameError
from ._bisect import culprits, pattern_of
from ._copies import plain_copy, unwrapped
from ._dead import Verdict, missing_from_box
from ._dependencies import KINDS, Group, grouped
from ._evaluation import evaluated, widest
from ._flow import Knowledge
from ._inputs import Inputs, as_inputs
from ._rebuild import rebuild
from ._watch import analyze

__all__ = ["Family", "Removable", "removable"]


@dataclass(frozen=True)
class Family:
    """Groups that touch the same axes of the same tensors, each with as many indices as every other.

    Attributes
    ----------
    writers : tuple of str
        The parameters that write the channels, in the order of the model; the first one names the family.
    kinds : frozenset of str
    axes : dict of str to dict of int to torch.Tensor
        Parameter to axis to the number of the group that every index belongs to, -1 for none; int64, (size,).
    roots : torch.Tensor
        The class of every group, int64, (groups,).
    """

    writers: tuple[str, ...]
    kinds: frozenset[str]
    axes: dict[str, dict[int, torch.Tensor]]
    roots: torch.Tensor

    def __len__(self) -> int:
        return len(self.roots)


@dataclass(frozen=True)
class Removable:
    """All families of a model, and the model without some of their groups.

    Attributes
    ----------
    families : tuple of Family
    kept : dict of str to str
        Parameters with groups that stay, and why.
    """

    families: tuple[Family, ...]
    kept: dict[str, str]
    _know: Knowledge
    _root: torch.Tensor

    def of(self, kind: str) -> list[Family]:
        """The families of a kind; ``"channels"`` are all.

        Raises
        ------
        UnknownNameError
            If there is no such kind.
        """
        if kind not in KINDS:
            raise UnknownNameError("kind of groups", kind, KINDS)
        return [family for family in self.families if kind == "channels" or kind in family.kinds]

    def without(self, model: nn.Module, gone: Iterable[torch.Tensor]) -> nn.Module:
        """A copy of the model without the groups of these classes, whatever their weights are.

        It computes the same where they are zero, and costs what a model without them costs in any case.
        """
        verdict = Verdict(self._know, self._root)
        verdict.give_up(torch.cat([torch.empty(0, dtype=torch.long), *(one.cpu() for one in gone)]))
        return rebuild(model, self._know, verdict).model


def removable(model: nn.Module, example_inputs: Any) -> Removable:
    """What may be zeroed group by group so that `obverse.compact` can take out exactly that.

    A group has every slice of every parameter that belongs to a channel: what writes it, its bias and normalization,
    and what reads it. Sets of channels that must keep equally many, such as both directions of a recurrent layer or
    the halves of a gated unit, are joined place by place. What a reshape or the interface of the model needs stays.

    Parameters
    ----------
    model : torch.nn.Module
        Is left untouched.
    example_inputs : Tensor, tuple of positional or mapping of keyword arguments
        One batch, as the model takes it.

    Raises
    ------
    InvalidArgumentError
        If the model does not run on the inputs.
    """
    know = analyze(model, example_inputs, assume_zeroed=True)
    for even in know.evens:
        _tie_places(know, even.sets, even.reason)
    for labels, axes, reason in know.boxes:
        _pin_parts(know, labels, reason, axes)
    for move in know.moves:
        for labels in (*move.before, *move.after):
            _pin_parts(know, labels, f"{move.name} in {move.owner or 'the model'} needs the rest of a rectangle")
    parameters = dict(know.model.named_parameters())
    order = {name: place for place, name in enumerate(parameters)}
    alike: dict[Any, list[tuple[int, Group]]] = {}
    kept = {name: reason for name, reason in know.fixed.items() if name in parameters}
    for root, group in grouped(know):
        slices = [one for one in group.slices if one.tensor in parameters]
        if group.kept is not None:
            kept |= {one.tensor: group.kept for one in slices if (one.tensor, one.axis) in know.writes}
        elif any((one.tensor, one.axis) in know.writes for one in slices):
            key = (group.kinds, tuple(sorted((one.tensor, one.axis, len(one.indices)) for one in slices)))
            alike.setdefault(key, []).append((root, group))
    families = []
    for (kinds, _), groups in alike.items():
        family = _family(know, kinds, groups, order, parameters)
        if any(bool((numbers == 0).all()) for axes in family.axes.values() for numbers in axes.values()):
            # One group is all that there is along an axis, of which something stays.
            kept |= dict.fromkeys(family.writers, "all of its channels go together, and a layer keeps at least one")
        else:
            families.append(family)
    every = torch.from_numpy(know.channels.every_root())
    # The copies of weights that the analysis made are not needed any more.
    know.reads.clear()
    know.model = nn.Module()
    found = Removable(tuple(sorted(families, key=lambda one: order[one.writers[0]])), kept, know, every)
    return _tried(unwrapped(model), as_inputs(example_inputs), found)


def _tried(model: nn.Module, inputs: Inputs, found: Removable) -> Removable:
    """The families that really follow: half of each is zeroed and taken out of a copy, which must compute the same."""

    dtype = widest(model, inputs)

    def works(families: Sequence[Family]) -> bool:
        zeroed = plain_copy(model).eval()
        zeroed = zeroed.double() if dtype == torch.float64 else zeroed
        named = dict(zeroed.named_parameters(remove_duplicate=False))
        gone = []
        with torch.no_grad():
            for family in families:
                some = max(1, len(family) // 2)
                gone.append(family.roots[:some])
                for name, axes in family.axes.items():
                    for axis, groups in axes.items():
                        places = ((groups >= 0) & (groups < some)).nonzero()[:, 0].to(named[name].device)
                        named[name].data.index_fill_(axis, places, 0.0)
            smaller = found.without(zeroed, gone)
            before = evaluated(zeroed, inputs, dtype)
            try:
                after = evaluated(smaller, inputs, dtype)
            except Exception:  # whatever the model's code raises on sizes that do not fit
                return False
        allowed = 1e-9 if dtype == torch.float64 else 1e-3
        return len(before) == len(after) and all(_equal(a, b, allowed) for a, b in zip(before, after, strict=True))

    families = [family for family in found.families if len(family) > 1]
    if not families or works(families):
        return found
    bad = culprits(families, lambda one: pattern_of(one.writers), works)
    reason = "the code around it does not follow when it becomes smaller"
    kept = {**found.kept, **{writer: reason for family in bad for writer in family.writers}}
    good = tuple(family for family in found.families if not any(family is one for one in bad))
    return Removable(good, kept, found._know, found._root)


def _equal(first: torch.Tensor, second: torch.Tensor, allowed: float) -> bool:
    if first.shape != second.shape:
        return False
    gap, scale = (first.double() - second.double()).abs(), first.double().abs()
    return (
        not gap.numel()
        or bool((gap.max() <= allowed * scale.max()) | (gap.max() == 0))
        or not bool(first.isfinite().all())
    )


def _family(
    know: Knowledge,
    kinds: frozenset[str],
    groups: Sequence[tuple[int, Group]],
    order: dict[str, int],
    parameters: dict[str, nn.Parameter],
) -> Family:
    axes: dict[str, dict[int, torch.Tensor]] = {}
    for number, (_, group) in enumerate(groups):
        for one in group.slices:
            if one.tensor in parameters and (one.tensor, one.axis) not in know.follows:
                size = parameters[one.tensor].shape[one.axis]
                held = axes.setdefault(one.tensor, {}).setdefault(one.axis, torch.full((size,), -1))
                held[list(one.indices)] = number
    writers = {name for name, held in axes.items() for axis in held if (name, axis) in know.writes}
    return Family(
        tuple(sorted(writers, key=order.__getitem__)), kinds, axes, torch.tensor([root for root, _ in groups])
    )


def _tie_places(know: Knowledge, sets: Sequence[torch.Tensor], reason: str) -> None:
    first = sets[0]
    for other in sets[1:]:
        if other.shape == first.shape:
            know.channels.tie(first, other)
        else:
            know.channels.pin(first, reason)
            know.channels.pin(other, reason)


def _pin_parts(know: Knowledge, labels: torch.Tensor, reason: str, whole: Sequence[int] | None = None) -> None:
    """Pin the classes without which what stays would not be a rectangle, or not be whole along some axes."""
    root = know.channels.roots(labels)
    varied = [a for a in range(root.ndim) if root.shape[a] > 1 and bool((root != root.narrow(a, 0, 1)).any())]
    if whole is None and len(varied) < 2:
        return
    if whole is not None and not {axis % root.ndim for axis in whole} & set(varied):
        return
    for axis in range(root.ndim):
        if axis not in varied and root.shape[axis] > 1:
            root = root.narrow(axis, 0, 1)
    for one in root.unique().tolist():  # type: ignore[no-untyped-call]
        kept = root != one
        trouble = missing_from_box(kept) if whole is None else kept.any(dim=tuple(whole), keepdim=True) & ~kept
        if bool(trouble.any()):
            know.channels.pin(root[trouble], reason)
