"""Formulas in one variable, read without executing anything."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError

__all__ = ["parse_expression"]

Floats = npt.NDArray[np.float64]

_MAX_LENGTH = 500
_MAX_DEPTH = 40
_MAX_EXPONENT = 100.0


def _sigmoid(x: Any) -> Any:
    from scipy.special import expit

    return expit(x)


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "exp": (np.exp, 1),
    "log": (np.log, 1),
    "log1p": (np.log1p, 1),
    "sqrt": (np.sqrt, 1),
    "abs": (np.abs, 1),
    "tanh": (np.tanh, 1),
    "sigmoid": (_sigmoid, 1),
    "minimum": (np.minimum, 2),
    "maximum": (np.maximum, 2),
    "where": (np.where, 3),
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse_expression(text: str) -> Callable[[Floats], Floats]:
    """Turn a formula such as ``"1/(1+exp(-w))"`` into a function of NumPy arrays.

    Allowed are numbers, the variable ``w``, ``+ - * / **``, comparisons with ``< <= > >=``, and the functions exp, log,
    log1p, sqrt, abs, tanh, sigmoid, minimum, maximum and where. Nothing is ever evaluated as Python.

    Parameters
    ----------
    text : str
        At most 500 characters, at most 40 levels deep, numbers as exponents at most 100.

    Raises
    ------
    InvalidArgumentError
        With the part of the formula that is not allowed.
    """
    if not isinstance(text, str):
        raise InvalidArgumentError(f"a formula is given as text, got {type(text).__name__}")
    if len(text) > _MAX_LENGTH:
        raise InvalidArgumentError(f"a formula may have {_MAX_LENGTH} characters, this one has {len(text)}")
    stripped = text.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own remarks about what is refused below
            tree = ast.parse(stripped, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = getattr(error, "offset", None)
        where = f" near position {place}" if place else ""
        raise InvalidArgumentError(f"cannot read the formula {text!r}{where}") from None
    evaluate = _compile(tree.body, stripped, 0)

    def function(w: Floats) -> Floats:
        with np.errstate(all="ignore"):
            values = np.asarray(evaluate(np.asarray(w, dtype=np.float64)), dtype=np.float64)
        return np.broadcast_to(values, np.shape(w)).copy()

    return function


def _compile(node: ast.expr, text: str, depth: int) -> Callable[[Floats], Any]:
    def refuse(reason: str) -> InvalidArgumentError:
        part = ast.get_source_segment(text, node) or text
        column = getattr(node, "col_offset", 0) + 1
        return InvalidArgumentError(f"in the formula, {part!r} at position {column}: {reason}")

    if depth > _MAX_DEPTH:
        raise refuse(f"nested more than {_MAX_DEPTH} deep")
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise refuse("only numbers are allowed")
        try:
            number = np.float64(node.value)
        except OverflowError:
            raise refuse("number too large") from None
        if not np.isfinite(number):
            raise refuse("number too large")
        return lambda w: number
    if isinstance(node, ast.Name):
        if node.id != "w":
            raise refuse("the only variable is w")
        return lambda w: w
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand = _compile(node.operand, text, depth + 1)
        return (lambda w: -operand(w)) if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _compile(node.left, text, depth + 1), _compile(node.right, text, depth + 1)
        if isinstance(node.op, ast.Pow):
            _check_exponent(node.right, refuse)
        combine = _BINARY[type(node.op)]
        return lambda w: combine(left(w), right(w))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        left, right = _compile(node.left, text, depth + 1), _compile(node.comparators[0], text, depth + 1)
        compare = _COMPARISONS[type(node.ops[0])]
        # As numbers, with which one can go on calculating.
        return lambda w: np.asarray(compare(left(w), right(w)), dtype=np.float64)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id not in _FUNCTIONS:
            raise refuse(f"unknown function; known are {', '.join(_FUNCTIONS)}")
        function, count = _FUNCTIONS[node.func.id]
        if len(node.args) != count or any(isinstance(a, ast.Starred) for a in node.args):
            raise refuse(f"{node.func.id} takes {count} argument{'s' * (count > 1)}")
        arguments = [_compile(a, text, depth + 1) for a in node.args]
        return lambda w: function(*(a(w) for a in arguments))
    raise refuse("not allowed; use numbers, w, + - * / **, comparisons and the listed functions")


def _check_exponent(node: ast.expr, refuse: Callable[[str], InvalidArgumentError]) -> None:
    bare = node.operand if isinstance(node, ast.UnaryOp) else node
    if isinstance(bare, ast.Constant) and isinstance(bare.value, (int, float)) and abs(bare.value) > _MAX_EXPONENT:
        raise refuse(f"an exponent may be at most {_MAX_EXPONENT:g}")
