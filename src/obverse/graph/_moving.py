"""Functions that move elements: views, cuts, joins, padding and writing at places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from ._arguments import channel_axes, flows_in, real_of, stated_sizes, swap, tensors_in
from ._channels import WHOLE
from ._constants import lifted
from ._flow import Even, Flow, Knowledge, Move, squeezed
from ._moves import moved
from ._names import SAME

__all__ = ["on_gated", "on_move", "on_packed", "on_pad", "on_scatter"]


def on_move(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flows = flows_in((args, kwargs))
    if name in SAME:
        return replace(flows[0], real=None)
    if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"):
        return _joined_parts(know, name, owner, call, args, kwargs, result)
    if name == "unfold" and not isinstance(args[0], Flow):
        return None
    if name == "unfold" and args[0].ndim == 4 and len(args) < 4 and "size" not in kwargs:
        return _patches(know, args, kwargs, call, result)  # functional.unfold
    main = args[0] if isinstance(args[0], Flow) else flows[0]
    if main is not args[0] and not isinstance(args[0], Flow):
        return _chosen(know, name, owner, args, kwargs, flows, result)
    index_flows = [flow for flow in flows if flow is not main and not name.endswith("_as")]
    for flow in index_flows:
        know.channels.pin(flow.label, f"{name} in {owner or 'the model'} takes it for an index")
    if any(bool(flow.varying.any()) for flow in index_flows):
        chosen = _chosen_axes(name, args, kwargs, main.ndim)
        if any(main.label.shape[axis] > 1 for axis in chosen):
            return None  # which channel stands where depends on the input

    def part(tensor: torch.Tensor) -> Any:
        def on(one: torch.Tensor) -> Any:
            def given(item: Any) -> Any:
                return one if item is main else real_of(item)

            return call(*swap(args, given), **swap(kwargs, given))

        index = swap(args[1:], real_of)
        return moved(name, on, tensor, main.shape, result, index, swap(kwargs, real_of))

    parts = [part(tensor) for tensor in (main.label, main.value, main.varying)]
    several = not isinstance(parts[0], torch.Tensor)
    results = tensors_in(result)
    outs = []
    for position, one in enumerate(results):
        label, value, varying = (p[position] if several else p for p in parts)
        if index_flows and any(bool(flow.varying.any()) for flow in index_flows) and value.numel() > 1:
            varying = torch.ones(1, dtype=torch.bool)
        outs.append(Flow.of(tuple(one.shape), label, value, varying))
    if main.stochastic and len(outs) == 1 and outs[0].shape[-1:] == main.shape[-1:]:
        # Its rows still sum to one if they stay as they are.
        row = torch.arange(main.shape[-1]).reshape((1,) * (main.ndim - 1) + (-1,))
        kept = squeezed(part(row))
        same = kept.shape[-1] == kept.numel() and torch.equal(kept.reshape(-1), row.reshape(-1))
        outs = [replace(outs[0], stochastic=same)]
    sizes = stated_sizes(name, args[1:], kwargs, main.ndim, results)
    if name in ("chunk", "split", "unbind", "tensor_split") and several and len(outs) > 1:
        know.evens.append(Even([o.label for o in outs], f"{name} in {owner or 'the model'} cuts equal parts"))
    if not main.is_whole():
        know.moves.append(Move(name, owner, [main.label], [o.label for o in outs], sizes))
    return tuple(outs) if several else outs[0]


def _chosen_axes(name: str, args: Any, kwargs: Any, ndim: int) -> list[int]:
    """The axes of the first argument along which an index that is a tensor chooses."""
    if name == "getitem":
        return [axis for axis, part in indexed_axes(args[1], ndim) if isinstance(part, Flow | torch.Tensor)]
    dim = kwargs.get("dim", kwargs.get("axis"))
    if dim is None:
        place = {"repeat_interleave": 2, "take_along_dim": 2, "roll": 2}.get(name, 1)
        dim = args[place] if len(args) > place else None
    return [dim % ndim] if isinstance(dim, int) and not isinstance(dim, bool) else list(range(ndim))


def indexed_axes(index: Any, ndim: int) -> list[tuple[int, Any]]:
    """Which axis every part of an index stands for, without new axes; a mask stands for as many as it has."""
    parts = [part for part in (index if isinstance(index, tuple) else (index,)) if part is not None]

    def width(part: Any) -> int:
        if part is Ellipsis or isinstance(part, bool):
            return 0
        real = part.real if isinstance(part, Flow) else part
        return real.ndim if isinstance(real, torch.Tensor) and real.dtype == torch.bool else 1

    found: list[tuple[int, Any]] = []
    axis = 0
    for place, part in enumerate(parts):
        if part is Ellipsis:
            axis = ndim - sum(map(width, parts[place + 1 :]))
            continue
        found += [(axis + one, part) for one in range(width(part))]
        axis += width(part)
    return found


def _chosen(know: Knowledge, name: str, owner: str, args: Any, kwargs: Any, flows: list[Flow], result: Any) -> Any:
    """A constant that is indexed, gathered or moved by something that is followed: a table look-up in code."""
    table = args[0]
    if name in ("getitem", "index_select") and isinstance(table, torch.Tensor) and isinstance(result, torch.Tensor):
        for flow in flows:
            know.channels.pin(flow.label, f"{name} in {owner or 'the model'} takes it for an index")
        trailing = table.shape[-1] == result.shape[-1] and table.ndim > 1 and result.ndim > 1
        if know.sources(table) and trailing and name == "getitem":
            source = know.sources(table)[0]
            labels = know.axis(
                table, table.ndim - 1, f"columns of {source.name}: a table that is looked up", writes=True
            )
            return Flow.of(tuple(result.shape), labels, torch.zeros(1), torch.ones(1, dtype=torch.bool))
        return know.whole(result)
    return None


def _joined_parts(
    know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: torch.Tensor
) -> Any:
    given = args[0] if args else kwargs.get("tensors")
    if not isinstance(given, list | tuple):
        return None
    given = [one for one in given if not (isinstance(one, torch.Tensor) and one.numel() == 0)]
    flows = flows_in(list(given))
    axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    if name in ("hstack", "vstack", "dstack") or not isinstance(axis, int):
        return None
    axes = channel_axes(flows)
    along = axis % result.ndim - result.ndim
    shift = 1 if name == "stack" else 0
    wanted = [one for one in axes if one != along or shift]
    every = [one if isinstance(one, Flow) else lifted(know, one, flows, name, owner, wanted) for one in given]
    if shift:
        every = [
            Flow.of(
                (*one.shape[: axis % result.ndim], 1, *one.shape[axis % result.ndim :]),
                *(part.unsqueeze(axis % result.ndim) for part in (one.label, one.value, one.varying)),
            )
            for one in every
        ]
    place = axis % result.ndim
    # Parts whose channels run along other axes share them; single slices alone do not tell where theirs run.
    shared = all(one.label.shape[place] == 1 for one in every) and (shift or any(one.shape[place] > 1 for one in every))
    if shared:
        for one in every[1:]:
            know.channels.tie(every[0].label, one.label)

    def stuck(which: str) -> torch.Tensor:
        parts = [getattr(one, which) for one in every]
        shape = list(torch.broadcast_shapes(*([s for i, s in enumerate(p.shape) if i != place] for p in parts)))  # type: ignore[no-untyped-call]
        whole = [
            p.expand(*shape[:place], one.shape[place], *shape[place:]) for p, one in zip(parts, every, strict=True)
        ]
        return torch.cat(whole, place)

    label = max((one.label for one in every), key=torch.numel) if shared else stuck("label")
    out = Flow.of(tuple(result.shape), label, stuck("value"), stuck("varying"))
    know.moves.append(Move(name, owner, [one.label for one in every], [out.label]))
    return out


def _patches(know: Knowledge, args: Any, kwargs: Any, call: Any, result: torch.Tensor) -> Flow:
    """`functional.unfold`: every channel becomes as many rows as the kernel has places."""
    flow = args[0]
    labels = know.channels.tie_along(flow.label, 1, flow.shape[1])
    times = result.shape[1] // flow.shape[1]
    out = labels.repeat_interleave(times).reshape(1, -1, 1)
    made = Flow.of(tuple(result.shape), out, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    if not bool(flow.varying.all()) and not bool(((flow.value == 0) | flow.varying).all()):
        return made
    still = ~flow.varying.expand(-1, flow.shape[1], -1, -1).flatten(2).any(2).any(0)
    return Flow.of(made.shape, out, torch.zeros(1), ~still.repeat_interleave(times).reshape(1, -1, 1))


def on_gated(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: torch.Tensor) -> Any:
    """`functional.glu`: the first half, times the sigmoid of the second."""
    flow = args[0] if args else None
    axis = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if not isinstance(flow, Flow):
        return None
    parts = [
        part.expand([n if a == axis % flow.ndim else part.shape[a] for a, n in enumerate(flow.shape)]).chunk(2, axis)
        for part in (flow.label, flow.value, flow.varying)
    ]
    (label, other), (value, gate), (varying, moving) = parts
    reason = f"glu in {owner or 'the model'} multiplies its halves"
    know.evens.append(Even([label, other], reason))
    know.channels.tie(label, other)
    know.moves.append(Move(name, owner, [flow.label], [label, other]))
    # Zero stays zero whatever the gate is; a gate never is.
    return Flow.of(tuple(result.shape), label, value * gate.sigmoid(), varying | (moving & (value != 0)))


def on_pad(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: torch.Tensor) -> Any:
    flow = args[0]
    given = kwargs.get("pad", args[1] if len(args) > 1 else ())
    ndim, places = flow.ndim, [flow.ndim - 1 - i // 2 for i, p in enumerate(given) if p]
    if any(flow.label.shape[axis] > 1 for axis in places):
        mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
        if mode != "constant":
            return None
        know.boxes.append((flow.label, tuple(sorted(set(places))), f"pad in {owner or 'the model'} counts channels"))
        fill = kwargs.get("value", args[3] if len(args) > 3 else None) or 0.0
        label = functional.pad(
            flow.label.expand([s if a in places else flow.label.shape[a] for a, s in enumerate(flow.shape)]),
            tuple(given),
            value=WHOLE,
        )
        varying = functional.pad(flow.full(flow.varying), tuple(given), value=False)
        value = functional.pad(flow.full(flow.value), tuple(given), value=float(fill))
        know.moves.append(Move(name, owner, [flow.label], [label]))
        return Flow.of(tuple(result.shape), label, value, varying)
    if bool(flow.varying.all()) and bool(flow.varying.numel() == 1) and ndim:
        return Flow.of(tuple(result.shape), flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    number = kwargs.get("value", args[3] if len(args) > 3 else None) or 0.0
    if mode == "constant":
        value = functional.pad(flow.full(flow.value), tuple(given), value=float(number))
        varying = functional.pad(flow.full(flow.varying), tuple(given), value=False)
    else:
        value = functional.pad(flow.full(flow.value), tuple(given), mode=mode)
        varying = functional.pad(flow.full(flow.varying).double(), tuple(given), mode=mode) > 0
    return Flow.of(tuple(result.shape), flow.label, value, varying)


def on_packed(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Packing sequences and laying them out again: rows move, the last axis stays."""
    flow = args[0]
    if not isinstance(flow, Flow) or any(axis != flow.ndim - 1 for axis in flow.varied_axes()):
        return None
    data = result[0]
    made = Flow.of(tuple(data.shape), flow.label.reshape(-1), torch.zeros(1), torch.ones(1, dtype=torch.bool))
    return (made, *(know.whole(one) for one in result[1:]))


