"""LSTM, GRU and RNN: a hidden unit is its rows in every gate, its recurrent column and its output."""

from __future__ import annotations

from typing import Any

import torch

from ._flow import Even, Flow, Knowledge, Read
from ._layers import barrier

__all__ = ["recurrent"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def recurrent(know: Knowledge, name: str, layer: Any, flow: Flow) -> tuple[Flow, Any]:
    """Output and final states of a recurrent layer that starts from zeros."""
    mode: str = layer.mode
    shape = flow.label.shape
    if layer.proj_size or mode not in _GATES:
        whole = barrier(know, name, f"{name} projects its hidden state", flow)
        label = whole.label.new_zeros(*shape[:-1], layer.proj_size * (1 + layer.bidirectional))
        return know.whole(label), None
    gates, hidden, directions = _GATES[mode], layer.hidden_size, 1 + layer.bidirectional
    every: list[torch.Tensor] = []
    final: list[Flow] = []
    for depth in range(layer.num_layers):
        outs: list[Flow] = []
        for direction in range(directions):
            labels, settled = _cell(know, name, layer, flow, depth, direction, gates)
            every.append(labels)
            full = (*shape[:-1], hidden)
            value = settled.nan_to_num(0.0)
            moving = settled.isnan()
            outs.append(
                Flow(
                    labels.expand(full).contiguous(), value.expand(full).contiguous(), moving.expand(full).contiguous()
                )
            )
            last = (shape[0], hidden) if layer.batch_first else (shape[-2], hidden)
            final.append(
                Flow(
                    labels.expand(last).contiguous(), value.expand(last).contiguous(), moving.expand(last).contiguous()
                )
            )
        flow = Flow(
            torch.cat([one.label for one in outs], -1),
            torch.cat([one.value for one in outs], -1),
            torch.cat([one.varying for one in outs], -1),
        )
    if len(every) > 1:
        know.evens.append(Even(every, f"all layers and directions of {name} have the same hidden size"))
    state = Flow(
        torch.stack([one.label for one in final]),
        torch.stack([one.value for one in final]),
        torch.stack([one.varying for one in final]),
    )
    if mode == "LSTM":
        moving = torch.ones_like(state.varying) if bool((state.value != 0).any()) else state.varying
        return flow, (state, Flow(state.label, torch.zeros_like(state.value), moving))
    return flow, state


def _cell(
    know: Knowledge, name: str, layer: Any, flow: Flow, depth: int, direction: int, gates: int
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
    columns = know.channels.tie_along(flow.label, -1)
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
    idle = quiet & unbiased
    while True:
        still = idle & (hh[part][:, ~idle] == 0).all(1)
        if bool((still == idle).all()):
            break
        idle = still
    output = torch.where(idle, 0.0, torch.nan).double()
    if not layer.mode.startswith(("LSTM", "GRU")):
        fixed = ~constant.isnan()
        level = shift + ih[:, fixed] @ constant[fixed]
        steady = (ih[:, ~fixed] == 0).all(1) & (hh[:, ~idle] == 0).all(1)
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
