"""What is recorded of a fitted model: its features, its path, and how its strength was chosen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..penalties import Penalty, Rescaled
from ._losses import LOSS_KINDS, LOSSES, curvatures
from ._model import LinearModel, described_penalty

__all__ = ["candidate_rows", "curve_of_errors", "feature_rows", "path_record", "penalty_text"]

Floats = npt.NDArray[np.float64]

# Curves of more features than this are not told apart on any picture.
_MOST_CURVES = 80


def penalty_text(penalty: Penalty) -> str:
    """A penalty as the command line writes it."""
    about = described_penalty(penalty)
    numbers = ",".join(f"{name}={value:.4g}" for name, value in about["parameters"].items())
    return f"{about['name']}:{numbers}" if numbers else str(about["name"])


def feature_rows(
    estimator: Any, model: LinearModel, X: Any, y: npt.NDArray[Any], weights: Floats | None
) -> dict[str, Any]:
    """The selected features from the most important on, and the strength of the dual dropout.

    The importance of a feature is the size of its coefficient (of its row of coefficients, where there are several)
    times the feature's standard deviation. The keep probability is that of the dropout that adds, to second order, the
    penalty's own pull: ``eta / (eta + alpha / h)``, with ``h`` the curvature of the mean loss along the coefficient as
    the penalty sees it. Source: derived in docs/theory.md, section 2.4.
    """
    coef = np.atleast_2d(np.asarray(model.coef, dtype=np.float64))
    index = model.selected
    share = np.full(X.shape[0], 1 / X.shape[0]) if weights is None else weights / weights.sum()
    columns = _columns(X, index)
    deviation = np.sqrt(_spread(columns, share))
    unit = deviation if bool(getattr(estimator, "standardize", False)) else np.ones(index.size)
    sizes = np.sqrt((coef[:, index] ** 2).sum(axis=0))
    curvature = np.zeros(index.size)
    for values, bend in zip(coef[:, index], _bends(estimator, model, X, y), strict=True):
        part = share * bend
        total = part.sum()
        spread = _spread(columns, part / total) * total if total > 0 else np.zeros(index.size)
        curvature += spread * np.divide(values**2, sizes**2, out=np.zeros_like(values), where=sizes > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        strengths = (model.alpha or 0.0) * unit**2 / curvature
    penalty = getattr(estimator, "penalty_", None)
    frequencies = getattr(estimator, "selection_frequencies_", None)
    names = model.feature_names or tuple(f"x{i}" for i in range(model.n_features_in))
    rows: list[dict[str, Any]] = []
    for place, feature in enumerate(index.tolist()):
        row: dict[str, Any] = {"name": names[feature], "importance": float(sizes[place] * deviation[place])}
        row["coefficient"] = float(coef[0, feature]) if coef.shape[0] == 1 else float(sizes[place])
        if coef.shape[0] > 1:
            row["coefficients"] = coef[:, feature].tolist()
        if isinstance(penalty, Penalty) and 0 < strengths[place] < math.inf:
            keep = penalty.keep_probability(np.float64(sizes[place] * unit[place]), float(strengths[place]))
            row["keep_probability"] = float(keep)
        if frequencies is not None:
            row["frequency"] = float(frequencies[feature])
        rows.append(row)
    rows.sort(key=lambda row: -row["importance"])
    usable = strengths[np.isfinite(strengths) & (strengths > 0)]
    faces: dict[str, float] = {}
    if usable.size:
        faces["strength"] = float(np.median(usable))
    if isinstance(penalty, Rescaled):
        faces |= {"width": penalty.width, "height": penalty.height}
    return {"features": rows, "faces": faces}


def path_record(estimator: Any, model: LinearModel, X: Any, weights: Floats | None) -> dict[str, Any]:
    """The coefficients along the path times their features' standard deviation; with several outputs, their norm."""
    path = getattr(estimator, "path_", None)
    if path is None:
        return {}
    coefs: Any = path.coefs
    coefs = coefs if isinstance(coefs, np.ndarray) else coefs.toarray()
    table: Floats = np.sqrt((coefs**2).sum(axis=1)) if coefs.ndim == 3 else coefs
    share = np.full(X.shape[0], 1 / X.shape[0]) if weights is None else weights / weights.sum()
    ever = np.flatnonzero((table != 0).any(axis=0))
    scaled = table[:, ever] * np.sqrt(_spread(_columns(X, ever), share))
    kept = set(model.selected.tolist())
    last = np.abs(scaled).max(axis=0) if scaled.size else np.zeros(0)
    chosen = _row_of(path.alphas, model.alpha)
    order = sorted(
        range(ever.size),
        key=lambda place: (int(ever[place]) not in kept, -abs(scaled[chosen, place]), -last[place]),
    )
    names = model.feature_names or tuple(f"x{i}" for i in range(model.n_features_in))
    curves = [
        {
            "name": names[int(ever[place])],
            "selected": int(ever[place]) in kept,
            "values": scaled[:, place].tolist(),
        }
        for place in order[:_MOST_CURVES]
    ]
    return {
        "alphas": np.asarray(path.alphas).tolist(),
        "n_features": (table != 0).sum(axis=1).tolist(),
        "curves": curves,
        "features": int(ever.size),
    }


