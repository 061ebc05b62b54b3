"""From one face to the other: a dropout's penalty, a penalty's dropout, and whether a function has both."""

from ._adaptive import AdaptiveDropout, adaptive_dropout
from ._effective import effective_penalty
from ._expression import parse_expression
from ._faces import Faces, faces
from ._subquadratic import SubquadraticReport, check_subquadratic

__all__ = [
    "AdaptiveDropout",
    "Faces",
    "SubquadraticReport",
    "adaptive_dropout",
    "check_subquadratic",
    "effective_penalty",
    "faces",
    "parse_expression",
]
