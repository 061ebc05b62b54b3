"""Which parameters of a model are regularized, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from .._core.checks import fraction, is_number
from ..errors import InvalidArgumentError, UnknownNameError
from ..penalties import Penalty
from ._budget import Budget

__all__ = ["Match", "Rule", "Selected", "as_budget", "output_parameter", "regularized", "select"]

Match = str | re.Pattern[str] | type[nn.Module] | Sequence["str | re.Pattern[str] | type[nn.Module]"]

_WILDCARD = re.compile(r"[*?\[]")
_NORMALIZATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Rule:
    """How the parameters that match are treated; what a rule leaves out comes from the `Sparsifier`.

    Parameters
    ----------
    match : str, compiled regular expression, module type, or a sequence of these
        A string is the name of a parameter (``"features.0.weight"``) or of a module (``"features.0"``, all that is
        below it), with shell wildcards (``"encoder.*"``). A regular expression is searched in the parameter's name.
        A module type (``nn.Linear``) takes the parameters its instances own.
    penalty : str or Penalty, optional
    strength : float, optional
    budget : Budget or float, optional
        A budget of its own: these parameters land on it together, and leave the common budget.
    groups : str, optional
    skip : bool, default False
        Leave the matching parameters alone.
    floor, ceiling : float, optional
        Fractions of its groups that each of these tensors keeps at least and at most under a budget, in [0, 1]; by
        default the budget's.

    Notes
    -----
    Where several rules match, the last one decides. Without a rule every matrix-like parameter (two or more
    dimensions) outside normalization layers is regularized; biases and normalization parameters only when a rule
    names them by parameter name or regular expression.
    """

    match: Match
    penalty: str | Penalty | None = None
    strength: float | None = None
    budget: Budget | float | None = None
    groups: str | None = None
    skip: bool = False
    floor: float | None = None
    ceiling: float | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.strength is not None:
            raise InvalidArgumentError(f"{self}: give a budget or a strength, not both")
        for name in ("floor", "ceiling"):
            value = getattr(self, name)
            if value is not None:
                fraction(f"rule {self.match!r}: {name}", value)
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise InvalidArgumentError(f"rule {self.match!r}: floor {self.floor:g} is above ceiling {self.ceiling:g}")
        if self.budget is not None:
            # An object of its own: a rule's budget is met by itself, also where it equals the common one.
            object.__setattr__(self, "budget", replace(as_budget(self.budget)))


def as_budget(value: Any) -> Budget:
    """A Budget from itself or from a sparsity."""
    if isinstance(value, Budget):
        return value
    if is_number(value):
        return Budget(float(value))
    raise InvalidArgumentError(f"budget must be a Budget or a sparsity such as 0.95, got {value!r}")


def output_parameter(model: nn.Module) -> nn.Parameter | None:
    """The matrix registered last, normally that of the output layer; None where there is no other."""
    eligible = [p for _, p, owners in _parameters(model) if _regularized_by_default(p, owners)]
    return eligible[-1] if len(eligible) > 1 else None


@dataclass(frozen=True)
class Selected:
    """A parameter that is regularized: its names (more than one where it is tied), its owner, its rule."""

    names: tuple[str, ...]
    parameter: nn.Parameter
    owners: tuple[tuple[nn.Module, str], ...]
    rule: Rule

    @property
    def name(self) -> str:
        return self.names[0]


def select(model: nn.Module, rules: Sequence[Rule], default: Rule) -> list[Selected]:
    """The parameters to regularize, each once, with the rule that decides.

    Raises
    ------
    InvalidArgumentError
        If a rule matches nothing, or only frozen parameters, or nothing is left to regularize.
    """
    candidates = _parameters(model)
    filled = [_filled(rule, default) for rule in rules]  # once, so that members of one rule share its budget
    matched = [0] * len(rules)
    selected: list[Selected] = []
    for names, parameter, owners in candidates:
        eligible = _regularized_by_default(parameter, owners)
        rule: Rule | None = default if eligible else None
        for index, candidate in enumerate(rules):
            if _matches(candidate.match, names, owners, eligible=eligible):
                matched[index] += 1
                rule = filled[index]
        if rule is None or rule.skip:
            continue
        if not parameter.requires_grad or parameter.numel() == 0:
            continue
        selected.append(Selected(names, parameter, owners, rule))
    for rule_, count in zip(rules, matched, strict=True):
        if count == 0:
            names_ = [name for names, _, _ in candidates for name in names]
            if isinstance(rule_.match, str):
                raise UnknownNameError("parameter or pattern (the rule matches nothing)", rule_.match, names_)
            raise InvalidArgumentError(f"the rule {rule_.match!r} matches no parameter. Known: {', '.join(names_)}.")
        if not rule_.skip and all(
            not parameter.requires_grad
            for names, parameter, owners in candidates
            if _matches(rule_.match, names, owners, eligible=_regularized_by_default(parameter, owners))
        ):
            raise InvalidArgumentError(
                f"the rule {rule_.match!r} matches only frozen parameters (requires_grad=False); unfreeze them or "
                "leave the rule out"
            )
    if not selected:
        raise InvalidArgumentError("nothing to regularize: the model has no trainable weight that the rules leave in")
    return selected


def regularized(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Name and tensor of the weights that a `Sparsifier` without rules regularizes, each once.

    Raises
    ------
    InvalidArgumentError
        If there are none.
    """
    return [(selected.name, selected.parameter) for selected in select(model, (), Rule(match="*", strength=0.0))]


