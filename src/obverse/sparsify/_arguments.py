"""What a Sparsifier may be given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .._core.checks import is_number
from ..errors import InvalidArgumentError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._rules import Rule
from .faces import Face

__all__ = ["check_aim", "check_steps", "check_strength", "has_aim", "penalty_of", "seed_of"]


def seed_of(seed: int | torch.Generator) -> int:
    if isinstance(seed, torch.Generator):
        return seed.initial_seed()
    if not is_number(seed) or seed != int(seed):
        raise InvalidArgumentError(f"seed must be an integer or a torch.Generator, got {seed!r}")
    return int(seed)


def penalty_of(face: Face, penalty: str | Penalty | None) -> Penalty | None:
    """The penalty that a face runs: its own, or the given one; None where it is left open.

    Raises
    ------
    InvalidArgumentError
        If a face with a penalty of its own is given another one.
    """
    given = None if penalty is None else penalty_named(penalty)
    own = face.own_penalty
    if own is None:
        return given
    if given is not None and type(given) is not type(own):
        raise InvalidArgumentError(
            f"face={face.name!r} has a penalty of its own ({own.name}); leave penalty out, or run "
            f"{given.name or type(given).__name__} through 'proximal', 'reweighted', 'dropout' or 'learned-eta'"
        )
    return own if given is None else given


def check_strength(value: float) -> None:
    if not (is_number(value) and 0 <= value < math.inf):
        raise InvalidArgumentError(f"strength must be at least 0 and finite, got {value!r}")


def check_aim(face: Face, strengths: Sequence[float | None], budget: Any) -> None:
    """Raise where a face that only aims at a budget is given a strength."""
    if face.needs_budget and (any(strength is not None for strength in strengths) or budget is None):
        raise InvalidArgumentError(
            f"face={face.name!r} aims at a budget and has no strength; for targeted dropout at a stated strength use "
            "face='dropout', law='bernoulli' with penalty=TargetedDropout(threshold)"
        )


def has_aim(rule: Rule) -> bool:
    return rule.budget is not None or rule.strength is not None


def check_steps(total_steps: int | None, every: int | None, continuation: float, *, has_budget: bool) -> None:
    """Raise where the length of the run is missing or out of range."""
    if total_steps is None and has_budget:
        raise InvalidArgumentError(
            "a budget needs total_steps, the number of sparsifier.step() calls in the whole run "
            "(epochs * steps per epoch), to know when to arrive"
        )
    if total_steps is not None and total_steps < 1:
        raise InvalidArgumentError(f"total_steps must be at least 1, got {total_steps}")
    if every is not None and every < 1:
        raise InvalidArgumentError(f"every must be at least 1, got {every}")
    if not is_number(continuation) or not 1 <= continuation < math.inf:
        raise InvalidArgumentError(f"continuation must be at least 1 and finite, got {continuation!r}")
    if continuation > 1 and total_steps is None:
        raise InvalidArgumentError("continuation needs total_steps, to know when the penalty has its own width")
