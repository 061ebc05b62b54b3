"""Imbalanced data from balanced data: exponential or step profiles, with label noise before or after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.random import Seed, torch_generator
from ..errors import InvalidArgumentError, UnknownNameError
from ._corrupt import CorruptedLabels, CorruptedTargets, corrupt_labels, corrupt_targets
from ._labeled import as_list, encode, rows_of, take, take_labels

__all__ = ["ImbalancedData", "make_imbalanced"]


@final
@dataclass(frozen=True)
class ImbalancedData:
    """A selection of rows, and how it came about.

    Attributes
    ----------
    data
        The chosen rows, in the container they came in; None where none were given.
    labels, clean
        Labels to train on, and true ones (the same without noise), in their container.
    indices : ndarray of int, shape (n,)
        The chosen rows of the data given, increasing.
    counts : dict
        Rows by class (or by group of ``by``), from the most to the least frequent in the order asked for.
    noise : CorruptedLabels, CorruptedTargets or None
        The noise as drawn, with its transition matrix or scales: over all rows given if it came first, else over the
        chosen ones.
    order : str or None
        ``"noise-first"`` or ``"imbalance-first"``; None without noise.
    """

    data: Any
    labels: Any
    clean: Any
    indices: NDArray[np.int64]
    counts: dict[Any, int]
    noise: CorruptedLabels | CorruptedTargets | None
    order: str | None

    @property
    def transition(self) -> NDArray[np.float64] | None:
        """``P(noisy = j | true = i)``, None without label noise."""
        return self.noise.transition if isinstance(self.noise, CorruptedLabels) else None

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Chosen rows whose label is not the true one, shape (n,)."""
        pairs = zip(as_list(self.labels), as_list(self.clean), strict=True)
        return np.array([a != b for a, b in pairs], dtype=bool)


def make_imbalanced(
    data: Any,
    labels: Any,
    *,
    ratio: float,
    kind: Literal["exponential", "step"] = "exponential",
    ranking: Sequence[Any] | None = None,
    rare: Sequence[Any] | None = None,
    largest: int | None = None,
    by: Any = None,
    noise: Mapping[str, Any] | None = None,
    order: Literal["noise-first", "imbalance-first"] = "noise-first",
    seed: Seed = 0,
) -> ImbalancedData:
    """Choose rows at random so that classes have an imbalanced profile, and optionally corrupt the labels.

    Parameters
    ----------
    data : tensor, array, table, sparse matrix, list, dataset, dict or tuple of such, or None
        N rows of anything: images, lists of text.
    labels : array, tensor, list or series of shape (N,)
        Class of every row; numbers to predict where ``by`` is given.
    ratio : float
        Rows of the least frequent class per row of the most frequent one, in (0, 1].
    kind : {"exponential", "step"}
        ``n_k = largest ratio^(k / (K - 1))`` along the ranking, or ``largest`` for all but the rare classes, which get
        ``largest ratio``. Counts are rounded, and at least one.
    ranking : sequence of all classes, optional
        From most to least frequent; by default sorted.
    rare : sequence of classes, optional
        The rare classes of a step; by default the second half of the ranking.
    largest : int, optional
        Rows of the most frequent class; by default the most for which every class has enough rows.
    by : array of shape (N,), optional
        What is imbalanced in place of the labels, as bins of a number or metadata.
    noise : mapping, optional
        Arguments of `corrupt_labels` (``rate``, ``pairs``, ``matrix``, ``groups``, ``classes``), or of
        `corrupt_targets` where it has ``scale``.
    order : {"noise-first", "imbalance-first"}
        ``noise-first`` corrupts all rows and then counts the noisy labels, as Cao et al. (2021) build their data;
        ``imbalance-first`` chooses rows by true labels and corrupts what is left.
    seed : int, torch.Generator or numpy.random.Generator
        One stream for noise and choice.

    Returns
    -------
    ImbalancedData

    Raises
    ------
    InvalidArgumentError
        When a class has too few rows, or arguments do not fit each other.

    Examples
    --------
    >>> made = make_imbalanced(["a", "b", "c", "d"] * 50, [0, 1, 2, 3] * 50, ratio=0.1, kind="step", rare=[1, 3])
    >>> made.counts
    {0: 50, 2: 50, 1: 5, 3: 5}
    """
    if kind not in ("exponential", "step"):
        raise UnknownNameError("kind", str(kind), ("exponential", "step"))
    if order not in ("noise-first", "imbalance-first"):
        raise UnknownNameError("order", str(order), ("noise-first", "imbalance-first"))
    ratio = checks.fraction("ratio", ratio, zero=False)
    rows = len(as_list(labels))
    for name, part in (("data", data), ("by", by)):
        count = rows_of(part)
        if count is not None and count != rows:
            raise InvalidArgumentError(f"{name} must have one row for each of {rows} labels, got {count}")
    generator = torch_generator(seed)
    everything = torch.arange(rows)
    drawn: CorruptedLabels | CorruptedTargets | None = None
    noisy = labels
    if noise is not None and order == "noise-first":
        drawn = _corrupt(labels, noise, everything, generator)
        noisy = _noisy(drawn)
    codes, classes = encode(noisy if by is None else by)
    profile = _profile(kind, ratio, classes, ranking, rare)
    indices, counts = _choose(codes, classes, profile, largest, generator)
    kept, clean = take_labels(noisy, indices), take_labels(labels, indices)
    if noise is not None and order == "imbalance-first":
        drawn = _corrupt(clean, noise, indices, generator)
        kept = _noisy(drawn)
    return ImbalancedData(
        take(data, indices), kept, clean, indices.numpy(), counts, drawn, order if noise is not None else None
    )


