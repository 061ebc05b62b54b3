"""Groups of tensor slices that live and die together, in words, with overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError, UnknownNameError
from ._flow import Knowledge
from ._watch import analyze

__all__ = ["KINDS", "Dependencies", "Group", "Slice", "dependencies", "grouped"]

KINDS = ("units", "filters", "heads", "hidden", "embedding", "channels")


@dataclass(frozen=True)
class Slice:
    """Indices of one axis of a named parameter or buffer, and why they belong to the group."""

    tensor: str
    axis: int
    indices: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Group:
    """Slices that live or die together.

    Attributes
    ----------
    slices : tuple of Slice
    kinds : frozenset of str
        Of ``"units"``, ``"filters"``, ``"heads"``, ``"hidden"``, ``"embedding"``.
    kept : str or None
        Why the group must stay whole, or None where it may go.
    """

    slices: tuple[Slice, ...]
    kinds: frozenset[str]
    kept: str | None = None

    def __str__(self) -> str:
        head = f"{'/'.join(sorted(self.kinds)) or 'channels'}" + (f", stays: {self.kept}" if self.kept else "")
        return "\n".join([head, *(f"  {s.tensor} axis {s.axis} {_span(s.indices)}: {s.why}" for s in self.slices)])


@dataclass(frozen=True)
class Dependencies:
    """All groups of a model."""

    groups: tuple[Group, ...]

    def of(self, kind: str) -> list[Group]:
        """The groups of one kind that may go; ``"channels"`` are all of them.

        Raises
        ------
        UnknownNameError
            If there is no such kind.
        """
        if kind not in KINDS:
            raise UnknownNameError("kind of groups", kind, KINDS)
        return [g for g in self.groups if (kind == "channels" or kind in g.kinds) and g.kept is None]

    def keep(self, pattern: str, reason: str = "asked for by the user") -> Dependencies:
        """The same groups, where those that touch a tensor whose name matches a regular expression stay.

        Raises
        ------
        InvalidArgumentError
            If the expression is not valid or matches no tensor of any group.
        """
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise InvalidArgumentError(f"{pattern!r} is not a regular expression: {error}") from error
        groups = tuple(
            replace(group, kept=group.kept or reason) if any(wanted.search(s.tensor) for s in group.slices) else group
            for group in self.groups
        )
        if not any(wanted.search(s.tensor) for group in groups for s in group.slices):
            raise InvalidArgumentError(f"{pattern!r} matches no tensor of any group")
        return Dependencies(groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        return "\n".join(map(str, self.groups))


def _span(indices: tuple[int, ...]) -> str:
    first, last = indices[0], indices[-1]
    if len(indices) > 1 and indices == tuple(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, indices))


def dependencies(model: nn.Module, example_inputs: Any) -> Dependencies:
    """Which slices of which tensors live and die together, from one run of a model.

    Parameters
    ----------
    model : torch.nn.Module
        Is left untouched.
    example_inputs : Tensor, tuple of positional or mapping of keyword arguments
        One batch, as the model takes it.

    Returns
    -------
    Dependencies
        Printable; a tied tensor appears once, under its first name.

    Raises
    ------
    InvalidArgumentError
        If the model does not run on the inputs.
    """
    return Dependencies(tuple(group for _, group in grouped(analyze(model, example_inputs))))


def grouped(know: Knowledge) -> list[tuple[int, Group]]:
    """The classes of channels as groups of slices, each with its class."""
    pins = know.channels.pins
    held: dict[int, list[Slice]] = {}
    for name, axes in know.axes.items():
        for axis, labels in axes.items():
            words = know.words[name, axis]
            for root, indices in _members(know.channels.roots(labels)):
                held.setdefault(root, []).append(Slice(name, axis, indices, words))
    kinds: dict[int, set[str]] = {}
    for kind, sets in know.kinds.items():
        for labels in sets:
            for root in know.channels.roots(labels).unique().tolist():  # type: ignore[no-untyped-call]
                kinds.setdefault(root, set()).add(kind)
    for labels, whole, _ in know.boxes:
        if len(whole) > 1:
            for root in know.channels.roots(labels).unique().tolist():  # type: ignore[no-untyped-call]
                kinds[root] = {"heads"}
    return [
        (root, Group(tuple(slices), frozenset(kinds.get(root, set())) & set(KINDS), pins.get(root)))
        for root, slices in sorted(held.items())
    ]


def _members(roots: torch.Tensor) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every class with the places where it stands, in order."""
    order = roots.argsort(stable=True)
    found, counts = roots[order].unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    for root, places in zip(found.tolist(), torch.split(order, counts.tolist()), strict=True):
        yield root, tuple(places.tolist())