def _row_of(alphas: Floats, alpha: float | None) -> int:
    """The place on the path that is nearest to alpha, in its logarithm."""
    if alpha is None or alpha <= 0 or np.size(alphas) == 0:
        return 0
    usable = np.where(np.asarray(alphas) > 0, alphas, np.finfo(np.float64).tiny)
    return int(np.argmin(np.abs(np.log(usable) - math.log(alpha))))


def _columns(X: Any, index: npt.NDArray[np.int64]) -> Floats:
    part: Any = X[:, index]
    dense: Floats = np.asarray(part if isinstance(part, np.ndarray) else part.toarray(), dtype=np.float64)
    return dense


def _spread(columns: Floats, share: Floats) -> Floats:
    """Weighted variance of columns; the weights sum to 1."""
    center = share @ columns
    spread: Floats = share @ (columns - center) ** 2
    return spread


def _bends(estimator: Any, model: LinearModel, X: Any, y: npt.NDArray[Any]) -> list[Floats]:
    """Second derivative of every row's loss along the linear part, one array for each output."""
    if model.loss == "multinomial":
        probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
        return [p * (1 - p) for p in probabilities.T]
    linear = np.asarray(model.decision_function(X), dtype=np.float64)
    if linear.ndim == 2:
        return [np.ones(linear.shape[0])] * linear.shape[1]
    target = np.zeros(linear.size) if model.classes is not None else np.asarray(y, dtype=np.float64)
    delta = float(getattr(estimator, "delta", math.inf))
    return [np.asarray(curvatures(LOSS_KINDS[model.loss], target, linear, delta))]


_CRITERIA = {"bic": "BIC", "ebic": "extended BIC"}


def curve_of_errors(estimator: Any, loss: str, folds: int) -> dict[str, Any]:
    """The values from which alpha was chosen, for the penalty that was chosen; empty for stability selection."""
    values, spreads, measure, factor = _table(estimator, loss)
    if values is None:
        return {}
    row = int(estimator.shape_)
    alphas, found = np.asarray(estimator.shape_alphas_)[row], values[row]
    known = np.isfinite(found) & np.isfinite(alphas)
    record: dict[str, Any] = {
        "alphas": alphas[known].tolist(),
        "errors": (factor * found[known]).tolist(),
        "measure": measure,
        "title": "Cross-validated error" if spreads is not None else "Criterion",
    }
    if spreads is not None:
        record |= {"standard_errors": (factor * spreads[row][known]).tolist(), "folds": folds}
    return record


def candidate_rows(estimator: Any, loss: str) -> list[dict[str, Any]]:
    """Every penalty and width that took part, at its best alpha."""
    values, spreads, _, factor = _table(estimator, loss)
    if values is None:
        return []
    rows = []
    for place, (penalty, found) in enumerate(zip(estimator.shapes_, values, strict=True)):
        if not np.isfinite(found).any():
            continue
        best = int(np.nanargmin(np.where(np.isfinite(found), found, np.nan)))
        row: dict[str, Any] = {
            "name": penalty_text(penalty),
            "error": float(factor * found[best]),
            "alpha": float(np.asarray(estimator.shape_alphas_)[place, best]),
            "chosen": place == int(estimator.shape_),
        }
        if spreads is not None:
            row["standard_error"] = float(factor * spreads[place, best])
        rows.append(row)
    return rows


def _table(estimator: Any, loss: str) -> tuple[Floats | None, Floats | None, str, float]:
    """Values by penalty and alpha, their standard errors, what they are, and the factor to show them with."""
    errors = getattr(estimator, "cv_errors_", None)
    if errors is not None:
        known = LOSSES[loss]
        return np.asarray(errors), np.asarray(estimator.cv_standard_errors_), known.measure, known.factor
    values = getattr(estimator, "criterion_values_", None)
    return None if values is None else np.asarray(values), None, _CRITERIA.get(estimator.criterion, ""), 1.0
