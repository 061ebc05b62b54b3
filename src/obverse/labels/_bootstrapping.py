"""Labels mixed with what the network answers."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ..errors import UnknownNameError
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["Bootstrapping"]

_SHARES = {"soft": 0.95, "hard": 0.8}


class Bootstrapping(LabelCriterion):
    """Cross-entropy against ``b t + (1 - b) p``, or against ``b t + (1 - b) e_argmax(p)``.

    Parameters
    ----------
    form : {"soft", "hard"}
        Mix with the prediction itself, or with its most probable class.
    label_share : float, optional
        ``b`` in [0, 1]; by default 0.95 for soft and 0.8 for hard.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    The soft form lets the gradient through the prediction in the target: it is ``b CE + (1 - b) H(p)``, a minimum
    entropy regularizer. With a detached prediction its second term would have the gradient ``p - p = 0``, and the
    method would be a rescaled cross-entropy. Source: Reed et al. (2015).
    """

    name = "bootstrapping"

    def __init__(self, form: str = "soft", label_share: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        if form not in _SHARES:
            raise UnknownNameError("form of bootstrapping", str(form), _SHARES)
        self.form = form
        self.label_share = _SHARES[form] if label_share is None else checks.fraction("label_share", label_share)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        b = self.label_share
        if self.form == "soft":
            return b * rows.cross_entropy() + (1.0 - b) * rows.against(rows.log_p.exp())
        answer = rows.logits.argmax(1)
        of_answer = -rows.log_p.gather(1, answer[:, None])[:, 0]
        if rows.weight is not None:
            of_answer = of_answer * rows.weight[answer]
        return b * rows.cross_entropy() + (1.0 - b) * torch.where(rows.kept, of_answer, 0.0)

    def extra_repr(self) -> str:
        """Form, share and the options of the base."""
        own = f"form={self.form!r}, label_share={self.label_share}"
        return ", ".join(filter(None, (own, super().extra_repr())))
