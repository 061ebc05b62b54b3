"""Labels that learn, class by class, how the wrong answers are spread."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .._core import checks
from .._core.distributed import add, world_size
from ..errors import InvalidArgumentError, UnknownNameError
from ._criterion import Given, LabelCriterion
from ._distributed import shared
from ._rows import Rows, divergence

__all__ = ["AdaptiveLabelRegularization"]

_UPDATES = ("gradient", "average")
_NORMALIZATIONS = ("batch", "class")
_ABSENT = -1e30


class AdaptiveLabelRegularization(LabelCriterion):
    """Cross-entropy, with the shares of the wrong classes drawn to a residual label that each class learns.

    Parameters
    ----------
    num_classes : int
        At least 3: two classes leave a single wrong one, and nothing to learn.
    strength : float
        ``alpha`` of both divergences. No default of the papers could be read; in small runs 0.5 to 1 served ten
        classes, and 3 was too much.
    update : {"gradient", "average"}
        Learn ``S`` by the optimizer as a parameter (see `parameter_groups`), or as a moving average of centered
        residual logits, which has the same stationary point (ours).
    normalization : {"batch", "class"}, optional
        Whether class k moves with its share ``n_k / N`` of the batch, or by the mean over its rows however few they
        are. By default "batch" for the gradient, as published, and "class" for the average. With many classes "batch"
        makes the matrix about K times slower.
    momentum : float
        Of the moving average, in [0, 1).
    learning_rate : float, optional
        For ``S`` in its own parameter group; by default that of the optimizer.
    only_correct : bool
        Learn from correctly classified rows only (ours): a guard against wrong labels.
    support : int
        How many classes of a probability target have residual terms, the largest ones; 2 is all there is after mixup.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    With ``p_res`` the softmax of the logits without the target's, ``q_res = softmax(S[y])`` without entry y, ``sg`` a
    stop of the gradient:

        ``mean_i [ CE + alpha KL(p_res || sg q_res) + alpha KL(q_res || sg p_res) ]``

    The first divergence has the gradient ``alpha p_j (log(p_j / q_j) - KL)`` in the logits, and exactly none in that of
    the target: it shapes the wrong answers and asks for no amount of them. The second one moves ``S`` alone, to the
    class mean of the residual logits. At first, with ``S = 0``, the term is a confidence penalty among the wrong
    classes. ``S`` is (K, K) with an unused diagonal: ``4 K^2`` bytes.

    A probability target gives ``sum_k t_k`` times the divergences of class k (ours). Row weights ``w_y`` multiply both
    (papers silent). In evaluation ``S`` is frozen. Gradients of ``S`` are averaged over processes by the criterion
    itself, and so are counts and moving averages: it may stay outside of the wrapped module.

    Source: Ding et al. (2019, arXiv 1908.05474) by way of algorithm 1 of Ding et al. (2021, "Knowledge Refinery"),
    which was read; the full text of neither paper could be, and that the two updates are the same is unverified.
    """

    name = "adaptive"
    is_stateful = True
    residual_logits: torch.Tensor

    def __init__(
        self,
        num_classes: int,
        strength: float = 0.5,
        *,
        update: str = "gradient",
        normalization: str | None = None,
        momentum: float = 0.9,
        learning_rate: float | None = None,
        only_correct: bool = False,
        support: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(num_classes, int) and num_classes < 3:
            raise InvalidArgumentError(
                f"adaptive labels need at least 3 classes, got {num_classes}: two classes leave one "
                "besides the target, so that both divergences are always zero"
            )
        self.num_classes = checks.count("num_classes", num_classes, 2)
        self.strength = checks.nonnegative("strength", strength)
        if update not in _UPDATES:
            raise UnknownNameError("update", str(update), _UPDATES)
        if normalization is None:
            normalization = "batch" if update == "gradient" else "class"
        if normalization not in _NORMALIZATIONS:
            raise UnknownNameError("normalization", str(normalization), _NORMALIZATIONS)
        self.update, self.normalization = update, normalization
        self.momentum = checks.fraction("momentum", momentum, one=False)
        self.learning_rate = None if learning_rate is None else checks.nonnegative("learning_rate", learning_rate)
        self.only_correct = bool(only_correct)
        self.support = checks.count("support", support)
        table = torch.zeros(num_classes, num_classes)
        if update == "gradient":
            self.residual_logits = nn.Parameter(table)
        else:
            self.state_tensors = ("residual_logits",)  # type: ignore[misc]
            self.residual_logits = table

    def parameter_groups(self, learning_rate: float | None = None) -> list[dict[str, Any]]:
        """The group of ``S``, without weight decay, which would pull residual labels to the uniform one."""
        return super().parameter_groups(self.learning_rate if learning_rate is None else learning_rate)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        values = rows.cross_entropy()
        logits, masked, classes, mass = self._pairs(rows)
        own = classes[:, None]
        table = self.residual_logits
        if self.update == "gradient" and self.is_learning:
            table = shared(table)
        # Embedding, as its gradient adds rows of the same class faster than that of indexing.
        chosen = F.embedding(classes, table).to(logits.dtype)
        log_q, log_p = (_residual(values, own, masked, rows.is_bounded) for values in (chosen, logits))
        residual = divergence(log_p, log_q.detach(), rows.is_bounded)
        terms = torch.where(mass > 0, residual, 0.0) * mass
        learned = mass
        if self.only_correct:
            is_correct = rows.logits.argmax(1) == rows.dominant
            learned = mass * is_correct.to(mass.dtype).repeat_interleave(len(mass) // max(len(is_correct), 1))
        if self.update == "gradient" and self.training:
            update = divergence(log_q, log_p.detach(), rows.is_bounded)
            scaled = learned * self._scale(learned, classes, rows)
            terms = terms + torch.where(learned > 0, update, 0.0) * scaled
        elif self.update == "average" and self.is_learning:
            self._average(logits.detach(), _absent(own, masked, logits), classes, learned, rows)
        return values + self.strength * terms.view(len(values), len(terms) // max(len(values), 1)).sum(1)

    def _pairs(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Logits, masked classes, class and weighted mass of every row and class of its target, P pairs."""
        if rows.index is not None:
            return rows.logits, rows.masked, rows.index, rows.sample_weight
        shares, classes = rows.one_hot().detach().topk(min(self.support, rows.logits.shape[1]), 1)
        mass = shares if rows.weight is None else shares * rows.weight[classes]
        times = shares.shape[1]
        masked = None if rows.masked is None else rows.masked.repeat_interleave(times, 0)
        return rows.logits.repeat_interleave(times, 0), masked, classes.reshape(-1), mass.reshape(-1)

    def _scale(self, mass: torch.Tensor, classes: torch.Tensor, rows: Rows) -> torch.Tensor | float:
        """What makes the mean over the batch a sum over classes of means over their rows; 1 for "batch"."""
        if self.normalization == "batch":
            return 1.0
        totals = mass.new_zeros(len(self.residual_logits)).index_add_(0, classes, mass)
        add(totals)
        # Gradients are averaged over processes, while the parts of a mean of all rows have to be added.
        return rows.denominator * world_size() / torch.where(totals > 0, totals, 1.0)[classes]

    @torch.no_grad()
    def _average(
        self, logits: torch.Tensor, absent: torch.Tensor, classes: torch.Tensor, mass: torch.Tensor, rows: Rows
    ) -> None:
        """``S[k] += (1 - momentum) s_k (mean of class k - S[k])``, ``s_k`` 1 or the share of the class in the batch.

        Each entry is a mean over the rows that do not mask it, which are all rows where nothing is masked.
        """
        table = self.residual_logits
        without = logits.masked_fill(absent, 0.0)
        others = (~absent).sum(1, keepdim=True).clamp(min=1)
        centered = (without - without.sum(1, keepdim=True) / others).masked_fill_(absent, 0.0)
        used = torch.where(mass[:, None] > 0, centered * mass[:, None], 0.0).to(table.dtype)
        counted = mass.to(table.dtype)[:, None].expand_as(absent).masked_fill(absent, 0.0)
        sums = torch.zeros_like(table).index_add_(0, classes, used)
        totals = torch.zeros_like(table).index_add_(0, classes, counted)
        batch = rows.sample_weight.sum().to(table.dtype)
        add(sums, totals, batch)
        share = (totals > 0).to(table.dtype)
        if self.normalization == "batch":
            share = totals / torch.where(batch > 0, batch, 1.0)
        means = sums / torch.where(totals > 0, totals, 1.0)
        self.residual_logits = table + (1.0 - self.momentum) * share * (means - table)

    def class_relations(self) -> torch.Tensor:
        """(K, K) residual labels: row k is the distribution over the classes other than k, with a zero at k."""
        table = self.residual_logits.detach().clone().fill_diagonal_(-math.inf)
        return table.softmax(1).fill_diagonal_(0.0)

    def extra_repr(self) -> str:
        """Strength, update and the options of the base."""
        own = f"strength={self.strength}, update={self.update!r}, normalization={self.normalization!r}"
        return f"{own}, {super().extra_repr()}"


def _absent(own: torch.Tensor, masked: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
    """(P, K) classes that are no wrong answer of their row: its own (P, 1), and masked ones."""
    absent = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, own, True)
    return absent if masked is None else absent | masked


def _residual(logits: torch.Tensor, own: torch.Tensor, masked: torch.Tensor | None, is_bounded: bool) -> torch.Tensor:
    """Log-probabilities (P, K) among the classes that are not absent; of a row without any, those of equal logits.

    Beside moderate logits a finite number stands for minus infinity: its share underflows to zero, and differences of
    two such logarithms are exactly zero.
    """
    if is_bounded:
        return logits.scatter(1, own, _ABSENT).log_softmax(1)
    absent = _absent(own, masked, logits)
    return logits.masked_fill(absent, -math.inf).masked_fill(absent.all(1, keepdim=True), 0.0).log_softmax(1)
