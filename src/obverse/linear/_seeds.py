"""What ``random_state`` means: scikit-learn's None, integers and RandomState, and the generators of NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.random import Seed, numpy_generator
from ..errors import InvalidArgumentError

__all__ = ["random_source", "seed_of"]


def random_source(random_state: Any) -> np.random.RandomState | np.random.Generator:
    """What to draw from: scikit-learn's own for what it knows, so that a seed gives the same draws there and here.

    Raises
    ------
    InvalidArgumentError
        Neither None, an integer from 0 to 2**32 - 1, a RandomState nor a generator.
    """
    from sklearn.utils import check_random_state

    try:
        source: np.random.RandomState = check_random_state(random_state)
        return source
    except ValueError:
        if isinstance(random_state, int | np.integer | float | str):
            raise InvalidArgumentError(
                "random_state must be None, an integer from 0 to 2**32 - 1, a RandomState, a numpy.random.Generator or "
                f"a torch.Generator, got {random_state!r}"
            ) from None
        return numpy_generator(random_state, "random_state")


def seed_of(random_state: Any) -> Seed | None:
    """The same as a seed of `obverse._core.random`: a RandomState contributes its next number and so moves on."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    seed: Seed | None = random_state
    return seed
