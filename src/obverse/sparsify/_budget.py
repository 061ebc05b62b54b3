"""What a run must end with, and when it works toward it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .._core.checks import is_number
from ..errors import InvalidArgumentError

__all__ = ["COSTS", "Budget"]

COSTS = ("parameters", "macs", "bytes", "latency")
"""Costs of a whole model that a budget may state."""


@dataclass(frozen=True)
class Budget:
    """The sparsity or the cost that a run must land on, and the phases that lead there.

    Several aims may be stated at once; the tightest decides. Costs are upper bounds: the run ends at or below them, as
    near as whole groups come.

    Training passes through four phases. In *warm-up* nothing is asked. In the *ramp* the target rises as
    ``sparsity * (1 - (1 - progress)**3)``, steep first and gentle last. In the *hold* the target stays while the
    support may still change. Then the support is frozen at exactly the target, and the *fine-tune* trains the
    surviving weights without any penalty, which takes its bias away.

    Parameters
    ----------
    sparsity : float, optional
        Fraction of the regularized weights that are zero at the end, in (0, 1).
    warmup, ramp, hold : float
        Fractions of the run, each in [0, 1], summing to less than 1; what is left is the fine-tune.
    pressure : float, optional
        How hard the penalty shrinks the weights that stay: the fraction of its full strength applied per optimizer
        step, in [0, 1]. What a long run makes up for a short one cannot, so the default is 5e-6 times the number of
        steps in ramp and hold, at most 0.1. 0 only selects, as magnitude pruning does.
    floor : float, optional
        Smallest fraction of the weights that each tensor keeps, in [0, 1 - sparsity]. By default a tenth of the
        overall density, so that no layer is emptied while others are full.
    ceiling : float, default 1.0
        Largest fraction of the weights that each tensor keeps, in (0, 1].
    parameters : int, optional
        Largest number of parameters that the whole model keeps: those left where groups can be taken out, else those
        not zero, where what is not regularized counts in full.
    macs : int, optional
        Multiply-accumulates of the example batch, as `obverse.compact.macs` counts them once the groups are out.
    bytes : int, optional
        Of the file that `obverse.compact.save` writes, estimated from the counts.
    latency : float, optional
        Seconds of one forward pass over the example batch on this machine, measured with the groups out, at the speed
        that the machine has when the Sparsifier is made.

    Raises
    ------
    InvalidArgumentError
        If a value is out of its range, or nothing is aimed for.

    Notes
    -----
    The cubic ramp is that of Zhu and Gupta (2017).
    """

    sparsity: float | None = None
    warmup: float = 0.0
    ramp: float = 0.6
    hold: float = 0.1
    pressure: float | None = None
    floor: float | None = None
    ceiling: float = 1.0
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.costs.items():
            if not is_number(value) or not 0 < value < float("inf"):
                raise InvalidArgumentError(f"budget: {name} must be positive and finite; got {value!r}")
        if self.sparsity is None and not self.costs:
            raise InvalidArgumentError(
                f"budget: say what to aim for, sparsity or a cost of the model: {', '.join(COSTS)}"
            )
        if self.sparsity is not None and (not is_number(self.sparsity) or not 0 < self.sparsity < 1):
            raise InvalidArgumentError(
                f"budget: sparsity must lie strictly between 0 and 1, such as 0.95 for 95 %; got {self.sparsity!r}"
            )
        for name in ("warmup", "ramp", "hold", "pressure"):
            value = getattr(self, name)
            if name == "pressure" and value is None:
                continue
            if not is_number(value) or not 0 <= value <= 1:
                raise InvalidArgumentError(f"budget: {name} must lie in [0, 1]; got {value!r}")
        if self.warmup + self.ramp + self.hold > 1 + 1e-9:
            raise InvalidArgumentError("budget: warmup + ramp + hold must not exceed 1, the whole run")
        most = 1 - (self.sparsity or 0.0)
        if self.floor is not None and (not is_number(self.floor) or not 0 <= self.floor <= most + 1e-12):
            raise InvalidArgumentError(
                f"budget: floor must lie in [0, 1 - sparsity] = [0, {most:g}], or every layer's floor "
                f"together would exceed the budget; got {self.floor!r}"
            )
        if not is_number(self.ceiling) or not max(0.0, self.floor or 0.0) <= self.ceiling <= 1 or self.ceiling == 0:
            raise InvalidArgumentError(f"budget: ceiling must lie in (0, 1] and not below floor; got {self.ceiling!r}")

    def __str__(self) -> str:
        aims = {} if self.sparsity is None else {"sparsity": self.sparsity}
        return ", ".join(f"{name}={value:g}" for name, value in {**aims, **self.costs}.items())

    @property
    def costs(self) -> dict[str, float]:
        """What the whole model may cost, by name."""
        return {name: value for name in COSTS if (value := getattr(self, name)) is not None}

    def floor_at(self, sparsity: float) -> float:
        """Smallest fraction that each tensor keeps where the budget is at this sparsity in the end."""
        return (1 - sparsity) / 10 if self.floor is None else self.floor

    def pressure_per_step(self, total_steps: int) -> float:
        """Fraction of the penalty's full strength that surviving weights feel per optimizer step."""
        if self.pressure is not None:
            return self.pressure
        return min(0.1, 5e-6 * (self.ramp + self.hold) * total_steps)

    def freeze_step(self, total_steps: int) -> int:
        """Step after which the support is fixed: at least 1, at most ``total_steps``."""
        return min(total_steps, max(1, round((self.warmup + self.ramp + self.hold) * total_steps)))

    def phase(self, step: int, total_steps: int) -> str:
        """``"warmup"``, ``"ramp"``, ``"hold"`` or ``"finetune"`` after ``step`` of ``total_steps`` steps."""
        if step >= self.freeze_step(total_steps):
            return "finetune"
        if step < self.warmup * total_steps:
            return "warmup"
        return "ramp" if step < (self.warmup + self.ramp) * total_steps else "hold"

    def target(self, step: int, total_steps: int, final: float | None = None) -> float:
        """Sparsity asked for after ``step`` of ``total_steps`` steps; ``final`` is the one that meets the costs."""
        final = (self.sparsity or 0.0) if final is None else final
        if self.phase(step, total_steps) in ("hold", "finetune"):
            return final
        if self.ramp == 0:
            return 0.0
        progress = max(0.0, (step / total_steps - self.warmup) / self.ramp)
        return final * (1 - (1 - min(1.0, progress)) ** 3)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, as a checkpoint or a recipe stores them."""
        return asdict(self)
