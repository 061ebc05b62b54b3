"""The table of functions: what each does to the channels of the tensors that it is called on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ._arguments import barred, flows_in, tensors_in
from ._flow import Knowledge
from ._moving import on_gated, on_move, on_packed, on_pad, on_scatter
from ._names import (
    ALONG,
    CONVOLUTIONS,
    CREATIONS,
    DROPOUTS,
    ELEMENTWISE,
    LIKE,
    MOVES,
    POOLS,
    REDUCE,
    SCATTERS,
    SHAPED_LIKE,
)
from ._pointwise import on_dropout, on_elementwise, on_like
from ._reading import (
    on_addmm,
    on_attention,
    on_baddbmm,
    on_batch_norm,
    on_cells,
    on_convolution,
    on_einsum,
    on_embedding,
    on_embedding_bag,
    on_group_norm,
    on_heads_of_torch,
    on_instance_norm,
    on_layer_norm,
    on_linear,
    on_product_of_activations,
    on_rms_norm,
)
from ._reducing import on_along, on_pooled, on_reduce

__all__ = ["apply"]

_ASSERTIONS = frozenset(["_assert", "_assert_async", "_assert_scalar"])


def apply(know: Knowledge, name: str, owner: str, call: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> Any:
    """The flows that a function writes, nested as ``result``; what is not understood is a barrier.

    Parameters
    ----------
    know : Knowledge
    name : str
        Name of the function, without underscores around it.
    owner : str
        Qualified name of the module in whose code it stands.
    call : callable
        The function itself.
    args, kwargs
        As it was called, with flows in place of the tensors that are followed.
    result
        What it gave on the example inputs.
    """
    here = owner or "the model"
    if name in CREATIONS or (name in SHAPED_LIKE and args and isinstance(args[0], torch.Tensor)):
        return None  # a constant, of the shape or type of something else
    if not tensors_in(result):
        if name not in _ASSERTIONS:
            for flow in flows_in((args, kwargs)):
                know.channels.pin(flow.label, f"{name} in {here} lets its values decide what the code does")
        return result
    handler = _handler(name)
    made = None if handler is None else handler(know, name, owner, call, args, kwargs, result)
    return barred(know, f"{name} in {here} is not understood", args, kwargs, result) if made is None else made


def _handler(name: str) -> Callable[..., Any] | None:
    if name in _HANDLERS:
        return _HANDLERS[name]
    for names, handler in (
        (DROPOUTS, on_dropout),
        (ELEMENTWISE, on_elementwise),
        (MOVES, on_move),
        (LIKE, on_like),
        (POOLS, on_pooled),
        (REDUCE, on_reduce),
        (ALONG, on_along),
        (SCATTERS, on_scatter),
    ):
        if name in names:
            return handler
    return on_convolution if name in CONVOLUTIONS else None


_HANDLERS: dict[str, Callable[..., Any]] = {
    "_pack_padded_sequence": on_packed,
    "_pad_packed_sequence": on_packed,
    "linear": on_linear,
    "addmm": on_addmm,
    "matmul": on_product_of_activations,
    "rmatmul": on_product_of_activations,
    "mm": on_product_of_activations,
    "bmm": on_product_of_activations,
    "baddbmm": on_baddbmm,
    "einsum": on_einsum,
    "batch_norm": on_batch_norm,
    "instance_norm": on_instance_norm,
    "group_norm": on_group_norm,
    "layer_norm": on_layer_norm,
    "rms_norm": on_rms_norm,
    "embedding": on_embedding,
    "embedding_bag": on_embedding_bag,
    "scaled_dot_product_attention": on_attention,
    "multi_head_attention_forward": on_heads_of_torch,
    "pad": on_pad,
    "glu": on_gated,
    "lstm": on_cells,
    "gru": on_cells,
    "rnn_tanh": on_cells,
    "rnn_relu": on_cells,
}
