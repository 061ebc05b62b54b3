"""Dropout layers hung on the modules of a model that was built without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from .._core.text import brief
from ..errors import InvalidArgumentError, StateError, WrongTypeError
from ._drop_connect import DropConnect
from ._noise import NoiseLayer

__all__ = ["InsertedDropout", "Rules", "insert_dropout", "inserted_dropout", "inserted_layers"]

Rules = Mapping[str | type[nn.Module], nn.Module | Callable[[str, nn.Module], nn.Module | None]]

_BEFORE = ":input"


def insert_dropout(model: nn.Module, rules: Rules, *, before: Rules | None = None) -> InsertedDropout:
    """Hang dropout layers on modules of a model, without wrapping the model or renaming anything in it.

    Parameters
    ----------
    model : torch.nn.Module
    rules : mapping
        From a name pattern with ``*`` and ``?`` (as in ``"layer3.*.conv2"``) or a module type to a layer, of which
        every module it matches gets a copy of its own, or to a function of name and module that returns a layer, or
        None for no layer. Where several rules match a module, the first holds. The layer acts on the module's output
        (the first one, of a tuple). `DropConnect` without a layer, ``DropConnect(p=0.5)``, masks the module's weights.
    before : mapping, optional
        The same for layers that act on the module's first input.

    Returns
    -------
    InsertedDropout
        Layers by name, their schedules, and ``remove()``; also a context manager that removes them at its end.

    Raises
    ------
    InvalidArgumentError
        A rule matches no module (near misses are named), or gives what is no layer, or a layer with parameters.
    StateError
        The model has inserted layers already.

    Notes
    -----
    Layers follow the mode, training or evaluation, of the module they hang on. ``model.state_dict()`` is that of the
    plain model. A deep copy of the model has layers of its own, of which `inserted_dropout` gives the handle.

    Examples
    --------
    >>> from torch import nn
    >>> from obverse.dropout import DropBlock2d, insert_dropout
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> with insert_dropout(model, {nn.ReLU: DropBlock2d(0.1, 3)}) as inserted:
    ...     list(inserted.layers)
    ['1']
    """
    _require_module(model)
    present = next(_hooks(model), None)
    if present is not None:
        raise StateError(
            f"the model has an inserted layer on {present[0]!r} already; remove() the handle of insert_dropout first, "
            "and insert all layers in one call"
        )
    for name, given in (("rules", rules), ("before", before)):
        if given is not None and not isinstance(given, Mapping):
            raise WrongTypeError(f"{name} must be a mapping from names or module types to layers, got {brief(given)}")
    if not rules and not before:
        raise InvalidArgumentError("no rules: give a mapping from name patterns or module types to layers")
    # All layers exist before the first is attached, so that an error leaves the model as it was.
    after_layers = _layers(model, rules)
    before_layers = _layers(model, before or {})
    for name, (module, layer) in before_layers.items():
        if isinstance(layer, DropConnect):
            raise InvalidArgumentError(
                f"DropConnect masks the weights of {name!r} itself; give it in rules, not before"
            )
        module.register_forward_pre_hook(_OnInput(layer), with_kwargs=True)
    for module, layer in after_layers.values():
        module.register_forward_hook(_OnOutput(layer), with_kwargs=True)
    return InsertedDropout(model)


def inserted_dropout(model: nn.Module) -> InsertedDropout:
    """The handle of a model's inserted layers, such as those of a deep copy.

    Raises
    ------
    StateError
        There are none.
    """
    _require_module(model)
    if next(_hooks(model), None) is None:
        raise StateError("the model has no inserted dropout layers; see insert_dropout")
    return InsertedDropout(model)


def _require_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise WrongTypeError(f"model must be a torch.nn.Module, got {brief(model)}")


class InsertedDropout:
    """The layers that `insert_dropout` hung on a model.

    Parameters
    ----------
    model : torch.nn.Module

    Attributes
    ----------
    layers : dict of str to torch.nn.Module
        By the name of the module they hang on, with ``":input"`` behind it for layers on its input.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers: dict[str, nn.Module] = {name: hook.layer for name, _, hook in _hooks(model)}
        self._model = model

    def step(self) -> None:
        """Advance all schedules by one training step; see `follow`."""
        for layer in self.layers.values():
            if isinstance(layer, NoiseLayer):
                layer.step()

    def state_dict(self) -> dict[str, Any]:
        """Where the schedules are, by name; empty without schedules."""
        state: dict[str, Any] = {}
        for name, layer in self.layers.items():
            layer.state_dict(destination=state, prefix=f"{name}.")
        return dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises
        ------
        InvalidArgumentError
            The names are not those of these layers; nothing has changed then.
        """
        known = self.state_dict()
        if set(known) != set(state):
            raise InvalidArgumentError(
                f"the state does not fit the inserted layers: missing {sorted(set(known) - set(state))}, "
                f"unexpected {sorted(set(state) - set(known))}"
            )
        for name, layer in self.layers.items():
            own = {key: state[f"{name}.{key}"] for key in layer.state_dict()}
            layer.load_state_dict(own)

    def remove(self) -> None:
        """Take the layers off the model, which then is as it was; a second call does nothing."""
        mine = {id(layer) for layer in self.layers.values()}
        for _, (module, number), hook in list(_hooks(self._model)):
            if id(hook.layer) in mine:
                for table in (
                    module._forward_hooks,
                    module._forward_hooks_with_kwargs,
                    module._forward_pre_hooks,
                    module._forward_pre_hooks_with_kwargs,
                ):
                    table.pop(number, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        lines = [f"  {name}: {layer!r}" for name, layer in self.layers.items()]
        return "\n".join(["InsertedDropout(", *lines, ")"])


def inserted_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that hang on a model, in the order of its modules; none is no error."""
    return [hook.layer for _, _, hook in _hooks(model)]


