"""Criteria by name."""

from __future__ import annotations

import inspect
from typing import Any

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ._adaptive import AdaptiveLabelRegularization
from ._bootstrapping import Bootstrapping
from ._class_wise import ClassWiseSelfDistillation
from ._confidence import ConfidencePenalty
from ._criterion import LabelCriterion
from ._disturb import DisturbLabel
from ._early_learning import EarlyLearningRegularization
from ._generalized import GeneralizedCrossEntropy
from ._online import OnlineLabelSmoothing
from ._pairwise import PairwiseLabelSmoothing
from ._progressive import ProgressiveSelfDistillation
from ._smoothing import CrossEntropy, LabelSmoothing
from ._symmetric import SymmetricCrossEntropy

__all__ = ["label_criteria", "label_criterion"]

_CATALOGUE: dict[str, type[LabelCriterion]] = {
    cls.name: cls
    for cls in (
        *(CrossEntropy, LabelSmoothing, AdaptiveLabelRegularization, PairwiseLabelSmoothing, OnlineLabelSmoothing),
        *(DisturbLabel, ConfidencePenalty, Bootstrapping, EarlyLearningRegularization, GeneralizedCrossEntropy),
        *(SymmetricCrossEntropy, ProgressiveSelfDistillation, ClassWiseSelfDistillation),
    )
}


def label_criteria() -> dict[str, type[LabelCriterion]]:
    """Every criterion by name.

    Returns
    -------
    dict of str to class
        A new dictionary, in the order of the documentation.
    """
    return dict(_CATALOGUE)


def label_criterion(name: str, num_classes: int, **options: Any) -> LabelCriterion:
    """A criterion by its name.

    Parameters
    ----------
    name : str
        A key of `label_criteria`; "none" is the cross-entropy.
    num_classes : int
        K, at least 2.
    **options
        Constructor arguments.

    Raises
    ------
    UnknownNameError
        There is no criterion of that name.
    InvalidArgumentError
        An option is unknown or out of range.
    """
    key = "cross-entropy" if name == "none" else name
    if key not in _CATALOGUE:
        raise UnknownNameError("label criterion", str(name), ["none", *_CATALOGUE])
    checks.count("num_classes", num_classes, 2)
    cls = _CATALOGUE[key]
    own = list(inspect.signature(cls.__init__).parameters)[1:]
    base = list(inspect.signature(LabelCriterion.__init__).parameters)[1:]
    known = [each for each in dict.fromkeys((*own, *base)) if each not in ("options", "num_classes")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidArgumentError(f"{key!r} has no option {', '.join(unknown)}; it takes {', '.join(known)}")
    weight = options.get("weight")
    if weight is not None and hasattr(weight, "__len__") and len(weight) != num_classes:
        raise InvalidArgumentError(f"weight must have one entry for each of {num_classes} classes, got {len(weight)}")
    if "num_classes" in own:
        options = {"num_classes": num_classes, **options}
    return cls(**options)
