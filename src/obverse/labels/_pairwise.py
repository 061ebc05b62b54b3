"""Midpoints of pairs, with a smoothing that is learned for each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .._core import checks
from .._core.distributed import rank
from .._core.random import Seed, seed_number
from ..errors import InvalidArgumentError, UnknownNameError
from ._criterion import Given, LabelCriterion
from ._distributed import shared
from ._rows import Rows, as_probabilities

__all__ = ["PairwiseLabelSmoothing"]

_PAIRS = ("roll", "permutation")


class PairwiseLabelSmoothing(LabelCriterion):
    """Cross-entropy against ``(t + u) / 2``, ``u`` a bounded smoothing distribution that a second head learns.

    Parameters
    ----------
    num_classes : int
    num_features : int, optional
        m, the width of ``features``, what the last layer of the network is given. By default the head reads the logits
        instead (ours), and no features are needed.
    pairs : {"roll", "permutation"}
        Midpoint partners: the next sample of the batch, which gives N different pairs, or a random permutation, which
        leaves about one sample with itself.
    alternate : bool
        Whether `prepare` leaves every other batch as it is, beginning with the first; else all are midpoints.
    seed : int, torch.Generator or numpy.random.Generator
        Seed of the permutations, which follow from it, the process and the number of the batch. A generator contributes
        only its initial seed.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    Call ``inputs, target = criterion.prepare(inputs, target)`` before the forward pass: in training it turns every
    other batch into midpoints ``(x_i + x_j)/2`` with probability targets ``(e_yi + e_yj)/2``. Where one of two labels
    is ignored the other counts alone; where both are, the row has no mass and is ignored. Then

        ``v = sigmoid(W h),  u = softmax(v),  loss = -sum_k (t_k + u_k)/2 log p_k``

    with ``W`` (K, m) zero at first, which is label smoothing by one half. Both ``u`` and ``p`` have gradients: without
    one the head would learn nothing, and without the bound of the sigmoid the target would collapse onto the
    prediction. So ``u_k`` is in ``[1/(1 + (K-1)e), e/(e + K-1)]``, and a fitted network answers with low scores (0.616
    for K = 10): compare calibration after temperature scaling. In evaluation the plain cross-entropy. Batch
    normalization sees midpoints: end training on a batch of originals, or estimate its statistics anew. ``4 K m``
    bytes.

    After Guo (2020, arXiv 2012.01559, and 2021, arXiv 2106.13913) as recalled; unverified against the text.
    """

    name = "pairwise"
    state_counters = ("batches",)
    is_stateful = True
    needs_prepare = True

    def __init__(
        self,
        num_classes: int,
        num_features: int | None = None,
        *,
        pairs: str = "roll",
        alternate: bool = True,
        seed: Seed = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes = checks.count("num_classes", num_classes, 2)
        self.needs_features = num_features is not None
        width = num_classes if num_features is None else checks.count("num_features", num_features)
        if pairs not in _PAIRS:
            raise UnknownNameError("pairs", str(pairs), _PAIRS)
        self.pairs = pairs
        self.alternate = bool(alternate)
        self.seed = seed_number(seed)
        self.batches = 0
        self.head = nn.Parameter(torch.zeros(num_classes, width))

    def prepare(self, inputs: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch itself or its midpoints.

        Parameters
        ----------
        inputs : torch.Tensor
            (N, ...) floating-point: of token ids there are no midpoints; average their embeddings.
        target : torch.Tensor
            Class indices (N, ...) or probabilities (N, K, ...).

        Returns
        -------
        inputs, target : torch.Tensor
            Unchanged in evaluation and for originals; for midpoints, inputs of the same shape and probabilities
            (N, K, ...).
        """
        if not self.is_learning:
            return inputs, target
        if not inputs.is_floating_point() or len(inputs) != len(target):
            raise InvalidArgumentError(
                f"midpoints need floating-point inputs, one per target, got {inputs.dtype} of shape "
                f"{tuple(inputs.shape)} and {len(target)} targets"
            )
        number, self.batches = self.batches, self.batches + 1
        if self.alternate and number % 2 == 0:
            return inputs, target
        partner = self._partners(len(inputs), number, inputs.device)
        probabilities = self._probabilities(target, inputs.dtype)
        paired = (probabilities + probabilities[partner]) / 2.0
        mass = paired.sum(1, keepdim=True)
        paired = paired / torch.where(mass > 0, mass, 1.0)
        return torch.lerp(inputs, inputs[partner], 0.5), paired

    def _partners(self, count: int, number: int, device: torch.device) -> torch.Tensor:
        if self.pairs == "roll":
            return torch.arange(-1, count - 1, device=device).remainder_(max(count, 1))
        mixed = (self.seed * 1_000_003 + rank()) * 1_000_003 + number
        generator = torch.Generator().manual_seed(mixed % 2**63)
        return torch.randperm(count, generator=generator).to(device)

    def _probabilities(self, target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if target.is_floating_point():
            return target
        return as_probabilities(target, self.num_classes or 0, self.ignore_index, dtype)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        if not self.training:
            return rows.cross_entropy()
        features = given.features
        if not self.needs_features:
            features = rows.logits if rows.masked is None else rows.logits.masked_fill(rows.masked, 0.0)
        assert features is not None
        if features.shape[1] != self.head.shape[1]:
            raise InvalidArgumentError(f"features must have width {self.head.shape[1]}, got {features.shape[1]}")
        head = shared(self.head) if self.is_learning else self.head
        bounded = F.linear(features.to(rows.logits.dtype), head.to(rows.logits.dtype)).sigmoid()
        smoothing = rows.without_masked(bounded).softmax(1)
        return 0.5 * rows.cross_entropy() + 0.5 * rows.against(smoothing)

    def extra_repr(self) -> str:
        """Width of the head and the options of the base."""
        return f"head={tuple(self.head.shape)}, pairs={self.pairs!r}, {super().extra_repr()}"
