"""Second-order penalty of masks inside a network, by differentiating twice.

``R = (1/2) <Cbar, (J' H J) o h h'>`` for a mask of mean one on ``h``, ``J`` the derivative of the outputs in ``h`` and
``H`` that of the loss in the outputs, twice (the Gauss-Newton part). With ``H = B B'`` it is half the expectation of
``(g o h)' Cbar (g o h)`` over probes ``v`` of independent signs, ``g = J' B v``: one backward pass, for all masked
layers together. Sampled labels (Wei, Kakade and Ma, 2020, "The implicit and explicit regularization effects of
dropout") give the same mean; signs do not depend on the parameters, so that the gradient of the estimate is unbiased
as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..errors import InvalidArgumentError
from ._criterion import Criterion
from ._noise import Measure

__all__ = ["gauss_newton"]


def gauss_newton(
    outputs: torch.Tensor,
    hidden: Sequence[torch.Tensor],
    measures: Sequence[Measure],
    loss: Criterion,
    *,
    probes: int | None,
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """The penalty of each masked tensor, already averaged as the loss averages.

    Parameters
    ----------
    outputs : torch.Tensor
        (N, K) or (N, K, positions), computed from ``hidden`` with gradients.
    hidden : sequence of torch.Tensor
        What the masks would multiply, each an own node of the graph.
    measures : sequence of callables
        Quadratic form of each mask.
    loss : Criterion
    probes : int or None
        Number of random probes; None computes all K, exactly.
    generator : torch.Generator, optional

    Raises
    ------
    InvalidArgumentError
        All K are asked for and outputs have positions; or outputs carry no gradient.
    """
    if not outputs.requires_grad:
        raise InvalidArgumentError(
            "the outputs carry no gradient: compute them with gradients enabled, from the features or model given"
        )
    if probes is None:
        if outputs.dim() > 2:
            raise InvalidArgumentError(
                f"outputs of shape {tuple(outputs.shape)} have positions, for which form='quadratic' would take a "
                "backward pass each; use form='sampled'"
            )
        vectors, share = _units(outputs), 0.5
    else:
        vectors, share = _signs(outputs, probes, generator), 0.5 / probes
    totals = [outputs.new_zeros(()) for _ in hidden]
    for vector in vectors:
        seed = loss.root(outputs, vector)
        gradients = torch.autograd.grad(
            outputs, list(hidden), seed, create_graph=True, retain_graph=True, allow_unused=True
        )
        for place, (gradient, masked, measure) in enumerate(zip(gradients, hidden, measures, strict=True)):
            if gradient is not None:
                totals[place] = totals[place] + loss.mean(measure(gradient, masked)) * share
    return totals


def _units(outputs: torch.Tensor) -> Iterator[torch.Tensor]:
    for place in range(outputs.shape[1] if outputs.dim() > 1 else 1):
        vector = torch.zeros_like(outputs)
        vector[(slice(None), place) if outputs.dim() > 1 else slice(None)] = 1.0
        yield vector


def _signs(outputs: torch.Tensor, probes: int, generator: torch.Generator | None) -> Iterator[torch.Tensor]:
    device = outputs.device if generator is None else generator.device
    for _ in range(probes):
        coin = torch.empty(outputs.shape, dtype=outputs.dtype, device=device).bernoulli_(0.5, generator=generator)
        yield (coin * 2.0 - 1.0).to(outputs.device)
