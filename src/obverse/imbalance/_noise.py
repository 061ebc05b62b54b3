"""How noisy each group is, measured on rows that the model has not seen."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.random import Seed, torch_generator
from .._core.text import aligned
from ..errors import InvalidArgumentError, UnknownNameError
from ._clusters import feature_matrix
from ._cross_fit import FitPredict, cross_predict, fingerprint
from ._folds import ranks_in_groups
from ._intervals import normal_quantile, wilson
from ._labeled import as_list, encode, rows_of, take
from ._noise_measures import calibrated_impurity, local_differences
from ._strengths import Normalize, group_strengths, strength_exponents

__all__ = ["GroupNoise", "GroupNoiseRow", "estimate_group_noise"]

Measure = Literal["error", "error-variance", "impurity", "residual-variance", "local-differences"]
Interval = tuple[float, float]
_CLASSES = ("error", "error-variance", "impurity")
_NUMBERS = ("residual-variance", "local-differences")
_DRAWS = 400


class _Estimator(Protocol):
    def fit(self, X: Any, y: Any) -> Any: ...
    def predict(self, X: Any) -> Any: ...


@final
@dataclass(frozen=True)
class GroupNoiseRow:
    """One group.

    Attributes
    ----------
    group
        Its name.
    count : int
        Rows, each held out once.
    noise, noise_interval
        By the measure; a share, or for regression a variance in squared units of the targets.
    error : float
        Share of wrong held-out predictions; None for regression.
    """

    group: Any
    count: int
    noise: float
    noise_interval: Interval
    error: float | None


@final
@dataclass(frozen=True)
class GroupNoise:
    """What `estimate_group_noise` found; printing it gives a table.

    Attributes
    ----------
    rows : tuple of GroupNoiseRow
        In sorted order of the groups.
    measure : str
        What ``noise`` is.
    level : float
        Confidence level of the intervals.
    members : Tensor of int64, shape (N,)
        Place of every row's group in ``rows``, so that ``strengths()[members]`` is one strength for each row.
    predictions : ndarray or None
        Held-out predictions, shape (N,) or (N, K).
    """

    rows: tuple[GroupNoiseRow, ...]
    measure: Measure
    level: float
    members: Tensor = field(repr=False, compare=False)
    predictions: NDArray[np.float64] | None = field(repr=False, compare=False)

    def __getitem__(self, group: Any) -> GroupNoiseRow:
        found = next((row for row in self.rows if row.group == group), None)
        if found is None:
            raise KeyError(group)
        return found

    @property
    def noise(self) -> NDArray[np.float64]:
        """Noise of the groups, shape (G,)."""
        return np.array([row.noise for row in self.rows])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of the groups, shape (G,)."""
        return np.array([row.count for row in self.rows], dtype=np.int64)

    @property
    def at_bound(self) -> tuple[Any, ...]:
        """Groups whose noise is as low or as high as it can be, so that the interval says more than the estimate.

        No held-out row, or every one, was predicted wrongly; or all local differences or residuals are zero.
        """
        return tuple(
            row.group for row in self.rows if row.noise == 0.0 or (row.error == 1.0 and self.measure != "impurity")
        )

    @property
    def loss(self) -> str:
        """The loss whose exponents fit the measure: cross-entropy for classes, squared for numbers."""
        return "cross-entropy" if self.measure in _CLASSES else "squared"

    def strengths(
        self,
        exponents: tuple[float, float] | None = None,
        *,
        loss: str | None = None,
        order: int = 1,
        dimension: float = 1.0,
        smoothing: float = 1.0,
        normalize: Normalize = "max",
    ) -> Tensor:
        """`group_strengths` of the noise and the counts, in the order of ``rows``.

        Parameters
        ----------
        exponents : tuple of two floats, optional
            By default those of `strength_exponents` for ``loss``, ``order`` and ``dimension``.
        loss : str, optional
            By default the attribute of that name.
        order, dimension
            Of `strength_exponents`.
        smoothing, normalize
            Of `group_strengths`.

        Returns
        -------
        Tensor of float64, shape (G,)
        """
        if exponents is None:
            exponents = strength_exponents(self.loss if loss is None else loss, order=order, dimension=dimension)
        return group_strengths(self.noise, self.counts, exponents, smoothing=smoothing, normalize=normalize)

    def to_dict(self) -> dict[str, Any]:
        """Measure, level and rows as plain values, for a JSON file."""
        return {"measure": self.measure, "level": self.level, "rows": [dict(vars(row)) for row in self.rows]}

    def table(self) -> str:
        """One line for each group: rows, error where there is one, noise and its interval; "bound" as in `at_bound`."""
        shares = self.measure in _CLASSES
        head = ["group", "rows", *(["error, %"] if shares else []), self.measure, "interval"]
        lines, bounded = [head], self.at_bound
        for row in self.rows:
            low, high = row.noise_interval
            lines.append(
                [
                    str(row.group),
                    str(row.count),
                    *([] if row.error is None else [f"{100 * row.error:.1f}"]),
                    f"{row.noise:.4g}",
                    f"{low:.3g} to {high:.3g}{' (bound)' if row.group in bounded else ''}",
                ]
            )
        return aligned(lines)

    def __str__(self) -> str:
        return self.table()


