"""The width at which a model, trained from scratch, has as many weights as another keeps."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..errors import InvalidArgumentError
from ._attach import prunable
from ._models import build_model, is_factory

__all__ = ["count_weights", "matching_width"]

# Narrower than any hidden layer's last unit.
_LEAST = 1e-6


@lru_cache(maxsize=4096)
def count_weights(
    model: str, input_shape: tuple[int, ...], num_classes: int, width: float = 1.0, tokens: int | None = None
) -> int:
    """Number of weights in the matrices of a model: what a budget is a fraction of."""
    if is_factory(model):
        built = build_model(model, input_shape, num_classes, width, tokens)
    else:
        with torch.device("meta"):
            built = build_model(model, input_shape, num_classes, width, tokens)
    return sum(weight.numel() for _, weight in prunable(built))


def matching_width(
    model: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    weights: float,
    widest: float = 1.0,
    tokens: int | None = None,
) -> float:
    """The width, at most ``widest``, whose `count_weights` is nearest to ``weights``.

    Raises
    ------
    InvalidArgumentError
        When the model is a factory that takes no width.
    """

    def count(width: float) -> int:
        try:
            return count_weights(model, input_shape, num_classes, width, tokens)
        except InvalidArgumentError:  # a factory need not know what to do with less than one unit
            return 0

    if is_factory(model):
        count_weights(model, input_shape, num_classes, 0.9 * widest, tokens)
    if count(_LEAST) >= weights:
        return _LEAST
    low, high = _LEAST, widest
    # Sizes are whole numbers: the count is a staircase, and the search ends at the two sides of one of its steps.
    while high - low > 1e-4 * low and high - low > 1e-5:
        middle = math.sqrt(low * high) if low > 1e-3 else (low + high) / 2
        low, high = (low, middle) if count(middle) > weights else (middle, high)
    chosen = low if count(low) > 0 and weights - count(low) <= count(high) - weights else high
    # Any width on the same step is the same model; a short one is easier to read.
    shorter = (float(f"{chosen:.{digits}g}") for digits in range(1, 8))
    return next((width for width in shorter if count(width) == count(chosen)), chosen)
