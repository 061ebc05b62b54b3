"""Noisy and rare: heteroskedastic regularization, long-tail losses, diagnosis, and data builders."""

from ._classifier import retrain_classifier, tau_normalize
from ._clusters import cluster_groups
from ._corrupt import CorruptedLabels, CorruptedTargets, corrupt_labels, corrupt_targets
from ._counts import class_balanced_weights, inverse_frequency_weights
from ._deferred import DeferredReweighting
from ._diagnose import GroupDiagnosis, NoiseDiagnosis, diagnose_groups
from ._focal import FocalLoss
from ._gain import PredictedGain, predicted_gain
from ._group_report import GroupReport, GroupRow, group_report
from ._imbalanced import ImbalancedData, make_imbalanced
from ._jacobian import HeteroskedasticRegularizer
from ._logit_adjustment import BalancedSoftmaxLoss, LogitAdjustedLoss, adjust_logits
from ._margin import LDAMLoss, NormalizedLinear
from ._noise import GroupNoise, GroupNoiseRow, estimate_group_noise
from ._path_gain import PathGain, gain_along_path
from ._samplers import ClassBalancedSampler, DeferredSampler, ProgressiveSampler, ResamplingSampler, SquareRootSampler
from ._strengths import group_strengths, strength_exponents
from ._training_plan import TrainingPlan
from ._two_stage import TwoStageResult, train_two_stage
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
    "GroupNoise",
    "GroupNoiseRow",
    "GroupReport",
    "GroupRow",
    "HeteroskedasticRegularizer",
    "ImbalancedData",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "NoiseDiagnosis",
    "NormalizedLinear",
    "PathGain",
    "PredictedGain",
    "ProgressiveSampler",
    "ResamplingSampler",
    "SquareRootSampler",
    "TrainingPlan",
    "TwoStageResult",
    "WeightedLoss",
    "adjust_logits",
    "class_balanced_weights",
    "cluster_groups",
    "corrupt_labels",
    "corrupt_targets",
    "diagnose_groups",
    "estimate_group_noise",
    "gain_along_path",
    "group_report",
    "group_strengths",
    "inverse_frequency_weights",
    "make_imbalanced",
    "predicted_gain",
    "retrain_classifier",
    "strength_exponents",
    "tau_normalize",
    "train_two_stage",
]
