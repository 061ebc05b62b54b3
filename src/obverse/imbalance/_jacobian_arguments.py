"""Checks of what a user gives to the heteroskedastic regularizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ._counts import Counts

__all__ = ["as_strengths", "check_options", "of_groups", "unwrapped"]


def check_options(
    scale: str, aggregate: str, power: int, every: int, subset: float | None, radius: float | None, batch_axis: int
) -> None:
    """Refuse what is outside the allowed values."""
    if scale not in ("sample", "batch_mean"):
        raise UnknownNameError("scale", str(scale), ("sample", "batch_mean"))
    if aggregate not in ("sum", "root-sum-square"):
        raise UnknownNameError("aggregate", str(aggregate), ("sum", "root-sum-square"))
    if power not in (1, 2):
        raise InvalidArgumentError(f"power must be 1 or 2, got {power!r}")
    checks.count("every", every)
    checks.count("batch_axis", batch_axis, 0)
    if subset is not None:
        checks.fraction("subset", subset, zero=False)
    if radius is not None:
        checks.positive("radius", radius)


def as_strengths(strengths: Counts | None) -> Tensor | None:
    """Strengths of the groups as a float64 tensor of shape (K,)."""
    if strengths is None:
        return None
    values = torch.as_tensor(strengths, dtype=torch.float64).detach().cpu().clone()
    if values.ndim != 1 or not len(values) or not bool(((values >= 0) & torch.isfinite(values)).all()):
        raise InvalidArgumentError(f"strengths must be finite and not negative, of shape (K,), got {values.tolist()}")
    return values


def of_groups(strengths: Tensor, target: Tensor, groups: Tensor | None, kept: Tensor, dtype: torch.dtype) -> Tensor:
    """The strength of every row, 1 that does not matter where a row is not ``kept``."""
    given, name = (target, "target") if groups is None else (groups, "groups")
    if given.shape != kept.shape or given.is_floating_point() or given.is_complex():
        hint = "; say which group each row is in with groups=" if groups is None else ""
        raise InvalidArgumentError(
            f"{name} must be integers of shape {tuple(kept.shape)}, got {tuple(given.shape)} of {given.dtype}{hint}"
        )
    index = given.to(kept.device).long()
    index = torch.where(kept, index, torch.zeros_like(index))
    if index.device.type == "cpu" and len(index):
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(strengths):
            raise InvalidArgumentError(
                f"{name} must be in [0, {len(strengths)}), one for each strength, got {low if low < 0 else high}"
            )
    return strengths.to(dtype).to(kept.device)[index]


def unwrapped(model: nn.Module) -> tuple[nn.Module, bool]:
    """The module inside wrappers, and whether something in it is compiled."""
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    compiled = False
    while True:
        if isinstance(model, DataParallel):
            raise InvalidArgumentError("DataParallel runs copies of the model; use DistributedDataParallel")
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model, compiled = model._orig_mod, True  # type: ignore[assignment]
        else:
            break
    inside = (
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    return model, compiled or any(inside)
