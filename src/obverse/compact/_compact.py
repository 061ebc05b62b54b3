"""From trained zeros to a smaller plain module and its certificate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ..graph import (
    Dependencies,
    Inputs,
    Knowledge,
    Rebuilt,
    Verdict,
    analyze,
    as_inputs,
    culprits,
    grouped,
    judge,
    macs,
    parameters,
    pattern_of,
    plain_copy,
    rebuild,
    unwrapped,
    widest,
)
from ._certificate import Certificate, Cost, Difference, Refusal
from ._probes import Probes

__all__ = ["compact"]


def compact(
    model: nn.Module,
    example_inputs: Any,
    *,
    keep: str | Sequence[str] | Dependencies | None = None,
    rounding: int | None = None,
    tolerance: float = 1e-5,
) -> tuple[nn.Module, Certificate]:
    """A physically smaller model of the same classes that computes the same outputs, and the proof.

    A channel goes, with every tensor slice that belongs to it, when no output can depend on it: its consumers' weights
    are zero, or no input can change it and its constant value can be folded into the biases of its consumers exactly.
    Equality holds in evaluation mode (derived).

    Parameters
    ----------
    model : torch.nn.Module
        Is left untouched.
    example_inputs : Tensor, tuple of positional or mapping of keyword arguments
        One batch, as the model takes it.
    keep : str, sequence of str, or Dependencies, optional
        What stays whatever its weights are: groups that touch a tensor whose name matches one of these regular
        expressions, or those that `obverse.graph.Dependencies.keep` has marked.
    rounding : int, optional
        Keep channel counts at multiples of this number, such as 8, where channels go at all.
    tolerance : float
        Largest output difference allowed in the model's dtype, relative to the largest output or 1; in float64 it is
        1e-10.

    Returns
    -------
    small : torch.nn.Module
        Plain: no wrappers, no hooks, no new parameter names.
    certificate : Certificate

    Raises
    ------
    InvalidArgumentError
        If the model does not run on the inputs, or an argument is out of range.
    """
    if rounding is not None and (type(rounding) is not int or rounding < 1):
        raise InvalidArgumentError(f"rounding must be a whole number, at least 1, or None; got {rounding!r}")
    if not (isinstance(tolerance, int | float) and math.isfinite(tolerance) and tolerance >= 0):
        raise InvalidArgumentError(f"tolerance must be a finite number, at least 0; got {tolerance!r}")
    inputs = as_inputs(example_inputs)
    model = unwrapped(model)
    know = analyze(model, inputs)
    if keep is not None:
        _pin_kept(know, keep)
    probes = Probes(inputs)
    verdict, trouble = _workable(model, know, probes, rounding, widest(model, inputs))
    done = rebuild(model, know, verdict)
    differences = _differences(model, done.model, probes, know, verdict)
    worst = [one for one in differences if not one.difference <= _allowed(one, tolerance)]
    if worst:
        one = worst[0]
        trouble.append(
            f"refused: outputs differ by {one.difference:.2g} on {one.inputs} inputs in {one.dtype}; nothing goes"
        )
        verdict = judge(know, only=(), why=dict.fromkeys(verdict.gone(), trouble[-1]))
        done = rebuild(model, know, verdict)
        differences = _differences(model, done.model, probes, know, verdict)
    return done.model, _certificate(model, know, verdict, done, differences, inputs, trouble)


def _workable(
    model: nn.Module, know: Knowledge, probes: Probes, rounding: int | None, dtype: torch.dtype
) -> tuple[Verdict, list[str]]:
    """The largest plan that runs and computes the same on every probe, and what had to be left out of it."""
    verdict = judge(know, rounding)
    gone = verdict.gone()
    if not gone:
        return verdict, []
    twin = plain_copy(model).eval()
    twin = twin.double() if dtype == torch.float64 else twin
    expected = probes.outputs(twin, dtype)
    faults: list[str] = []

    def works(roots: Sequence[int]) -> bool:
        fault = probes.fault(rebuild(twin, know, judge(know, rounding, only=roots)).model, expected, dtype)
        if fault:
            faults.append(fault)
        return not fault

    if works(gone):
        return verdict, []
    fault = faults[0]
    names: dict[int, list[str]] = {root: [one.tensor for one in group.slices] for root, group in grouped(know)}
    bad = culprits(gone, lambda root: pattern_of(names.get(root, [str(root)])), works)
    reason = f"left out: {fault}"
    tensors = sorted({name for root in bad for name in names.get(root, [])})
    shown = ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")
    note = f"{shown} stay whole: {fault} when they become smaller"
    return judge(know, rounding, only=set(gone).difference(bad), why=dict.fromkeys(bad, reason)), [note]


def _pin_kept(know: Knowledge, keep: str | Sequence[str] | Dependencies) -> None:
    """Pin what is asked to stay."""
    if not isinstance(keep, Dependencies):
        patterns = [keep] if isinstance(keep, str) else list(keep)
        known = Dependencies(tuple(group for _, group in grouped(know)))
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise InvalidArgumentError(f"keep takes regular expressions or Dependencies; got {pattern!r}")
            known = known.keep(pattern)
        keep = known
    for group in keep:
        if group.kept is None:
            continue
        for one in group.slices:
            labels = know.axes.get(one.tensor, {}).get(one.axis)
            if labels is None or max(one.indices) >= len(labels):
                raise InvalidArgumentError(f"the dependencies given are of another model: {one.tensor} axis {one.axis}")
            know.channels.pin(labels[list(one.indices)], group.kept)


def _allowed(one: Difference, tolerance: float) -> float:
    return (1e-10 if one.dtype == "float64" else tolerance) * max(1.0, one.scale)


def _differences(
    model: nn.Module, small: nn.Module, probes: Probes, know: Knowledge, verdict: Verdict
) -> list[Difference]:
    """In float64 the same plan is carried out on the model in float64, so that rounding does not hide a fault."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    found = []
    if widest(model, probes.inputs["given"]) == torch.float64:
        wide = plain_copy(model).eval().double()
        found = probes.differences(wide, rebuild(wide, know, verdict).model, torch.float64)
    if dtype != torch.float64:
        found += probes.differences(plain_copy(model).eval(), plain_copy(small).eval(), dtype)
    return found


