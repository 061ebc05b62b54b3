"""The proof that a smaller model computes the same: measured differences, what went, what stayed and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from ..graph import Change

__all__ = ["Certificate", "Cost", "Difference", "Refusal"]


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference of any output on one kind of inputs.

    Attributes
    ----------
    inputs : str
        ``"given"``, ``"random"`` or ``"stress"`` (a hundred times larger).
    dtype : str
    difference : float
        In the unit of the outputs.
    scale : float
        Largest absolute output of the original model.
    """

    inputs: str
    dtype: str
    difference: float
    scale: float


@dataclass(frozen=True)
class Refusal:
    """Channels that are zero but stay, and why."""

    tensor: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Cost:
    """Parameters (tied ones once), multiply-accumulates of the example batch, bytes of the parameters and buffers."""

    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class Certificate:
    """What `compact` did to a model and how equal the result is."""

    before: Cost
    after: Cost
    differences: list[Difference]
    changes: list[Change] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def worst(self, dtype: str) -> float:
        """Largest difference measured in a dtype, such as ``"float64"``."""
        return max((one.difference for one in self.differences if one.dtype == dtype), default=0.0)

    def to_json(self) -> str:
        """The whole certificate as JSON text."""
        return json.dumps({"format": "obverse-certificate", "version": 1, **asdict(self)}, indent=2, sort_keys=True)

    def __str__(self) -> str:
        a, b = self.before, self.after
        lines = [
            f"parameters {a.parameters:,} -> {b.parameters:,}",
            f"multiply-accumulates {a.macs:,} -> {b.macs:,}",
            f"bytes {a.bytes:,} -> {b.bytes:,}",
            "largest output difference:",
            *(
                f"  {d.inputs} inputs, {d.dtype}: {d.difference:.2g} (outputs up to {d.scale:.3g})"
                for d in self.differences
            ),
            "removed:" if self.changes else "nothing was removed",
            *(f"  {c.tensor} axis {c.axis}: {c.before} -> {c.after} ({c.why})" for c in self.changes),
            *(f"  {line}" for line in self.folded),
        ]
        if self.refusals:
            lines += ["zero, but kept:", *(f"  {r.tensor}: {r.channels} ({r.reason})" for r in self.refusals)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