def estimate_group_noise(
    fit_predict: FitPredict | _Estimator | None,
    labels: Any,
    groups: Any = None,
    *,
    data: Any = None,
    measure: Measure = "error",
    folds: int = 5,
    neighbors: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    seed: Seed = 0,
) -> GroupNoise:
    """Noise of each group by cross-fitting: every row is predicted once, by a model trained on the other folds.

    Parameters
    ----------
    fit_predict : callable, scikit-learn estimator or None
        ``fit_predict(train, held_out)`` trains a new model on the rows ``train`` and returns its predictions on the
        rows ``held_out`` (both sorted int64 arrays): probabilities (n, K) in the sorted order of the classes, or
        places of classes (n,), or for regression values (n,). It seeds itself; a model in evaluation mode, without
        augmentation, is meant. An estimator is cloned for every fold and needs ``data``. None for local differences.
    labels : array, tensor or list of shape (N,)
        Classes, noisy as they are; numbers for the measures of regression.
    groups : array of shape (N,), optional
        Metadata, or clusters (`cluster_groups`); by default the classes, and for regression one group.
    data : array, tensor, table or dict of such, optional
        N rows, for an estimator or for local differences.
    measure : str
        * ``"error"``: share of wrong predictions, with Wilson's interval.
        * ``"error-variance"``: ``e (1 - e)`` of that share, which stays a measure of noise up to errors of one half.
        * ``"impurity"``: mean of ``1 - sum_k p_k^2`` of probabilities calibrated by a temperature in each group.
        * ``"residual-variance"``: mean squared residual of a regression.
        * ``"local-differences"``: noise variance from each row and its nearest neighbors in the group, no model.
    folds : int
        From 2 on; every group is spread evenly over them.
    neighbors : int, optional
        Of local differences; by default 2 (d + 1) for up to 8 features, then 8.
    folder : path, optional
        Predictions of every finished fold are kept there as NPZ files, and an interrupted run goes on from them. The
        folder belongs to these labels, groups, folds, seed and estimator, and is refused for others; that a callable
        is the same one, the caller knows.
    confidence : float
        Level of the intervals, in (0, 1): Wilson's for shares, percentiles of a bootstrap over rows for the others,
        widened for local differences by what their rows have in common.
    seed : int, torch.Generator or numpy.random.Generator
        For the folds and the bootstrap.

    Returns
    -------
    GroupNoise

    Raises
    ------
    InvalidArgumentError
        For lengths that differ, groups smaller than the number of folds, or predictions of a wrong shape.
    NonFiniteError
        For predictions that are not finite.
    StateError
        For a folder of another study, or with damaged files.

    Notes
    -----
    Held-out error is noise *plus* what the model has not learned. A hard clean group looks noisy, and is then
    regularized more where theory wants less. For regression, ``"local-differences"`` does without a model (its bias is
    of the order of the fourth power of the distance to the neighbors); otherwise let the model of this stage be
    flexible, without the penalty of the next one. With many features neither helps: rows have no near neighbors.
    `diagnose_groups` tells hard from noisy by learning curves.

    The released code of Cao, Chen, Lu, Arechiga, Gaidon and Ma (2021) trains on one half and counts errors on the
    other; cross-fitting uses all rows for both. Local differences: Gasser, Sroka and Jennen-Steinmetz (1986) in one
    dimension; the linear fits to nearest neighbors are derived.
    """
    if measure not in (*_CLASSES, *_NUMBERS):
        raise UnknownNameError("measure", str(measure), (*_CLASSES, *_NUMBERS))
    folds = checks.count("folds", folds, 2)
    neighbors = None if neighbors is None else checks.count("neighbors", neighbors)
    normal_quantile(confidence)
    targets, classes = _targets(labels, measure)
    members, names = encode(groups) if groups is not None else _default_groups(targets, classes)
    if len(members) != len(targets):
        raise InvalidArgumentError(f"groups must have one entry for each of {len(targets)} rows, got {len(members)}")
    if data is not None and rows_of(data) != len(targets):
        raise InvalidArgumentError(f"data must have one row for each of {len(targets)} labels, got {rows_of(data)}")
    counts = np.bincount(members.numpy(), minlength=len(names))
    generator = torch_generator(seed)
    inside = members.numpy()
    if measure == "local-differences":
        if fit_predict is not None or data is None:
            raise InvalidArgumentError("local differences take no model: give None, and the features as data")
        values, excess = local_differences(feature_matrix(data), targets, inside, len(names), neighbors)
        return _numbers(values, inside, names, counts, measure, confidence, generator, members, None, excess=excess)
    for name, count in zip(names, counts, strict=True):
        if count < folds:
            raise InvalidArgumentError(f"group {name!r} has {count} rows, fewer than the {folds} folds")
    assigned = (ranks_in_groups(members, len(names), folds, generator) % folds).numpy()
    model, description = _as_fit_predict(fit_predict, data, targets, classes)
    identity = fingerprint(targets, classes, inside, names, assigned, description)
    columns = None if classes is None else len(classes)
    predictions = cross_predict(model, assigned, columns, folder, identity)
    if classes is None:
        squares = (predictions - targets) ** 2
        return _numbers(squares, inside, names, counts, measure, confidence, generator, members, predictions)
    codes = targets.astype(np.int64)
    if predictions.ndim == 2 and (predictions.min() < -1e-6 or np.abs(predictions.sum(1) - 1).max() > 1e-3):
        raise InvalidArgumentError("fit_predict must give probabilities, rows with sum 1; take a softmax of logits")
    if predictions.ndim == 1 and not np.isin(predictions, np.arange(columns or 0)).all():
        raise InvalidArgumentError(f"classes that fit_predict gives must be integers from 0 to {(columns or 0) - 1}")
    answers = predictions.argmax(1) if predictions.ndim == 2 else predictions
    wrong = answers != codes
    if measure == "impurity":
        if predictions.ndim != 2:
            raise InvalidArgumentError(f"impurity needs probabilities of shape (n, {columns}), not labels")
        values, bounded = calibrated_impurity(predictions, codes, inside, len(names))
        if bounded.any():
            ended = ", ".join(str(names[place]) for place in np.flatnonzero(bounded))
            warnings.warn(
                f"the temperature of groups {ended} ended at its bound, as where all rows are right: their impurity "
                "says little; measure='error' has an interval",
                stacklevel=2,
            )
        return _numbers(values, inside, names, counts, measure, confidence, generator, members, predictions, wrong)
    return _shares(wrong, inside, names, counts, measure, confidence, members, predictions)