def _filled(rule: Rule, default: Rule) -> Rule:
    """The rule with what it leaves open taken from the default; it stays different from the default by its match."""
    has_aim = rule.budget is not None or rule.strength is not None
    filled = replace(
        rule,
        penalty=default.penalty if rule.penalty is None else rule.penalty,
        groups=default.groups if rule.groups is None else rule.groups,
        strength=rule.strength if has_aim else default.strength,
    )
    if not has_aim:
        # The very object: a copy would be a budget of its own.
        object.__setattr__(filled, "budget", default.budget)
    return filled


def _parameters(
    model: nn.Module,
) -> list[tuple[tuple[str, ...], nn.Parameter, tuple[tuple[nn.Module, str], ...]]]:
    """Every parameter once, with all its names and owners."""
    found: dict[int, tuple[list[str], nn.Parameter, list[tuple[nn.Module, str]]]] = {}
    for prefix, module in model.named_modules():
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            entry = found.setdefault(id(parameter), ([], parameter, []))
            entry[0].append(f"{prefix}.{local}" if prefix else local)
            entry[2].append((module, local))
    return [(tuple(names), parameter, tuple(owners)) for names, parameter, owners in found.values()]


def _regularized_by_default(parameter: torch.Tensor, owners: tuple[tuple[nn.Module, str], ...]) -> bool:
    return parameter.ndim >= 2 and not any(isinstance(module, _NORMALIZATION) for module, _ in owners)


def _matches(
    match: Match, names: tuple[str, ...], owners: tuple[tuple[nn.Module, str], ...], *, eligible: bool
) -> bool:
    """Whether a rule's ``match`` takes this parameter; ``eligible`` parameters are those regularized by default.

    What is named outright (a full name, ``*.bias``, a regular expression) is taken whatever it is; a wildcard, a
    module's name or a type takes eligible parameters only, so that it does not reach biases by accident.
    """
    if isinstance(match, re.Pattern):
        return any(match.search(name) for name in names)
    if isinstance(match, str):
        outright = not _WILDCARD.search(match.rpartition(".")[2])
        if any(fnmatchcase(name, match) for name in names):
            return outright or eligible
        return eligible and any(fnmatchcase(name, f"{match}.*") for name in names)
    if isinstance(match, type):
        return eligible and any(isinstance(module, match) for module, _ in owners)
    return any(_matches(part, names, owners, eligible=eligible) for part in match)
