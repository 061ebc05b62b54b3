"""From a table to a fitted, tested linear model and the record of it."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.text import one_line
from .._version import __version__
from ..errors import InvalidArgumentError, ObverseError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._choices import Choices, Task
from ._encoding import Encoding, refuse_missing
from ._fit_record import candidate_rows, curve_of_errors, feature_rows, path_record, penalty_text
from ._measures import confusion, measures
from ._model import LinearModel, described_penalty, linear_model
from ._model_file import plain
from ._table import Table, read_table
from ._target import loss_of, refuse_extremes, split_rows, target_values, task_of, weights_of

__all__ = ["fit_table", "penalties_of"]

Floats = npt.NDArray[np.float64]
_MOST_POINTS = 1000


def penalties_of(text: str) -> list[Penalty]:
    """The penalties in ``lasso,scad:a=3,threshold=0.5``: a part without a name belongs to the one before it.

    Raises
    ------
    InvalidArgumentError
        A name or a parameter is unknown, or there is none.
    """
    specs: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if "=" in part and ":" not in part and specs and ":" in specs[-1]:
            specs[-1] += f",{part}"
        elif part:
            specs.append(part)
    if not specs:
        raise InvalidArgumentError("give a penalty, such as mcp or log-sum:epsilon=0.1")
    return [penalty_named(spec) for spec in specs]


def fit_table(
    choices: Choices, *, tell: Callable[[str], None] = lambda _: None, command: str = ""
) -> tuple[LinearModel, dict[str, Any]]:
    """Fit a linear model to a table, and test it on rows that were held out.

    Parameters
    ----------
    choices : Choices
    tell : callable
        Is given a line of text at every stage.
    command : str
        For the record.

    Returns
    -------
    (LinearModel, dict)
        The record holds only types that JSON knows.

    Raises
    ------
    InvalidArgumentError
        For all that is wrong with the table or the choices, in one line.
    """
    start = time.perf_counter()
    penalties = penalties_of(choices.penalty)
    table = read_table(choices.data, as_text=choices.categorical)
    columns = _feature_columns(table, choices)
    n_read = table.n_rows
    table = _without_gaps(table, columns, choices)
    task, why = task_of(table.columns[choices.target], choices)
    y = target_values(table, choices, task)
    if task == "regression":
        refuse_extremes(table, choices.target, y)
    for name in columns:
        if table.columns[name].kind == "number":
            refuse_extremes(table, name, table.columns[name].values)
    weights = weights_of(table, choices)
    loss = loss_of(choices, task, y)
    train, test = split_rows(y, task, choices)
    if weights is not None and not weights[train].any():
        raise InvalidArgumentError(f"{table.where}: weights {choices.weights!r} are 0 in all training rows")
    left_out = "" if table.n_rows == n_read else f" ({n_read - table.n_rows:,} with missing values left out)"
    tell(f"{Path(choices.data).name}: {n_read:,} rows{left_out}, {len(columns)} columns; {task}{why}")
    encoding = Encoding.of(table.rows(train), columns, missing=choices.missing, categorical=choices.categorical)
    X = encoding.encode(table.rows(train)).X
    estimator = _estimator(choices, penalties, task, loss)
    tell(
        f"{_named(choices, penalties)}: {X.shape[0]:,} rows, {X.shape[1]:,} features, criterion {choices.criterion}"
        + (f", {choices.folds} folds" if choices.criterion == "cv" else "")
    )
    remarks = _fit(estimator, X, y[train], None if weights is None else weights[train])
    for remark in remarks:
        tell(f"warning: {remark}")
    model = linear_model(estimator, encoding=encoding, target=choices.target)
    record = {
        "obverse": __version__,
        "command": command,
        "settings": {name: value for name, value in asdict(choices).items() if value not in (None, ())},
        "versions": _versions(),
        "task": task,
        "loss": loss,
        "penalty": model.penalty,
        "alpha": model.alpha,
        "choice": _choice(choices),
        "remarks": remarks,
        "data": {
            "name": Path(choices.data).name,
            "target": choices.target,
            "weights": choices.weights,
            "rows": n_read,
            "dropped_rows": n_read - table.n_rows,
            "dropped_columns": list(choices.drop),
            "train": int(train.size),
            "test": int(test.size),
            "classes": None if model.classes is None else [str(label) for label in model.classes],
            "outputs": [str(label) for label in model.classes]
            if model.classes is not None and loss == "multinomial"
            else [choices.target],
        },
        "model": {
            "selected": int(model.selected.size),
            "features": model.n_features_in,
            "columns": len(encoding.needed(model.selected.tolist())),
            "intercept": np.asarray(model.intercept).tolist(),
            "violation": _number(estimator, "violation_"),
            "converged": bool(getattr(estimator, "converged_", True)),
        },
        **feature_rows(estimator, model, X, y[train], None if weights is None else _relative(weights[train])),
        "path": path_record(estimator, model, X, None if weights is None else _relative(weights[train])),
        "cv": curve_of_errors(estimator, loss, choices.folds),
        "candidates": candidate_rows(estimator, loss),
        "test": _tested(model, encoding, table, y, weights, train, test),
        "seconds": time.perf_counter() - start,
    }
    finished: dict[str, Any] = plain(record)
    kept = {name: finished[name] for name in ("obverse", "settings", "choice", "cv", "data")}
    kept["test"] = {name: finished["test"][name] for name in ("rows", "measures")} if finished["test"] else None
    return linear_model(estimator, encoding=encoding, target=choices.target, summary=kept), finished


# ---------------------------------------------------------------------------------------------- the table
def _feature_columns(table: Table, choices: Choices) -> list[str]:
    table.known(choices.target, "target")
    if choices.weights is not None:
        table.known(choices.weights, "weights")
    for name in choices.drop:
        if not table.has(name):
            table.known(name, "dropped")
    for name in choices.categorical:
        table.known(name, "categorical")
    if choices.weights == choices.target or choices.target in choices.drop:
        raise InvalidArgumentError(f"column {choices.target!r} is the target; it is neither weights nor left out")
    away = {choices.target, choices.weights, *choices.drop}
    table.require(name for name in table.doubled if name not in away)
    columns = [name for name in table.columns if name not in away]
    if not columns:
        raise InvalidArgumentError(f"{table.where} has no column besides the target {choices.target!r}")
    return columns


def _without_gaps(table: Table, columns: list[str], choices: Choices) -> Table:
    """The rows to work with; a target or a weight is never made up."""
    named = [choices.target, *([] if choices.weights is None else [choices.weights])]
    if choices.missing == "error":
        refuse_missing(table, [*columns, *named])
    if choices.missing == "median":
        refuse_missing(table, named, ways="a target or a weight is never filled in; use --missing drop")
    if choices.missing == "drop":
        kept = np.ones(table.n_rows, dtype=np.bool_)
        for name in (*columns, *named):
            kept &= ~table.columns[name].missing
        if not kept.any():
            raise InvalidArgumentError(
                f"{table.where} has no row without a missing value; fill them with --missing median, or leave columns "
                "out with --drop"
            )
        table = table.rows(kept)
    return table


# ---------------------------------------------------------------------------------------------- the model
def _estimator(choices: Choices, penalties: list[Penalty], task: Task, loss: str) -> Any:
    from sklearn.model_selection import KFold, StratifiedKFold

    from ._cv import SparseClassifierCV, SparseRegressorCV

    folds = StratifiedKFold if task == "classification" else KFold
    options: dict[str, Any] = {
        "penalty": penalties[0] if len(penalties) == 1 else penalties,
        "shapes": "auto" if _chooses_width(choices) else None,
        "criterion": choices.criterion,
        "rule": choices.rule,
        # A file may be sorted: folds are drawn.
        "cv": folds(choices.folds, shuffle=True, random_state=choices.seed),
        "target_features": choices.features,
        "standardize": choices.standardize,
        "random_state": choices.seed,
    }
    if task == "classification":
        return SparseClassifierCV(**options)
    options["loss"] = loss
    return SparseRegressorCV(**options)


def _fit(estimator: Any, X: Any, y: npt.NDArray[Any], weights: Floats | None) -> list[str]:
    """Fit, and what the estimator warns of.

    Raises
    ------
    InvalidArgumentError
        What scikit-learn refuses, and numbers that leave the range of a double, in one line.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X, y, sample_weight=weights)
        except ObverseError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise InvalidArgumentError(f"these data cannot be fitted: {one_line(error)}") from error
    return list(dict.fromkeys(str(warning.message) for warning in caught))


