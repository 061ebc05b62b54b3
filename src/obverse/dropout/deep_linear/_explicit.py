"""The exact regularizer of a deep linear network with dropout in every layer, in five equivalent forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from ..._core.arrays import Array
from ..._core.checks import fraction
from ...errors import InvalidArgumentError, UnknownNameError
from .._finite import admit_finite, listed
from ._noise import KeepProbabilities, Noise, layer_noises

__all__ = [
    "Form",
    "admit_network",
    "admit_problem",
    "drop_path_moment",
    "explicit_regularizer",
    "inner_moments",
    "last_dropped",
    "outer_moments",
]

Form = Literal["last-dropped", "first-dropped", "forward", "backward", "subset-sum"]


def explicit_regularizer(
    weights: Sequence[Array],
    keep_probability: KeepProbabilities,
    covariance: Array | None = None,
    *,
    form: Form = "last-dropped",
    per_layer: bool = False,
) -> Array:
    """What dropout adds to the expected squared loss of the network ``x -> W_{k+1} D_k W_k ... D_1 W_1 x``.

    ``E_z ||y - f_z(x)||^2 = ||y - W x||^2 + R`` exactly, for any second moment ``C`` of the inputs. With ``G_0 = C``,
    ``H_l = W_l G_{l-1} W_l'``, ``G_l = H_l + Cbar_l o H_l`` and ``N_l = W_{k+1} ... W_{l+1}`` the default form is

        R = sum_l tr(N_l (Cbar_l o H_l) N_l')

    a sum of nonnegative terms, one per layer, safe in float32. The others are equal: "first-dropped" (also without
    cancellation), "forward" and "backward" (a difference of two traces) and "subset-sum" (over all sets of layers,
    as in Mianjy and Arora, 2019; exponential in depth, a reference). The rest is linear in depth.

    Parameters
    ----------
    weights : sequence of k + 1 arrays
        ``W_1, ..., W_{k+1}`` from input to output, ``W_l`` of shape (d_l, d_{l-1}).
    keep_probability : float, law, or a sequence of them
        One entry for all hidden layers or one for each of the k: a number in (0, 1] (1: no dropout), numbers per unit
        (d_l,), a `MaskLaw` of the layer's units, or `Connect` for masks on the weights ``W_l`` instead. A further
        (k+1)-th entry belongs to the output layer; a single `Connect` masks all k + 1 weight layers.
    covariance : array (d_0, d_0), optional
        Second moment ``E xx'`` of the inputs (not centered); default the identity (whitened inputs).
    form : str
    per_layer : bool
        Return the terms of the sum, one per weight layer (k + 1 numbers, the last for the output layer), for the forms
        "last-dropped" and "first-dropped".

    Returns
    -------
    scalar, or array (k + 1,) with ``per_layer``
        NumPy or torch as ``weights``; in torch differentiable in the weights and the covariance.

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit each other, a keep probability is outside (0, 1], or the form has no split per layer.
    """
    if form not in _FORMS:
        raise UnknownNameError("form", form, _FORMS)
    if per_layer and form not in ("last-dropped", "first-dropped"):
        raise InvalidArgumentError(f"the form {form!r} has no split per layer; use 'last-dropped' or 'first-dropped'")
    matrices, moment, back = admit_network(weights, covariance)
    value = _FORMS[form](matrices, layer_noises(keep_probability, matrices), moment)
    return back(value.sum() if value.ndim and not per_layer else value)


def drop_path_moment(moment: Array, branch: Array, keep_probability: float) -> Array:
    """Second moment behind a residual layer ``x + z B x`` whose branch is dropped whole (stochastic depth).

    ``G' = (I + B) G (I + B)' + lam B G B'`` with ``lam = (1 - keep)/keep``.

    Parameters
    ----------
    moment : array (d, d)
        ``G``, the second moment of the inputs.
    branch : array (d, d)
        ``B``.
    keep_probability : float

    Returns
    -------
    array (d, d)

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit or the keep probability is outside (0, 1].
    """
    keep = fraction("keep_probability", keep_probability, zero=False)
    (inner, linear), back = admit_finite(moment=moment, branch=branch)
    if linear.ndim != 2 or linear.shape[0] != linear.shape[1] or inner.shape != linear.shape:
        raise InvalidArgumentError(
            f"a residual branch is square and fits the moment, got {tuple(linear.shape)} and {tuple(inner.shape)}"
        )
    whole = linear + torch.eye(linear.shape[0], dtype=linear.dtype, device=linear.device)
    return back(whole @ inner @ whole.mT + (1 - keep) / keep * (linear @ inner @ linear.mT))


def admit_network(
    weights: Sequence[Array], covariance: Array | None
) -> tuple[list[Tensor], Tensor, Callable[[Tensor], Array]]:
    """The weights and the inputs' second moment as tensors that fit each other, and the way back."""
    named = _named(weights, covariance)
    tensors, back = admit_finite(**named)
    return *_fitted(tensors, len(tensors) - ("covariance" in named)), back


def admit_problem(
    weights: Sequence[Array], covariance: Array | None, cross_covariance: Array
) -> tuple[list[Tensor], Tensor, Tensor, Callable[[Tensor], Array]]:
    """As `admit_network`, with the cross covariance (outputs, inputs) before the way back."""
    named = _named(weights, covariance)
    (cross, *tensors), back = admit_finite(cross_covariance=cross_covariance, **named)
    matrices, moment = _fitted(tensors, len(tensors) - ("covariance" in named))
    expected = (matrices[-1].shape[0], matrices[0].shape[1])
    if cross.shape != expected:
        raise InvalidArgumentError(f"cross_covariance must be {expected}, got {tuple(cross.shape)}")
    return matrices, moment, cross, back


def _named(weights: Sequence[Array], covariance: Array | None) -> dict[str, Array]:
    named = {f"weight layer {layer}": weight for layer, weight in enumerate(listed("weights", weights), 1)}
    if not named:
        raise InvalidArgumentError("a network has at least one weight layer")
    return named if covariance is None else {**named, "covariance": covariance}


def _fitted(tensors: list[Tensor], count: int) -> tuple[list[Tensor], Tensor]:
    matrices = tensors[:count]
    for layer, matrix in enumerate(matrices, 1):
        if matrix.ndim != 2:
            raise InvalidArgumentError(f"weight layer {layer} is not a matrix: shape {tuple(matrix.shape)}")
        if layer > 1 and matrix.shape[1] != matrices[layer - 2].shape[0]:
            raise InvalidArgumentError(
                f"weight layer {layer} takes {matrix.shape[1]} inputs, "
                f"but layer {layer - 1} has {matrices[layer - 2].shape[0]} units"
            )
    first = matrices[0]
    size = first.shape[1]
    moment = torch.eye(size, dtype=first.dtype, device=first.device) if len(tensors) == count else tensors[count]
    if moment.shape != (size, size):
        raise InvalidArgumentError(f"the covariance must be ({size}, {size}), got {tuple(moment.shape)}")
    return matrices, moment


def inner_moments(
    matrices: list[Tensor], noises: list[Noise | None], moment: Tensor
) -> tuple[list[Tensor], list[Tensor | None]]:
    """``G_0, ..., G_{k+1}`` and what each mask adds, from input to output."""
    moments, added = [moment], []
    for matrix, noise in zip(matrices, noises, strict=True):
        clean = matrix @ moments[-1] @ matrix.mT
        extra = None if noise is None else noise.added(matrix, moments[-1], clean)
        moments.append(clean if extra is None else clean + _dense(extra))
        added.append(extra)
    return moments, added


def outer_moments(matrices: list[Tensor], noises: list[Noise | None]) -> list[Tensor]:
    """``Q_0, ..., Q_{k+1}``: output energy per unit of second moment at each layer, masks above it included."""
    outputs = matrices[-1].shape[0]
    outer = [torch.eye(outputs, dtype=matrices[0].dtype, device=matrices[0].device)]
    for matrix, noise in zip(reversed(matrices), reversed(noises), strict=True):
        clean = matrix.mT @ outer[-1] @ matrix
        outer.append(clean if noise is None else clean + noise.adjoint(matrix, outer[-1]))
    return outer[::-1]


def last_dropped(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor) -> Tensor:
    """The regularizer's nonnegative terms, one per weight layer, each for the masks whose last drop is there."""
    _, added = inner_moments(matrices, noises, moment)
    above = outer_moments(matrices, [None] * len(matrices))
    return torch.stack([_energy(extra, outer) for extra, outer in zip(added, above[1:], strict=True)])


def _first_dropped(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor) -> Tensor:
    clean, _ = inner_moments(matrices, [None] * len(matrices), moment)
    above = outer_moments(matrices, noises)
    terms = []
    for layer, (matrix, noise) in enumerate(zip(matrices, noises, strict=True)):
        extra = None if noise is None else noise.added(matrix, clean[layer], clean[layer + 1])
        terms.append(_energy(extra, above[layer + 1]))
    return torch.stack(terms)


def _forward(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor) -> Tensor:
    moments, _ = inner_moments(matrices, noises, moment)
    whole = _product(matrices)
    return moments[-1].trace() - ((whole @ moment) * whole).sum()


def _backward(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor) -> Tensor:
    whole = _product(matrices)
    return (moment * (outer_moments(matrices, noises)[0] - whole.mT @ whole)).sum()


def _subset_sum(matrices: list[Tensor], noises: list[Noise | None], moment: Tensor) -> Tensor:
    total = moment.new_zeros(())
    for dropped in product(*[(False, True) if noise is not None else (False,) for noise in noises]):
        if not any(dropped):
            continue
        inner = moment
        for matrix, noise, drops in zip(matrices, noises, dropped, strict=True):
            clean = matrix @ inner @ matrix.mT
            inner = _dense(noise.added(matrix, inner, clean)) if drops and noise is not None else clean
        total = total + inner.trace()
    return total


_FORMS = {
    "last-dropped": last_dropped,
    "first-dropped": _first_dropped,
    "forward": _forward,
    "backward": _backward,
    "subset-sum": _subset_sum,
}


def _energy(added: Tensor | None, outer: Tensor) -> Tensor:
    """``<D, Q>`` for ``D`` a matrix, a diagonal or nothing."""
    if added is None:
        return outer.new_zeros(())
    return (added * (outer if added.ndim == 2 else outer.diagonal())).sum()


def _dense(added: Tensor) -> Tensor:
    return added if added.ndim == 2 else added.diag_embed()


def _product(matrices: list[Tensor]) -> Tensor:
    return reduce(lambda below, matrix: matrix @ below, matrices)
