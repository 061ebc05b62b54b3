"""Deep linear networks with dropout: the exact regularizer, what it induces on the product, and the global optimum."""

from ._bounds import MaskBound, NuclearNormBound, mask_bound, nuclear_norm_bound, schatten_bound, sliding_block_bound
from ._diagnose import Diagnosis, diagnose
from ._equalize import equalize
from ._explicit import drop_path_moment, explicit_regularizer
from ._induced import InducedRegularizer, induced_regularizer
from ._objective import gradient, objective, second_moments
from ._optimum import GlobalOptimum, global_optimum
from ._phases import Phase, phases, predicted_ranks, rank_one_keep_probability
from ._rotation import equalizing_rotation
from ._summary import singular_values_of_file, spectrum_summary, swept_spectrum

__all__ = [
    "Diagnosis",
    "GlobalOptimum",
    "InducedRegularizer",
    "MaskBound",
    "NuclearNormBound",
    "Phase",
    "diagnose",
    "drop_path_moment",
    "equalize",
    "equalizing_rotation",
    "explicit_regularizer",
    "global_optimum",
    "gradient",
    "induced_regularizer",
    "mask_bound",
    "nuclear_norm_bound",
    "objective",
    "phases",
    "predicted_ranks",
    "rank_one_keep_probability",
    "schatten_bound",
    "second_moments",
    "singular_values_of_file",
    "sliding_block_bound",
    "spectrum_summary",
    "swept_spectrum",
]
