"""Label noise of a known law: symmetric, within pairs, by a matrix, by groups; and noise on numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .._core import checks
from .._core.random import Seed, torch_generator
from ..errors import InvalidArgumentError, UnknownNameError
from ._labeled import as_list, decode, encode, like

__all__ = ["CorruptedLabels", "CorruptedTargets", "corrupt_labels", "corrupt_targets"]

Pairs = Sequence[tuple[Any, Any]] | Mapping[Any, Any]
Matrix = NDArray[np.float64]


@final
@dataclass(frozen=True)
class CorruptedLabels:
    """Labels after noise.

    Attributes
    ----------
    labels, clean
        Noisy and true labels, in the container they came in.
    flipped : ndarray of bool, shape (N,)
        Rows whose label is now another one.
    classes : list
        What rows and columns of the matrices stand for.
    transition : ndarray, shape (K, K)
        ``P(noisy = j | true = i)`` over the rows given: with groups, their mean with the weights that the groups have
        within each class.
    by_group : dict
        The matrix of each group; empty without groups.
    """

    labels: Any
    clean: Any
    flipped: NDArray[np.bool_]
    classes: list[Any]
    transition: Matrix
    by_group: dict[Any, Matrix]

    def realized(self) -> Matrix:
        """The shares that were drawn, shape (K, K); rows of classes without examples are those of ``transition``."""
        rows, _ = encode(self.clean, self.classes)
        columns, _ = encode(self.labels, self.classes)
        size = len(self.classes)
        counts = np.bincount((rows * size + columns).numpy(), minlength=size * size).reshape(size, size).astype(float)
        total = counts.sum(1, keepdims=True)
        return np.where(total > 0, counts / np.maximum(total, 1.0), self.transition)


@final
@dataclass(frozen=True)
class CorruptedTargets:
    """Numbers after noise.

    Attributes
    ----------
    targets, clean
        Noisy and true values, in the container they came in.
    scale : ndarray, shape (N,)
        Standard deviation of the noise of each row, in the units of the targets.
    """

    targets: Any
    clean: Any
    scale: NDArray[np.float64]


def corrupt_labels(
    labels: Any,
    rate: float | Mapping[Any, float] | None = None,
    *,
    pairs: Pairs | None = None,
    matrix: ArrayLike | Mapping[Any, ArrayLike] | None = None,
    groups: Any = None,
    classes: Sequence[Any] | None = None,
    seed: Seed = 0,
) -> CorruptedLabels:
    """Replace labels at random, by a law that is returned with them.

    Parameters
    ----------
    labels : array, tensor, list or series of shape (N,)
        True classes: integers, text, anything that can be sorted.
    rate : float, or mapping from group to float
        Probability in [0, 1] that a label is replaced. With ``groups``, a mapping gives each group its own.
    pairs : sequence of (a, b), or mapping from a to b, optional
        Where replaced labels go. Pairs flip into each other, both ways; a mapping goes one way. Classes that are not
        named keep their labels. Without it, the new label is any of the K - 1 others (symmetric noise).
    matrix : array of shape (K, K), or mapping from group to such, optional
        ``P(noisy = j | true = i)`` in the order of ``classes``, in place of ``rate`` and ``pairs``.
    groups : array of shape (N,), optional
        Group of every row, by which the mappings are read. Groups that a mapping leaves out are not changed.
    classes : sequence, optional
        All classes and their order; by default those in ``labels``, sorted.
    seed : int, torch.Generator or numpy.random.Generator

    Returns
    -------
    CorruptedLabels

    Raises
    ------
    InvalidArgumentError
        For rates outside [0, 1], matrices whose rows are not probabilities, unknown classes or groups, or arguments
        that contradict each other.

    Examples
    --------
    >>> corrupt_labels(["cat", "dog", "owl"], 1.0, pairs=[("cat", "dog")]).labels
    ['dog', 'cat', 'owl']
    """
    if (rate is None) == (matrix is None):
        raise InvalidArgumentError("give either rate (with pairs, or alone for symmetric noise) or matrix")
    if matrix is not None and pairs is not None:
        raise InvalidArgumentError("pairs says where labels go at a rate; a matrix says it already")
    codes, known = encode(labels, classes)
    generator = torch_generator(seed)
    law: Any = rate if matrix is None else matrix
    if groups is None:
        if isinstance(law, Mapping):
            raise InvalidArgumentError("a mapping by group needs groups, the group of every row")
        transition = _transition(law, matrix is not None, pairs, known)
        chosen = torch.from_numpy(transition)[codes]
        by_group: dict[Any, Matrix] = {}
    else:
        members, names = encode(groups)
        if len(members) != len(codes):
            raise InvalidArgumentError(
                f"groups must have one entry for each of {len(codes)} labels, got {len(members)}"
            )
        by_group = _by_group(law, matrix is not None, pairs, known, names)
        stacked = torch.from_numpy(np.stack([by_group[name] for name in names]) if names else np.empty((0, 1, 1)))
        chosen = stacked[members, codes] if names else torch.empty(0, len(known), dtype=torch.float64)
        transition = np.eye(len(known))
        for code in range(len(known)):
            if bool((codes == code).any()):
                transition[code] = chosen[codes == code].mean(0).numpy()
    noisy = _draw(chosen, codes, generator)
    flipped = (noisy != codes).numpy()
    return CorruptedLabels(decode(noisy, known, labels), labels, flipped, known, transition, by_group)


def corrupt_targets(
    targets: Any,
    scale: float | Mapping[Any, float] | ArrayLike,
    *,
    groups: Any = None,
    law: Literal["gaussian", "laplace", "uniform"] = "gaussian",
    seed: Seed = 0,
) -> CorruptedTargets:
    """Add noise of mean zero to numbers, with one standard deviation, one for each group, or one for each row.

    Parameters
    ----------
    targets : array, tensor, list or series of numbers, shape (N,)
        Floating point.
    scale : float, mapping from group to float, or array of shape (N,)
        Standard deviation, in the units of the targets, not negative. Groups that a mapping leaves out get none.
    groups : array of shape (N,), optional
        Group of every row, needed by a mapping.
    law : {"gaussian", "laplace", "uniform"}
        Shape of the noise, scaled to the standard deviation.
    seed : int, torch.Generator or numpy.random.Generator

    Returns
    -------
    CorruptedTargets

    Raises
    ------
    InvalidArgumentError
        For targets that are not finite numbers of floating point, or a scale that is negative or does not fit.
    """
    values = torch.tensor(as_list(targets), dtype=torch.float64)
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite()).long().argmax())
        raise InvalidArgumentError(f"targets must be finite numbers, row {row} is {float(values[row])}")
    kind = getattr(targets, "dtype", None)
    if kind is not None and "float" not in str(kind):
        raise InvalidArgumentError(f"targets must be floating point, got {kind}: the noise would be rounded away")
    draw = {"gaussian": _gaussian, "laplace": _laplace, "uniform": _uniform}.get(law)
    if draw is None:
        raise UnknownNameError("law", str(law), ("gaussian", "laplace", "uniform"))
    spread = _scales(scale, groups, len(values))
    if not bool((torch.isfinite(spread) & (spread >= 0)).all()):
        raise InvalidArgumentError("scale must be finite and not negative")
    noisy = values + spread * draw(len(values), torch_generator(seed))
    return CorruptedTargets(like(noisy.tolist(), targets), targets, spread.numpy())


def _transition(law: Any, is_matrix: bool, pairs: Pairs | None, classes: list[Any]) -> Matrix:
    size = len(classes)
    if is_matrix:
        given = np.asarray(law, dtype=float)
        if given.shape != (size, size):
            raise InvalidArgumentError(f"matrix must have shape {(size, size)} for the classes {classes}")
        if not np.isfinite(given).all() or (given < 0).any() or not np.allclose(given.sum(1), 1.0, atol=1e-6):
            raise InvalidArgumentError("every row of matrix must be probabilities with sum 1")
        rows: Matrix = given / given.sum(1, keepdims=True)
        return rows
    law = checks.fraction("rate", law)
    if pairs is None:
        if size < 2 and law > 0:
            raise InvalidArgumentError("symmetric noise needs at least 2 classes")
        matrix = np.full((size, size), law / max(size - 1, 1))
        np.fill_diagonal(matrix, 1.0 - law)
        return matrix
    matrix = np.eye(size)
    for source, target in _directed(pairs, classes):
        matrix[source, source] = 1.0 - law
        matrix[source, target] += law
    return matrix


def _directed(pairs: Pairs, classes: list[Any]) -> list[tuple[int, int]]:
    given = list(pairs.items()) if isinstance(pairs, Mapping) else [tuple(pair) for pair in pairs]
    for pair in given:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise InvalidArgumentError(f"a pair is two different classes, got {pair!r}")
        for name in pair:
            if name not in classes:
                raise InvalidArgumentError(f"pair {pair!r}: there is no class {name!r}; there are {classes}")
    places = [(classes.index(a), classes.index(b)) for a, b in given]
    if not isinstance(pairs, Mapping):
        places += [(b, a) for a, b in places]
    if len({source for source, _ in places}) < len(places):
        raise InvalidArgumentError("a class is in more than one pair; give a matrix instead")
    return places


def _by_group(
    law: Any, is_matrix: bool, pairs: Pairs | None, classes: list[Any], names: list[Any]
) -> dict[Any, Matrix]:
    if not isinstance(law, Mapping):
        law = dict.fromkeys(names, law)
    if unknown := [name for name in law if name not in names]:
        raise InvalidArgumentError(f"there is no group {unknown[0]!r}; there are {names}")
    untouched = np.eye(len(classes))
    return {
        name: _transition(law[name], is_matrix, pairs, classes) if name in law else untouched.copy() for name in names
    }


def _draw(probabilities: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
    if not len(codes):
        return codes.clone()
    draws = torch.rand(len(codes), 1, generator=generator, dtype=torch.float64)
    edges = probabilities.cumsum(1)
    # Rounding may leave the last edge below one, and a class of probability zero must not catch the rest.
    edges = edges / edges[:, -1:]
    return torch.searchsorted(edges.contiguous(), draws, right=True)[:, 0].clamp(max=probabilities.shape[1] - 1)


def _scales(scale: Any, groups: Any, rows: int) -> Tensor:
    if isinstance(scale, Mapping):
        if groups is None:
            raise InvalidArgumentError("a mapping by group needs groups, the group of every row")
        members, names = encode(groups)
        if len(members) != rows:
            raise InvalidArgumentError(f"groups must have one entry for each of {rows} targets, got {len(members)}")
        if unknown := [name for name in scale if name not in names]:
            raise InvalidArgumentError(f"there is no group {unknown[0]!r}; there are {names}")
        return torch.tensor([float(scale.get(name, 0.0)) for name in names], dtype=torch.float64)[members]
    given = torch.as_tensor(scale, dtype=torch.float64).detach().cpu()
    if given.ndim == 0:
        return given.expand(rows).clone()
    if given.shape != (rows,):
        raise InvalidArgumentError(f"scale must be one number or {rows}, got shape {tuple(given.shape)}")
    return given.clone()


def _gaussian(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, generator=generator, dtype=torch.float64)


def _laplace(rows: int, generator: torch.Generator) -> Tensor:
    centered = torch.rand(rows, generator=generator, dtype=torch.float64) - 0.5
    return -centered.sign() * torch.log1p(-2.0 * centered.abs()) / math.sqrt(2.0)


def _uniform(rows: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(rows, generator=generator, dtype=torch.float64) - 0.5) * math.sqrt(12.0)
