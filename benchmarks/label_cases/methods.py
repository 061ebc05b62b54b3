"""The methods, each with the values of its one setting that are tried; the first value is the library's default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from obverse.labels import LabelCriterion, label_criterion

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """A criterion by name with one setting that varies, and how batches are mixed."""

    criterion: str
    setting: str | None = None
    values: tuple[float, ...] = (0.0,)
    options: dict[str, Any] = field(default_factory=dict)
    mixing: str | None = None

    def build(self, value: float, epochs: int) -> LabelCriterion:
        """The criterion for ten classes."""
        options = dict(self.options)
        if self.setting is not None:
            options[self.setting] = value
        if self.criterion == "progressive":
            options["epochs"] = epochs
        return label_criterion(self.criterion, 10, **options)


METHODS: dict[str, Method] = {
    "cross-entropy": Method("none"),
    "label smoothing": Method("smoothing", "smoothing", (0.1, 0.05, 0.2, 0.3, 0.5, 0.7)),
    "adaptive": Method("adaptive", "strength", (0.5, 0.1, 2.0)),
    "pairwise": Method("pairwise"),
    "online": Method("online", "hard_share", (0.5, 0.2, 0.8)),
    "disturb": Method("disturb", "rate", (0.1, 0.3, 0.5)),
    "confidence": Method("confidence", "strength", (0.1, 0.3, 1.0)),
    "bootstrapping, soft": Method("bootstrapping", "label_share", (0.95, 0.8), {"form": "soft"}),
    "bootstrapping, hard": Method("bootstrapping", "label_share", (0.8, 0.6), {"form": "hard"}),
    "early-learning": Method("early-learning", "strength", (3.0, 1.0)),
    "generalized": Method("generalized", "q", (0.7, 0.4)),
    "symmetric": Method("symmetric", "reverse_strength", (1.0, 0.3)),
    "progressive": Method("progressive", "final_share", (0.8, 0.5)),
    "class-wise": Method("class-wise", "strength", (1.0, 3.0)),
    "mixup": Method("none", mixing="mixup"),
    "cutmix": Method("none", mixing="cutmix"),
    "adaptive + mixup": Method("adaptive", "strength", (0.5, 2.0), mixing="mixup"),
}
