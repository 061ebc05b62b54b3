"""Ways to the gradient of a Jacobian penalty: differentiate twice, take a difference, or write the last layer down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError, StateError
from ._jacobian_layers import Caught, Offset, Place, catching
from ._jacobian_norms import Formula, row_squares
from ._jacobian_operators import only_hidden_gradients

__all__ = ["Question", "difference", "last_layer", "shared_difference", "twice"]

_HALF_SCALE = 1024.0


@dataclass(frozen=True)
class Question:
    """What is to be penalized in one forward pass.

    Attributes
    ----------
    losses : Tensor
        Unweighted loss of every row, shape (N,), zero where ignored.
    tau : Tensor
        Strength of every row times that of the whole, shape (N,).
    counted : Tensor
        Number of rows that are not ignored.
    axis : int
        Of the rows in hidden tensors.
    found : sequence of Caught
        The hidden tensors.
    """

    losses: Tensor
    tau: Tensor
    counted: Tensor
    formula: Formula
    axis: int
    found: Sequence[Caught] = ()

    def penalty(self, squares: Tensor) -> Tensor:
        """The penalty of squared norms (J, N)."""
        return self.formula(squares, self.tau, self.counted)

    def carries_rows(self, caught: Caught) -> bool:
        """Whether a hidden tensor has a row for each loss; a place that was asked for must."""
        rows = len(self.losses)
        if len(caught.shape) > self.axis and caught.shape[self.axis] == rows:
            return True
        if caught.place.by_default:
            return False
        raise InvalidArgumentError(
            f"layer {caught.place.name!r} has a tensor of shape {tuple(caught.shape)}, without {rows} rows along axis "
            f"{self.axis}; set batch_axis, or leave it out of layers"
        )

    def gradients(
        self, *, twice: bool = False, keep: bool = True, scale: float = 1.0, parameters: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor | None], tuple[Tensor | None, ...]]:
        """Gradients of the summed losses at the hidden tensors, None where there is none, and at ``parameters``."""
        used = [self.carries_rows(caught) for caught in self.found]
        edges: list[Any] = [caught.edge for caught, is_used in zip(self.found, used, strict=True) if is_used]
        if not edges:
            raise StateError(
                "no layer with a row for each loss ran in capture(); the model that runs must be the one that was given"
            )
        try:
            given = torch.autograd.grad(
                self.losses.sum() * scale,
                [*edges, *parameters],
                create_graph=twice,
                retain_graph=twice or keep,
                allow_unused=True,
            )
        except RuntimeError as error:
            raise _no_gradient(error) from error
        hidden = iter(given[: len(edges)])
        found = [next(hidden) if is_used else None for is_used in used]
        for gradient, caught in zip(found, self.found, strict=True):
            if gradient is None and not caught.place.by_default:
                raise StateError(f"the loss does not depend on layer {caught.place.name!r}; leave it out of layers")
        if all(gradient is None for gradient in found):
            raise StateError("the loss depends on no layer: is it that of the logits of this forward pass?")
        return found, given[len(edges) :]

    def squares(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Squared norms (J, N) of the gradients that there are."""
        rows = [
            row_squares(gradient, caught, self.axis)
            for gradient, caught in zip(gradients, self.found, strict=True)
            if gradient is not None
        ]
        return torch.stack([row.to(rows[0].dtype) for row in rows])


def _no_gradient(error: RuntimeError) -> StateError:
    return StateError(
        f"the gradient at the hidden tensors cannot be computed: {str(error).splitlines()[0]}. Give the logits of the "
        "model's one forward pass inside capture(). Operations without second derivative (compiled graphs, flash "
        "attention entered by hand, recurrent layers of cuDNN) work with backend='finite-difference' or 'last-layer'"
    )


def twice(question: Question) -> Tensor:
    """The penalty with its exact graph."""
    # Gradients in half precision vanish below 6e-8; the norms are taken in float32.
    scale = _HALF_SCALE if any(caught.dtype == torch.float16 for caught in question.found) else 1.0
    with only_hidden_gradients():
        gradients, _ = question.gradients(twice=True, scale=scale)
    return question.penalty(question.squares(gradients) / scale**2)


@dataclass(frozen=True)
class _Direction:
    """Offsets of all hidden tensors against the slope of the penalty, so small that the loss is linear along them.

    Attributes
    ----------
    step : Tensor
        Factor from the slope to the offsets.
    slope : Tensor
        How fast the summed losses change along the slope.
    """

    step: Tensor
    offsets: list[Offset | None]
    value: Tensor
    slope: Tensor


