"""Samples mixed with each other, and their labels with them."""

from __future__ import annotations

import numpy as np
import torch

from .._core import checks
from .._core.arrays import wide
from .._core.logits import check_probabilities
from .._core.random import Seed, torch_generator
from ..errors import InvalidArgumentError
from ._rows import as_probabilities, flat

__all__ = ["cutmix", "mixup"]


def mixup(
    inputs: torch.Tensor,
    target: torch.Tensor,
    alpha: float = 1.0,
    *,
    num_classes: int | None = None,
    per_sample: bool = False,
    ignore_index: int = -100,
    generator: Seed | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples blended with random others: ``lambda x_i + (1 - lambda) x_j``, and targets likewise.

    Parameters
    ----------
    inputs : torch.Tensor
        (N, ...) floating-point: of token ids there are no blends; mix their embeddings.
    target : torch.Tensor
        Class indices (N,) or (N, ...), or probabilities (N, K) or (N, K, ...).
    alpha : float
        ``lambda`` is drawn from Beta(alpha, alpha); 0 mixes nothing. 1 is usual for CIFAR, 0.2 for ImageNet.
    num_classes : int, optional
        K, needed for class indices.
    per_sample : bool
        One ``lambda`` for each sample rather than for the batch.
    ignore_index : int
        Class index of positions that do not count.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Source of the draws; by default torch's own on the CPU. An integer gives the same draws in every call.

    Returns
    -------
    inputs : torch.Tensor
        As given, mixed.
    target : torch.Tensor
        Probabilities (N, K) or (N, K, ...), float32 at least, which every `LabelCriterion` takes. Where one of two
        labels is ignored the other one counts alone; where both are, the row has no mass and is ignored.

    Raises
    ------
    InvalidArgumentError
        Inputs or targets of another type or shape, or class indices without their number.

    Notes
    -----
    The cross-entropy is linear in the target, so that this is the weighted sum of two losses, class weights included,
    divided by the number of rows. With `LabelSmoothing` it does not matter whether labels are smoothed before or after.
    Source: Zhang et al. (2018), with partners by a random permutation as in its code.
    """
    probabilities = _checked(inputs, target, num_classes, ignore_index)
    source = None if generator is None else torch_generator(generator, "generator")
    shares = _shares(alpha, len(inputs), per_sample, source).to(inputs.device)
    partner = torch.randperm(len(inputs), generator=source, device=_device(source)).to(inputs.device)
    own = _along(shares, inputs)
    mixed = own * inputs + (1.0 - own) * inputs[partner]
    # A share of exactly one or zero takes all of one input, also where the other one is infinite.
    mixed = torch.where(own == 1.0, inputs, torch.where(own == 0.0, inputs[partner], mixed))
    return mixed, _blend(probabilities, partner, _along(shares, probabilities))


def cutmix(
    inputs: torch.Tensor,
    target: torch.Tensor,
    alpha: float = 1.0,
    *,
    num_classes: int | None = None,
    per_sample: bool = False,
    correct_share: bool = True,
    ignore_index: int = -100,
    generator: Seed | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples with a box of random others pasted in, and targets mixed by the area of the box.

    Parameters
    ----------
    inputs : torch.Tensor
        (N, C, ...) with one spatial axis or more, such as (N, C, H, W).
    target : torch.Tensor
        Class indices (N,) or probabilities (N, K) for whole samples; class indices (N, H, W) or probabilities (N, K, H,
        W) for positions, into which the same box is pasted.
    alpha : float
        The kept share is drawn from Beta(alpha, alpha), before the box is clipped at the border; 0 mixes nothing.
    num_classes : int, optional
        K, needed for class indices.
    per_sample : bool
        One box for each sample rather than for the batch.
    correct_share : bool
        Mix labels by the area of the box that is inside; else by the share that was drawn.
    ignore_index : int
        Class index of positions that do not count.
    generator : torch.Generator, numpy.random.Generator or int, optional
        Source of the draws; by default torch's own on the CPU. An integer gives the same draws in every call.

    Returns
    -------
    inputs, target : torch.Tensor
        As of `mixup`.

    Raises
    ------
    InvalidArgumentError
        Inputs or targets of another type or shape, or class indices without their number.

    Notes
    -----
    The box has sides of ``(1 - lambda)^(1/d)`` of those of the sample for d axes, rounded down, and a uniform center.
    Clipping at the border makes the kept share larger than ``lambda`` on average. Source: Yun et al. (2019).
    """
    probabilities = _checked(inputs, target, num_classes, ignore_index)
    source = None if generator is None else torch_generator(generator, "generator")
    if inputs.dim() < 3:
        raise InvalidArgumentError(f"boxes need inputs (N, C, ...) with spatial axes, got shape {tuple(inputs.shape)}")
    places = inputs.shape[2:]
    is_dense = probabilities.dim() > 2
    if is_dense and probabilities.shape[2:] != places:
        raise InvalidArgumentError(
            f"targets by position must have the positions {tuple(places)} of the inputs, got {tuple(target.shape)}"
        )
    shares = _shares(alpha, len(inputs), per_sample, source)
    boxes = _boxes(shares, places, per_sample, source).to(inputs.device)
    partner = torch.randperm(len(inputs), generator=source, device=_device(source)).to(inputs.device)
    mixed = torch.where(boxes, inputs[partner], inputs)
    if is_dense:
        return mixed, torch.where(boxes, probabilities[partner], probabilities)
    if correct_share:
        shares = 1.0 - boxes.flatten(1).double().mean(1)
    return mixed, _blend(probabilities, partner, _along(shares.to(inputs.device), probabilities))


def _checked(inputs: torch.Tensor, target: torch.Tensor, num_classes: int | None, ignore_index: int) -> torch.Tensor:
    """The target as probabilities, zero where ignored."""
    if not isinstance(inputs, torch.Tensor) or not isinstance(target, torch.Tensor):
        raise InvalidArgumentError("mixing takes tensors of inputs and targets")
    if not inputs.is_floating_point() or inputs.dim() < 1 or target.dim() < 1 or len(inputs) != len(target):
        raise InvalidArgumentError(
            f"mixing needs floating-point inputs, one per target, got {inputs.dtype} of shape {tuple(inputs.shape)} "
            f"and targets of shape {tuple(target.shape)}"
        )
    if target.is_floating_point():
        if target.dim() < 2 or (num_classes is not None and target.shape[1] != num_classes):
            raise InvalidArgumentError(
                f"probability targets must be (N, K) or (N, K, ...), got shape {tuple(target.shape)}"
                + ("" if num_classes is None else f" for {num_classes} classes")
            )
        check_probabilities(flat(target), target.dtype, "mixing")
        return wide(target)
    if target.dtype == torch.bool or target.is_complex():
        raise InvalidArgumentError(f"targets must be class indices or probabilities, got {target.dtype}")
    if num_classes is None:
        raise InvalidArgumentError("class indices need num_classes to become probabilities")
    return as_probabilities(target, checks.count("num_classes", num_classes, 2), ignore_index, inputs.dtype)


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _shares(alpha: float, count: int, per_sample: bool, generator: torch.Generator | None) -> torch.Tensor:
    """(N,) what is kept of each sample, float64 on the CPU, drawn from Beta(alpha, alpha)."""
    checks.nonnegative("alpha", alpha)
    if alpha == 0.0:
        return torch.ones(count, dtype=torch.float64)
    wanted = count if per_sample else min(count, 1)
    drawn = _beta(alpha, wanted, generator)
    return drawn if per_sample else drawn.expand(count)


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> torch.Tensor:
    """Beta(alpha, alpha) from a stream whose seed is drawn: torch's own sampler takes no generator."""
    seed = torch.randint(2**62, (1,), generator=generator, device=_device(generator))
    return torch.from_numpy(np.random.default_rng(int(seed)).beta(alpha, alpha, count))


def _boxes(
    shares: torch.Tensor, places: torch.Size, per_sample: bool, generator: torch.Generator | None
) -> torch.Tensor:
    """(N, 1, ...) where the partner is pasted, from the share of each sample that is kept."""
    axes = len(places)
    side = (1.0 - shares) ** (1.0 / axes)
    count = len(shares) if per_sample else 1
    centers = torch.rand(axes, count, generator=generator, device=_device(generator), dtype=torch.float64).cpu()
    centers = centers.expand(-1, len(shares))
    inside = torch.ones(len(shares), *[1] * (axes + 1), dtype=torch.bool)
    for axis, length in enumerate(places):
        extent = (side * length + 1e-9).floor()
        begin = (centers[axis] * length).floor() - (extent / 2).floor()
        at = torch.arange(length)
        held = (at >= begin[:, None]) & (at < (begin + extent)[:, None])
        inside = inside & held.view(len(shares), 1, *[length if i == axis else 1 for i in range(axes)])
    return inside


def _along(shares: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """(N, 1, ...) in the type of the tensor."""
    return shares.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1))


def _blend(probabilities: torch.Tensor, partner: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Both targets in their shares; where only one of them counts, that one, unless it has no share."""
    other = probabilities[partner]
    counts, others = (each.ne(0).any(1, keepdim=True).to(own.dtype) for each in (probabilities, other))
    mass = own * counts + (1.0 - own) * others
    return (own * probabilities + (1.0 - own) * other) / torch.where(mass > 0, mass, 1.0)
