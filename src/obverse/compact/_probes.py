"""Inputs on which a smaller model must compute what the original one computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..graph import Inputs, evaluated
from ._certificate import Difference

__all__ = ["Probes"]


class Probes:
    """The example inputs, random numbers of their shapes, and other batch sizes and lengths where the model takes them.

    Parameters
    ----------
    inputs : Inputs
        One batch, as the model takes it.
    """

    def __init__(self, inputs: Inputs) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs: dict[str, Inputs] = {
            "given": inputs,
            "random": inputs.map(lambda one: _random(one, 1.0, generator)),
            "stress": inputs.map(lambda one: _random(one, 100.0, generator)),
            "batch": inputs.map(_other_batch(inputs)),
            "length": inputs.map(_other_length(inputs)),
        }
        for kind in ("batch", "length"):
            if all(map(_same, self.inputs[kind].tensors(), inputs.tensors())):
                del self.inputs[kind]

    def outputs(self, model: nn.Module, dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
        """The outputs of a model in a floating type on every probe that it takes."""
        found = {}
        for kind, inputs in self.inputs.items():
            try:
                found[kind] = evaluated(model, inputs, dtype)
            except Exception:  # numbers and shapes that the model itself does not take
                if kind == "given":
                    raise
        return found

    def fault(self, small: nn.Module, expected: dict[str, list[torch.Tensor]], dtype: torch.dtype) -> str:
        """What is wrong with a smaller model in words, empty where its outputs are the expected ones."""
        for kind, wanted in expected.items():
            try:
                found = evaluated(small, self.inputs[kind], dtype)
            except Exception as error:  # whatever the model's code raises on sizes that do not fit
                line = next(iter(str(error).splitlines()), type(error).__name__)[:160]
                return f"the smaller model does not run{_on(kind)} ({line})"
            if [one.shape for one in found] != [one.shape for one in wanted]:
                return f"the outputs of the smaller model have other shapes{_on(kind)}"
            gap, scale = _gap(found, wanted)
            if not gap <= (1e-10 if dtype == torch.float64 else 1e-5) * max(1.0, scale):
                return f"outputs differ by {gap:.2g}{_on(kind)}"
        return ""

    def differences(self, model: nn.Module, small: nn.Module, dtype: torch.dtype) -> list[Difference]:
        """How much the outputs differ on every probe, both models in ``dtype``."""
        found = []
        for kind, inputs in self.inputs.items():
            try:
                wanted = evaluated(model, inputs, dtype)
            except Exception:  # numbers and shapes that the model itself does not take
                if kind == "given":
                    raise
                continue
            gap, scale = _gap(evaluated(small, inputs, dtype), wanted)
            found.append(Difference(kind, str(dtype).removeprefix("torch."), gap, scale))
        return found


def _on(kind: str) -> str:
    return {"given": "", "batch": " on another batch size", "length": " on another length"}.get(
        kind, f" on {kind} inputs"
    )


def _gap(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> tuple[float, float]:
    """Largest absolute difference and largest absolute output; places where both have the same infinity are equal."""
    if [one.shape for one in found] != [one.shape for one in wanted]:
        raise RuntimeError("the outputs have other shapes")
    gap = scale = 0.0
    for one, other in zip(found, wanted, strict=True):
        a, b = _plain(one), _plain(other)
        if b.numel():
            apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
            gap = max(gap, float(apart.max())) if not bool(apart.isnan().any()) else float("nan")
            scale = max(scale, float(torch.where(b.isfinite(), b.abs(), 0.0).max()))
    return gap, scale


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return tensor.detach().double()


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape


def _random(one: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    if not one.numel():
        return one
    if one.is_floating_point():
        return (scale * torch.randn(one.shape, generator=generator)).to(one)
    if one.dtype == torch.bool:
        return one
    pick = torch.randint(one.numel(), (one.numel(),), generator=generator)
    return one.reshape(-1)[pick.to(one.device)].reshape(one.shape)


def _other_batch(inputs: Inputs) -> Callable[[torch.Tensor], torch.Tensor]:
    """One row more along the first axis of all tensors that have as many rows as the first one."""
    rows = inputs.batch

    def longer(one: torch.Tensor) -> torch.Tensor:
        if not one.ndim or len(one) != rows or not rows:
            return one
        return torch.cat([one, one[:1]])

    return longer


def _other_length(inputs: Inputs) -> Callable[[torch.Tensor], torch.Tensor]:
    """One step less along the second axis of sequences, three quarters of the height and width of maps."""
    first = next((one for one in inputs.tensors() if one.ndim), None)
    steps = first.shape[1] if first is not None and first.ndim in (2, 3) and len(first) == inputs.batch else 0
    whole = first is not None and (first.ndim == 3 or not first.is_floating_point())

    def shorter(one: torch.Tensor) -> torch.Tensor:
        if one.ndim in (4, 5) and first is not None and one.shape == first.shape:
            return one[..., : one.shape[-2] - one.shape[-2] // 4, : one.shape[-1] - one.shape[-1] // 4]
        return one[:, : steps - 1] if whole and steps > 1 and one.ndim in (2, 3) and one.shape[1] == steps else one

    return shorter