class _Hook:
    """A hook that owns a layer; copied and stored with its module."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def follow(self, module: nn.Module) -> nn.Module:
        if self.layer.training != module.training:
            self.layer.train(module.training)
        return self.layer


class _OnInput(_Hook):
    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        layer = self.follow(module)
        if inputs:
            return (layer(inputs[0]), *inputs[1:]), named
        first = next(iter(named))
        return inputs, {**named, first: layer(named[first])}


class _OnOutput(_Hook):
    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        layer = self.follow(module)
        if isinstance(layer, DropConnect):
            return layer.attached(module, inputs[0] if inputs else named["input"], output)
        if isinstance(output, tuple) and not hasattr(output, "_fields"):
            return (layer(output[0]), *output[1:])
        if isinstance(output, torch.Tensor):
            return layer(output)
        raise InvalidArgumentError(
            f"{type(module).__name__} returns {type(output).__name__}, and an inserted layer takes a tensor or a tuple "
            "that begins with one; hang it on a module inside"
        )


def _hooks(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, int], _Hook]]:
    """Inserted layers: name, where the hook is, hook."""
    for name, module in model.named_modules():
        for number, hook in module._forward_pre_hooks.items():
            if isinstance(hook, _OnInput):
                yield name + _BEFORE, (module, number), hook
        for number, hook in module._forward_hooks.items():
            if isinstance(hook, _OnOutput):
                yield name, (module, number), hook


def _layers(model: nn.Module, rules: Rules) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Module and layer by the module's name."""
    named = dict(model.named_modules())
    found: dict[str, tuple[nn.Module, nn.Module]] = {}
    taken: set[str] = set()
    for rule, source in rules.items():
        names = [name for name, module in named.items() if _matches(rule, name, module)]
        if not names:
            raise InvalidArgumentError(_near_misses(rule, named))
        for name in names:
            if name in taken:
                continue
            taken.add(name)
            layer = _made(source, rule, name, named[name])
            if layer is not None:
                found[name] = named[name], layer
    return found


def _matches(rule: Any, name: str, module: nn.Module) -> bool:
    if isinstance(rule, str):
        return name != "" and fnmatchcase(name, rule)
    if isinstance(rule, type) and issubclass(rule, nn.Module):
        return isinstance(module, rule)
    raise InvalidArgumentError(f"a rule is for a name pattern or a module type, got {brief(rule)}")


def _made(source: Any, rule: Any, name: str, module: nn.Module) -> nn.Module | None:
    if isinstance(source, nn.Module):
        generator = getattr(source, "generator", None)
        # Copies draw from one generator: from copies of it they would all draw the same masks.
        layer: Any = copy.deepcopy(source, {} if generator is None else {id(generator): generator})
    elif callable(source) and not isinstance(source, type):
        layer = source(name, module)
    else:
        raise InvalidArgumentError(f"rule {rule!r} needs a layer or a function of name and module, got {brief(source)}")
    if layer is None:
        return None
    if not isinstance(layer, nn.Module):
        raise InvalidArgumentError(f"the function of rule {rule!r} returned {layer!r} for {name!r}, which is no layer")
    if isinstance(layer, DropConnect):
        layer.check(module)
    if next(layer.parameters(), None) is not None:
        raise InvalidArgumentError(
            f"the layer for {name!r} has parameters, which no optimizer of the model would see; insert layers without"
        )
    return layer


def _near_misses(rule: Any, named: dict[str, nn.Module]) -> str:
    if isinstance(rule, str):
        names = [name for name in named if name]
        near = get_close_matches(rule, names, n=3, cutoff=0.4) or names[:3]
        return f"rule {rule!r} matches no module of the model; close: {', '.join(map(repr, near)) or 'none'}"
    kinds = sorted({type(module).__name__ for module in named.values()})
    return f"no module of the model is a {rule.__name__}; there are {', '.join(kinds)}"
