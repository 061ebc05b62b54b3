"""The law of DropConnect: every weight of a linear map has a coin of its own."""

from __future__ import annotations

import torch

from .._core.arrays import Array, beside
from ..errors import InvalidArgumentError
from ._finite import admit_finite
from ._independent import Bernoulli

__all__ = ["Connect"]


class Connect(Bernoulli):
    """DropConnect (Wan et al. 2013): weights are kept with probability ``theta``, one by one, drawn per example.

    The event is the weight matrix, ``(out, in)``: ``sample((N, out, in))`` gives a mask of the weights for each of
    ``N`` examples. Exact moments of the masked linear map ``y = (Z o W) x`` with the normalized mask ``Z`` (theory
    note, section 3.6) are `second_moment` and `output_variance`.

    Parameters
    ----------
    keep_probability : float or array, in [0, 1]
        One for all weights, or an array that broadcasts against ``(out, in)``.
    """

    def second_moment(self, weight: Array, moment: Array) -> Array:
        """``E[(Z o W) G (Z o W)'] = W G W' + diag((lam o W o W) diag G)``, ``(out, out)``.

        Parameters
        ----------
        weight : array (out, in)
            ``W``.
        moment : array (in, in)
            Uncentered second moment ``G = E[x x']`` of the inputs.
        """
        (weight, moment), back = admit_finite(weight=weight, moment=moment)
        spread = self._spread(weight)
        if tuple(moment.shape) != (weight.shape[1], weight.shape[1]):
            raise InvalidArgumentError(f"moment must be {(weight.shape[1],) * 2}, got {tuple(moment.shape)}")
        return back(weight @ moment @ weight.mT + (spread @ moment.diagonal()).diag())

    def output_variance(self, weight: Array, inputs: Array) -> Array:
        """``Var(y_i | x) = sum_j lam_ij W_ij^2 x_j^2`` for every example, ``(..., out)``.

        Parameters
        ----------
        weight : array (out, in)
            ``W``.
        inputs : array (..., in)
            ``x``, one row an example.
        """
        (weight, inputs), back = admit_finite(weight=weight, inputs=inputs)
        spread = self._spread(weight)
        if inputs.ndim == 0 or inputs.shape[-1] != weight.shape[1]:
            raise InvalidArgumentError(
                f"inputs must end in the weight's {weight.shape[1]} columns, got shape {tuple(inputs.shape)}"
            )
        return back(inputs.square() @ spread.mT)

    def _spread(self, weight: torch.Tensor) -> torch.Tensor:
        if weight.ndim != 2:
            raise InvalidArgumentError(f"weight must be a matrix (out, in), got shape {tuple(weight.shape)}")
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        self._require_kept(shape)
        return beside(self._variance(shape), weight) * weight.square()
