"""The diagnosis of a stack of linear layers, as a deep linear network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from . import deep_linear
from ._comoments import CoMoments
from ._criterion import check_loss
from ._diagnose_head import loss_caveats, padded
from ._diagnosis import ModelDiagnosis, stable_rank
from ._independent import Bernoulli
from ._law import MaskLaw
from .deep_linear._noise import check_keep_probability, per_layer
from .deep_linear._objective import root_and_inverse

__all__ = ["StackProblem", "diagnose_stack"]

Layer = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class StackProblem:
    """A stack of linear layers with the masks between them, and the joint moments of inputs and targets."""

    names: Sequence[str]
    layers: Sequence[Layer]
    entries: Any
    source: str
    loss: Any
    moments: CoMoments
    residual: float


def diagnose_stack(problem: StackProblem, caveats: list[str]) -> ModelDiagnosis:
    """Regularizer of every layer with its biases as they are, and the comparison with the global optimum."""
    weights = [weight.numpy() for weight, _ in problem.layers]
    laws = [_law(entry, layer) for layer, entry in enumerate(per_layer(problem.entries, len(weights) - 1), 1)]
    moments, inputs = problem.moments, weights[0].shape[1]
    parts = _layer_values(problem.layers, laws, moments, inputs)
    values = {name: float(part.sum()) for name, part in zip(problem.names[1:], parts, strict=True)}
    centered = problem.layers[-1][1] is not None
    if centered and any(bias is None for _, bias in problem.layers):
        caveats = [*caveats, "Only some layers have a bias; bounds and optimum are those of biases everywhere."]
    spread = (moments.covariance if centered else moments.second_moment).numpy()
    moment, cross, energy = spread[:inputs, :inputs], spread[inputs:, :inputs], spread[inputs:, inputs:]
    noises = [1.0 if law is None else law for law in laws]
    stack = deep_linear.diagnose(weights, noises, moment, cross)
    omega = math.fsum(values.values())
    outputs = weights[-1].shape[0]
    squared = check_loss(problem.loss)[0] == "squared"
    error = problem.residual / moments.count if squared else None
    optimum = None
    if stack.optimality_gap is not None and squared:
        optimum = float(deep_linear.objective(weights, noises, moment, cross, np.trace(energy)) - stack.optimality_gap)
    wanted = padded(torch.from_numpy(cross @ root_and_inverse(moment)[1]), outputs)
    predicted = stack.predicted_singular_values
    if any(law is not None and not isinstance(law, Bernoulli) for law in laws) or any(
        len(weight) < min(inputs, outputs) for weight in weights[:-1]
    ):
        caveats = [*caveats, "Blocks, unequal rates and narrow layers: the optimum may be a lower bound."]
    if centered:
        caveats = [*caveats, "The layers have biases: data are centered for bounds and optimum."]
    return ModelDiagnosis(
        kind="linear stack",
        layer=problem.names[-1],
        units=weights[-1].shape[1],
        outputs=outputs,
        examples=moments.count,
        loss=check_loss(problem.loss)[0],
        laws=tuple("no dropout" if law is None else repr(law) for law in laws),
        rate_source=problem.source,
        regularizer=omega,
        exact=True,
        layer_values=values,
        unit_shares={
            name: (part / part.sum() if part.sum() > 0 else part).numpy()
            for name, part in zip(problem.names[1:], parts, strict=True)
        },
        squared_regularizer=omega,
        mean_cost=max(omega - stack.regularizer, 0.0) if centered else 0.0,
        bound=stack.bound,
        strength=stack.strength,
        ratio=omega / stack.bound if stack.bound > 0 else math.nan,
        equalization_gap=omega - stack.induced,
        singular_values=np.pad(stack.singular_values, (0, outputs - len(stack.singular_values))),
        target_singular_values=wanted,
        predicted_singular_values=None if predicted is None else np.pad(predicted, (0, outputs - len(predicted))),
        fixed_singular_values=None,
        effective_rank=stack.effective_rank,
        stable_rank=stable_rank(stack.singular_values),
        predicted_rank=stack.predicted_rank,
        mean_squared_error=error,
        expected_loss=None if error is None else error + omega,
        fixed_optimum=None,
        free_optimum=optimum,
        caveats=(*caveats, *loss_caveats(problem.loss)[:1]),
        stack=stack,
    )


def _layer_values(
    layers: Sequence[Layer], laws: Sequence[MaskLaw | None], moments: CoMoments, inputs: int
) -> list[torch.Tensor]:
    """``sum_j (N'N o D)_ij`` for the units of every hidden layer; ``D`` what the mask adds, ``N`` the layers above.

    Covariance and mean of the activations go up layer by layer: noise acts on both, later noise on what earlier noise
    added (docs/theory.md, sections 9.1 and 9.9).
    """
    spread, mean = moments.covariance[:inputs, :inputs], moments.mean[:inputs]
    above = [
        reduce(lambda upper, lower: upper @ lower, [w for w, _ in reversed(layers[k:])]) for k in range(len(layers))
    ]
    result = []
    for index, ((weight, bias), law) in enumerate(zip(layers[:-1], laws, strict=True), 1):
        spread, mean = weight @ spread @ weight.mT, weight @ mean
        mean = mean if bias is None else mean + bias
        if law is None:
            result.append(torch.zeros(len(weight), dtype=spread.dtype))
            continue
        added: torch.Tensor = law.hadamard(spread + torch.outer(mean, mean))
        result.append((above[index].mT * (added @ above[index].mT)).sum(1))
        spread = spread + added
    return result


def _law(entry: Any, layer: int) -> MaskLaw | None:
    if entry is None or isinstance(entry, MaskLaw):
        return entry
    keep = check_keep_probability(entry, layer)
    return Bernoulli(float(keep) if keep.ndim == 0 else keep)
