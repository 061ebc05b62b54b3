"""Structured dropout: mask laws, layers, explicit regularizers, induced norms and global optima."""

from . import deep_linear
from ._blocks import Blocks, Channel, Path
from ._connect import Connect
from ._diagnose import diagnose
from ._diagnosis import ModelDiagnosis
from ._drop_connect import DropConnect
from ._empirical import Empirical
from ._explicit import explicit_penalty
from ._independent import Bernoulli, Gaussian, Rademacher
from ._insert import InsertedDropout, insert_dropout, inserted_dropout
from ._law import MaskLaw
from ._layers import DropBlock1d, DropBlock2d, DropBlock3d, Dropout, DropPath, MaskLayer
from ._marginal import Marginalized, marginalized
from ._noise import NoiseLayer, follow
from ._norms import (
    k_support_dual_norm,
    k_support_gradient,
    k_support_norm,
    k_support_prox,
    nuclear_dual_norm,
    nuclear_gradient,
    nuclear_norm,
    nuclear_prox,
    spectral_k_support_dual_norm,
    spectral_k_support_gradient,
    spectral_k_support_norm,
    spectral_k_support_prox,
)
from ._schedule import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule
from ._sliding import SlidingBlock

# What `obverse dropout spectrum` shows and draws; the command line and the pictures use it.
from ._spectrum_summary import numbers_of as numbers_of
from ._spectrum_summary import print_spectrum as print_spectrum
from ._spectrum_summary import singular_values_of_file as singular_values_of_file
from ._spectrum_summary import spectrum_summary as spectrum_summary
from ._spectrum_summary import swept_spectrum as swept_spectrum

__all__ = [
    "Bernoulli",
    "Blocks",
    "Channel",
    "Connect",
    "ConstantSchedule",
    "CosineSchedule",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Empirical",
    "Gaussian",
    "InsertedDropout",
    "LinearSchedule",
    "Marginalized",
    "MaskLaw",
    "MaskLayer",
    "ModelDiagnosis",
    "NoiseLayer",
    "Path",
    "Rademacher",
    "Schedule",
    "SlidingBlock",
    "deep_linear",
    "diagnose",
    "explicit_penalty",
    "follow",
    "insert_dropout",
    "inserted_dropout",
    "k_support_dual_norm",
    "k_support_gradient",
    "k_support_norm",
    "k_support_prox",
    "marginalized",
    "nuclear_dual_norm",
    "nuclear_gradient",
    "nuclear_norm",
    "nuclear_prox",
    "spectral_k_support_dual_norm",
    "spectral_k_support_gradient",
    "spectral_k_support_norm",
    "spectral_k_support_prox",
]
