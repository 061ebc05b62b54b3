"""The result of a diagnosis: numbers, and how they read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.text import aligned
from . import deep_linear

__all__ = ["ModelDiagnosis", "effective_rank", "stable_rank"]

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelDiagnosis:
    """What dropout does to a trained model; ``print`` it for a table.

    Second moments are means over the examples, so singular values are those of a matrix with one row per output and
    one column per example, divided by the square root of their number.

    Attributes
    ----------
    kind : str
        ``"last layer"`` or ``"linear stack"``.
    layer : str
        Name of the last executed linear layer.
    units, outputs, examples : int
        Its inputs (what the mask multiplies), its outputs, and how many examples were read.
    loss : str
        ``"squared"``, ``"cross-entropy"`` or ``"logistic"``.
    laws : tuple of str
        Law of the mask on every dropped layer, input to output.
    rate_source : str
        Where the rates came from.
    regularizer : float
        What dropout adds to the loss on average: exact for the squared loss, else the quadratic form
        ``(1/2) <Cbar, (U' H_L U) o h h'>``.
    exact : bool
        Whether ``regularizer`` is exact.
    layer_values : dict of str to float
        Its share of every dropped layer, by the name of the linear layer that reads the masked units.
    unit_shares : dict of str to array (units,)
        Share of each unit in its layer's value; the sum is 1.
    squared_regularizer : float
        ``Omega = <Cbar, U'U o H>``, the regularizer of the squared loss, which the bounds below are about.
    mean_cost : float
        Part of ``squared_regularizer`` that a shift of the masked units to mean zero would save, without a change of
        any prediction.
    bound, strength, ratio : float
        ``strength * ||.||^2`` of the (centered) product, in the nuclear or spectral k-support norm, and
        ``squared_regularizer / bound``; NaN where the law has no closed form or the bound is 0.
    equalization_gap : float
        ``squared_regularizer`` minus the least of any network with the same (centered) product.
    singular_values : array (n,)
        Of the (centered) predictions.
    target_singular_values : array (n,)
        Of the (centered) targets; for a linear stack of the part that a linear map of the inputs explains.
    predicted_singular_values : array (n,) or None
        At the optimum for the squared loss, were the features free; for a linear stack at its global optimum.
    fixed_singular_values : array (n,) or None
        At the optimum over the last layer alone, with the features as they are.
    effective_rank, stable_rank : float
        Of ``singular_values``: exponential of the entropy of their shares (Roy and Vetterli, 2007), and
        ``sum s^2 / max s^2``.
    predicted_rank : int or None
        Nonzero ``predicted_singular_values``.
    mean_squared_error, expected_loss : float or None
        Squared loss without masks, and with them; None for other losses.
    fixed_optimum, free_optimum : float or None
        Least expected squared loss over the last layer with these features, and with free features (for a linear stack
        over all of its weights); None for other losses.
    caveats : tuple of str
        What to keep in mind.
    stack : obverse.dropout.deep_linear.Diagnosis or None
        The whole stack, for a linear stack.
    """

    kind: str
    layer: str
    units: int
    outputs: int
    examples: int
    loss: str
    laws: tuple[str, ...]
    rate_source: str
    regularizer: float
    exact: bool
    layer_values: Mapping[str, float]
    unit_shares: Mapping[str, Vector]
    squared_regularizer: float
    mean_cost: float
    bound: float
    strength: float
    ratio: float
    equalization_gap: float
    singular_values: Vector
    target_singular_values: Vector
    predicted_singular_values: Vector | None
    fixed_singular_values: Vector | None
    effective_rank: float
    stable_rank: float
    predicted_rank: int | None
    mean_squared_error: float | None
    expected_loss: float | None
    fixed_optimum: float | None
    free_optimum: float | None
    caveats: tuple[str, ...]
    stack: deep_linear.Diagnosis | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and text, ready for JSON (NaN becomes None)."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name != "stack"}

    def __str__(self) -> str:
        form = "exact" if self.exact else "quadratic form"
        rows: list[tuple[str, Any]] = [(f"regularizer ({self.loss} loss, {form})", self.regularizer)]
        if len(self.layer_values) > 1:
            rows += [(f"  before {name!r}", value) for name, value in self.layer_values.items()]
        if not self.exact:
            rows.append(("regularizer of the squared loss", self.squared_regularizer))
        rows += [
            ("  saved by centered units", self.mean_cost),
            ("lower bound by the product", self.bound),
            ("  ratio", self.ratio),
            ("  equalization gap", self.equalization_gap),
            ("effective rank", self.effective_rank),
            ("stable rank", self.stable_rank),
            ("predicted rank", self.predicted_rank),
            ("squared error", self.mean_squared_error),
            ("expected loss under dropout", self.expected_loss),
            ("  least with these features", self.fixed_optimum),
            (f"  least with free {'weights' if self.stack else 'features'}", self.free_optimum),
        ]
        head = f"{self.kind} {self.layer!r}: {self.units} units, {self.outputs} outputs, {self.examples:,} examples"
        lines = [head, f"{', '.join(dict.fromkeys(self.laws))}: {self.rate_source}", ""]
        lines.append(aligned([(name, _number(value)) for name, value in rows if value is not None]))
        columns = [
            ("actual", self.singular_values),
            ("targets", self.target_singular_values),
            ("predicted", self.predicted_singular_values),
            ("fixed features", self.fixed_singular_values),
        ]
        shown = [(name, column) for name, column in columns if column is not None]
        most = 12
        table = [["singular values", *(name for name, _ in shown)]]
        for index in range(min(len(self.singular_values), most)):
            table.append([f"  {index + 1}", *(_number(column[index]) for _, column in shown)])
        lines += ["", aligned(table)]
        if len(self.singular_values) > most:
            lines.append(f"  and {len(self.singular_values) - most} more")
        return "\n".join([*lines, "", *(f"- {caveat}" for caveat in self.caveats)]).rstrip()


def effective_rank(values: Vector) -> float:
    """Exponential of the entropy of ``values / sum(values)``; 0 where all are 0."""
    total = float(values.sum())
    shares = values[values > 0] / total if total > 0 else np.ones(0)
    return float(np.exp(-(shares * np.log(shares)).sum())) if total > 0 else 0.0


def stable_rank(values: Vector) -> float:
    """``sum s^2 / max s^2``; 0 where all are 0."""
    top = float(values.max(initial=0.0))
    return float(((values / top) ** 2).sum()) if top > 0 else 0.0


def _number(value: float) -> str:
    return "-" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value.tolist()]
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
