"""Noisy, rare or hard? Learning curves of every group, from the user's model and from neighbors, tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.random import Seed, torch_generator
from .._core.text import aligned
from ..errors import InvalidArgumentError, NonFiniteError
from ._folds import ranks_in_groups
from ._intervals import normal_quantile, wilson
from ._labeled import encode, rows_of, take
from ._learning_curve import LearningCurve, fit_curve

__all__ = ["GroupDiagnosis", "Learner", "NoiseDiagnosis", "diagnose_groups"]

Predict = Callable[[Any], Any]
Learner = Callable[[Any, Tensor], Predict]
Interval = tuple[float, float]
_DRAWS = 200


class _Estimator(Protocol):
    def fit(self, X: Any, y: Any) -> Any: ...
    def predict(self, X: Any) -> Any: ...


@final
@dataclass(frozen=True)
class GroupDiagnosis:
    """What is wrong with one group. Shares are in [0, 1].

    Attributes
    ----------
    group
        Its name.
    causes : tuple of str
        Of ``"noisy"``, ``"rare"``, ``"hard"``; empty where the error is low. Several may hold.
    count : int
    error, error_interval
        Held-out error of the model with all rows, and Wilson's interval.
    plateau, plateau_interval
        Error that no number of rows would remove, by the lower of the two learning curves.
    doubling, doubling_interval
        By how much twice the rows would lower the error.
    reference_error : float
        Held-out error of the reference learner; NaN without one.
    training_error : float
        Error of the model on rows it was trained on.
    calibration_gap : float
        Confidence minus accuracy on held-out rows; NaN where the model gives no probabilities.
    sizes, errors : tuple of float
        The learning curve: shares of the training rows, and held-out errors.
    """

    group: Any
    causes: tuple[str, ...]
    count: int
    error: float
    error_interval: Interval
    plateau: float
    plateau_interval: Interval
    doubling: float
    doubling_interval: Interval
    reference_error: float
    training_error: float
    calibration_gap: float
    sizes: tuple[float, ...]
    errors: tuple[float, ...]


@final
@dataclass(frozen=True)
class NoiseDiagnosis:
    """The diagnoses of all groups, in their sorted order; printing it gives a table."""

    groups: tuple[GroupDiagnosis, ...]
    level: float

    def __getitem__(self, group: Any) -> GroupDiagnosis:
        found = next((row for row in self.groups if row.group == group), None)
        if found is None:
            raise KeyError(group)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for a JSON file."""
        return asdict(self)

    def table(self) -> str:
        """One line for each group."""
        head = ["group", "rows", "error, %", "plateau, %", "twice the rows", "training, %", "reference, %", "causes"]
        lines = [head] + [
            [
                str(row.group),
                str(row.count),
                f"{100 * row.error:.1f}",
                f"{100 * row.plateau:.1f} [{100 * row.plateau_interval[0]:.0f} to {100 * row.plateau_interval[1]:.0f}]",
                f"-{100 * row.doubling:.1f}",
                f"{100 * row.training_error:.1f}",
                "" if np.isnan(row.reference_error) else f"{100 * row.reference_error:.1f}",
                " and ".join(row.causes) or "-",
            ]
            for row in self.groups
        ]
        return aligned(lines, left=(0, len(head) - 1))

    def __str__(self) -> str:
        return self.table()


