"""Random numbers from a given generator, in eager code and inside a compiled graph alike.

A compiled graph cannot hold a `torch.Generator`. There the draw is an opaque operator that finds the generator by a
number, so that compiling changes neither the stream nor breaks the graph.
"""

from __future__ import annotations

import itertools
import weakref

import torch

__all__ = ["Draws"]

_GENERATORS: weakref.WeakValueDictionary[int, Draws] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


class Draws:
    """A stream of random numbers.

    Parameters
    ----------
    generator : torch.Generator
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.number = next(_NUMBERS)
        _GENERATORS[self.number] = self

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers, shaped like ``like``."""
        if torch.compiler.is_compiling():
            drawn: torch.Tensor = _normal(like.detach(), self.number)
            return drawn
        return torch.empty_like(like).normal_(generator=self.generator)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Numbers uniform in [0, 1), shaped like ``like``."""
        if torch.compiler.is_compiling():
            drawn: torch.Tensor = _uniform(like.detach(), self.number)
            return drawn
        return torch.empty_like(like).uniform_(generator=self.generator)


# Tagged as random, so that a compiler neither merges two draws nor repeats one.
@torch.library.custom_op("obverse::normal", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _normal(like: torch.Tensor, number: int) -> torch.Tensor:
    return torch.empty_like(like).normal_(generator=_GENERATORS[number].generator)


@torch.library.custom_op("obverse::uniform", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _uniform(like: torch.Tensor, number: int) -> torch.Tensor:
    return torch.empty_like(like).uniform_(generator=_GENERATORS[number].generator)


@_normal.register_fake
@_uniform.register_fake
def _(like: torch.Tensor, number: int) -> torch.Tensor:
    return torch.empty_like(like)
