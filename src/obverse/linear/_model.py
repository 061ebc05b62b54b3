"""A fitted linear model without its training: coefficients, labels, names, and how a table becomes its features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import InvalidArgumentError, StateError
from ..penalties import Penalty
from ._encoding import Encoded, Encoding
from ._losses import LOSSES
from ._table import Table, table_of

__all__ = ["LinearModel", "check_model", "described_penalty", "linear_model"]

Task = Literal["regression", "classification"]


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model without its training: what is needed to predict, and where it came from.

    Attributes
    ----------
    task : {"regression", "classification"}
    loss : {"squared", "huber", "poisson", "logistic", "multinomial"}
    coef : array of shape (n_features,), or (n_outputs, n_features)
        Of a classifier, one row for two classes and one row for each class otherwise; as the estimator had it.
    intercept : float or array of shape (n_outputs,)
    classes : array of shape (n_classes,) or None
        Labels, in the order of the columns of `predict_proba`.
    feature_names : tuple of str or None
    encoding : Encoding or None
        How a table becomes features, where the model was fitted on one.
    target : str or None
        Name of the target.
    penalty : dict
        ``name``, ``parameters`` and ``width``.
    alpha : float or None
        Strength of the penalty.
    summary : dict
        What was recorded about the fit, such as its cross-validation.
    """

    task: Task
    loss: str
    coef: npt.NDArray[Any]
    intercept: Any
    classes: npt.NDArray[Any] | None = None
    feature_names: tuple[str, ...] | None = None
    encoding: Encoding | None = None
    target: str | None = None
    penalty: dict[str, Any] = field(default_factory=dict)
    alpha: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def n_features_in(self) -> int:
        """Number of features."""
        return int(self.coef.shape[-1])

    @property
    def selected(self) -> npt.NDArray[np.int64]:
        """Numbers of the features with a nonzero coefficient, ascending."""
        nonzero = self.coef != 0 if self.coef.ndim == 1 else (self.coef != 0).any(axis=0)
        return np.flatnonzero(nonzero)

    def encode(self, table: Any) -> Encoded:
        """The features of a table; only columns of selected features are looked at, and the others may be absent.

        Parameters
        ----------
        table : Table, pyarrow table or pandas data frame

        Raises
        ------
        InvalidArgumentError
            A column is missing or of another kind than in training; missing values where those are an error.
        StateError
            The model was not fitted on a table.
        """
        if self.encoding is None:
            raise StateError("this model was fitted on an array; give it the array of its features")
        given = table if isinstance(table, Table) else table_of(table, "the table", as_text=self._categories())
        return self.encoding.encode(given, self.encoding.needed(self.selected.tolist()))

    def decision_function(self, X: Any) -> npt.NDArray[Any]:
        """The linear part ``X coef' + intercept``.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features), or a table

        Returns
        -------
        array of shape (n_samples,), or (n_samples, n_outputs)
        """
        product: Any = self._features(X) @ self.coef.T
        # With sparse features and one output, the product is dense already.
        dense = product if isinstance(product, np.ndarray) else product.toarray()
        result: npt.NDArray[Any] = dense + self.intercept
        return result.ravel() if self.loss == "logistic" else result

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predictions: the expected target, or the label of the likeliest class.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features), or a table
            A table (pyarrow or pandas) is encoded as in training; in it, a category that training did not have counts
            as none of the known ones, with a warning.

        Returns
        -------
        array of shape (n_samples,), or (n_samples, n_outputs)

        Raises
        ------
        InvalidArgumentError
            Another number of features; or what `encode` refuses.
        """
        linear = self.decision_function(X)
        if self.classes is None:
            with np.errstate(over="ignore"):
                return np.exp(linear) if LOSSES[self.loss].link == "log" else linear
        number = (linear > 0).astype(np.int64) if self.loss == "logistic" else linear.argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes[number]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Probabilities of the classes, in the order of ``classes``: (n_samples, n_classes).

        Raises
        ------
        StateError
            The model is not a classifier.
        """
        if self.classes is None:
            raise StateError("a regression model has no classes and no probabilities; call predict")
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        scores = scores - scores.max(axis=1, keepdims=True)
        logarithms = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        probabilities: npt.NDArray[Any] = np.exp(logarithms)
        return probabilities

    def _categories(self) -> list[str]:
        codes = () if self.encoding is None else self.encoding.codes
        return [code.column for code in codes if code.kind == "category"]

    def _features(self, X: Any) -> Any:
        from sklearn.utils import check_array

        if isinstance(X, Table) or (hasattr(X, "column_names") and hasattr(X, "num_rows")):
            X = self._encoded(X)
        elif hasattr(X, "columns") and not sp.issparse(X):
            X = self._encoded(X) if self.encoding is not None else self._named(X)
        features = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
        if features.shape[1] != self.n_features_in:
            raise InvalidArgumentError(
                f"X has {features.shape[1]} features, and the model was fitted with {self.n_features_in}"
            )
        return features

    def _encoded(self, table: Any) -> Any:
        encoded = self.encode(table)
        if not encoded.kept.all():
            raise InvalidArgumentError(
                f"{int((~encoded.kept).sum())} rows have missing values; leave them out, as training did"
            )
        for column, (count, example) in encoded.unknown.items():
            warnings.warn(
                f"column {column!r} has categories that training did not have, such as {example!r}, in {count} rows; "
                "they count as none of the known ones",
                stacklevel=4,
            )
        return encoded.X

    def _named(self, frame: Any) -> Any:
        """The columns of a frame in the order of training, where names are known."""
        if self.feature_names is None:
            return frame
        names = [str(name) for name in frame.columns]
        absent = [name for name in self.feature_names if name not in names]
        if absent:
            raise InvalidArgumentError(
                f"X lacks the features {', '.join(map(repr, absent[:12]))}{', ...' if len(absent) > 12 else ''}"
            )
        return frame.iloc[:, [names.index(name) for name in self.feature_names]]


