"""What code makes of parameters alone, and constants as flows: channels of the parameters that they were made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ._arguments import fix_all, stated_sizes, swap, tensors_in
from ._channels import WHOLE
from ._flow import Flow, Knowledge, Move, Source, squeezed
from ._names import CREATIONS, DROPOUTS, ELEMENTWISE, LIKE, MOVES, SAME, SHAPED_LIKE, STANDARDIZATIONS
from ._numbers import Attribute

__all__ = ["constant_flow", "derive", "lifted"]


def derive(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Follow what a function makes of parameters alone; a parameter that goes into anything else keeps its shape."""
    every = tensors_in(args[:1]) if name in SHAPED_LIKE else tensors_in((args, kwargs))
    used = [one for one in every if know.sources(one) and one.is_floating_point()]
    if not used:
        if isinstance(result, torch.Tensor) and result.ndim:
            given = args[1:] if args and isinstance(args[0], torch.Tensor) else args
            sizes = stated_sizes(name, given, kwargs, result.ndim, [result])
            if sizes:
                know.create(result, owner, sizes)
        return
    made = tensors_in(result)
    if not made:
        for tensor in used:
            fix_all(know, tensor, f"{name} in {owner or 'the model'} reads its numbers")
        return
    if name in CREATIONS or name in LIKE:
        return  # they take the type of the parameter, not its numbers
    if name in SAME:
        know.derive(made[0], know.sources(used[0]))
    elif name in ("_weight_norm", "weight_norm_interface", "_weight_norm_interface"):
        direction, length = args[0], args[1]
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        whole = [replace(one, axes={a: a for a in range(direction.ndim)}) for one in know.sources(direction)]
        # A direction of length zero has none: the length alone goes to zero, and the direction follows it.
        know.follows |= {(one.name, axis) for one in whole}
        know.derive(made[0], [*whole, *(replace(one, axes={axis: axis}) for one in know.sources(length))])
    elif name == "mv" and len(used) == 2 and not kwargs:
        know.derive(made[0], _spread(know, *args))
    elif name in ("dot", "vdot") and len(used) == 2 and not kwargs:
        labels = know.axis(args[0], 0, "a singular vector: one entry for each channel")
        know.channels.tie(labels, know.axis(args[1], 0, "a singular vector: one entry for each channel"))
    elif name in MOVES and len(used) == 1 and _only_indices(used[0], every):
        for position, one in enumerate(made):
            moved_sources = [
                _moved_source(source, call, args, kwargs, used[0], one, position) for source in know.sources(used[0])
            ]
            know.derive(one, [source for source in moved_sources if source is not None])
            for source in know.sources(used[0]):
                if source.axes is not None:
                    know.fix(source.name, f"{name} in {owner or 'the model'} rearranges it")
    elif name in ("cat", "concat", "concatenate") and isinstance(args[0], list | tuple) and set(kwargs) <= {"dim"}:
        parts = [one for one in args[0] if one.numel()]
        if any(not know.sources(one) for one in parts):
            for tensor in used:
                fix_all(know, tensor, f"{name} in {owner or 'the model'} puts constants beside it")
        know.join(made[0], kwargs.get("dim", args[1] if len(args) > 1 else 0), parts)
    elif name in DROPOUTS:
        know.derive(made[0], know.sources(used[0]))
    elif name in STANDARDIZATIONS:
        for tensor in used:
            fix_all(know, tensor, f"{owner or 'the model'} standardizes its weights over all that they read")
    elif name == "embedding" and len(used) == 1:
        index = next(one for one in tensors_in((args, kwargs)) if one is not used[0])
        found = [replace(one, index=one.flat()[index]) for one in know.sources(used[0]) if one.axes is None]
        know.derive(made[0], found)
    elif name in ELEMENTWISE and len(made) == 1:
        sources = []
        for tensor in used:
            for source in know.sources(tensor):
                if tensor.shape == made[0].shape:
                    sources.append(source)
                elif source.axes is None:
                    index = source.flat().reshape(tensor.shape) if source.index is None else source.index
                    sources.append(replace(source, index=index.expand(made[0].shape)))
                else:
                    know.fix(source.name, f"{name} in {owner or 'the model'} rearranges it")
        if any(not know.sources(one) and one.numel() > 1 for one in tensors_in((args, kwargs))):
            for tensor in used:
                fix_all(know, tensor, f"{name} in {owner or 'the model'} combines it with a constant of its size")
        know.derive(made[0], sources)
    else:
        for tensor in used:
            fix_all(know, tensor, f"{name} in {owner or 'the model'} is not understood")


def _spread(know: Knowledge, matrix: torch.Tensor, vector: torch.Tensor) -> list[Source]:
    """The product of a weight and a buffer, as in the largest singular value: what goes must be zero in the weight."""
    rows, columns = (know.axis(matrix, axis, "channels of a normalized weight") for axis in (0, 1))
    know.channels.tie(columns, know.axis(vector, 0, "a singular vector: one entry for each channel"))
    if not know.assume_zeroed:
        for labels, axis in ((rows, 1), (columns, 0)):
            know.channels.pin(labels[(matrix != 0).any(axis).cpu()], "the largest singular value depends on it")
    found = []
    for source in know.sources(matrix):
        place = source.axis(0, matrix.ndim)
        if place is not None and source.shape[place[0]] == len(matrix):
            found.append(Source(source.name, source.shape, axes={0: place[0]}))
    return found


