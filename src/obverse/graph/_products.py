"""Products of activations: scores of attention heads, the averages that they weigh, and einsum."""

from __future__ import annotations

from typing import Any

import torch

from ._elementwise import combined
from ._flow import Flow, Knowledge
from ._moves import reshaped
from ._weighted import barrier, contract

__all__ = ["attention", "einsum", "product"]


def product(know: Knowledge, owner: str, first: Flow, second: Flow) -> Flow:
    """``first @ second``, both with leading axes: (..., rows, inner) and (..., inner, columns)."""
    here = owner or "the model"
    lead = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])  # type: ignore[no-untyped-call]
    shape = (*lead, first.shape[-2], second.shape[-1])
    channels, ndim = know.channels, len(shape)
    left, right = _lead(first.label, ndim).mT, _lead(second.label, ndim)  # (..., inner, rows), (..., inner, columns)
    inner = first.shape[-1]
    if left.shape[-2] > 1 or right.shape[-2] > 1:
        # What is summed over are channels: scores. One label for each head, tied to all dimensions of the head.
        a, b = (one.expand(*one.shape[:-2], inner, one.shape[-1]) for one in (left, right))
        if ndim < 4 and all(one.numel() == one.shape[-2] for one in (a, b)):
            # No heads: summing over matching channels is exact whatever goes, as long as both go.
            channels.tie(a, b)
            label = torch.zeros((1,) * ndim, dtype=torch.long)
            if not know.assume_zeroed:
                zero = (first.constant(-1) == 0) | (second.constant(-2) == 0)
                channels.pin(a.reshape(-1)[~zero], f"a product in {here} sums over channels that are not zero")
        else:
            for one in (a, b):
                know.boxes.append((one, (-1, -2), f"the dimension of a head in {here} sets the scale of its scores"))
            head = torch.broadcast_tensors(a, b)[0][..., :1, :1]  # type: ignore[no-untyped-call]
            channels.tie(a, head)
            channels.tie(b, head)
            label = head
    else:
        b = right[..., :1, :]
        if right.shape[-1] > 1 and right.shape[:-2].numel() > 1:
            know.boxes.append((right, (-1,), f"all heads in {here} have the same dimension"))
        a = left[..., :1, :].mT
        label = torch.broadcast_tensors(a, b)[0]  # type: ignore[no-untyped-call]
        if a.numel() == 1 and int(a) == 0:
            label = b
        elif b.numel() == 1 and int(b) == 0:
            label = a
        else:
            channels.tie(a, b)
    if know.assume_zeroed:
        return Flow.of(shape, label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    v, w = (flow.varying.expand(*flow.varying.shape[:-2], *flow.shape[-2:]) for flow in (first, second))
    x, y = (flow.value.expand(*flow.value.shape[:-2], *flow.shape[-2:]) for flow in (first, second))
    live = (v | (x != 0)).double() @ w.double() + v.double() @ (w | (y != 0)).double()
    varying, value = live > 0, x @ y
    if first.stochastic:  # an average of equal values is that value
        level = y[..., :1, :]
        same = (~w & (y == level)).all(-2, keepdim=True)
        varying = varying & ~same
        value = torch.where(same, level, value)
    return Flow.of(shape, label, value, varying)


def _lead(label: torch.Tensor, ndim: int) -> torch.Tensor:
    return label.reshape((1,) * (ndim - label.ndim) + tuple(label.shape))


def attention(
    know: Knowledge, owner: str, query: Flow, key: Flow, value: Flow, mask: Flow | None, *, grouped: bool
) -> Flow:
    """`torch.nn.functional.scaled_dot_product_attention`; ``grouped`` queries share keys and values."""
    if grouped:
        times = query.shape[-3] // key.shape[-3]
        key, value = (_repeated(flow, times) for flow in (key, value))
    scores = product(know, owner, query, _turned(key))
    if mask is not None:
        scores = scores.with_label(combined(know, scores, mask, "a mask", owner))
    # The values of the scores do not matter: whatever they are, their rows sum to one.
    rows = Flow.of(scores.shape, scores.label, torch.zeros(1), torch.ones(1, dtype=torch.bool), stochastic=True)
    return product(know, owner, rows, value)


def _turned(flow: Flow) -> Flow:
    return Flow.of((*flow.shape[:-2], flow.shape[-1], flow.shape[-2]), flow.label.mT, flow.value.mT, flow.varying.mT)


def _repeated(flow: Flow, times: int) -> Flow:
    shape = (*flow.shape[:-3], flow.shape[-3] * times, *flow.shape[-2:])
    parts = (
        part if part.shape[-3] == 1 else part.repeat_interleave(times, -3)
        for part in (flow.label, flow.value, flow.varying)
    )
    return Flow.of(shape, *parts)


def einsum(know: Knowledge, owner: str, equation: str, operands: list[Any], result: torch.Tensor) -> Flow | None:
    """A sum of products of two operands in Einstein's notation; None where it is of another kind."""
    left, _, out = equation.replace(" ", "").partition("->")
    names = left.split(",")
    if len(operands) != 2 or len(names) != 2 or not out or any(len(set(n)) < len(n) or "." in n for n in (*names, out)):
        return None
    sizes = {k: v for name, one in zip(names, operands, strict=True) for k, v in zip(name, one.shape, strict=True)}
    if isinstance(operands[0], torch.Tensor):
        operands, names = operands[::-1], names[::-1]
    first, second = operands
    shared = [k for k in names[0] if k in names[1] and k in out]
    summed = [k for k in names[0] if k in names[1] and k not in out]
    free = [[k for k in name if k not in shared and k not in summed] for name in names]
    if any(k not in out for part in free for k in part) or not summed:
        return None
    if isinstance(second, torch.Tensor):
        if shared:
            return None
        order = [names[1].index(k) for k in (*free[1], *summed)]
        matrix = _derived(know, second, order, (_total(sizes, free[1]), _total(sizes, summed)))
        given = _arranged(first, names[0], [*free[0], *summed], (*[sizes[k] for k in free[0]], _total(sizes, summed)))
        made = contract(know, know.sources(second)[0].name.rpartition(".")[0] or owner, matrix, None, given)
        wide = (*(sizes[k] for k in free[0]), *(sizes[k] for k in free[1]))
        return _arranged(_reshaped(made, wide), "".join(free[0] + free[1]), list(out), tuple(result.shape))
    lead = tuple(sizes[k] for k in shared)
    counts = [_total(sizes, part) for part in (free[0], summed, free[1])]
    one = _arranged(first, names[0], [*shared, *free[0], *summed], (*lead, counts[0], counts[1]))
    two = _arranged(second, names[1], [*shared, *summed, *free[1]], (*lead, counts[1], counts[2]))
    made = product(know, owner, _with(one, first), two)
    wide = (*lead, *(sizes[k] for k in free[0]), *(sizes[k] for k in free[1]))
    return _arranged(_reshaped(made, wide), "".join(shared + free[0] + free[1]), list(out), tuple(result.shape))


def _with(flow: Flow, original: Flow) -> Flow:
    kept = original.stochastic and flow.shape[-1] == original.shape[-1]
    return Flow(flow.shape, flow.label, flow.value, flow.varying, kept)


def _total(sizes: dict[str, int], letters: list[str]) -> int:
    total = 1
    for letter in letters:
        total *= sizes[letter]
    return total


def _arranged(flow: Flow, names: str, order: list[str], shape: tuple[int, ...]) -> Flow:
    """The axes in another order, then under another shape."""
    turn = [names.index(letter) for letter in order]
    middle = tuple(flow.shape[axis] for axis in turn)
    parts = (part.permute(turn) for part in (flow.label, flow.value, flow.varying))
    return Flow.of(shape, *(reshaped(part, middle, shape) for part in parts))


def _reshaped(flow: Flow, shape: tuple[int, ...]) -> Flow:
    return Flow.of(shape, *(reshaped(part, flow.shape, shape) for part in (flow.label, flow.value, flow.varying)))


def _derived(know: Knowledge, weight: torch.Tensor, order: list[int], shape: tuple[int, int]) -> torch.Tensor:
    from ._flow import Source

    made = weight.detach().permute(order).reshape(shape)
    sources = [
        Source(source.name, source.shape, source.flat().permute(order).reshape(shape))
        for source in know.sources(weight)
        if source.axes is None
    ]
    know.derive(made, sources)
    return made


def unmatched(know: Knowledge, owner: str, like: torch.Tensor, *flows: Flow) -> Flow:
    """A product that is not understood."""
    return barrier(know, f"a product of activations in {owner or 'the model'} is not understood", *flows, like=like)  # type: ignore[no-any-return]
