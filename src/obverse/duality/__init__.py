"""From one face to the other: a dropout's penalty, a penalty's dropout, and whether a function has both."""

from ._adaptive import AdaptiveDropout, adaptive_dropout
from ._effective import effective_penalty
from ._expression import parse_expression
from ._faces import Faces, faces
from ._subquadratic import SubquadraticReport, check_subquadratic

# What `obverse penalties` and `obverse duality` show; the command line may use it, and nobody else needs to.
from ._summary import catalogue_summary as catalogue_summary
from ._summary import chosen_penalty as chosen_penalty
from ._summary import duality_summary as duality_summary
from ._summary import print_catalogue as print_catalogue
from ._summary import print_duality as print_duality

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
