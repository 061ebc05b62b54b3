"""LSTM, GRU and RNN: a hidden unit is its rows in every gate, its recurrent column and its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._flow import Even, Flow, Knowledge, Read
from ._weighted import barrier

__all__ = ["recurrent"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def recurrent(know: Knowledge, name: str, layer: Any, args: Any, result: Any) -> Any:
    """Output and final states of a recurrent layer, as the operator below it gives them.

    A packed sequence has one axis of steps and rows in place of two; a state that is given shares the hidden units.
    """
    flow = args[0]
    packed = not isinstance(args[2], Sequence) and isinstance(args[1], torch.Tensor | Flow)
    state = args[2] if packed else args[1]
    mode: str = getattr(layer, "mode", "")
    if layer is None or not isinstance(flow, Flow) or getattr(layer, "proj_size", None) or mode not in _GATES:
        for tensor in () if layer is None else layer.parameters():
            for source in know.sources(tensor):
                know.fix(source.name, f"{name} projects its hidden state")
        return barrier(
            know, f"{name} projects its hidden state", *[one for one in args if isinstance(one, Flow)], like=result
        )
    gates, hidden, directions = _GATES[mode], layer.hidden_size, 1 + layer.bidirectional
    given = state if isinstance(state, list | tuple) else (state,)
    started = [one for one in given if isinstance(one, Flow)]
    free = not started and all(not bool(one.any()) for one in given if isinstance(one, torch.Tensor))
    every: list[torch.Tensor] = []
    final: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for depth in range(layer.num_layers):
        outs = []
        for direction in range(directions):
            labels, settled = _cell(know, name, layer, flow, depth, direction, gates, free)
            every.append(labels)
            outs.append((labels, settled.nan_to_num(0.0), settled.isnan()))
        final += outs
        flow = Flow.of((*flow.shape[:-1], hidden * directions), *(torch.cat([o[i] for o in outs]) for i in range(3)))
    if len(every) > 1:
        know.evens.append(Even(every, f"all layers and directions of {name} have the same hidden size"))
    stacked = [torch.stack([one[i] for one in final]) for i in range(3)]
    for one in started:
        _same_units(know, one, stacked[0], name)
    shape = tuple(result[1].shape)
    middle = (len(final), *(1,) * (len(shape) - 2), hidden)
    label, value, varying = (part.reshape(middle) for part in stacked)
    last = Flow.of(shape, label, value, varying)
    if mode == "LSTM":
        moving = torch.ones_like(varying) if bool((value != 0).any()) else varying
        return flow, last, Flow.of(shape, label, torch.zeros(1), moving)
    return flow, last


def _same_units(know: Knowledge, state: Flow, units: torch.Tensor, name: str) -> None:
    """A state that is given has the hidden units of the layer that starts from it."""
    if state.label.shape[-1] == 1 and state.shape[-1] > 1:
        know.channels.pin(units, f"{name} starts from a state of fixed size")
        return
    label = state.label.expand(
        *(units.shape[0] if a == 0 and state.ndim > 2 else n for a, n in enumerate(state.label.shape))
    )
    rows = label.reshape(-1, *label.shape[1:-1], label.shape[-1])
    for depth, own in enumerate(units):
        part = rows[depth] if state.ndim > 2 else rows
        know.channels.tie(know.channels.tie_along(part, -1, len(own)), own)


def _cell(
    know: Knowledge, name: str, layer: Any, flow: Flow, depth: int, direction: int, gates: int, free: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the hidden units, and their constant outputs (NaN where they vary)."""
    end = f"_l{depth}{'_reverse' if direction else ''}"
    into, back = getattr(layer, f"weight_ih{end}"), getattr(layer, f"weight_hh{end}")
    biases = [getattr(layer, f"bias_ih{end}"), getattr(layer, f"bias_hh{end}")] if layer.bias else []
    hidden = layer.hidden_size
    units = know.channels.fresh(hidden)
    rows = units.repeat(gates)
    for tensor, what in [(into, "weight_ih"), (back, "weight_hh"), *((bias, "bias") for bias in biases)]:
        own = know.axis(tensor, 0, f"rows of {name}.{what}: every gate of a hidden unit", writes=tensor is into)
        know.channels.tie(rows, own)
    know.channels.tie(units, know.axis(back, 1, f"recurrent columns of {name}: what hidden units read of one another"))
    columns = know.channels.tie_along(flow.label, -1, flow.shape[-1])
    know.channels.tie(columns, know.axis(into, 1, f"input columns of {name}: what it reads"))
    ih, hh = into.detach().to("cpu", torch.float64), back.detach().to("cpu", torch.float64)
    shift = sum((bias.detach().to("cpu", torch.float64) for bias in biases), torch.zeros(gates * hidden).double())
    constant = flow.constant(-1)
    # The candidate rows decide: a unit whose candidate is always zero never leaves its zero state.
    part = slice(2 * hidden, 3 * hidden) if layer.mode in ("LSTM", "GRU") else slice(0, hidden)
    quiet = (ih[part][:, constant != 0] == 0).all(1)
    unbiased = (shift[part] == 0) if layer.mode != "GRU" else torch.ones(hidden, dtype=torch.bool)
    if layer.mode == "GRU":
        for bias in biases:
            unbiased &= bias.detach().cpu()[part] == 0
    idle = quiet & unbiased if free else torch.zeros(hidden, dtype=torch.bool)
    while True:
        still = idle & (hh[part][:, ~idle] == 0).all(1)
        if bool((still == idle).all()):
            break
        idle = still
    output = torch.where(idle, 0.0, torch.nan).double()
    if not layer.mode.startswith(("LSTM", "GRU")):
        fixed = ~constant.isnan()
        level = shift + ih[:, fixed] @ constant[fixed]
        steady = (ih[:, ~fixed] == 0).all(1) & (hh[:, ~idle] == 0).all(1) & free
        bent = level.tanh() if layer.mode == "RNN_TANH" else level.relu()
        output = torch.where(steady, bent, output)
    settled = idle.repeat(gates)
    bias_name = know.name_of(biases[0]) if biases else None
    why = "" if biases else "there is no bias to fold the constant into"
    know.reads.append(Read(name, rows, columns, ih, ih != 0, constant, settled, bias_name, why))
    inner = torch.where(idle, 0.0, torch.nan).double()
    know.reads.append(Read(name, rows, units, hh, hh != 0, inner, settled, None, "the first step starts from zero"))
    know.kinds.setdefault("hidden", []).append(units)
    return units, output
