"""Running a model so that two runs can be compared: nothing is written to, and the same random numbers are drawn."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from ._copies import plain_copy
from ._inputs import Inputs
from ._precision import double_precision
from ._watch import outputs_of

__all__ = ["evaluated", "widest"]


def evaluated(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> list[torch.Tensor]:
    """The outputs of a model in a floating type, on copies of the inputs, with the same random numbers at every call.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights have the type ``dtype``. Buffers that its code writes to change.
    inputs : Inputs
    dtype : torch.dtype
        Numbers of the inputs are cast to it. With ``torch.float64``, code that casts to a narrower type gets it too.

    Returns
    -------
    list of torch.Tensor
    """
    fed = inputs.copied().map(lambda one: one.to(dtype) if one.is_floating_point() else one)
    with torch.no_grad(), double_precision() if dtype == torch.float64 else nullcontext(), torch.random.fork_rng():
        torch.manual_seed(0)
        return outputs_of(fed.call(model))


def widest(model: nn.Module, inputs: Inputs) -> torch.dtype:
    """``torch.float64`` where a model runs in it, else the type of its weights.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    inputs : Inputs
    """
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if own != torch.float64:
        try:
            evaluated(plain_copy(model).eval().double(), inputs, torch.float64)
        except Exception:  # kernels that do not take it
            return own
    return torch.float64
