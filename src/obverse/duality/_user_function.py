"""A function of the user's own as a function of NumPy arrays, whichever numbers it takes and however it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.text import one_line
from ..errors import InvalidArgumentError

__all__ = ["UserFunction"]

Floats = npt.NDArray[np.float64]


class UserFunction:
    """The function on float64 NumPy arrays, whether it takes arrays, torch tensors or single numbers.

    Parameters
    ----------
    function : callable
        Of magnitudes.
    what : str
        Name of the function in messages.

    Attributes
    ----------
    rounding : float
        Relative rounding error of what it returned so far: 1e-15, more where it returned float32 or less.

    Raises
    ------
    InvalidArgumentError
        It takes none of the three; a call raises where the function fails or returns something else than real numbers,
        one for each weight.
    """

    def __init__(self, function: Callable[[Any], Any], what: str) -> None:
        self._function, self._what = function, what
        self.rounding = 1e-15
        failures = []
        for form in (self._by_array, self._by_tensor, self._by_number):
            try:
                self._checked(form, np.array([0.5, 1.0, 2.0]))
            except Exception as error:  # the user's function may refuse a form in any way it likes
                failures.append(one_line(error))
                continue
            self._form = form
            return
        reasons = "; ".join(dict.fromkeys((failures[0], failures[-1])))
        raise InvalidArgumentError(f"{what} takes neither arrays, nor tensors, nor numbers: {reasons}")

    def __call__(self, w: Floats) -> Floats:
        """Values at magnitudes of any shape."""
        try:
            return self._checked(self._form, w.reshape(-1)).reshape(w.shape)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{self._what} fails: {error}") from error.__cause__
        except Exception as error:
            raise InvalidArgumentError(
                f"{self._what} fails for magnitudes between {w.min():.4g} and {w.max():.4g}: {one_line(error)}; "
                "it must take every magnitude from 2^-100 to 2^100"
            ) from error

    def _checked(self, form: Callable[[Floats], Any], w: Floats) -> Floats:
        with np.errstate(all="ignore"):
            values = np.asarray(form(w.copy()))
        if values.dtype.kind not in "fiub":
            raise InvalidArgumentError(f"it must return real numbers, got {values.dtype} values")
        if values.shape not in (w.shape, ()):
            raise InvalidArgumentError(f"it returns shape {values.shape} for {w.shape}")
        if values.dtype.kind == "f":
            self.rounding = max(self.rounding, float(np.finfo(values.dtype).eps) * 2)
        return np.broadcast_to(values.astype(np.float64), w.shape)

    def _by_array(self, w: Floats) -> Any:
        return self._function(w)

    def _by_tensor(self, w: Floats) -> Any:
        import torch

        return _as_numpy(self._function(torch.from_numpy(w)))

    def _by_number(self, w: Floats) -> Any:
        values = [_as_numpy(self._function(float(x))) for x in w]
        shapes = {np.shape(value) for value in values}
        if shapes - {()}:
            raise InvalidArgumentError(f"it returns shape {max(shapes)} for a number")
        return np.array(values)


def _as_numpy(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    plain = value.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