def _targets(labels: Any, measure: str) -> tuple[NDArray[np.float64], list[Any] | None]:
    """Codes of classes and what they stand for, or numbers and None."""
    if measure in _CLASSES:
        codes, classes = encode(labels)
        if len(classes) < 2:
            raise InvalidArgumentError(f"labels must have two classes or more, got {classes}")
        return codes.numpy().astype(float), classes
    try:
        targets = np.asarray(as_list(labels), dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"labels must be numbers for {measure!r}: {error}") from error
    if not len(targets) or not np.isfinite(targets).all():
        raise InvalidArgumentError("labels must be finite numbers, one or more")
    return targets, None


def _default_groups(targets: NDArray[np.float64], classes: list[Any] | None) -> tuple[Tensor, list[Any]]:
    if classes is None:
        return torch.zeros(len(targets), dtype=torch.int64), ["all"]
    return torch.from_numpy(targets.astype(np.int64)), classes


def _as_fit_predict(
    given: Any, data: Any, targets: NDArray[np.float64], classes: list[Any] | None
) -> tuple[FitPredict, str]:
    if not (hasattr(given, "fit") and hasattr(given, "predict")):
        if not callable(given):
            raise InvalidArgumentError(f"fit_predict is callable, or an estimator with fit and predict, got {given!r}")
        return given, ""
    if data is None:
        raise InvalidArgumentError("an estimator needs data, the rows to fit it to")
    from sklearn.base import clone

    def rows(places: NDArray[np.int64]) -> Any:
        part = take(data, torch.from_numpy(places))
        return part.detach().cpu().numpy() if isinstance(part, Tensor) else part

    def fit_predict(train: NDArray[np.int64], held_out: NDArray[np.int64]) -> Any:
        known = targets[train] if classes is None else targets[train].astype(np.int64)
        fitted = clone(given).fit(rows(train), known)
        if classes is None or not hasattr(fitted, "predict_proba"):
            return fitted.predict(rows(held_out))
        found = fitted.predict_proba(rows(held_out))
        # A fold may lack a class, whose column is then missing.
        full = np.zeros((len(found), len(classes)))
        full[:, fitted.classes_] = found
        return full

    return fit_predict, repr(given)


