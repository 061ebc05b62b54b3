"""Label-distribution-aware margins, and the cosine head they need."""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._core import checks
from ..errors import InvalidArgumentError
from ._counts import Counts, as_counts
from ._weighted_loss import WeightedLoss

__all__ = ["LDAMLoss", "NormalizedLinear"]


@final
class NormalizedLinear(nn.Module):
    """Cosines between features and class vectors: a linear head with both sides normalized and no bias.

    Parameters
    ----------
    in_features, out_features : int
    scale : float
        Factor on the cosines. Leave it at 1 with `LDAMLoss`, which has its own.

    Notes
    -----
    ``out = scale * <x, w_c> / (|x| |w_c|)``, in [-scale, scale]. The weight has shape (out_features, in_features) as in
    `torch.nn.Linear`. A zero feature has cosine zero. Source: the head of Cao, Wei, Gaidon, Arechiga and Ma (2019).
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 1.0) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise InvalidArgumentError(f"a head needs features and outputs, got {in_features} and {out_features}")
        self.in_features = in_features
        self.out_features = out_features
        self.scale = checks.positive("scale", scale)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw class vectors of random directions and length one."""
        with torch.no_grad():
            self.weight.copy_(F.normalize(torch.randn_like(self.weight), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines, shape (..., out_features), of features (..., in_features)."""
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=1))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale:g}"


@final
class LDAMLoss(WeightedLoss):
    """Cross-entropy on cosines with a larger margin for rarer classes.

    Parameters
    ----------
    counts : array of shape (K,)
        Training examples in each class, all positive.
    max_margin : float
        Margin of the rarest class, positive.
    scale : float
        Inverse temperature of the cosines, positive.
    class_weights, denominator, reduction, ignore_index
        As for `WeightedLoss`.

    Notes
    -----
    ``CE(scale (z - m_y e_y))`` with ``m_c = max_margin (n_c / min n)^(-1/4)``, on logits z of a `NormalizedLinear`
    head. Probabilities of the trained model are ``softmax(scale z)``. With `DeferredReweighting` it is LDAM-DRW.
    Source: Cao, Wei, Gaidon, Arechiga and Ma (2019).
    """

    def __init__(self, counts: Counts, *, max_margin: float = 0.5, scale: float = 30.0, **options: Any) -> None:
        super().__init__(**options)
        values = as_counts(counts)
        self.max_margin = checks.positive("max_margin", max_margin)
        self.scale = checks.positive("scale", scale)
        self.margins: Tensor
        self.register_buffer("margins", (max_margin * (values / values.min()) ** -0.25).float(), persistent=False)

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every row."""
        if logits.shape[1] != len(self.margins):
            raise InvalidArgumentError(f"{len(self.margins)} counts do not fit logits of {logits.shape[1]} classes")
        margin = self.margins.to(logits)[target]
        moved = logits.scatter_add(1, target[:, None], -margin[:, None])
        return F.cross_entropy(self.scale * moved, target, reduction="none")

    def extra_repr(self) -> str:
        return f"max_margin={self.max_margin:g}, scale={self.scale:g}, {super().extra_repr()}"
