"""Noisy and rare: heteroskedastic regularization, long-tail losses, diagnosis, and data builders."""

from ._classifier import retrain_classifier, tau_normalize
from ._corrupt import CorruptedLabels, CorruptedTargets, corrupt_labels, corrupt_targets
from ._counts import class_balanced_weights, inverse_frequency_weights
from ._deferred import DeferredReweighting
from ._diagnose import GroupDiagnosis, NoiseDiagnosis, diagnose_groups
from ._focal import FocalLoss
from ._group_report import GroupReport, GroupRow, group_report
from ._imbalanced import ImbalancedData, make_imbalanced
from ._jacobian import HeteroskedasticRegularizer
from ._logit_adjustment import BalancedSoftmaxLoss, LogitAdjustedLoss, adjust_logits
from ._margin import LDAMLoss, NormalizedLinear
from ._samplers import ClassBalancedSampler, DeferredSampler, ProgressiveSampler, ResamplingSampler, SquareRootSampler
from ._weighted_loss import CrossEntropyLoss, WeightedLoss

__all__ = [
    "BalancedSoftmaxLoss",
    "ClassBalancedSampler",
    "CorruptedLabels",
    "CorruptedTargets",
    "CrossEntropyLoss",
    "DeferredReweighting",
    "DeferredSampler",
    "FocalLoss",
    "GroupDiagnosis",
    "GroupReport",
    "GroupRow",
    "HeteroskedasticRegularizer",
    "ImbalancedData",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "NoiseDiagnosis",
    "NormalizedLinear",
    "ProgressiveSampler",
    "ResamplingSampler",
    "SquareRootSampler",
    "WeightedLoss",
    "adjust_logits",
    "class_balanced_weights",
    "corrupt_labels",
    "corrupt_targets",
    "diagnose_groups",
    "group_report",
    "inverse_frequency_weights",
    "make_imbalanced",
    "retrain_classifier",
    "tau_normalize",
]
