"""Closed forms of gradients, fixed points and bounds, in float64, against what autograd and the state give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from label_cases import K, N, batch, close, rows, slope_of
from torch import Tensor

from obverse.labels import (
    AdaptiveLabelRegularization,
    CrossEntropy,
    LabelSmoothing,
    OnlineLabelSmoothing,
    PairwiseLabelSmoothing,
)


def without(matrix: Tensor, target: Tensor) -> Tensor:
    """(N, K-1) rows without the entry of their target."""
    return matrix[F.one_hot(target, K) == 0].view(len(target), K - 1)


class TestSmoothing:
    def test_gradient_is_prediction_minus_target(self) -> None:
        logits, target, p, e = rows()
        close(slope_of(CrossEntropy(), logits, target), p - e)
        close(slope_of(LabelSmoothing(0.3), logits, target), p - (0.7 * e + 0.3 / K))

    def test_gap_of_logits_at_the_optimum(self) -> None:
        smoothing = 0.2
        gap = math.log((1 - smoothing + smoothing / K) / (smoothing / K))
        logits = torch.zeros(1, K, dtype=torch.float64)
        logits[0, 2] = gap
        slope = slope_of(LabelSmoothing(smoothing), logits.requires_grad_(), torch.tensor([2]))
        close(slope, torch.zeros_like(slope))

    def test_both_conventions_are_one_family(self) -> None:
        logits, target, _, e = rows()
        other = 0.15
        spread = (1 - other) * e + other / (K - 1) * (1 - e)
        mine = LabelSmoothing(other * K / (K - 1))(logits, target)
        close(mine, CrossEntropy()(logits, spread))


class TestAdaptive:
    def criterion(self, strength: float = 0.8, **options: Any) -> AdaptiveLabelRegularization:
        found = AdaptiveLabelRegularization(K, strength, **options).double()
        with torch.no_grad():
            found.residual_logits += torch.randn(K, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return found

    def test_value_is_that_of_vectors_without_the_target(self) -> None:
        logits, target, _, _ = rows()
        criterion = self.criterion()
        log_p = without(logits, target).log_softmax(1)
        log_q = without(criterion.residual_logits[target], target).log_softmax(1)
        both = F.kl_div(log_q, log_p, log_target=True, reduction="sum")
        both = both + F.kl_div(log_p, log_q, log_target=True, reduction="sum")
        close(criterion(logits, target), F.cross_entropy(logits, target) + 0.8 * both / N)

    def test_gradient_in_logits(self) -> None:
        logits, target, p, e = rows()
        criterion = self.criterion()
        own = slope_of(criterion, logits, target) - (p - e)
        p_res = without(logits.detach(), target).softmax(1)
        q_res = without(criterion.residual_logits.detach()[target], target).softmax(1)
        ratio = (p_res / q_res).log()
        divergence = (p_res * ratio).sum(1, keepdim=True)
        close(without(own, target), 0.8 * p_res * (ratio - divergence))
        assert own.gather(1, target[:, None]).abs().max() < 1e-15
        assert own.sum(1).abs().max() < 1e-12

    def test_gradient_in_the_matrix(self) -> None:
        logits, target, _, _ = rows()
        target = torch.where(target == 3, 1, target)
        criterion = self.criterion()
        criterion.reduction = "sum"
        (slope,) = torch.autograd.grad(criterion(logits, target), criterion.residual_logits)
        p_res = without(logits.detach(), target).softmax(1)
        q_res = without(criterion.residual_logits.detach()[target], target).softmax(1)
        ratio = (q_res / p_res).log()
        each = 0.8 * q_res * (ratio - (q_res * ratio).sum(1, keepdim=True))
        for k in range(K):
            others = torch.arange(K) != k
            close(slope[k, others], each[target == k].sum(0))
            assert slope[k, k] == 0
        assert (slope[3] == 0).all()

    def test_at_first_a_confidence_penalty_among_the_wrong_classes(self) -> None:
        logits, target, _, _ = rows()
        criterion = AdaptiveLabelRegularization(K, 1.0).double().eval()
        p_res = without(logits.detach(), target).softmax(1)
        entropy = -(p_res * p_res.log()).sum(1)
        close(criterion(logits, target) - F.cross_entropy(logits, target), (math.log(K - 1) - entropy).mean())

    def test_stationary_at_the_class_means_of_residual_logits(self) -> None:
        logits, _, _, _ = rows()
        target = torch.arange(N) % K
        criterion = AdaptiveLabelRegularization(K, reduction="sum").double()
        centered = without(logits.detach(), target)
        centered = centered - centered.mean(1, keepdim=True)
        with torch.no_grad():
            for k in range(K):
                criterion.residual_logits[k, torch.arange(K) != k] = centered[target == k].mean(0)
        (slope,) = torch.autograd.grad(criterion(logits, target), criterion.residual_logits)
        assert slope.abs().max() < 1e-12
        average = AdaptiveLabelRegularization(K, update="average", momentum=0.5).double()
        for _ in range(60):
            average(logits, target)
        close(average.class_relations(), criterion.class_relations())

    @pytest.mark.parametrize("normalization", ["batch", "class"])
    def test_a_row_moves_with_its_share_of_the_batch_or_by_its_own_mean(self, normalization: str) -> None:
        logits = batch(1)[0].detach().expand(20, K)
        target = torch.zeros(20, dtype=torch.long)
        steps = []
        for few in (20, 4):
            target[few:] = 2
            criterion = self.criterion(normalization=normalization)
            criterion(logits, target).backward()
            steps.append(criterion.residual_logits.grad[0])
        factor = 5.0 if normalization == "batch" else 1.0
        close(steps[0], factor * steps[1])

    def test_soft_labels_with_a_fixed_mass_are_another_method(self) -> None:
        """CE against (1-a) e + a q_res = -(1-a) log p_y - a log(1-p_y) + a CE(q_res, p_res): only the last is ours."""
        logits, target, p, e = rows()
        q = self.criterion().class_relations()[target]
        a = 0.3
        p_res, q_res = without(logits.detach(), target).softmax(1), without(q, target)
        of_target = p.gather(1, target[:, None])[:, 0]
        expected = -(1 - a) * of_target.log() - a * (1 - of_target).log() - a * (q_res * p_res.log()).sum(1)
        close(CrossEntropy(reduction="none")(logits.detach(), (1 - a) * e + a * q), expected)


class TestOnline:
    def test_gradient_and_the_mean_of_right_answers(self) -> None:
        criterion = OnlineLabelSmoothing(K, 0.6).double()
        logits, target, p, e = rows()
        criterion.soft_labels.fill_(1 / K)  # made in float32, whose rows sum to one only roughly
        close(slope_of(criterion, logits, target), p - (0.6 * e + 0.4 / K))
        right = p.argmax(1) == target
        assert 0 < right.sum() < N
        criterion.end_epoch()
        soft = torch.full((K, K), 1 / K, dtype=torch.float64)
        for k in range(K):
            if (right & (target == k)).any():
                soft[k] = p[right & (target == k)].mean(0)
        assert max(int((right & (target == k)).sum()) for k in range(K)) > 1  # several of one class in a batch
        close(criterion.class_relations(), soft)
        close(criterion.class_relations().sum(1), torch.ones(K, dtype=torch.float64))
        criterion.eval()
        close(slope_of(criterion, logits, target), p - (0.6 * e + 0.4 * soft[target]))

    @pytest.mark.parametrize(("start", "first"), [("zeros", 0.0), ("uniform", 1 / K), ("smoothing", 0.9 + 0.1 / K)])
    def test_starts_and_fallbacks(self, start: str, first: float) -> None:
        logits = torch.eye(K, dtype=torch.float64) * 3
        criterion = OnlineLabelSmoothing(K, start=start, fallback="keep").double()
        assert float(criterion.class_relations()[1, 1]) == pytest.approx(first)
        criterion(logits[:1], torch.tensor([0]))
        criterion.end_epoch()
        assert float(criterion.class_relations()[1, 1]) == pytest.approx(first)
        assert float(criterion.class_relations()[0, 0]) == pytest.approx(float(logits[0].softmax(0)[0]))
        before = criterion.class_relations()
        criterion.end_epoch()  # nothing was right since
        assert torch.equal(criterion.class_relations(), before)

    def test_rows_above_a_share_stay(self) -> None:
        criterion = OnlineLabelSmoothing(K, freeze_above=0.8).double()
        for scale in (6.0, 1.0):
            criterion(scale * torch.eye(K, dtype=torch.float64), torch.arange(K))
            criterion.end_epoch()
        expected = (6.0 * torch.eye(K, dtype=torch.float64)).softmax(1)
        close(criterion.class_relations(), expected)


class TestPairwise:
    def test_begins_as_label_smoothing_by_one_half(self) -> None:
        logits, target, _, _ = rows()
        close(PairwiseLabelSmoothing(K).double()(logits, target), LabelSmoothing(0.5)(logits, target))

    @pytest.mark.parametrize("width", [None, 3])
    def test_gradients_of_logits_and_head(self, width: int | None) -> None:
        logits, target, p, e = rows()
        criterion = PairwiseLabelSmoothing(K, width, reduction="sum").double()
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            criterion.head += torch.randn(criterion.head.shape, generator=generator, dtype=torch.float64)
        more = {} if width is None else {"features": torch.randn(N, width, generator=generator, dtype=torch.float64)}
        h = logits.detach() if width is None else more["features"]
        v = (h @ criterion.head.detach().T).sigmoid()
        u = v.softmax(1)
        loss = criterion(logits, target, **more)
        of_logits, of_head = torch.autograd.grad(loss, [logits, criterion.head])
        # -1/2 sum_k u_k log p_k by u, through softmax and sigmoid.
        outer = -0.5 * p.log()
        inner = u * (outer - (u * outer).sum(1, keepdim=True)) * v * (1 - v)
        close(of_head, inner.T @ h)
        assert of_head.abs().max() > 0.1
        through = inner @ criterion.head.detach() if width is None else 0.0
        close(of_logits, p - 0.5 * (e + u) + through)

    @pytest.mark.parametrize(
        ("classes", "single", "pair"), [(10, 0.616, 0.366), (100, 0.513, 0.263), (200, 0.507, 0.257)]
    )
    def test_targets_are_bounded(self, classes: int, single: float, pair: float) -> None:
        top = math.e / (math.e + classes - 1)
        assert (1 + top) / 2 == pytest.approx(single, abs=6e-4)
        assert (0.5 + top) / 2 == pytest.approx(pair, abs=6e-4)
        # The head's most extreme answer gives that target, whatever its weights.
        criterion = PairwiseLabelSmoothing(classes, 1, reduction="sum").double()
        with torch.no_grad():
            criterion.head.fill_(-1e4)
            criterion.head[0] = 1e4
        logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
        loss = criterion(logits, torch.tensor([0]), features=torch.ones(1, 1, dtype=torch.float64))
        (slope,) = torch.autograd.grad(loss, logits)
        assert float(1 / classes - slope[0, 0]) == pytest.approx((1 + top) / 2, abs=1e-9)

    def test_joint_minimum_saturates_at_the_classes_of_the_pair(self) -> None:
        """Without the bound the target would collapse onto the prediction; with it the scores end near 0.35."""
        classes = 10
        criterion = PairwiseLabelSmoothing(classes, 1, reduction="sum").double()
        target = torch.zeros(1, classes, dtype=torch.float64)
        target[0, :2] = 0.5
        top = math.e / (2 * math.e + classes - 2)
        p = torch.full((1, classes), 0.5 * (1 - 2 * top) / (classes - 2), dtype=torch.float64)
        p[0, :2] = 0.25 + 0.5 * top
        assert float(p[0, 0]) == pytest.approx(0.351, abs=5e-4)
        is_pair = target[0] > 0
        logits = p.log().requires_grad_()
        for size in (0.0, 1.0, 5.0, 40.0):
            with torch.no_grad():
                criterion.head[:, 0] = torch.where(is_pair, size, -size)
            loss = criterion(logits, target, features=torch.ones(1, 1, dtype=torch.float64))
            of_logits, of_head = torch.autograd.grad(loss, [logits, criterion.head])
            # Every step takes the head further out, where sigmoid ends it.
            assert (of_head[is_pair] <= 0).all()
            assert (of_head[~is_pair] >= 0).all()
        assert of_head.abs().max() < 1e-15
        assert of_logits.abs().max() < 1e-12

    def test_pairs(self) -> None:
        inputs = torch.eye(16)
        midpoints, target = PairwiseLabelSmoothing(K, alternate=False).prepare(inputs, torch.arange(16) % K)
        assert len({tuple(row.nonzero()[:, 0].tolist()) for row in midpoints}) == 16
        close(target.sum(1), torch.ones(16))
        criterion = PairwiseLabelSmoothing(K, pairs="permutation", seed=3)
        kinds = [criterion.prepare(inputs, torch.arange(16) % K)[0] is inputs for _ in range(6)]
        assert kinds == [True, False] * 3