def _shares(
    wrong: NDArray[np.bool_],
    inside: NDArray[np.int64],
    names: list[Any],
    counts: NDArray[np.int64],
    measure: Measure,
    level: float,
    members: Tensor,
    predictions: NDArray[np.float64],
) -> GroupNoise:
    hits = np.bincount(inside, weights=wrong, minlength=len(names))
    low, high = wilson(hits, counts, level)
    errors = hits / counts
    rows = []
    for place, name in enumerate(names):
        error, ends = float(errors[place]), (float(low[place]), float(high[place]))
        noise = error
        if measure == "error-variance":
            noise = error * (1 - error)
            images = [end * (1 - end) for end in ends]
            ends = (min(images), 0.25 if ends[0] <= 0.5 <= ends[1] else max(images))
        rows.append(GroupNoiseRow(name, int(counts[place]), noise, ends, error))
    return GroupNoise(tuple(rows), measure, level, members, predictions)


def _numbers(
    values: NDArray[np.float64],
    inside: NDArray[np.int64],
    names: list[Any],
    counts: NDArray[np.int64],
    measure: Measure,
    level: float,
    generator: torch.Generator,
    members: Tensor,
    predictions: NDArray[np.float64] | None,
    wrong: NDArray[np.bool_] | None = None,
    excess: NDArray[np.float64] | None = None,
) -> GroupNoise:
    bootstrap = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    ends = 100 * np.array([0.5 - level / 2, 0.5 + level / 2])
    rows = []
    for place, name in enumerate(names):
        own = values[inside == place]
        means = [own[bootstrap.integers(len(own), size=len(own))].mean() for _ in range(_DRAWS)]
        mean = float(own.mean())
        spread = (np.percentile(means, ends) - mean) * (1.0 if excess is None else excess[place])
        low, high = max(0.0, mean + float(spread[0])), mean + float(spread[1])
        error = None if wrong is None else float(wrong[inside == place].mean())
        rows.append(GroupNoiseRow(name, int(counts[place]), mean, (low, high), error))
    return GroupNoise(tuple(rows), measure, level, members, predictions)