def on_scatter(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Writing at places: what is written shares the channels of what it is written to."""
    here = owner or "the model"
    if not isinstance(result, torch.Tensor):
        return None
    flows = flows_in((args, kwargs))
    axes = channel_axes(flows)
    target = args[0] if isinstance(args[0], Flow) else lifted(know, args[0], flows, name, owner, axes)
    for index in flows_in(list(args[1:-1])):
        know.channels.pin(index.label, f"{name} in {here} takes it for an index")
    source = args[-1]
    label = target.label
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name == "setitem":
        chosen = [a for a, part in indexed_axes(args[1], target.ndim) if isinstance(part, Flow | torch.Tensor)]
    else:
        chosen = [axis % target.ndim] if isinstance(axis, int) else list(range(target.ndim))
    if any(target.label.shape[one] > 1 for one in chosen):
        return None  # which channel is written to is a number
    if isinstance(source, Flow):
        mine = [axis - target.ndim for axis in target.varied_axes()]
        theirs = [axis - source.ndim for axis in source.varied_axes()]
        if mine and theirs and mine == theirs and len(mine) == 1 and source.shape[mine[0]] == target.shape[mine[0]]:
            a = know.channels.tie_along(target.label, mine[0], target.shape[mine[0]])
            know.channels.tie(a, know.channels.tie_along(source.label, theirs[0], source.shape[theirs[0]]))
        elif mine or theirs:
            for flow in (target, source):
                know.channels.pin(flow.label, f"{name} in {here} writes over channels")
    elif target.varied_axes() and name == "setitem":
        index = args[1]
        plain = index if isinstance(index, tuple) else (index,)
        if not all(
            part is None or part is Ellipsis or isinstance(part, slice | int | Flow | torch.Tensor) for part in plain
        ):
            know.channels.pin(target.label, f"{name} in {here} writes over channels")
    return Flow.of(tuple(result.shape), label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
