"""Parameters of a penalty as nested parameters of the estimator that holds it."""

from __future__ import annotations

import inspect
from typing import Any, Self

from sklearn.base import BaseEstimator

from ..errors import InvalidArgumentError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named

__all__ = ["PenaltyParameters", "parameters_of", "with_parameters"]

_PREFIX = "penalty__"


def parameters_of(penalty: Any) -> dict[str, Any]:
    """Constructor parameters of a penalty that it holds under their names; of a name, those of the penalty it names."""
    if isinstance(penalty, str):
        try:
            penalty = penalty_named(penalty)
        except InvalidArgumentError:
            return {}
    if not isinstance(penalty, Penalty):
        return {}
    names = inspect.signature(type(penalty)).parameters
    own = {name: getattr(penalty, name) for name in names if hasattr(penalty, name)}
    nested = {
        f"{name}__{key}": value
        for name, part in own.items()
        if isinstance(part, Penalty)
        for key, value in parameters_of(part).items()
    }
    return {**own, **nested}


def with_parameters(penalty: Any, changes: dict[str, Any]) -> Penalty:
    """A new penalty with some parameters changed; nested ones as ``inner__name``.

    Raises
    ------
    InvalidArgumentError
        ``penalty`` is neither a name nor a penalty, or has no such parameter.
    """
    if not isinstance(penalty, str | Penalty):
        raise InvalidArgumentError(f"only one penalty has parameters to set; penalty is {penalty!r}")
    current = penalty_named(penalty)
    known = parameters_of(current)
    unknown = sorted(set(changes) - set(known))
    if unknown:
        takes = ", ".join(sorted(known)) or "none"
        raise InvalidArgumentError(f"{current!r} has no parameter {', '.join(unknown)}; it takes: {takes}")
    own = {name: value for name, value in known.items() if "__" not in name}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        name, nested, rest = key.partition("__")
        if nested:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, parts in inner.items():
        own[name] = with_parameters(own[name], parts)
    return type(current)(**own)


class PenaltyParameters(BaseEstimator):  # type: ignore[misc, unused-ignore]
    """An estimator whose ``penalty`` has parameters of its own, such as ``penalty__epsilon``.

    Penalties do not change: setting such a parameter replaces the penalty by a new one.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with ``deep``, also those of the penalty, as ``penalty__name``."""
        found: dict[str, Any] = super().get_params(deep=deep)
        if deep:
            found.update({_PREFIX + name: value for name, value in parameters_of(found.get("penalty")).items()})
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``penalty__name`` puts a new penalty with that parameter in place of this one."""
        nested = {name[len(_PREFIX) :]: value for name, value in params.items() if name.startswith(_PREFIX)}
        super().set_params(**{name: value for name, value in params.items() if not name.startswith(_PREFIX)})
        if nested:
            self.penalty: Any = with_parameters(self.penalty, nested)
        return self
