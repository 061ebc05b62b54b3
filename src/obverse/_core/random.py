"""Says what a seed means, the same in every room, and derives independent streams from it.

A seed is an integer, a `torch.Generator` or a `numpy.random.Generator`. A function that draws at once draws from a
given generator and so moves it on. An object that draws later, step by step, takes from a generator only its initial
seed: every stream then follows from (seed, step, call), and a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

from ..errors import InvalidArgumentError
from .text import brief

if TYPE_CHECKING:
    import torch

__all__ = ["Seed", "derive", "numpy_generator", "seed_number", "torch_generator"]

Seed: TypeAlias = "int | torch.Generator | np.random.Generator"


def seed_number(seed: Seed, name: str = "seed") -> int:
    """The integer that a seed stands for; of a generator, its initial seed.

    Raises
    ------
    InvalidArgumentError
        Not a seed, or a negative one.
    """
    if _is_torch(seed):
        return int(seed.initial_seed())
    if isinstance(seed, np.random.Generator):
        sequence: Any = seed.bit_generator.seed_seq
        return int(sequence.generate_state(1, np.uint64)[0]) >> 1
    return _integer(seed, name)


def torch_generator(seed: Seed, name: str = "seed") -> torch.Generator:
    """The generator to draw from: the given one, or a new one on the host.

    A NumPy generator contributes its next number and so moves on.

    Raises
    ------
    InvalidArgumentError
        As `seed_number`.
    """
    import torch

    if isinstance(seed, torch.Generator):
        return seed
    number = int(seed.integers(2**63)) if isinstance(seed, np.random.Generator) else _integer(seed, name)
    return torch.Generator().manual_seed(number)


def numpy_generator(seed: Seed | None, name: str = "seed") -> np.random.Generator:
    """The generator to draw from: the given one, or a new one; None is a fresh one, different every time.

    A torch generator contributes its next number and so moves on.

    Raises
    ------
    InvalidArgumentError
        As `seed_number`.
    """
    if seed is None or isinstance(seed, np.random.Generator):
        return np.random.default_rng(seed)
    if _is_torch(seed):
        import torch

        return np.random.default_rng(int(torch.randint(2**62, (), generator=seed, device=seed.device)))
    return np.random.default_rng(_integer(seed, name))


def derive(*numbers: int) -> int:
    """One seed from several numbers, all of whose 62 bits depend on all of them (the finalizer of SplitMix64).

    The first number is the seed; the others say what is drawn: the epoch, the step, the call, the rank.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 2


def _is_torch(seed: Any) -> TypeGuard[torch.Generator]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(seed, torch.Generator)


def _integer(seed: Any, name: str) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise InvalidArgumentError(
            f"{name} must be an integer of at least 0, a torch.Generator or a numpy.random.Generator, got {brief(seed)}"
        )
    return number
