"""The penalty face: one small final class per penalty, on NumPy arrays and torch tensors alike.

`penalty` gives a penalty by its name and `catalogue` lists them; a penalty of one's own derives from `Penalty`.

Who extends Obverse, and reads a penalty apart, finds what penalties are made of: `Rescaling` is one penalty in other
units (`Rescaled` for any penalty), `TabulatedPenalty` is known by numbers of its slope alone, and `Piecewise` is the
polynomial table that it is stored in. `check_elementwise` refuses functions that look at other weights.
"""

from __future__ import annotations

from ._base import Penalty
from ._boundary import boundary_strength
from ._count import L0
from ._elementwise import check_elementwise
from ._empirical_bayes import EmpiricalBayes
from ._gates import ConcreteDropout, HardConcrete
from ._log_sum import LogSum
from ._piecewise import Piecewise
from ._plateau import MCP, SCAD, CappedL1, TargetedDropout
from ._power import Lasso, Lp, Ridge
from ._registry import catalogue, penalty
from ._rescaling import Rescaled, Rescaling
from ._smooth import Log2Sum, Standout
from ._tabulated import TabulatedPenalty
from ._variational import VariationalDropout

__all__ = [
    "L0",
    "MCP",
    "SCAD",
    "CappedL1",
    "ConcreteDropout",
    "EmpiricalBayes",
    "HardConcrete",
    "Lasso",
    "Log2Sum",
    "LogSum",
    "Lp",
    "Penalty",
    "Piecewise",
    "Rescaled",
    "Rescaling",
    "Ridge",
    "Standout",
    "TabulatedPenalty",
    "TargetedDropout",
    "VariationalDropout",
    "boundary_strength",
    "catalogue",
    "check_elementwise",
    "penalty",
]
