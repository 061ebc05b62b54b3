"""A fitted model as a table: which features it uses, and how much each matters."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.text import aligned

__all__ = ["Summary", "summarize"]

_MOST = 40


@dataclass(frozen=True)
class Summary:
    """Facts about a fit, and one row for every feature with a nonzero coefficient, the most important first.

    Attributes
    ----------
    facts : dict
        Penalty, alpha, numbers of features, objective, violation, and what is known of the choice.
    rows : list of dict
        ``feature``; ``coefficient``, a number, or a list with one for every output or class; ``importance``, its
        magnitude times the standard deviation of the column (the norm, over several outputs); ``keep_probability`` of
        the dropout that is the other face of the penalty, where the loss has one; ``frequency`` under stability
        selection, where that was done.
    """

    facts: dict[str, Any]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and dictionaries."""
        return {"facts": dict(self.facts), "rows": [dict(row) for row in self.rows]}

    def __str__(self) -> str:
        lines = [f"{name}: {_text(value)}" for name, value in self.facts.items()]
        if self.rows:
            names = list(self.rows[0])
            cells = [names, *([_text(row[name]) for name in names] for row in self.rows[:_MOST])]
            lines += ["", aligned(cells)]
        if len(self.rows) > _MOST:
            lines.append(f"... and {len(self.rows) - _MOST} more")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        facts = "".join(line([name, _text(value)], "td") for name, value in self.facts.items())
        parts = [f"<table><tbody>{facts}</tbody></table>"]
        if self.rows:
            names = list(self.rows[0])
            body = "".join(line([_text(row[name]) for name in names], "td") for row in self.rows[:_MOST])
            parts.append(f"<table><thead>{line(names, 'th')}</thead><tbody>{body}</tbody></table>")
        if len(self.rows) > _MOST:
            parts.append(f"<p>... and {len(self.rows) - _MOST} more</p>")
        return "".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summarize(estimator: Any) -> Summary:
    """The summary of a fitted estimator of this package."""
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    used = np.flatnonzero((coef != 0).any(axis=0))
    importance = _norms(coef) * estimator._deviation
    names = getattr(estimator, "feature_names_in_", None)
    kept = _kept(estimator)
    frequencies = getattr(estimator, "selection_frequencies_", None)
    rows = []
    for j in used[np.argsort(-importance[used], kind="stable")]:
        row: dict[str, Any] = {
            "feature": f"x{j}" if names is None else str(names[j]),
            "coefficient": float(coef[0, j]) if coef.shape[0] == 1 else coef[:, j].tolist(),
            "importance": float(importance[j]),
        }
        if kept is not None:
            row["keep_probability"] = float(kept[j])
        if frequencies is not None:
            row["frequency"] = float(frequencies[j])
        rows.append(row)
    facts: dict[str, Any] = {
        "model": type(estimator).__name__,
        "penalty": repr(estimator.penalty_),
        "alpha": float(estimator.alpha_),
        "features": f"{used.size} of {coef.shape[1]}",
        "intercept": _plain(estimator.intercept_),
        "objective": float(estimator.objective_),
        "violation": float(estimator.violation_),
        "converged": bool(estimator.converged_),
    }
    errors = getattr(estimator, "cv_errors_", None)
    if errors is not None:
        place = int(np.flatnonzero(estimator.shape_alphas_[estimator.shape_] == estimator.alpha_)[0])
        facts["held-out loss"] = float(errors[estimator.shape_, place])
        facts["its standard error"] = float(estimator.cv_standard_errors_[estimator.shape_, place])
    return Summary(facts, rows)


def _norms(coef: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = np.abs(coef).max(axis=0)
    scale = np.where(size > 0, size, 1.0)
    return np.asarray(np.sqrt(((coef / scale) ** 2).sum(axis=0)) * size)


def _plain(value: Any) -> Any:
    array = np.asarray(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else float(array[0]) if array.size == 1 else array.tolist()


def _kept(estimator: Any) -> npt.NDArray[np.float64] | None:
    """Keep probabilities ``eta / (eta + strength)`` of the dropout on columns brought to mean square 1.

    The penalty is a ridge of ``strength Omega'(w) / |w|`` for each coefficient, which noise of this variance over the
    column's mean square adds to the expected squared loss.
    """
    if estimator._loss != "squared" or getattr(estimator, "groups", None) is not None or estimator.alpha_ == 0:
        return None
    coef = np.atleast_2d(np.asarray(getattr(estimator, "coef_penalized_", estimator.coef_), dtype=np.float64))
    w, size, alpha = _norms(coef), estimator._size, float(estimator.alpha_)
    unit = size if estimator.standardize else np.ones(w.size)
    # With a width of alpha the penalty is alpha^2 Omega(w / alpha), whose eta is alpha^2 times that of Omega.
    seen, strength = (unit * w / alpha, 1.0) if estimator.width == "alpha" else (unit * w, alpha)
    factor = np.ones(w.size) if estimator.penalty_factor is None else np.asarray(estimator.penalty_factor, np.float64)
    with np.errstate(all="ignore"):
        # eta over the strength, in units in which neither leaves the range of a double.
        eta = np.asarray(estimator.penalty_.eta(seen), dtype=np.float64)
        odds = eta / (strength * factor) * (size / unit) ** 2
        kept = np.where(np.isinf(odds) | (factor == 0), 1.0, odds / (1 + odds))
    return np.asarray(np.where(np.isfinite(kept), kept, 0.0))
