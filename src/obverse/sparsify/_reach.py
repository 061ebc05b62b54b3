"""Whether what is left of a tensor still reaches the loss: a budget can leave weights and no path through them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ._member import Member
from ._shards import is_sharded, local

__all__ = ["Reach"]

_PIECE = 1 << 18


class Reach:
    """Watches the gradients of the weights that stay, from the freeze on, until each tensor has had one.

    A surviving weight without any path to the output has a gradient of exactly zero at every step. A tensor all of
    whose weights are so, while others do get gradients, no longer takes part in the model.

    Parameters
    ----------
    members : sequence of Member
        Of which sharded tensors and groups that span several are left out: these keep a channel everywhere.
    watched : sequence of pairs of str and nn.Parameter
        All that is trained, by name.
    """

    def __init__(self, members: Sequence[Member], watched: Sequence[tuple[str, nn.Parameter]]) -> None:
        self._waiting = [m for m in members if len(m.parameters) == 1 and not is_sharded(m.parameter)]
        self._silent: set[str] = set()
        self._watched = [parameter for _, parameter in watched]
        self._trains = False  # whether any gradient was seen at all

    @property
    def is_open(self) -> bool:
        """Whether there is a tensor left that is frozen in its support and has had no gradient yet."""
        return any(member.support is not None for member in self._waiting)

    @torch.no_grad()
    def see(self) -> None:
        """Look at the gradients of the step that was just taken."""
        if not self._trains:
            self._trains = any(bool(torch.count_nonzero(local(p.grad))) for p in self._watched if p.grad is not None)
        for member in list(self._waiting):
            gradient = member.parameter.grad
            if member.support is None or gradient is None or not member.is_trained:
                continue
            ((_, kept),) = member.masks(member.support)
            if _meet(gradient, kept):
                self._waiting.remove(member)
                self._silent.discard(member.name)
            else:
                self._silent.add(member.name)

    def line(self) -> str:
        """What there is to say at the end of tensors that had no gradient since the freeze; empty for nothing."""
        if not self._trains or not self._silent:
            return ""
        names = [member.name for member in self._waiting if member.name in self._silent]
        return (
            f"no weight left in {' and '.join(map(repr, names))} has a path to the output: the zeros of the other "
            "layers cut it off, and what the model answers no longer depends on what passes there; ask for less, or "
            "give every layer a floor"
        )


def _meet(gradient: torch.Tensor, kept: torch.Tensor) -> bool:
    """Whether any entry that is kept has a gradient; a part after the other, for most often the first one tells."""
    if kept.shape != gradient.shape or not gradient.is_contiguous() or not kept.is_contiguous():
        return bool(torch.count_nonzero(gradient * kept))
    pieces = zip(torch.split(gradient.view(-1), _PIECE), torch.split(kept.view(-1), _PIECE), strict=True)
    return any(bool(torch.count_nonzero(one * other)) for one, other in pieces)