def diagnose_groups(
    learner: Learner | _Estimator,
    data: Any,
    labels: Any,
    groups: Any = None,
    *,
    reference: Learner | _Estimator | str | None = "neighbors",
    sizes: Sequence[float] = (0.25, 0.5, 1.0),
    folds: int = 3,
    tolerance: float = 0.1,
    confidence: float = 0.95,
    seed: Seed = 0,
) -> NoiseDiagnosis:
    """Say of every group whether its labels are noisy, its rows too few, or the model too weak for it.

    Parameters
    ----------
    learner : estimator with ``fit`` and ``predict``, or callable
        A scikit-learn classifier (cloned for every fit), or ``learner(data, codes)`` that trains a model and returns
        ``predict(data)``, which gives labels (N,) or probabilities (N, K). ``codes`` are classes 0 to K - 1.
    data : tensor, array, list, dict or tuple of such
        N rows.
    labels : array, tensor or list of shape (N,)
        Classes, noisy as they are.
    groups : array of shape (N,), optional
        Group of every row; by default its label.
    reference : estimator, callable, "neighbors" or None
        A second, more flexible learner. ``"neighbors"`` votes among the 15 nearest rows by Euclidean distance of the
        flattened, standardized features, or is left out where data are not numbers of one shape.
    sizes : sequence of float
        Shares of the training rows of every group, nested, increasing, ending with 1; at least two.
    folds : int
        Parts of cross-fitting, at least 2; every row is held out once.
    tolerance : float
        Error, or lowering of it, that matters, in (0, 1).
    confidence : float
        Level of the intervals.
    seed : int, torch.Generator or numpy.random.Generator
        Of folds, nested subsets and the bootstrap.

    Returns
    -------
    NoiseDiagnosis

    Raises
    ------
    InvalidArgumentError
        When a group has fewer rows than folds, or arguments do not fit.
    NonFiniteError
        When the learner gives probabilities that are not finite.

    Notes
    -----
    A curve ``plateau + fall s^-power`` is fitted to the held-out errors of each group at shares s of the training rows;
    intervals are those of a parametric bootstrap. With ``t`` the tolerance, a group whose error is surely not below
    ``t / 2`` and at least ``t`` is

    * *hard* when the reference has an error lower by more than ``t / 2`` and by more than chance (the labels can be
      known better than this model knows them), or when its curve still falls though it has as many rows as others;
    * *rare* when it has less than half the rows of the median group, or less than a tenth of the largest, and its curve
      falls: twice the rows would lower the error by ``t / 5``;
    * *noisy* when the lower of the two plateaus is, surely, above ``t / 2``, and its curve has come to it: twice the
      rows would lower the error by less than ``t / 5``. Of a group of few rows only the first is asked, so it can be
      noisy and rare.

    Where labels are noisy and the model has memorized them, the training error is far below the plateau. No procedure
    on labels alone can tell noise from a rule that no learner at hand finds: *noisy* means "noisy or beyond both
    learners". Derived; the plateau as a noise measure follows the learning-curve literature (Cortes et al., 1994).
    """
    codes, classes = encode(labels)
    rows = rows_of(data)
    if rows != len(codes):
        raise InvalidArgumentError(f"data must have one row for each of {len(codes)} labels, got {rows}")
    members, names = (codes, classes) if groups is None else encode(groups)
    if len(members) != len(codes):
        raise InvalidArgumentError(f"groups must have one entry for each of {len(codes)} rows, got {len(members)}")
    shares = np.asarray(list(sizes), dtype=float)
    if len(shares) < 2 or not (np.diff(shares) > 0).all() or shares[0] <= 0 or shares[-1] != 1.0:
        raise InvalidArgumentError(f"sizes must increase from above 0 to 1, two or more, got {list(sizes)}")
    folds = checks.count("folds", folds, 2)
    tolerance = checks.fraction("tolerance", tolerance, zero=False, one=False)
    normal_quantile(confidence)
    counts = np.bincount(members.numpy(), minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if count < folds:
            raise InvalidArgumentError(f"group {name!r} has {count} rows, fewer than the {folds} folds")
    generator = torch_generator(seed)
    first = _as_learner(learner, len(classes))
    second = (
        _neighbors(data)
        if reference == "neighbors"
        else None
        if reference is None
        else _as_learner(reference, len(classes))
    )
    ranks = ranks_in_groups(members, len(names), folds, generator)
    own = _held_out(first, data, codes, members, ranks, shares, folds, len(classes))
    other = None if second is None else _held_out(second, data, codes, members, ranks, shares, folds, len(classes))
    bootstrap = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    return NoiseDiagnosis(
        tuple(
            _verdict(name, place, members.numpy(), counts, own, other, shares, tolerance, confidence, bootstrap)
            for place, name in enumerate(names)
        ),
        confidence,
    )


@dataclass(frozen=True)
class _Outcome:
    """Wrong or not of every row when held out, by size; training error and confidence of every row with all sizes."""

    wrong: NDArray[np.bool_]
    in_training: NDArray[np.float64]
    confidence: NDArray[np.float64]


def _held_out(
    learner: Learner,
    data: Any,
    codes: Tensor,
    members: Tensor,
    ranks: Tensor,
    shares: NDArray[np.float64],
    folds: int,
    classes: int,
) -> _Outcome:
    count = len(codes)
    wrong = np.zeros((len(shares), count), dtype=bool)
    training = np.zeros(count)
    sure = np.full(count, np.nan)
    for fold in range(folds):
        out = ranks % folds == fold
        for place, share in enumerate(shares):
            inside = torch.cat([_subset(members, ranks, out, group, share) for group in range(int(members.max()) + 1)])
            inside = inside.sort().values
            predict = learner(take(data, inside), codes[inside])
            held = torch.nonzero(out)[:, 0]
            answers, confidence = _answers(predict(take(data, held)), classes, len(held))
            wrong[place, held.numpy()] = answers != codes[held].numpy()
            if share == 1.0:
                sure[held.numpy()] = confidence
                seen, _ = _answers(predict(take(data, inside)), classes, len(inside))
                training[inside.numpy()] += (seen != codes[inside].numpy()) / (folds - 1)
    return _Outcome(wrong, training, sure)


def _subset(members: Tensor, ranks: Tensor, out: Tensor, group: int, share: float) -> Tensor:
    """The first rows of a group's training part by rank: subsets of growing shares are nested."""
    inside = torch.nonzero((members == group) & ~out)[:, 0]
    order = inside[torch.argsort(ranks[inside])]
    return order[: max(1, round(share * len(order)))]


def _answers(given: Any, classes: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes that a learner answers for ``rows`` rows, and its confidence; NaN where it gives no probabilities."""
    values = given.detach().cpu() if isinstance(given, Tensor) else given
    if isinstance(values, Tensor) and values.is_floating_point():
        values = values.double()
    array = np.asarray(values)
    if array.shape == (rows,):
        if array.dtype.kind not in "fiub" or not np.isin(array, np.arange(classes)).all():
            raise InvalidArgumentError(f"labels that predict gives must be classes from 0 to {classes - 1}")
        return array.astype(np.int64), np.full(len(array), np.nan)
    if array.shape != (rows, classes):
        raise InvalidArgumentError(
            f"predict must give labels ({rows},) or probabilities ({rows}, {classes}), got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise NonFiniteError("the learner predicts probabilities that are not finite")
    if (array < -1e-6).any() or not np.allclose(array.sum(1), 1.0, atol=1e-3):
        raise InvalidArgumentError("predict must give probabilities, rows with sum 1; take a softmax of logits")
    return array.argmax(1), array.max(1).astype(float)


def _verdict(
    name: Any,
    place: int,
    members: NDArray[np.int64],
    counts: NDArray[np.int64],
    own: _Outcome,
    other: _Outcome | None,
    shares: NDArray[np.float64],
    tolerance: float,
    level: float,
    bootstrap: np.random.Generator,
) -> GroupDiagnosis:
    inside = members == place
    trials = int(counts[place])
    wrong = own.wrong[:, inside].sum(1).astype(float)
    curve, curves = _curves(shares, wrong, trials, bootstrap)
    low, high = wilson(wrong[-1], trials, level)
    error = wrong[-1] / trials
    best, draws = curve, curves
    doublings = np.array([drawn.doubling for drawn in curves])
    ends = 100 * np.array([0.5 - level / 2, 0.5 + level / 2])
    better, reference_error = False, float("nan")
    if other is not None:
        theirs = other.wrong[:, inside].sum(1).astype(float)
        reference_error = float(theirs[-1] / trials)
        # Both learners are tried on the same rows: only those on which one of them is wrong tell them apart.
        differ = own.wrong[-1, inside].astype(float) - other.wrong[-1, inside]
        spread = normal_quantile(level) * np.sqrt(max(float((differ**2).sum()), 1.0)) / trials
        better = bool(error - reference_error > max(tolerance / 2, spread))
        their_curve, their_curves = _curves(shares, theirs, trials, bootstrap)
        if their_curve.plateau < best.plateau:
            best, draws = their_curve, their_curves
    plateau_interval = tuple(float(end) for end in np.percentile([drawn.plateau for drawn in draws], ends))
    causes = []
    if error >= tolerance and low > tolerance / 2:
        few = trials < max(np.median(counts) / 2, counts.max() / 10)
        falls = curve.doubling >= tolerance / 5
        settled = few or best.doubling < tolerance / 5
        if settled and plateau_interval[0] > tolerance / 2:
            causes.append("noisy")
        if few and falls:
            causes.append("rare")
        if better or (falls and not few and "noisy" not in causes):
            causes.append("hard")
    confident = own.confidence[inside]
    return GroupDiagnosis(
        name,
        tuple(causes),
        trials,
        float(error),
        (float(low), float(high)),
        best.plateau,
        (plateau_interval[0], plateau_interval[1]),
        curve.doubling,
        (float(np.percentile(doublings, ends[0])), float(np.percentile(doublings, ends[1]))),
        reference_error,
        float(own.in_training[inside].mean()),
        float(confident.mean() - (1 - error)),
        tuple(shares.tolist()),
        tuple((wrong / trials).tolist()),
    )


def _curves(
    shares: NDArray[np.float64], wrong: NDArray[np.float64], trials: int, bootstrap: np.random.Generator
) -> tuple[LearningCurve, list[LearningCurve]]:
    """The fitted curve, and those of a parametric bootstrap from the errors with half a count added either side."""
    centers = (wrong + 0.5) / (trials + 1.0)
    draws = bootstrap.binomial(trials, centers, size=(_DRAWS, len(shares))).astype(float)
    return fit_curve(shares, wrong, trials), [fit_curve(shares, drawn, trials) for drawn in draws]


def _as_learner(given: Any, classes: int) -> Learner:
    if hasattr(given, "fit") and hasattr(given, "predict"):
        from sklearn.base import clone

        def learn(data: Any, codes: Tensor) -> Predict:
            fitted = clone(given).fit(_plain(data), codes.numpy())

            def predict(rows: Any) -> Any:
                if not hasattr(fitted, "predict_proba"):
                    return fitted.predict(_plain(rows))
                found = fitted.predict_proba(_plain(rows))
                # A subset may lack a class, whose column is then missing.
                full = np.zeros((len(found), classes))
                full[:, fitted.classes_] = found
                return full

            return predict

        return learn
    if not callable(given):
        raise InvalidArgumentError(f"a learner is an estimator with fit and predict, or callable, got {given!r}")
    return given  # type: ignore[no-any-return]


def _plain(data: Any) -> Any:
    return data.detach().cpu().numpy() if isinstance(data, Tensor) else data


def _neighbors(data: Any) -> Learner | None:
    """Votes among the nearest rows, or None for data that have no distances."""
    plain = _plain(data)
    if not isinstance(plain, np.ndarray) or plain.dtype.kind not in "fiub" or plain.ndim < 2:
        return None
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def learn(rows: Any, codes: Tensor) -> Predict:
        flat = _plain(rows).reshape(len(codes), -1).astype(float)
        nearest = KNeighborsClassifier(min(15, len(codes)))
        fitted = make_pipeline(StandardScaler(), nearest).fit(flat, codes.numpy())
        return lambda other: fitted.predict(_plain(other).reshape(len(other), -1).astype(float))

    return learn
