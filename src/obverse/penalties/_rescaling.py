"""A penalty as another one in different units."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .._core.arrays import Array
from ..errors import WrongTypeError
from ._base import Penalty
from ._parameters import store_constant

__all__ = ["Rescaled", "Rescaling"]


class Rescaling(Penalty):
    r""":math:`\Omega(w) = h\,\Omega_1(w / b)` for a penalty :math:`\Omega_1`, a height h and a width b.

    Every face follows from that of the penalty in unit scale, so that one table serves all scales.
    """

    @property
    @abstractmethod
    def _unit(self) -> Penalty:
        """The penalty in unit scale."""

    @property
    @abstractmethod
    def _shape(self) -> tuple[float, float]:
        """Width and height."""

    def _value(self, w: Array, xp: Any) -> Array:
        width, height = self._shape
        return height * self._unit._value(w / width, xp)

    def _slope(self, w: Array, xp: Any) -> Array:
        width, height = self._shape
        return height / width * self._unit._slope(w / width, xp)

    def _eta(self, w: Array, xp: Any) -> Array:
        width, height = self._shape
        return width * width / height * self._unit._eta(w / width, xp)

    def _dual(self, eta: Array, xp: Any) -> Array:
        width, height = self._shape
        return height * self._unit._dual(eta * (height / (width * width)), xp)

    def _prox(self, z: Array, step: Array, xp: Any) -> Array:
        width, height = self._shape
        return width * self._unit._prox(z / width, step * (height / (width * width)), xp)

    def _zeroing_step(self, z: Array, xp: Any) -> Array:
        width, height = self._shape
        return width * width / height * self._unit._zeroing_step(z / width, xp)

    @property
    def slope_at_zero(self) -> float:
        width, height = self._shape
        return height / width * self._unit.slope_at_zero

    @property
    def curvature_limit(self) -> float:
        width, height = self._shape
        return width * width / height * self._unit.curvature_limit


@final
@dataclass(frozen=True)
class Rescaled(Rescaling):
    r"""Another penalty in different units: :math:`\Omega(w) = \mathrm{height}\cdot\Omega_1(w / \mathrm{width})`.

    Parameters
    ----------
    penalty : Penalty
        :math:`\Omega_1`.
    width, height : float, default 1
        Positive.
    """

    penalty: Penalty
    width: float = 1.0
    height: float = 1.0
    name: ClassVar[str] = "rescaled"

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, Penalty):
            raise WrongTypeError(f"penalty must be a Penalty, got {type(self.penalty).__name__}")
        store_constant(self, "width", "height")

    @property
    def _unit(self) -> Penalty:
        return self.penalty

    @property
    def _shape(self) -> tuple[float, float]:
        return self.width, self.height
