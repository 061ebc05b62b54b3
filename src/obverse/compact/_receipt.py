"""What was measured: where, against what, how often, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..graph import Interval

__all__ = ["LayerChoice", "Receipt"]


@dataclass(frozen=True)
class LayerChoice:
    """How one layer is computed.

    Attributes
    ----------
    name : str
        Of the module.
    shape : tuple of int
        Outputs and inputs.
    zeros : float
        Fraction of the weight that is zero.
    chosen : str
        ``"dense"``, or the product that replaced it.
    speedups : dict of str to Interval
        Time of the dense layer over that of each product tried, at the inputs that the example gives the layer.
    reason : str
        Why, in words.
    """

    name: str
    shape: tuple[int, ...]
    zeros: float
    chosen: str
    speedups: dict[str, Interval]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "zeros": self.zeros,
            "chosen": self.chosen,
            "speedups": {name: value.to_dict() for name, value in self.speedups.items()},
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Receipt:
    """Measured speed of a model, with everything one must know to repeat it.

    Attributes
    ----------
    machine, device, torch_version : str
    dtype : str
        Of the model as given: that of the dense baseline, and of what replaced its layers.
    batch, threads, repeats : int
    layers : tuple of LayerChoice
    seconds : dict of str to Interval
        Of one forward pass of the whole model: ``"dense"`` the model as given, ``"accelerated"``, and the rivals
        ``"dense bf16"`` and ``"dynamic int8"``, dense as well.
    speedups : dict of str to Interval
        ``"dense"`` over each, from the rounds in which they were timed together.
    differences : dict of str to float
        Largest absolute difference of each from the dense output, over the largest absolute entry of that.
    unavailable : dict of str to str
        Rivals that could not run, and why.
    """

    machine: str
    device: str
    torch_version: str
    dtype: str
    batch: int
    threads: int
    repeats: int
    layers: tuple[LayerChoice, ...]
    seconds: dict[str, Interval]
    speedups: dict[str, Interval]
    differences: dict[str, float]
    unavailable: dict[str, str]

    @property
    def gained(self) -> bool:
        """Whether any layer was replaced."""
        return any(layer.chosen != "dense" for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "machine": self.machine,
            "device": self.device,
            "torch": self.torch_version,
            "dtype": self.dtype,
            "batch": self.batch,
            "threads": self.threads,
            "repeats": self.repeats,
            "layers": [layer.to_dict() for layer in self.layers],
            "seconds": {name: value.to_dict() for name, value in self.seconds.items()},
            "speedups": {name: value.to_dict() for name, value in self.speedups.items()},
            "differences": self.differences,
            "unavailable": self.unavailable,
        }

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = [
            f"{self.machine}, {self.device}, torch {self.torch_version}",
            f"batch {self.batch}, {self.threads} thread{'s' * (self.threads != 1)}, median of {self.repeats} rounds "
            "[95 % interval]",
            "",
        ]
        for name, took in self.seconds.items():
            label = {"dense": f"dense {self.dtype}", "accelerated": f"accelerated {self.dtype}"}.get(name, name)
            line = f"{label:<22} {1e3 * took.median:9.4f} ms [{1e3 * took.low:.4f}, {1e3 * took.high:.4f}]"
            if name != "dense":
                gain = self.speedups[name]
                line += f"  {gain.median:5.2f}x [{gain.low:.2f}, {gain.high:.2f}]"
                line += f"  relative difference {self.differences[name]:.1e}"
            lines.append(line)
        lines += [f"{name:<22} not measured: {why}" for name, why in self.unavailable.items()]
        lines.append("")
        for layer in self.layers:
            shape = " x ".join(map(str, layer.shape))
            lines.append(f"{layer.name}: {shape}, {layer.zeros:.1%} zeros: {layer.chosen}. {layer.reason}")
        if not self.layers:
            lines.append("No linear layer ran on the example: no gain, everything kept as it was.")
        elif not self.gained:
            lines.append("No gain: kept dense.")
        return "\n".join(lines)
