"""The methods; of the baseline, of adaptive labels and of early learning some values are tried, the default first."""

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
    "label smoothing": Method("smoothing", "smoothing", (0.1, 0.05, 0.3, 0.6)),
    "adaptive": Method("adaptive", "strength", (0.5, 0.1, 2.0)),
    "pairwise": Method("pairwise"),
    "online": Method("online", "hard_share", (0.5,)),
    "disturb": Method("disturb", "rate", (0.1,)),
    "confidence": Method("confidence", "strength", (0.1,)),
    "bootstrapping, soft": Method("bootstrapping", "label_share", (0.95,), {"form": "soft"}),
    "bootstrapping, hard": Method("bootstrapping", "label_share", (0.8,), {"form": "hard"}),
    "early-learning": Method("early-learning", "strength", (3.0, 1.0)),
    "generalized": Method("generalized", "q", (0.7,)),
    "symmetric": Method("symmetric", "reverse_strength", (1.0,)),
    "progressive": Method("progressive", "final_share", (0.8,)),
    "class-wise": Method("class-wise", "strength", (1.0,)),
    "mixup": Method("none", mixing="mixup"),
    "cutmix": Method("none", mixing="cutmix"),
    "adaptive + mixup": Method("adaptive", "strength", (0.5, 2.0), mixing="mixup"),
}
