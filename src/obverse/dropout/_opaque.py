"""Masks inside a compiled graph whose law or generator the graph must not know.

A compiler takes the rate of a random draw for a constant, and would compile anew for every step of a schedule; a
`torch.Generator` it cannot hold at all. There the draw is an opaque operator that finds the layer by a number.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Protocol

import torch

__all__ = ["Drawer", "opaque_draw", "registered"]


class Drawer(Protocol):
    """A layer that draws masks."""

    def draw_now(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """A mask of ``shape`` by the present law, with dtype and device of ``like``."""
        ...


_DRAWERS: weakref.WeakValueDictionary[int, Drawer] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


def registered(drawer: Drawer) -> int:
    """A number under which compiled graphs find ``drawer``; it keeps nothing alive."""
    number = next(_NUMBERS)
    _DRAWERS[number] = drawer
    return number


# Tagged as random, so that a compiler neither merges two draws nor repeats one.
@torch.library.custom_op("obverse::dropout_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def opaque_draw(like: torch.Tensor, shape: Sequence[int], number: int) -> torch.Tensor:
    """The mask that the layer of this number draws."""
    # Shared masks come as views, which an operator may not return.
    return _DRAWERS[number].draw_now(tuple(shape), like).contiguous()


@opaque_draw.register_fake
def _(like: torch.Tensor, shape: Sequence[int], number: int) -> torch.Tensor:
    return like.new_empty(shape)
