"""Closed forms of criteria that doubt labels or remember predictions, in float64, against autograd."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from label_cases import K, N, batch, close, rows, slope_of

from obverse.labels import (
    Bootstrapping,
    ClassWiseSelfDistillation,
    ConfidencePenalty,
    CrossEntropy,
    DisturbLabel,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LabelSmoothing,
    ProgressiveSelfDistillation,
    SymmetricCrossEntropy,
)


class TestDistrust:
    def test_disturbed_labels_are_smoothed_ones_on_average(self) -> None:
        count, rate = 60_000, 0.4
        logits = batch(1, seed=8)[0].detach().expand(count, K)
        target = torch.full((count,), 2)
        each = DisturbLabel(rate, seed=1, reduction="none")(logits, target)
        expected = LabelSmoothing(rate)(logits[:1], target[:1])
        error = float(each.std()) / math.sqrt(count)
        assert abs(float(each.mean() - expected)) < 4 * error
        # Every value is the loss of some class, and a change happens with probability rate (K-1)/K.
        assert len(each.unique()) == K
        kept = (each == F.cross_entropy(logits[:1], target[:1])).double().mean()
        assert float(kept) == pytest.approx(1 - rate * (K - 1) / K, abs=0.01)

    def test_gradient_of_the_confidence_penalty(self) -> None:
        logits, target, p, e = rows()
        entropy = -(p * p.log()).sum(1, keepdim=True)
        close(slope_of(ConfidencePenalty(0.4), logits, target), (p - e) + 0.4 * p * (p.log() + entropy))
        to_uniform = (p * (p * K).log()).sum(1)
        value = ConfidencePenalty(0.4, reduction="none")(logits, target)
        close(value, F.cross_entropy(logits, target, reduction="none") + 0.4 * (to_uniform - math.log(K)))
        calm = entropy[:, 0] > 1.0
        assert 0 < calm.sum() < N
        hinged = slope_of(ConfidencePenalty(0.4, threshold=1.0), logits, target)
        close(hinged[calm], (p - e)[calm])
        close(hinged[~calm], ((p - e) + 0.4 * p * (p.log() + entropy))[~calm])

    def test_soft_bootstrapping_lets_the_gradient_through_the_prediction(self) -> None:
        logits, target, p, e = rows()
        b = 0.7
        entropy = -(p * p.log()).sum(1, keepdim=True)
        through = slope_of(Bootstrapping("soft", b), logits, target)
        close(through, b * (p - e) - (1 - b) * p * (p.log() + entropy))
        detached = slope_of(CrossEntropy(), logits, b * e + (1 - b) * p)
        close(detached, b * (p - e))
        assert (through - detached).abs().max() > 0.01

    def test_gradient_of_hard_bootstrapping(self) -> None:
        logits, target, p, e = rows()
        answer = F.one_hot(p.argmax(1), K).double()
        close(slope_of(Bootstrapping("hard", 0.6), logits, target), p - (0.6 * e + 0.4 * answer))

    @pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
    def test_generalized_gradient_is_that_of_cross_entropy_times_a_power(self, q: float) -> None:
        logits, target, p, e = rows()
        of_target = p.gather(1, target[:, None])
        close(slope_of(GeneralizedCrossEntropy(q), logits, target), of_target**q * (p - e))
        if q == 1.0:
            close(GeneralizedCrossEntropy(q, reduction="none")(logits, target), 1 - of_target[:, 0])

    def test_truncation_is_flat_and_continuous(self) -> None:
        logits, target, p, e = rows()
        of_target = p.gather(1, target[:, None])
        k = float(of_target.median()) + 1e-6
        criterion = GeneralizedCrossEntropy(0.7, k, warmup_epochs=1)
        close(slope_of(criterion, logits, target), of_target**0.7 * (p - e))
        criterion.end_epoch()
        left_out = of_target[:, 0] <= k
        slope = slope_of(criterion, logits, target)
        assert (slope[left_out] == 0).all()
        close(slope[~left_out], (of_target**0.7 * (p - e))[~left_out])
        criterion.reduction = "none"
        flat = torch.full((int(left_out.sum()),), (1 - k**0.7) / 0.7, dtype=torch.float64)
        close(criterion(logits, target)[left_out].detach(), flat)

    def test_reverse_cross_entropy_is_the_probability_of_being_wrong(self) -> None:
        logits, target, p, e = rows()
        of_target = p.gather(1, target[:, None])
        criterion = SymmetricCrossEntropy(0.3, 2.0, -4.0, reduction="none")
        close(
            criterion(logits, target),
            0.3 * F.cross_entropy(logits, target, reduction="none") + 2.0 * 4.0 * (1 - of_target[:, 0]),
        )
        close(criterion(logits, target), criterion(logits, e))
        close(slope_of(criterion, logits, target), (0.3 + 8.0 * of_target) * (p - e))


class TestMemory:
    def test_early_learning_gradient_with_the_average_updated_before_use(self) -> None:
        logits, target, p, e = rows()
        criterion = EarlyLearningRegularization(K, 2.0, 0.6, top=None)
        ids = torch.arange(N)
        average = torch.zeros(N, K, dtype=torch.float64)
        for _ in range(3):
            slope = slope_of(criterion, logits, target, index=ids)
            average = 0.6 * average + 0.4 * p
            agreement = (p * average).sum(1, keepdim=True)
            expected = (p - e) - 2.0 * p * (average - agreement) / (1 - agreement)
            torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)  # the memory is float32

    def test_progressive_target_grows_with_the_epoch(self) -> None:
        logits, target, p, e = rows()
        other = batch(N, seed=3)[0]
        criterion = ProgressiveSelfDistillation(K, epochs=4, final_share=0.8, top=None)
        ids = torch.arange(N).flip(0)
        close(slope_of(criterion, logits, target, index=ids), p - e)
        criterion.end_epoch()
        for epoch, earlier in ((2, p), (3, other.detach().softmax(1))):
            share = 0.8 * epoch / 4
            slope = slope_of(criterion, other, target, index=ids)
            expected = other.detach().softmax(1) - ((1 - share) * e + share * earlier)
            torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)
            criterion.end_epoch()
        for _ in range(5):
            criterion.end_epoch()
        assert criterion.share == 0.8

    def test_class_wise_gradient_with_a_second_pass(self) -> None:
        logits, target, p, e = rows()
        pair = batch(N, seed=6)[0]
        criterion = ClassWiseSelfDistillation(1.5, 4.0)
        found = slope_of(criterion, logits, target, pair_logits=pair)
        expected = (p - e) + 1.5 * 4.0 * ((logits.detach() / 4).softmax(1) - (pair.detach() / 4).softmax(1))
        close(found, expected)

    def test_class_wise_partner_is_the_next_of_the_class(self) -> None:
        logits, _, p, e = rows()
        target = torch.tensor([0, 1, 0, 2, 1, 0, 3, 3, 1, 0, 1, 0, 3, 4])
        e = F.one_hot(target, K).double()
        after = {0: 2, 2: 5, 5: 9, 9: 11, 11: 0, 1: 4, 4: 8, 8: 10, 10: 1, 6: 7, 7: 12, 12: 6, 3: 3, 13: 13}
        soft = (logits.detach() / 4).softmax(1)
        expected = (p - e) + 4.0 * (soft - soft[[after[i] for i in range(N)]])
        close(slope_of(ClassWiseSelfDistillation(1.0, 4.0), logits, target), expected)
