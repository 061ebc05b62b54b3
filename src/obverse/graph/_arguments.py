"""Arguments of a watched call: nested flows and tensors, arguments by name, sizes that the code states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ._flow import Flow, Knowledge
from ._names import CREATIONS
from ._numbers import Length
from ._weighted import barrier

__all__ = [
    "barred",
    "bound",
    "channel_axes",
    "fix_all",
    "flows_in",
    "kwargs_values",
    "real_of",
    "reduced_axes",
    "stated_sizes",
    "swap",
    "tensors_in",
]


def flows_in(value: Any) -> list[Flow]:
    """All flows inside nested lists, tuples and dictionaries."""
    return _all_of(value, Flow)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors inside nested lists, tuples and dictionaries."""
    return _all_of(value, torch.Tensor)


def _all_of(value: Any, kind: type) -> list[Any]:
    if isinstance(value, kind):
        return [value]
    if isinstance(value, list | tuple):
        return [one for item in value for one in _all_of(item, kind)]
    if isinstance(value, dict):
        return [one for item in value.values() for one in _all_of(item, kind)]
    return []


def swap(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same nesting with every flow and tensor replaced."""
    if isinstance(value, Flow | torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(swap(one, change) for one in value)
    if isinstance(value, dict):
        return {key: swap(one, change) for key, one in value.items()}
    return value


def real_of(value: Any) -> Any:
    return value.real if isinstance(value, Flow) else value


def bound(args: Any, kwargs: Any, names: str, defaults: Any = None) -> list[Any]:
    """Arguments by name, as Python binds them."""
    words = names.split()
    found = list(args[: len(words)])
    for place in range(len(found), len(words)):
        found.append(kwargs.get(words[place], (defaults or {}).get(words[place])))
    return found


def reduced_axes(name: str, flow: Flow, args: Any, kwargs: Any, place: int = 1) -> list[int] | None:
    dim = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else None))
    if dim is None:
        return list(range(flow.ndim))
    if isinstance(dim, int) and not isinstance(dim, bool):
        return [dim % flow.ndim]
    if isinstance(dim, list | tuple) and all(isinstance(one, int) for one in dim):
        return [one % flow.ndim for one in dim] or list(range(flow.ndim))
    return None


def kwargs_values(kwargs: Any) -> dict[str, Any]:
    """Keyword arguments for a run on values, in float64."""
    given = swap(kwargs, lambda f: f.full(f.value) if isinstance(f, Flow) else f)
    return {key: torch.float64 if key == "dtype" and one is not None else one for key, one in given.items()}


def stated_sizes(name: str, args: Any, kwargs: Any, ndim: int, results: list[torch.Tensor]) -> dict[int, int]:
    """Axes of the results whose lengths the code states as numbers that are no lengths of tensors, with the numbers."""
    shape = tuple(results[0].shape)
    found: dict[int, int] = {}
    if name in ("view", "reshape", "expand", "broadcast_to") or name in CREATIONS:
        first = args[0] if len(args) and isinstance(args[0], list | tuple) else args
        given = kwargs.get("size", kwargs.get("shape", first))
        given = [one for one in given if isinstance(one, int)] if isinstance(given, list | tuple) else []
        found = dict(enumerate(given)) if len(given) == len(shape) else {}
    elif name == "unflatten" and len(args) > 1:
        found = {args[0] % ndim + place: size for place, size in enumerate(args[1])}
    elif name in ("split", "split_with_sizes") and len(args):
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        found = {axis % len(shape): args[0] if isinstance(args[0], int) else shape[axis]}
    elif name == "getitem":
        found = _stated_slices(args[0], shape)
    return {axis: size for axis, size in found.items() if not isinstance(size, Length) and size > 1}


def _stated_slices(index: Any, shape: tuple[int, ...]) -> dict[int, int]:
    parts = list(index) if isinstance(index, tuple) else [index]
    axis, found = 0, {}
    for place, part in enumerate(parts):
        if part is Ellipsis:
            axis = len(shape) - sum(type(one) is not int for one in parts[place + 1 :])
        elif not isinstance(part, int) or isinstance(part, bool):
            if isinstance(part, slice) and part.step in (None, 1) and axis < len(shape):
                ends = [end for end in (part.start, part.stop) if end is not None]
                if ends and not any(isinstance(end, Length) for end in ends):
                    found[axis] = ends[0] if len(ends) == 1 and ends[0] == shape[axis] else shape[axis]
            axis += 1
    return found


def channel_axes(flows: list[Flow]) -> list[int]:
    """Axes along which flows have channels, counted from the end."""
    return sorted({axis - flow.ndim for flow in flows for axis in flow.varied_axes()})


def barred(know: Knowledge, reason: str, args: Any, kwargs: Any, result: Any) -> Any:
    """Everything that a function reads, weights included, keeps its size."""
    for tensor in tensors_in((args, kwargs)):
        for source in know.sources(tensor):
            know.fix(source.name, reason)
    return barrier(know, reason, *flows_in((args, kwargs)), like=result)


def fix_all(know: Knowledge, tensor: torch.Tensor, reason: str) -> None:
    for source in know.sources(tensor):
        know.fix(source.name, reason)