def _cost(model: nn.Module, inputs: Inputs) -> Cost:
    held = {id(t): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return Cost(parameters(model), macs(plain_copy(model), inputs.copied()), sum(held.values()))


def _certificate(
    model: nn.Module,
    know: Knowledge,
    verdict: Verdict,
    done: Rebuilt,
    differences: list[Difference],
    inputs: Inputs,
    trouble: list[str],
) -> Certificate:
    return Certificate(
        _cost(model, inputs),
        _cost(done.model, inputs),
        differences,
        done.changes,
        done.folded,
        _refusals(know, verdict),
        [*dict.fromkeys(know.notes), *trouble, *_narrow(differences)],
    )


def _narrow(differences: list[Difference]) -> list[str]:
    if any(one.dtype == "float64" for one in differences):
        return []
    return [f"the model does not run in float64: its outputs were compared in {differences[0].dtype} alone"]


def _refusals(know: Knowledge, verdict: Verdict) -> list[Refusal]:
    """Slices that are zero, along any axis with channels, and stay all the same."""
    found: list[Refusal] = []
    tensors = dict(know.model.named_parameters())
    for name, held in know.axes.items():
        weight = tensors.get(name)
        if weight is None or weight.ndim < 2:
            continue
        for axis, labels in held.items():
            stays = labels[_all_zero(weight, axis) & verdict.keeps(labels)]
            reasons = Counter(verdict.reasons.get(int(r), "it is read") for r in verdict.root[stays])
            found += [Refusal(f"{name} axis {axis}", count, reason) for reason, count in reasons.items()]
    for name, reason in know.fixed.items():
        weight = tensors.get(name)
        if name not in know.axes and weight is not None and weight.ndim > 1:
            counts = {axis: int(_all_zero(weight, axis).sum()) for axis in (0, 1)}
            found += [Refusal(f"{name} axis {axis}", count, reason) for axis, count in counts.items() if count]
    return found


def _all_zero(weight: torch.Tensor, axis: int) -> torch.Tensor:
    return (weight.detach() == 0).cpu().movedim(axis, 0).reshape(weight.shape[axis], -1).all(1)