def _chooses_width(choices: Choices) -> bool:
    """Whether the widths of the penalties are chosen from the data, and not given with them."""
    given = choices.criterion == "stability" or ":" in choices.penalty
    return choices.shapes == "auto" or (choices.shapes is None and not given)


def _named(choices: Choices, penalties: list[Penalty]) -> str:
    if _chooses_width(choices):
        return ", ".join(str(described_penalty(penalty)["name"]) for penalty in penalties) + " in widths by the data"
    return ", ".join(penalty_text(penalty) for penalty in penalties)


def _choice(choices: Choices) -> str:
    """How alpha was chosen, in words."""
    names = {"bic": "lowest BIC", "ebic": "lowest extended BIC", "stability": "stability selection"}
    text = names.get(choices.criterion)
    if text is None:
        text = f"lowest error over {choices.folds} folds"
        if choices.rule == "1se":
            text = f"sparsest within one standard error of the lowest, over {choices.folds} folds"
    return text + (f", at most {choices.features} features" if choices.features else "")


def _relative(weights: Floats) -> Floats:
    """Weights whose sum does not overflow."""
    return weights / float(weights.max())


def _number(estimator: Any, name: str) -> float | None:
    value = getattr(estimator, name, None)
    return None if value is None else float(np.max(value))


def _tested(
    model: LinearModel,
    encoding: Encoding,
    table: Table,
    y: npt.NDArray[Any],
    weights: Floats | None,
    train: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
) -> dict[str, Any] | None:
    """Errors on the held-out rows, beside those of a model without features."""
    if test.size == 0:
        return None
    encoded = encoding.encode(table.rows(test))
    share = np.ones(y.size) if weights is None else _relative(weights)
    if not share[test].sum() > 0:
        return None
    record: dict[str, Any] = {
        "rows": int(test.size),
        "measures": measures(model, encoded.X, y[test], share[test], y[train], share[train]),
        "unknown": {name: count for name, (count, _) in encoded.unknown.items()},
    }
    predicted = model.predict(encoded.X)
    if model.classes is not None:
        record["confusion"] = confusion(y[test], predicted, model.classes)
    else:
        record["measured"] = y[test][:_MOST_POINTS].tolist()
        record["predicted"] = predicted[:_MOST_POINTS].tolist()
    return record


def _versions() -> dict[str, str]:
    import numba
    import scipy
    import sklearn

    return {
        "python": platform.python_version(),
        "obverse": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
        "numba": numba.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }
