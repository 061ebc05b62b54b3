"""Every criterion, ready for five classes, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from obverse.labels import LabelCriterion, label_criterion

K = 5
N = 14

CASES: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "smoothing": {},
    "adaptive": {},
    "adaptive, class": {"normalization": "class", "only_correct": True},
    "adaptive, average": {"update": "average"},
    "adaptive, average, batch": {"update": "average", "normalization": "batch"},
    "pairwise": {},
    "pairwise, features": {"num_features": 7},
    "online": {},
    "disturb": {"rate": 0.5},
    "confidence": {},
    "confidence, hinge": {"threshold": 1.2},
    "bootstrapping": {},
    "bootstrapping, hard": {"form": "hard"},
    "early-learning": {},
    "early-learning, top": {"top": 2},
    "generalized": {},
    "generalized, truncated": {"truncation": 0.2, "warmup_epochs": 0},
    "generalized, pruned": {"truncation": 0.2, "warmup_epochs": 0, "refresh_every": 2, "num_samples": 40},
    "symmetric": {},
    "progressive": {"epochs": 3},
    "progressive, top": {"epochs": 3, "top": 2},
    "class-wise": {},
}
STATEFUL = [
    name
    for name in CASES
    if name.split(",")[0] in ("adaptive", "pairwise", "online", "disturb", "early-learning", "progressive")
] + ["generalized, pruned"]


def build(case: str, **options: Any) -> LabelCriterion:
    return label_criterion(case.split(",")[0], K, **{**CASES[case], **options})


def extras(criterion: LabelCriterion, shape: tuple[int, ...], dtype: torch.dtype, first: int = 0) -> dict[str, Any]:
    """What the criterion needs besides logits and target, for class indices of this shape."""
    count = torch.Size(shape).numel()
    given: dict[str, Any] = {}
    if criterion.needs_index:
        given["index"] = torch.arange(first, first + count).reshape(shape)
    if criterion.needs_features:
        generator = torch.Generator().manual_seed(count + first)
        given["features"] = torch.randn(shape[0], 7, *shape[1:], generator=generator, dtype=dtype)
    return given


def batch(*positions: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count, rest = positions[0], positions[1:]
    logits = 2.0 * torch.randn(count, K, *rest, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(K, positions, generator=generator)


def run(criterion: LabelCriterion, steps: range) -> list[float]:
    """A short training of logits that also moves what the criterion learns; one epoch is three steps."""
    optimizer = torch.optim.SGD(list(criterion.parameters()) or [torch.zeros(1, requires_grad=True)], lr=0.5)
    losses = []
    for step in steps:
        logits, target = batch(12, seed=step)
        loss = criterion(logits, target, **extras(criterion, (12,), torch.float64, 12 * (step % 3)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 3 == 2:
            criterion.end_epoch()
    return losses


def overconfident(rows: int, seed: int = 0, scale: float = 2.0, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are more sure than right, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((0.7 * logits).softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def slope_of(criterion: LabelCriterion, logits: torch.Tensor, target: torch.Tensor, **more: Any) -> torch.Tensor:
    """Gradient of the sum over the rows in the logits."""
    criterion.reduction = "sum"
    return torch.autograd.grad(criterion(logits, target, **more), logits)[0]


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    logits, target = batch(N)
    return logits, target, logits.detach().softmax(1), F.one_hot(target, K).double()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