def _corrupt(
    labels: Any, noise: Mapping[str, Any], rows: Tensor, generator: torch.Generator
) -> CorruptedLabels | CorruptedTargets:
    allowed = {"scale", "groups", "law"} if "scale" in noise else {"rate", "pairs", "matrix", "groups", "classes"}
    if unknown := set(noise) - allowed:
        raise InvalidArgumentError(f"noise has no entry {sorted(unknown)[0]!r}; allowed are {sorted(allowed)}")
    given = dict(noise)
    groups = given.get("groups")
    if groups is not None:
        given["groups"] = [as_list(groups)[row] for row in rows.tolist()]
    if "scale" in given:
        scale = given["scale"]
        if not isinstance(scale, Mapping) and np.ndim(scale) == 1:
            given["scale"] = np.asarray(scale, dtype=float)[rows.numpy()]
        return corrupt_targets(labels, seed=generator, **given)
    return corrupt_labels(labels, seed=generator, **given)


def _noisy(drawn: CorruptedLabels | CorruptedTargets) -> Any:
    return drawn.labels if isinstance(drawn, CorruptedLabels) else drawn.targets


def _profile(
    kind: str, ratio: float, classes: list[Any], ranking: Sequence[Any] | None, rare: Sequence[Any] | None
) -> dict[Any, float]:
    """Share of the largest class that each class gets, in the order from most to least frequent."""
    ranked = classes if ranking is None else as_list(ranking)
    if sorted(map(repr, ranked)) != sorted(map(repr, classes)):
        raise InvalidArgumentError(f"ranking must name every class once: {classes}, got {ranked}")
    if kind == "exponential":
        if rare is not None:
            raise InvalidArgumentError('rare belongs to kind="step"; an exponential profile follows the ranking')
        steps = max(len(ranked) - 1, 1)
        return {name: ratio ** (place / steps) for place, name in enumerate(ranked)}
    few = ranked[(len(ranked) + 1) // 2 :] if rare is None else as_list(rare)
    if unknown := [name for name in few if name not in ranked]:
        raise InvalidArgumentError(f"there is no class {unknown[0]!r} to make rare; there are {classes}")
    if len(set(few)) == len(ranked):
        raise InvalidArgumentError("at least one class must not be rare")
    frequent = {name: 1.0 for name in ranked if name not in few}
    return frequent | {name: float(ratio) for name in ranked if name in few}


def _choose(
    codes: Tensor, classes: list[Any], profile: dict[Any, float], largest: int | None, generator: torch.Generator
) -> tuple[Tensor, dict[Any, int]]:
    members = {name: torch.nonzero(codes == place)[:, 0] for place, name in enumerate(classes)}
    if largest is None:
        largest = min((_most(len(members[name]), share) for name, share in profile.items()), default=0)
    else:
        largest = checks.count("largest", largest)
    counts = {name: _size(largest, share) for name, share in profile.items()}
    for name, count in counts.items():
        if count > len(members[name]):
            raise InvalidArgumentError(
                f"class {name!r} has {len(members[name])} rows, {count} are needed; lower largest"
            )
    parts = [
        members[name][torch.randperm(len(members[name]), generator=generator)[:count]] for name, count in counts.items()
    ]
    chosen = torch.cat(parts).sort().values if parts else torch.empty(0, dtype=torch.int64)
    return chosen, counts


def _size(largest: int, share: float) -> int:
    return max(1, round(largest * share))


def _most(available: int, share: float) -> int:
    """The largest class for which this one, at its share, still has enough rows."""
    most = math.floor((available + 1) / share)
    while most > 1 and _size(most, share) > available:
        most -= 1
    return most
