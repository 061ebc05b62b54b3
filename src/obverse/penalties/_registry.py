"""Penalties by name."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidArgumentError, UnknownNameError
from ._base import Penalty
from ._count import L0
from ._empirical_bayes import EmpiricalBayes
from ._gates import ConcreteDropout, HardConcrete
from ._log_sum import LogSum
from ._plateau import MCP, SCAD, CappedL1, TargetedDropout
from ._power import Lasso, Lp, Ridge
from ._smooth import Log2Sum, Standout
from ._variational import VariationalDropout

__all__ = ["catalogue", "penalty"]

_CATALOGUE: dict[str, type[Penalty]] = {
    cls.name: cls
    for cls in (
        *(Ridge, Lasso, Lp, LogSum, Log2Sum, MCP, SCAD, CappedL1, L0, TargetedDropout, Standout),
        *(VariationalDropout, EmpiricalBayes, HardConcrete, ConcreteDropout),
    )
}
_POWER = re.compile(r"l(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<top>\d+)/(?P<bottom>\d+))", re.ASCII)


def catalogue() -> dict[str, type[Penalty]]:
    """Every penalty by name.

    Returns
    -------
    dict of str to class
        A new dictionary, in the order of the documentation.
    """
    return dict(_CATALOGUE)


def penalty(spec: str | Penalty, **parameters: float) -> Penalty:
    """A penalty from its name, or the penalty itself.

    Parameters
    ----------
    spec : str or Penalty
        A name such as ``"log-sum"``; a power such as ``"l0.5"`` or ``"l2/3"`` (``"l0"`` counts nonzeros); a name with
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
    written = _parse(text, spec)
    power = _power(name)
    if power:
        if "p" in written:
            raise InvalidArgumentError(f"{spec!r} gives the power twice")
        name, written = "lp", {"p": power, **written}
    elif power == 0:
        name = "l0"
    arguments: dict[str, Any] = {**written, **parameters}
    if name not in _CATALOGUE:
        raise UnknownNameError("penalty", name, _CATALOGUE)
    return _construct(_CATALOGUE[name], arguments)


def _power(name: str) -> float | None:
    """The power that a name such as "l0.5" or "l2/3" states; None of any other name."""
    match = _POWER.fullmatch(name)
    if match is None:
        return None
    if match["number"]:
        return float(match["number"])
    return int(match["top"]) / int(match["bottom"]) if int(match["bottom"]) else None


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
            if not equals or not key.strip():
                raise ValueError
            number = float(value)
        except ValueError:
            raise InvalidArgumentError(
                f"write parameters as 'name:key=number,...'; cannot read {part!r} in {spec!r}"
            ) from None
        if key.strip() in arguments:
            raise InvalidArgumentError(f"{key.strip()} is given twice in {spec!r}")
        arguments[key.strip()] = number
    return arguments