def linear_model(
    estimator: Any,
    *,
    encoding: Encoding | None = None,
    target: str | None = None,
    summary: Mapping[str, Any] | None = None,
) -> LinearModel:
    """The plain model in a fitted estimator of this package.

    Parameters
    ----------
    estimator : SparseRegressor, SparseClassifier, SparseRegressorCV or SparseClassifierCV
    encoding : Encoding, optional
        Of the table that it was fitted on.
    target : str, optional
    summary : mapping, optional
        Plain values to keep with the model.

    Raises
    ------
    InvalidArgumentError
        It is not fitted, or not a linear model.
    """
    coef = getattr(estimator, "coef_", None)
    if coef is None:
        raise InvalidArgumentError(f"{type(estimator).__name__} is not a fitted linear model: it has no coef_")
    coef = np.array(coef) if isinstance(coef, np.ndarray) else np.asarray(coef.todense())
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        loss = str(getattr(estimator, "loss", "squared"))
    else:
        loss = "logistic" if len(classes) == 2 else "multinomial"
    names = getattr(estimator, "feature_names_in_", None)
    given = encoding.features if encoding is not None else None if names is None else [str(name) for name in names]
    intercept = getattr(estimator, "intercept_", 0.0)
    # A Python number takes the precision of what it is added to; an array keeps its own.
    kept = np.array(intercept, dtype=coef.dtype) if isinstance(intercept, float | int) else np.array(intercept)
    alpha = getattr(estimator, "alpha_", getattr(estimator, "alpha", None))
    model = LinearModel(
        task="regression" if classes is None else "classification",
        loss=loss,
        coef=coef,
        intercept=kept[()],
        classes=None if classes is None else np.array(classes),
        feature_names=None if given is None else tuple(given),
        encoding=encoding,
        target=target,
        penalty={
            **described_penalty(getattr(estimator, "penalty_", getattr(estimator, "penalty", None))),
            "width": str(getattr(estimator, "width", "fixed")),
        },
        alpha=None if alpha is None else float(alpha),
        summary=dict(summary or {}),
    )
    check_model(model)
    return model


def check_model(model: LinearModel) -> None:
    """Raise unless the parts of a model fit together.

    Raises
    ------
    InvalidArgumentError
    """
    known = LOSSES.get(model.loss) if isinstance(model.loss, str) else None
    if known is None or known.task != model.task:
        raise InvalidArgumentError(f"loss {model.loss!r} does not belong to the task {model.task!r}")
    coef, intercept = model.coef, np.asarray(model.intercept)
    if coef.dtype not in (np.float32, np.float64) or intercept.dtype not in (np.float32, np.float64):
        raise InvalidArgumentError(f"coefficients are {coef.dtype}; they must be float32 or float64")
    if coef.ndim not in (1, 2) or not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise InvalidArgumentError("coefficients must be finite, one for each feature (and output)")
    outputs = 1 if coef.ndim == 1 else coef.shape[0]
    if intercept.ndim > 1 or intercept.size not in (1, outputs):
        raise InvalidArgumentError(f"an intercept of shape {intercept.shape} does not fit {outputs} outputs")
    for names in (model.feature_names, None if model.encoding is None else model.encoding.features):
        if names is not None and len(names) != model.n_features_in:
            raise InvalidArgumentError(f"{len(names)} names for {model.n_features_in} features")
    if (model.classes is None) != (model.task == "regression"):
        raise InvalidArgumentError("a classifier has classes, and a regression model has none")
    if model.classes is not None:
        rows = 1 if model.loss == "logistic" else len(model.classes)
        if model.classes.ndim != 1 or coef.ndim != 2 or outputs != rows or len(model.classes) < 2:
            raise InvalidArgumentError(f"coefficients of shape {coef.shape} do not fit {len(model.classes)} classes")


def described_penalty(penalty: Any) -> dict[str, Any]:
    """Name and parameters of a penalty; one of the user's own goes by the name of its class."""
    if penalty is None or isinstance(penalty, str):
        return {"name": penalty, "parameters": {}}
    names = [entry.name for entry in fields(penalty)] if is_dataclass(penalty) else []
    found = {name: getattr(penalty, name, None) for name in names}
    numbers = {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, float | int) and not isinstance(value, bool)
    }
    inner = next((value for value in found.values() if isinstance(value, Penalty)), None)
    if inner is not None:
        # In other units: the penalty that it is, and what stretches it.
        about = described_penalty(inner)
        return {"name": about["name"], "parameters": {**about["parameters"], **numbers}}
    return {"name": getattr(penalty, "name", "") or type(penalty).__name__, "parameters": numbers}
