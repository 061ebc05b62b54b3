"""A model's tensors under their names, and the one moment in which they change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError

__all__ = ["Change", "Target", "commit"]


class Target:
    """The tensors of a model's state, each with the names it has.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Parameters and persistent buffers by every name.
    tied : dict of str to str
        For each name but the first of a tensor: the first.
    firsts : list of str
    unsaved : dict of str to list of int
        Shapes of buffers that are no part of the state.
    modules : dict of str to torch.nn.Module
        Modules by every name: one that the model uses in several places has several.
    homes : dict of str to str
        For each name of a module: the first name of the same module.

    Raises
    ------
    InvalidArgumentError
        The model has state that is no tensor, or a tensor without a shape yet.
    """

    def __init__(self, model: nn.Module) -> None:
        everything = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        for name, tensor in everything.items():
            if nn.parameter.is_lazy(tensor):
                raise InvalidArgumentError(f"{name} has no shape yet; run the model once first")
        # The state dict knows what is persistent, and what is no tensor.
        state = model.state_dict()
        odd = sorted(set(state) - set(everything))
        if odd:
            raise InvalidArgumentError(f"the model keeps state that is no plain tensor: {', '.join(odd[:3])}")
        self.tensors: dict[str, Tensor] = {name: everything[name] for name in state}
        self.unsaved = {name: list(t.shape) for name, t in everything.items() if name not in state}
        self.tied: dict[str, str] = {}
        seen: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            first = seen.setdefault(id(tensor), name)
            if first != name:
                self.tied[name] = first
        self.firsts = [name for name in self.tensors if name not in self.tied]
        self.modules = dict(model.named_modules(remove_duplicate=False))
        first_names = {id(module): name for name, module in model.named_modules()}
        self.homes = {name: first_names[id(module)] for name, module in self.modules.items()}


@dataclass(frozen=True)
class Change:
    """Tensors by their first names, and attributes by module, as they will be."""

    tensors: dict[str, Tensor]
    attributes: dict[str, dict[str, Any]]


def commit(model: nn.Module, change: Change) -> None:
    """Give the model its new tensors and attributes; if anything stops it halfway, the old ones are back."""
    target = Target(model)
    modules = target.modules
    undo: list[tuple[Any, str, Any]] = []

    def put(holder: Any, name: str, value: Any) -> None:
        before = getattr(holder, name)
        setattr(holder, name, value)
        undo.append((holder, name, before))

    try:
        for name, tensor in change.tensors.items():
            owner, _, leaf = name.rpartition(".")
            held = target.tensors.get(name)
            if held is None:
                like = next(iter(modules[owner].parameters(recurse=False)))
                device = like.device if like.device.type != "meta" else torch.device("cpu")
                put(modules[owner], leaf, nn.Parameter(tensor.to(device, copy=True), like.requires_grad))
            elif held.is_meta:
                new: Tensor = tensor.clone()
                if isinstance(held, nn.Parameter):
                    new = nn.Parameter(new, held.requires_grad)
                for alias in [name, *(a for a, first in target.tied.items() if first == name)]:
                    owner, _, leaf = alias.rpartition(".")
                    put(modules[owner], leaf, new)
            else:
                if held.grad is not None:
                    put(held, "grad", None)
                # The same parameter with other numbers: whatever else refers to it goes on doing so.
                put(held, "data", tensor.to(held.device, copy=True))
        for name, attributes in change.attributes.items():
            for attribute, value in attributes.items():
                put(modules[name], attribute, value)
    except BaseException:
        for holder, name, value in reversed(undo):
            setattr(holder, name, value)
        raise
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