def _only_indices(tensor: torch.Tensor, every: list[torch.Tensor]) -> bool:
    return all(one is tensor or not one.is_floating_point() for one in every)


def _moved_source(
    source: Source, call: Any, args: Any, kwargs: Any, tensor: torch.Tensor, made: torch.Tensor, position: int
) -> Source | None:
    if source.axes is not None:
        return None
    flat = source.flat().reshape(tensor.shape)

    def given(one: torch.Tensor) -> torch.Tensor:
        return flat if one is tensor else one

    turned = call(*swap(args, given), **swap(kwargs, given))
    found = turned if isinstance(turned, torch.Tensor) else turned[position]
    if found.shape == tuple(source.shape) and torch.equal(found, source.flat()):
        return Source(source.name, source.shape)
    return Source(source.name, source.shape, found)


def lifted(know: Knowledge, tensor: torch.Tensor, beside: list[Flow], name: str, owner: str, axes: list[int]) -> Flow:
    """A tensor that is not followed as a flow: constant, with the channels of what it was made of.

    ``axes`` are the axes, counted from the end, along which the flows beside it have channels.
    """
    value = squeezed(tensor.detach().to("cpu", torch.float64)) if not tensor.is_complex() else torch.zeros(1)
    label = _laid_out(know, tensor)
    label = _stated(know, tensor, value) if label is None else label
    for axis in () if label.numel() > 1 else axes:
        if -axis > tensor.ndim or tensor.shape[axis] == 1:
            continue
        if know.sources(tensor):
            if any(axis in _along(one) and any(_is_thin(tensor, o) for o in _along(one)) for one in beside):
                # The same for all heads, such as a table of rotary positions: its size stays.
                fix_all(know, tensor, f"{name} in {owner or 'the model'} takes it for all heads")
                continue
            along = know.axis(tensor, axis, f"{know.sources(tensor)[0].name}: one entry for each channel")
            label = along.reshape(-1, *[1] * (-axis - 1))
            label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
        elif (
            value.ndim == tensor.ndim
            and value.shape[axis] == 1
            and any(-axis <= one.ndim and one.shape[axis] == tensor.shape[axis] for one in beside)
        ):
            # The same number everywhere: code that makes it from the shape of another tensor makes a smaller one.
            like = next(one for one in beside if -axis <= one.ndim and one.shape[axis] == tensor.shape[axis])
            if any(_is_thin(tensor, one) for one in _along(like) if one != axis):
                continue  # it runs along some of the axes with channels only, whose size stays
            along = know.channels.tie_along(like.label, axis, like.shape[axis])
            label = along.reshape(-1, *[1] * (-axis - 1))
            label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
            made, sizes = know.created.get(id(tensor), (owner, {}))
            know.moves.append(Move(name, made, [], [label], sizes))
    shape = (1,) * (tensor.ndim - value.ndim)
    value = value.reshape(shape + tuple(value.shape))
    return replace(
        Flow.of(tuple(tensor.shape), label, value, torch.zeros((1,) * tensor.ndim, dtype=torch.bool)), real=tensor
    )


def _laid_out(know: Knowledge, tensor: torch.Tensor) -> torch.Tensor | None:
    """Channels of a parameter of one axis that is laid out over several, such as a bias of heads and dimensions."""
    sources = know.sources(tensor)
    if len(sources) != 1 or sources[0].index is None or len(sources[0].shape) != 1 or id(tensor) in know.joined:
        return None
    index = squeezed(sources[0].index)
    if index.ndim != tensor.ndim or sum(size > 1 for size in index.shape) < 2:
        return None
    own = replace(sources[0], index=index.reshape(-1))
    if index.numel() != own.shape[0] or not torch.equal(index.reshape(-1).sort().values, torch.arange(own.shape[0])):
        return None
    return know.entries(own.name, own.shape[0], f"{own.name}: one entry for each channel")[index]


def _along(flow: Flow) -> list[int]:
    return [axis - flow.ndim for axis in flow.varied_axes()]


def _is_thin(tensor: torch.Tensor, axis: int) -> bool:
    return -axis > tensor.ndim or tensor.shape[axis] == 1


def _stated(know: Knowledge, tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Channels along the one axis of a constant whose length is an attribute of a module, which can be changed."""
    label = torch.full((1,) * tensor.ndim, WHOLE)
    owner, sizes = know.created.get(id(tensor), ("", {}))
    open_axes = [
        axis
        for axis, size in sizes.items()
        if isinstance(size, Attribute) and value.ndim == tensor.ndim and value.shape[axis] == 1
    ]
    if len(open_axes) != 1:
        return label
    if id(tensor) not in know.opened:
        along = know.channels.fresh(tensor.shape[open_axes[0]])
        label = along.reshape(-1, *[1] * (tensor.ndim - open_axes[0] - 1))
        label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
        know.opened[id(tensor)] = label
        know.moves.append(Move("a constant", owner, [], [label], sizes))
    return know.opened[id(tensor)]


def constant_flow(know: Knowledge, tensor: torch.Tensor, axes: list[int]) -> Flow:
    """A constant as a flow that keeps its size, but for channels of the parameters that it was made of."""
    return lifted(know, tensor, [], "", "", axes)
