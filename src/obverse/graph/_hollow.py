"""Running a model for its shapes: what depends on the inputs is not computed where nobody looks at its numbers.

The analysis asks which channels go where, not what their numbers are. A hollow tensor has the shape of the real one
and a single zero for all of its elements. Functions that only pass numbers on are asked for the shape of their result
and nothing else. The cost of watching then follows the number of operations, not pixels.
"""

from __future__ import annotations

from typing import Any

import torch

from ._arguments import flows_in, swap, tensors_in
from ._flow import Flow
from ._names import ALONG, CONVOLUTIONS, DROPOUTS, ELEMENTWISE, MOVES, POOLS, REDUCE

__all__ = ["Hollow", "NumbersNeededError"]

_PASSING = (
    MOVES
    | ELEMENTWISE
    | DROPOUTS
    | POOLS
    | REDUCE
    | ALONG
    | set(CONVOLUTIONS)
    | {
        "linear",
        "addmm",
        "matmul",
        "mm",
        "bmm",
        "baddbmm",
        "einsum",
        "batch_norm",
        "instance_norm",
        "group_norm",
        "pad",
    }
    | {"layer_norm", "rms_norm", "scaled_dot_product_attention"}
)
# Functions whose result has shape and type of their first argument.
_KEEPING = DROPOUTS | {
    "batch_norm",
    "instance_norm",
    "group_norm",
    "layer_norm",
    "rms_norm",
    "relu",
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardsigmoid",
    "relu6",
}


class NumbersNeededError(Exception):
    """The code looks at a number that was not computed."""


class Hollow:
    """Runs functions, hollow where it can.

    Parameters
    ----------
    enabled : bool
        Otherwise everything is computed.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._held: dict[int, torch.Tensor] = {}
        self._doubtful: dict[int, torch.Tensor] = {}  # hollow tensors, and all that was computed from them

    def run(
        self, func: Any, name: str, in_place: bool, args: Any, kwargs: Any, given: Any
    ) -> tuple[Any, list[torch.Tensor]]:
        """The result of a function, and the tensors that it has written to.

        Raises
        ------
        NumbersNeededError
            The function asks for numbers that were not computed.
        """
        tensors = tensors_in((args, kwargs))
        doubtful = [one for one in tensors if id(one) in self._doubtful]
        if doubtful and (name not in _PASSING or any(one.dtype == torch.bool for one in doubtful if name in MOVES)):
            raise NumbersNeededError(name)
        if self._enabled:
            found = self._run_hollow(func, name, in_place, args, kwargs, given, tensors)
            if found is not None:
                return found
        versions = [_version(one) for one in tensors]
        result = func(*args, **kwargs)
        if doubtful:
            made = tensors_in(result)
            if not made:
                raise NumbersNeededError(name)
            self._doubtful |= {id(one): one for one in made}
        return result, [one for one, before in zip(tensors, versions, strict=True) if _version(one) != before]

    def _run_hollow(
        self, func: Any, name: str, in_place: bool, args: Any, kwargs: Any, given: Any, tensors: list[torch.Tensor]
    ) -> tuple[Any, list[torch.Tensor]] | None:
        if name not in _PASSING or not self._only_passes(given):
            return None
        writes = in_place or kwargs.get("inplace") is True or kwargs.get("out") is not None
        if writes:
            first = args[0] if args and isinstance(args[0], torch.Tensor) else None
            if first is None or id(first) not in self._held or kwargs.get("out") is not None:
                return None
            return first, [first]
        if name in _KEEPING and "dtype" not in kwargs and args and isinstance(args[0], torch.Tensor):
            return self._hollow(args[0], args[0].device), []
        try:
            shapes = func(*swap(args, _shape_of), **swap(kwargs, _shape_of))
        except Exception:  # it looks at numbers, or cannot be asked for a shape alone
            return None
        made = tensors_in(shapes)
        if not made or not all(one.is_meta and one.is_floating_point() for one in made):
            return None
        device = tensors[0].device
        return swap(shapes, lambda one: self._hollow(one, device)), []

    def _only_passes(self, given: Any) -> bool:
        """Whether all numbers that go in depend on the inputs everywhere, or are hollow already, beside weights."""
        flows = [flow for flow in flows_in(given) if flow.real is not None]
        floats = [flow for flow in flows if flow.real is not None and flow.real.is_floating_point()]
        return bool(floats) and all(bool(flow.varying.all()) for flow in floats)

    def _hollow(self, like: torch.Tensor, device: torch.device) -> torch.Tensor:
        made = torch.zeros((), dtype=like.dtype, device=device).expand(like.shape)
        self._held[id(made)] = self._doubtful[id(made)] = made
        return made


def _shape_of(tensor: torch.Tensor | Flow) -> Any:
    return tensor.to("meta") if isinstance(tensor, torch.Tensor) else tensor


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; tensors of the inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version
