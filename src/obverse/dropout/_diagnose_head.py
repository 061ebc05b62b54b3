"""The diagnosis of a last linear layer, from the moments of its features and targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ._comoments import CoMoments
from ._connect import Connect
from ._criterion import check_loss
from ._diagnosis import ModelDiagnosis, Vector, effective_rank, stable_rank
from ._fixed_features import QuadraticForm, best_head, unit_values
from ._law import MaskLaw
from ._noise_before import flattened
from ._norms import k_support_norm
from .deep_linear import mask_bound
from .deep_linear._objective import root_and_inverse
from .deep_linear._spectrum import best_spectrum
from .deep_linear._strengths import LayerStrength, layer_strengths

__all__ = ["HeadProblem", "diagnose_head", "loss_caveats", "padded"]

_DENSE = 2048  # units up to which a law without closed form is bounded by its eigenvalues


@dataclass(frozen=True)
class HeadProblem:
    """All that is known of a last layer: parameters, mask, and the joint moments of features and targets."""

    name: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    law: MaskLaw
    event: tuple[int, ...]
    source: str
    loss: Any
    moments: CoMoments
    residual: float
    form: QuadraticForm | None
    lowest: float


def diagnose_head(problem: HeadProblem, caveats: list[str]) -> ModelDiagnosis:
    """Regularizer, bounds and predictions of a last layer."""
    weight, moments = problem.weight, problem.moments
    outputs, units = weight.shape
    simple = flattened(problem.law, problem.event)
    law, event = (problem.law, problem.event) if not isinstance(problem.law, Connect) else (simple, (units,))
    centered = problem.bias is not None
    spread = moments.covariance if centered else moments.second_moment
    moment, cross, energy = spread[:units, :units], spread[units:, :units], spread[units:, units:]
    features = moments.second_moment[:units, :units]
    # Connect with a rate for each weight has no mask of units; its regularizer is diagonal all the same.
    noise, quiet = (_noise(law, part, event, problem) for part in (features, moment))
    values = unit_values(weight, noise)
    omega = float(values.sum())
    mean_cost = omega - float(unit_values(weight, quiet).sum())
    root = torch.from_numpy(root_and_inverse(moment)[0])
    singular = padded(weight @ root, outputs)
    wanted = padded(torch.from_numpy(root_and_inverse(energy)[0]), outputs)
    layer = None if simple is None else layer_strengths(simple, [units])[0]
    bound, strength = _bound(law, event, layer, weight, moment, singular)
    fixed = best_head(moment, cross, noise)
    fixed_values = padded(fixed @ root, outputs)
    spectrum = None if layer is None else best_spectrum(wanted, [layer])
    squared = check_loss(problem.loss)[0] == "squared"
    own = values if problem.form is None else problem.form.values()
    total = float(own.sum())
    error = problem.residual / moments.count if squared else None
    if layer is None:
        caveats = [*caveats, f"{problem.law!r} has no closed form for free features; see the bound and fixed features."]
    return ModelDiagnosis(
        kind="last layer",
        layer=problem.name,
        units=units,
        outputs=outputs,
        examples=moments.count,
        loss=check_loss(problem.loss)[0],
        laws=(repr(problem.law),),
        rate_source=problem.source,
        regularizer=total,
        exact=squared,
        layer_values={problem.name: total},
        unit_shares={problem.name: own.numpy() / total if total > 0 else np.zeros(units)},
        squared_regularizer=omega,
        mean_cost=max(mean_cost, 0.0) if centered else 0.0,
        bound=bound,
        strength=strength,
        ratio=omega / bound if bound > 0 else math.nan,
        equalization_gap=omega - bound,
        singular_values=singular,
        target_singular_values=wanted,
        predicted_singular_values=None if spectrum is None else spectrum.kept,
        fixed_singular_values=fixed_values,
        effective_rank=effective_rank(singular),
        stable_rank=stable_rank(singular),
        predicted_rank=None if spectrum is None else spectrum.rank,
        mean_squared_error=error,
        expected_loss=None if error is None else error + omega,
        fixed_optimum=max(float(energy.trace() - (fixed * cross).sum()), 0.0) if squared else None,
        free_optimum=spectrum.cost if squared and spectrum is not None else None,
        caveats=(*caveats, *_caveats(problem, spectrum is not None), *loss_caveats(problem.loss)),
    )


def _noise(law: MaskLaw | None, moment: torch.Tensor, event: tuple[int, ...], problem: HeadProblem) -> torch.Tensor:
    if law is not None:
        result: torch.Tensor = law.hadamard(moment, event)
        return result
    variance = torch.from_numpy(problem.law.variance(tuple(problem.weight.shape)))
    square = problem.weight.square()
    share = torch.where(square.sum(0) > 0, (variance * square).sum(0) / square.sum(0).clamp(min=1e-300), 0.0)
    return torch.diag(share * moment.diagonal())


def _bound(
    law: MaskLaw | None,
    event: tuple[int, ...],
    layer: LayerStrength | None,
    weight: torch.Tensor,
    moment: torch.Tensor,
    singular: Vector,
) -> tuple[float, float]:
    """The least regularizer that the product allows, and its strength; NaN where it is not known."""
    if layer is not None:
        return layer.strength * float(k_support_norm(singular, layer.block)) ** 2, layer.strength
    if law is None or weight.shape[1] > _DENSE:
        return math.nan, math.nan
    found = mask_bound(weight.numpy(), law.covariance(event), moment.numpy())
    return float(found.value), found.strength


def _caveats(problem: HeadProblem, free: bool) -> list[str]:
    units, examples = problem.weight.shape[1], problem.moments.count
    found = []
    if free:
        found.append("The prediction for free features assumes that the layers below can realize any features.")
    if problem.lowest >= 0:
        found.append(
            "No feature is negative, such as behind ReLU: bound and prediction, which allow features of any sign, may "
            "be out of reach."
        )
    if problem.bias is not None:
        found.append("The layer has a bias: predictions and targets are centered; noise on the means of units counts.")
    if examples <= units:
        found.append(f"{examples:,} examples for {units:,} units: with fixed features the sample is fitted exactly.")
    return found


def loss_caveats(loss: Any) -> list[str]:
    """What the theory of the squared loss says, and does not say, of another loss."""
    if check_loss(loss)[0] == "squared":
        return []
    return [
        "Bounds and predicted singular values are those of the squared loss on the targets as numbers; the scale of "
        "logits is another one, so compare shapes and ranks, not sizes.",
        "The quadratic form of the regularizer can be off by tens of percent for masks that drop whole units; "
        "explicit_penalty(form='leave-one-out') is exact to first order in the rate.",
    ]


def padded(matrix: torch.Tensor, size: int) -> Vector:
    """Singular values, decreasing, with zeros up to ``size``.

    The matrices come from roots of second moments, in which a zero is known to the root of the precision.
    """
    values = torch.linalg.svdvals(matrix).numpy()
    floor = 4.0 * math.sqrt(np.finfo(np.float64).eps * max(matrix.shape)) * values.max(initial=0.0)
    values = np.where(values > floor, values, 0.0)
    return np.pad(values, (0, max(size - len(values), 0)))
