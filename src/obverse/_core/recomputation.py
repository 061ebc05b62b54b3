"""Lets activation checkpointing repeat the draws of a generator, so that gradients belong to the noise of the loss.

`torch.utils.checkpoint` computes a region again in the backward pass. It restores the global random state before, and
knows nothing of other generators: these would draw other noise, and the gradient would be that of another function.
Here the first pass writes down the generator's state before every draw in a region, on the object by which torch itself
knows the region, and the recomputation draws from these states in the same order. Regions are found on the Python
stack, nested ones as well. A recomputation whose region has no such notes is refused.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import StateError
from .random import Seed, torch_generator

if TYPE_CHECKING:
    import torch

__all__ = ["repeatable"]

Generator: TypeAlias = "torch.Generator | np.random.Generator"

_NOTES = "_obverse_draws"


@contextmanager
def repeatable(seed: Seed | None) -> Iterator[torch.Generator | None]:
    """Surround a draw: a recomputation draws what the first pass drew, and leaves the generator where it was.

    Gives the generator to draw from; None is the global one, whose state torch restores. An integer needs no notes, as
    it begins anew every time.

    Raises
    ------
    StateError
        A backward pass computes a layer again outside the regions of `torch.utils.checkpoint`, or in a region whose
        first pass was not seen.
    InvalidArgumentError
        Not a seed.
    """
    import torch

    if seed is None:
        yield None
        return
    if torch.compiler.is_compiling() or not isinstance(seed, torch.Generator | np.random.Generator):
        yield torch_generator(seed, "generator")
        return
    begun, repeated = _regions()
    present = None
    if repeated is not None:
        notes, run = repeated
        state = None if notes is None else notes.again(seed, run)
        if state is None:
            raise StateError(_REFUSAL)
        present = _state(seed)
        _restore(seed, state)
    elif torch._C._current_graph_task_id() != -1:
        raise StateError(_REFUSAL)
    for region in begun:
        _notes(region).add(seed)
    try:
        yield torch_generator(seed)
    finally:
        if present is not None:
            _restore(seed, present)


_REFUSAL = (
    "activation checkpointing computes random noise again in the backward pass, and the generator's state at the first "
    "pass is not known: the gradient would belong to other noise. Draw from the global generator (generator=None), "
    "which checkpointing restores, or call torch.utils.checkpoint.checkpoint itself, outside of torch.compile"
)


class _Notes:
    """States of generators before each draw of a region's first pass, and how far each recomputation has read them."""

    def __init__(self) -> None:
        self._states: dict[Generator, list[Any]] = defaultdict(list)
        self._read: dict[tuple[Generator, Any], int] = defaultdict(int)

    def add(self, generator: Generator) -> None:
        self._states[generator].append(_state(generator))

    def again(self, generator: Generator, run: Any) -> Any:
        """The state before the next draw; None where the first pass had fewer draws."""
        states, place = self._states.get(generator, []), self._read[generator, run]
        self._read[generator, run] += 1
        return states[place] if place < len(states) else None


def _state(generator: Generator) -> Any:
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def _restore(generator: Generator, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _notes(region: Any) -> _Notes:
    notes: _Notes | None = getattr(region, _NOTES, None)
    if notes is None:
        notes = _Notes()
        setattr(region, _NOTES, notes)
    return notes


def _regions() -> tuple[list[Any], tuple[_Notes | None, Any] | None]:
    """Regions that run for the first time around the caller, and the innermost recomputation around all of these.

    A recomputation comes with the notes of its region and an identity of its own, as a graph that is retained can be
    recomputed several times. What lies around it is no concern of its draws.
    """
    import torch
    from torch.utils import checkpoint

    begun: list[Any] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == checkpoint.__file__:
            place, names = frame.f_code.co_qualname, frame.f_locals
            if place == "checkpoint" and "gen" in names:
                started = names["gen"].gi_frame
                if started is not None and "new_frame" in started.f_locals:
                    begun.append(started.f_locals["new_frame"])
            elif place == "CheckpointFunction.forward":
                begun.append(names["ctx"])
            elif place == "CheckpointFunction.backward":
                return begun, (getattr(names["ctx"], _NOTES, None), torch._C._current_graph_task_id())
            elif place.endswith(".unpack_hook") and "frame" in names and "gid" in names:
                return begun, (getattr(names["frame"], _NOTES, None), names["gid"])
        frame = frame.f_back
    return begun, None
