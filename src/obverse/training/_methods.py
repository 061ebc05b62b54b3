"""The methods a comparison knows: faces of a regularizer, and what they must be measured against."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InvalidArgumentError, UnknownNameError
from ._faces import face_names
from ._penalty import build_penalty
from ._recipe import PenaltyChoice

__all__ = ["DENSE", "MAGNITUDE", "SMALL", "Method", "parse_method", "parse_methods"]

DENSE, SMALL, MAGNITUDE = "dense", "small", "magnitude"
# These choose weights by a rule of their own; a penalty would have no say.
_WITHOUT_PENALTY = (DENSE, SMALL, MAGNITUDE, "random")


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes
    ----------
    name : str
        As it was given, such as ``proximal`` or ``mcp:kappa=2@reweighted``.
    face : str
        Of the recipe; ``none`` for ``dense`` and ``small``.
    penalty : PenaltyChoice or None
        None for what the face implies.
    """

    name: str
    face: str
    penalty: PenaltyChoice | None = None


def parse_method(text: str) -> Method:
    """A method from ``proximal``, ``dense``, ``log-sum@proximal`` or ``mcp:kappa=2@reweighted``.

    Raises
    ------
    UnknownNameError
        When there is no such method, face or penalty.
    InvalidArgumentError
        When the penalty refuses a parameter, or the method takes no penalty.
    """
    name = re.sub(r"\s+", "", text)
    penalty, at, face = name.rpartition("@")
    if face in (DENSE, SMALL):
        method = Method(name, "none")
    elif face == "none" or face not in face_names():
        raise UnknownNameError("method", text.strip(), [DENSE, SMALL, *(n for n in face_names() if n != "none")])
    elif at:
        choice = PenaltyChoice.from_text(penalty)
        build_penalty(choice)
        method = Method(name, face, choice)
    else:
        method = Method(name, face)
    if at and face in _WITHOUT_PENALTY:
        raise InvalidArgumentError(f"method {name}: {face} takes no penalty")
    return method


def parse_methods(given: str | Iterable[str]) -> list[Method]:
    """Methods from a sequence, or from one text with commas, each once.

    Parameters of a penalty are separated by commas too: what has the form ``name=number`` belongs to the method
    before it.
    """
    if isinstance(given, str):
        parts: list[str] = []
        for part in given.split(","):
            if parts and re.match(r"\s*\w+\s*=", part):
                parts[-1] += f",{part}"
            elif part.strip():
                parts.append(part)
        given = parts
    methods = list({method.name: method for method in map(parse_method, given)}.values())
    if not methods:
        raise InvalidArgumentError("name at least one method, such as proximal")
    return methods
