"""Penalties by name."""

from __future__ import annotations

import re
from importlib import import_module
from types import MappingProxyType
from typing import Any

from ..errors import InvalidArgumentError, UnknownNameError
from ._base import Penalty

__all__ = ["catalogue", "penalty"]

# Where each penalty lives; its module is loaded when the penalty is first asked for.
_HOMES = MappingProxyType(
    {
        "ridge": ("_power", "Ridge"),
        "lasso": ("_power", "Lasso"),
        "lp": ("_power", "Lp"),
        "log-sum": ("_log_sum", "LogSum"),
        "log2-sum": ("_smooth", "Log2Sum"),
        "mcp": ("_plateau", "MCP"),
        "scad": ("_plateau", "SCAD"),
        "capped-l1": ("_plateau", "CappedL1"),
        "l0": ("_count", "L0"),
        "targeted-dropout": ("_plateau", "TargetedDropout"),
        "standout": ("_smooth", "Standout"),
        "variational-dropout": ("_variational", "VariationalDropout"),
        "empirical-bayes": ("_empirical_bayes", "EmpiricalBayes"),
        "hard-concrete": ("_gates", "HardConcrete"),
        "concrete-dropout": ("_gates", "ConcreteDropout"),
    }
)
_POWER = re.compile(r"l(\d+(?:\.\d*)?|\.\d+)")


def catalogue() -> dict[str, type[Penalty]]:
    """Every penalty by name.

    Returns
    -------
    dict of str to class
        A new dictionary, in the order of the documentation.
    """
    return {name: _load(name) for name in _HOMES}


def penalty(spec: str | Penalty, **parameters: float) -> Penalty:
    """A penalty from its name, or the penalty itself.

    Parameters
    ----------
    spec : str or Penalty
        A name such as ``"log-sum"``; a power such as ``"l0.5"`` (``"l0"`` counts nonzeros); a name with
        parameters such as ``"log-sum:epsilon=0.1"`` or ``"scad:a=3,threshold=0.5"``; or a penalty object,
        which is returned as it is.
    **parameters : float
        Constructor parameters; they win over those in the text.

    Raises
    ------
    UnknownNameError
        The name is not in the catalogue.
    InvalidArgumentError
        A parameter is unknown or out of range, or an object came with parameters.
    """
    if isinstance(spec, Penalty):
        if parameters:
            raise InvalidArgumentError(
                f"parameters {sorted(parameters)} go with a name; {spec!r} is a penalty already, construct it with them"
            )
        return spec
    if not isinstance(spec, str):
        raise InvalidArgumentError(f"a penalty is given by a name or a Penalty object, got {spec!r}")
    name, _, text = spec.partition(":")
    name = name.strip()
    arguments: dict[str, Any] = {**_parse(text, spec), **parameters}
    power = _POWER.fullmatch(name)
    if power and float(power[1]) > 0:
        name, arguments = "lp", {"p": float(power[1]), **arguments}
    elif power:
        name = "l0"
    if name not in _HOMES:
        raise UnknownNameError("penalty", name, _HOMES)
    return _construct(_load(name), arguments)


def _construct(cls: type[Penalty], arguments: dict[str, Any]) -> Penalty:
    known = list(getattr(cls, "__dataclass_fields__", {}))
    known = [name for name in known if name != "name"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        allowed = f"it takes {', '.join(known)}" if known else "it takes none"
        raise InvalidArgumentError(f"{cls.__name__} has no parameter {', '.join(unknown)}; {allowed}")
    return cls(**arguments)


def _parse(text: str, spec: str) -> dict[str, float]:
    arguments: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        try:
            if not equals:
                raise ValueError
            arguments[key.strip()] = float(value)
        except ValueError:
            raise InvalidArgumentError(
                f"write parameters as 'name:key=number,...'; cannot read {part!r} in {spec!r}"
            ) from None
    return arguments


def _load(name: str) -> type[Penalty]:
    module, cls = _HOMES[name]
    loaded: type[Penalty] = getattr(import_module(f".{module}", __package__), cls)
    return loaded
