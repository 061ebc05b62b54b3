"""Label regularizers: losses on logits and labels that smooth, adapt, distrust or remember, and calibration."""

from ._adaptive import AdaptiveLabelRegularization
from ._bootstrapping import Bootstrapping
from ._calibration import CalibrationError, ReliabilityBin
from ._class_pairs import ClassPairSampler
from ._class_wise import ClassWiseSelfDistillation
from ._confidence import ConfidencePenalty
from ._criterion import LabelCriterion
from ._disturb import DisturbLabel
from ._early_learning import EarlyLearningRegularization
from ._generalized import GeneralizedCrossEntropy
from ._mixing import cutmix, mixup
from ._online import OnlineLabelSmoothing
from ._pairwise import PairwiseLabelSmoothing
from ._progressive import ProgressiveSelfDistillation
from ._proper_scores import BrierScore, NegativeLogLikelihood
from ._registry import label_criteria, label_criterion
from ._smoothing import CrossEntropy, LabelSmoothing
from ._symmetric import SymmetricCrossEntropy
from ._temperature import TemperatureScaling
from ._winning_scores import ScoreSummary, WinningScores

__all__ = [
    "AdaptiveLabelRegularization",
    "Bootstrapping",
    "BrierScore",
    "CalibrationError",
    "ClassPairSampler",
    "ClassWiseSelfDistillation",
    "ConfidencePenalty",
    "CrossEntropy",
    "DisturbLabel",
    "EarlyLearningRegularization",
    "GeneralizedCrossEntropy",
    "LabelCriterion",
    "LabelSmoothing",
    "NegativeLogLikelihood",
    "OnlineLabelSmoothing",
    "PairwiseLabelSmoothing",
    "ProgressiveSelfDistillation",
    "ReliabilityBin",
    "ScoreSummary",
    "SymmetricCrossEntropy",
    "TemperatureScaling",
    "WinningScores",
    "cutmix",
    "label_criteria",
    "label_criterion",
    "mixup",
]
