"""Finding what is not a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..errors import NonFiniteError
from ._shards import local

__all__ = ["check_finite"]


def check_finite(watched: Sequence[tuple[str, nn.Parameter]], step: int) -> None:
    """Raise where a parameter holds NaN or infinite values, by its name.

    Raises
    ------
    NonFiniteError
    """
    norms = torch._foreach_norm([local(parameter.detach()) for _, parameter in watched], math.inf)
    if bool(torch.stack([norm.float() for norm in norms]).isfinite().all()):
        return
    for (name, parameter), norm in zip(watched, norms, strict=True):
        if not math.isfinite(float(norm)):
            gradient = parameter.grad
            cause = (
                "its gradient is not finite either"
                if gradient is not None and not bool(gradient.isfinite().all())
                else "its gradient is finite"
            )
            raise NonFiniteError(
                f"parameter {name!r} holds NaN or infinite values at step {step} ({cause}); lower the "
                "learning rate, clip gradients, or resume from the last checkpoint"
            )
