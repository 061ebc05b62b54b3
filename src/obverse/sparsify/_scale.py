"""The scale that belongs to a number of examples and a noise level, where no strength is stated."""

from __future__ import annotations

from .._core.checks import is_number
from ..errors import InvalidArgumentError
from ..penalties import LogSum, Penalty, Rescaled

__all__ = ["check_scale", "natural_penalty", "natural_strength"]

# Log-sum with the slope at zero of variational dropout's penalty, in units of the natural width.
_SURROGATE = Rescaled(LogSum(2.0), height=2.0)
# Taken where the number of examples is not told.
_EXAMPLES = 50_000


def natural_strength(examples: int | None, noise: float) -> float:
    r"""Strength :math:`\sigma^2/N` of variational inference from N examples, with a mean loss."""
    return noise / (examples or _EXAMPLES)


def natural_penalty(penalty: Penalty | None, examples: int, noise: float) -> Penalty:
    r"""The penalty in units of :math:`\sigma/\sqrt N`, the width at which variational dropout's penalty turns.

    Without a penalty, the log-sum that has its slope at zero: ``2 log(1 + w / (2 width))``.
    """
    unit = _SURROGATE if penalty is None else penalty
    return Rescaled(unit, width=(noise / examples) ** 0.5)


def check_scale(examples: int | None, noise: float) -> None:
    """Raise unless the number of examples is positive and the noise level too."""
    if examples is not None and (not is_number(examples) or examples < 1):
        raise InvalidArgumentError(f"examples must be at least 1, got {examples!r}")
    if not is_number(noise) or not 0 < noise < float("inf"):
        raise InvalidArgumentError(f"noise must be positive and finite, got {noise!r}")
