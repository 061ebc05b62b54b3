"""Whole numbers that remember where they come from: the length of a tensor, or an attribute of a module.

While a model is watched, lengths of tensors follow when the tensors become smaller, and attributes can be changed. A
size in the code that is neither must stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["Attribute", "Length", "followed_lengths", "mark_attributes"]


class Length(int):
    """The length of an axis, or what code computes from it: smaller where the tensor is smaller."""


class Attribute(int):
    """An attribute of a module, or a multiple of some.

    Attributes
    ----------
    names : frozenset of (str, str)
        The module's qualified name and the attribute's.
    """

    names: frozenset[tuple[str, str]]

    def __new__(cls, value: int, names: frozenset[tuple[str, str]]) -> Attribute:
        made = super().__new__(cls, value)
        made.names = names
        return made

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)


def _arithmetic(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)
    multiplies = name in ("__mul__", "__rmul__")

    def compute(self: Any, *others: Any) -> Any:
        found = plain(self, *others)
        if type(found) is not int:
            return found
        if isinstance(self, Length) or any(isinstance(other, Length) for other in others):
            return Length(found)
        if multiplies and all(isinstance(other, int) for other in others):
            names = self.names.union(*(other.names for other in others if isinstance(other, Attribute)))
            return Attribute(found, names)
        return found

    return compute


for _name in (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__floordiv__", "__rfloordiv__", "__mod__",
    "__rmod__", "__neg__",
):  # fmt: skip
    setattr(Length, _name, _arithmetic(_name))
    setattr(Attribute, _name, _arithmetic(_name))


def followed_lengths(value: Any) -> Any:
    """What a tensor says of its shape, with lengths that are marked as such."""
    if isinstance(value, torch.Size):
        return torch.Size([Length(one) for one in value])
    return Length(value) if type(value) is int else value


def mark_attributes(model: nn.Module) -> None:
    """Mark the whole numbers among the public attributes of all modules."""
    for owner, module in model.named_modules():
        for name, value in vars(module).items():
            if type(value) is int and not name.startswith("_"):
                vars(module)[name] = Attribute(value, frozenset({(owner, name)}))