def _direction(question: Question, gradients: Sequence[Tensor | None], radius: float | None) -> _Direction:
    squares = question.squares(gradients).detach().requires_grad_()
    with torch.enable_grad():
        value = question.penalty(squares)
        (slopes,) = torch.autograd.grad(value, squares)
    norms = squares.detach().sqrt()
    # d penalty / d g_ij = 2 (d penalty / d |g_ij|^2) g_ij
    factors = 2.0 * slopes
    if radius is None:
        radius = 1e-5 if norms.dtype == torch.float64 else 4e-3
    step = radius / (factors * norms).max().clamp_min(torch.finfo(norms.dtype).tiny * 1e4)
    remaining = iter(-step * factors)
    offsets: list[Offset | None] = []
    for gradient, caught in zip(gradients, question.found, strict=True):
        if gradient is None:
            offsets.append(None)
            continue
        shape = [1] * gradient.ndim
        shape[question.axis] = -1
        factor = next(remaining).reshape(shape)
        if caught.weight is not None:
            factor = factor * caught.weight.detach()
        offsets.append(Offset(gradient, factor))
    return _Direction(step, offsets, value.detach(), (factors * norms.square()).sum())


Rerun = Callable[[], Tensor]
"""The summed losses of the same forward pass once more."""


def difference(
    question: Question, chosen: Sequence[Place], rerun: Rerun, radius: float | None
) -> tuple[Tensor, Tensor]:
    """The penalty, whose gradient is a difference of two first-order ones; and how far off the difference may be.

    ``d penalty / d theta = d/d theta <u, d loss / d h>`` with ``u = d penalty / d (d loss / d h)`` held fixed, which
    is ``(d loss/d theta (h) - d loss/d theta (h - step u)) / step`` up to the order of the step.
    """
    gradients, _ = question.gradients()
    way = _direction(question, gradients, radius)
    with catching(chosen, way.offsets):
        moved = rerun()
    slope = (question.losses.sum() - moved) / way.step
    return way.value + (slope - slope.detach()), _miss(slope, way, question)


def shared_difference(
    question: Question,
    loss: Tensor,
    factor: Tensor,
    parameters: Sequence[Tensor],
    chosen: Sequence[Place],
    rerun: Rerun,
    radius: float | None,
) -> Tensor:
    """``loss`` plus the penalty, where ``loss`` is ``factor`` times the summed losses: one backward pass for both."""
    gradients, first = question.gradients(keep=False, parameters=parameters)
    way = _direction(question, gradients, radius)
    del gradients
    with catching(chosen, way.offsets):
        moved = rerun()
    used = [(p, g) for p, g in zip(parameters, first, strict=True) if g is not None]
    total: Tensor = _Known.apply(  # type: ignore[no-untyped-call]
        loss.detach() + way.value, factor + 1.0 / way.step, *(g for _, g in used), *(p for p, _ in used)
    )
    slope = -moved / way.step
    return total + (slope - slope.detach())


def _miss(slope: Tensor, way: _Direction, question: Question) -> Tensor:
    """Distance of the loss from where its gradient says it is, in units of the largest that is plausible."""
    rounding = 1e3 * torch.finfo(slope.dtype).eps * question.losses.detach().abs().sum() / way.step
    return (slope.detach() - way.slope).abs() / (0.3 * way.slope + rounding).clamp_min(1e-30)


class _Known(torch.autograd.Function):
    """A value whose gradients with respect to the parameters have been computed already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Tensor, *rest: Tensor) -> Tensor:
        ctx.save_for_backward(factor, *rest[: len(rest) // 2])
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        factor, *gradients = ctx.saved_tensors
        by = slope * factor
        return (None, None, *(None,) * len(gradients), *(g * by.to(g.dtype) for g in gradients))


def last_layer(question: Question, head: nn.Linear, scores: Tensor, slopes: Tensor | None) -> Tensor:
    """The penalty at the input of the last linear layer: there the gradient is ``(d loss / d scores) @ weight``.

    ``slopes`` are those of the summed losses by ``scores``; None lets autograd find them in what lies between.
    """
    if slopes is None:
        try:
            (slopes,) = torch.autograd.grad(question.losses.sum(), scores, create_graph=True)
        except RuntimeError as error:
            raise _no_gradient(error) from error
    features = slopes @ head.weight.to(slopes.dtype)
    return question.penalty(features.square().movedim(question.axis, 0).flatten(1).sum(1)[None])
