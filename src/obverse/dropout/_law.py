"""What every law of masks answers: its exact moments, quadratic forms, and samples."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from .._core.arrays import Array, admit, beside, numbers
from .._core.checks import choice
from .._core.random import Seed
from .._core.recomputation import repeatable
from .._core.text import brief
from ..errors import InvalidArgumentError
from ._finite import admit_finite

__all__ = ["MaskLaw", "Share", "checked_probability", "checked_shape", "real_numbers", "single_probability"]

Share = str | tuple[str, ...]
Event = tuple[int, ...]

_DENSE_LIMIT = 20_000  # units: a covariance of 3.2 GB in float64
_SHARED = ("batch", "channel")
_SCALES = ("marginal", "count", "none")


class MaskLaw(ABC):
    """The law of a random mask over the units of one example (an *event*).

    An event has a shape without the batch axis, such as ``(d,)``, ``(C, L)`` or ``(C, H, W)``; its units are numbered
    in C order wherever a matrix speaks of them. Moments are those of the normalized mask ``z = mask / E[mask]``,
    whose mean is one unit by unit: for a head that is linear above the mask and the squared loss, the expected loss is
    the loss of the mean network plus ``<Cbar, (U' U) o H>`` with ``Cbar = Cov(z)`` (Pal, Lane, Vidal and Haeffele 2020;
    derived in the theory note, section 2).

    Laws are immutable and comparable. Laws of masks that never keep some unit may be built and sampled raw, but have
    no normalized mask: their moments and marginal scaling raise `InvalidArgumentError`.
    """

    def mean(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Mean of the mask before normalization, ``E[mask]``, as an array of the event's ``shape``."""
        return self._mean(checked_shape(shape))

    def variance(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Variance of the normalized mask, the diagonal of `covariance`, as an array of the event's ``shape``."""
        event = checked_shape(shape)
        self._require_kept(event)
        return self._variance(event)

    def covariance(self, shape: Sequence[int], share: Share = ()) -> NDArray[np.float64]:
        """Covariance ``Cbar`` of the normalized mask, dense, ``(d, d)`` for the ``d`` units of an event.

        Parameters
        ----------
        shape : sequence of int
            Shape of the event.
        share : str or tuple of str, default=()
            With ``"channel"`` the covariance of a mask that all channels share.

        Raises
        ------
        InvalidArgumentError
            If the event has so many units that the matrix would not fit; use `quadratic_form` then.
        """
        event = checked_shape(shape)
        size = math.prod(event)
        if size > _DENSE_LIMIT:
            raise InvalidArgumentError(
                f"a dense covariance of {size} units takes {8e-9 * size**2:.0f} GB; quadratic_form does without it"
            )
        single = self._single_channel(event, _checked_share(share))
        self._require_kept(single)
        copies = size // math.prod(single)
        block = self._covariance(single)
        return np.tile(block, (copies, copies)) if copies > 1 else block

    def quadratic_form(self, values: Array, shape: Sequence[int] | None = None, share: Share = ()) -> Array:
        """``v' Cbar v`` for every example, without the dense matrix; differentiable in torch.

        Parameters
        ----------
        values : array (..., *event)
            NumPy array or torch tensor.
        shape : sequence of int, optional
            Shape of the event; by default all axes of ``values`` but the first.
        share : str or tuple of str, default=()
            With ``"channel"``, of a mask that all channels share: values are summed over channels first.

        Returns
        -------
        array (...,)
            In the dtype of ``values`` (at least float32).
        """
        (tensor,), back = admit_finite(values=values)
        return back(self.form(tensor, shape, share))

    def form(self, values: torch.Tensor, shape: Sequence[int] | None = None, share: Share = ()) -> torch.Tensor:
        """`quadratic_form` of a tensor without a look at its numbers, for use inside of a training step."""
        (values,), _ = admit(values)
        return self._quadratic_form(*self._summed(values, shape, share))

    def hadamard(self, matrix: Array, shape: Sequence[int] | None = None) -> Array:
        """``Cbar o matrix``, entry by entry, for a ``(d, d)`` matrix of the library it comes from.

        Parameters
        ----------
        matrix : array (d, d)
            NumPy array or torch tensor, such as a second moment of features.
        shape : sequence of int, optional
            Shape of the event with ``d`` units; by default ``(d,)``.
        """
        (matrix,), back = admit_finite(matrix=matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidArgumentError(f"matrix must be square, got shape {tuple(matrix.shape)}")
        event = checked_shape((int(matrix.shape[0]),) if shape is None else shape)
        if math.prod(event) != matrix.shape[0]:
            raise InvalidArgumentError(f"an event of shape {event} does not have the matrix's {matrix.shape[0]} units")
        self._require_kept(event)
        return back(self._hadamard(matrix, event))

    def drop_rate(self, shape: Sequence[int]) -> float:
        """Exact probability that a unit is dropped (``mask = 0``), averaged over the units of the event."""
        return float(1.0 - self.mean(shape).mean())

    def sample(
        self,
        shape: Sequence[int],
        generator: Seed | None = None,
        *,
        share: Share = (),
        scale: str = "marginal",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Masks for a batch of examples.

        Parameters
        ----------
        shape : sequence of int
            ``(N, *event)``, the shape of the features to multiply; ``N = 0`` gives an empty mask.
        generator : int, torch.Generator or numpy.random.Generator, optional
            Seed or generator; the same state gives the same masks. By default torch's global generator.
        share : str or tuple of str, default=()
            ``"batch"``: one mask for all examples; ``"channel"``: one for all channels. A shared mask comes as a
            broadcast view: multiply by it, do not write to it.
        scale : {"marginal", "count", "none"}, default="marginal"
            ``"marginal"`` divides by ``E[mask]`` unit by unit: the mean is exactly one everywhere. ``"count"`` divides
            by the share of nonzero entries in the whole mask of this call, over examples and channels, as published by
            Ghiasi, Lin and Le (2018): it couples examples and its mean is not one unit by unit. A mask with nothing
            kept stays zero. ``"none"`` is the raw mask.
        dtype : torch.dtype, optional
            Floating dtype of the mask; by default torch's default dtype.
        device : torch.device or str, optional
            By default the generator's device, or torch's default device.

        Returns
        -------
        torch.Tensor (N, *event)
        """
        choice("scale", scale, _SCALES)
        full = _checked_axes(shape)
        shared = _checked_share(share)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InvalidArgumentError(f"masks need a floating dtype, got {dtype}")
        event = self._single_channel(full[1:], shared)
        rows = 1 if "batch" in shared else full[0]
        if 0 in full:
            own = generator.device if device is None and isinstance(generator, torch.Generator) else device
            return torch.empty(full, dtype=dtype, device=own)
        draw = self._draw_normalized if scale == "marginal" else self._draw
        if generator is None:
            mask = draw(rows, event, None, dtype, device)
        else:
            with repeatable(generator) as source:
                assert source is not None
                mask = draw(rows, event, source, dtype, source.device if device is None else device)
        if scale == "count":
            kept = torch.count_nonzero(mask).clamp(min=1)
            mask = mask * (mask.numel() / kept.to(torch.promote_types(dtype, torch.float32))).to(dtype)
        return mask.expand(full)

    @abstractmethod
    def with_rate(self, drop_rate: float) -> Self:
        """The law of the same kind with another drop probability, as schedules need it."""

    # What a kind of law states. Events are checked, with one channel where channels share the mask.

    @abstractmethod
    def _mean(self, event: Event) -> NDArray[np.float64]: ...

    @abstractmethod
    def _variance(self, event: Event) -> NDArray[np.float64]: ...

    @abstractmethod
    def _covariance(self, event: Event) -> NDArray[np.float64]: ...

    @abstractmethod
    def _quadratic_form(self, values: torch.Tensor, event: Event) -> torch.Tensor: ...

    @abstractmethod
    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor: ...

    def _hadamard(self, matrix: torch.Tensor, event: Event) -> torch.Tensor:
        return beside(self.covariance(event), matrix) * matrix

    def _draw_normalized(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        if not torch.compiler.is_compiling():  # a compiler follows no branch on numbers
            self._require_kept(event)
        mask = self._draw(rows, event, generator, dtype, device)
        return mask * torch.as_tensor(1.0 / self._mean(event), dtype=dtype, device=mask.device)

    def _summed(self, values: torch.Tensor, shape: Sequence[int] | None, share: Share) -> tuple[torch.Tensor, Event]:
        """Values of a quadratic form, summed over channels that share the mask, and their event."""
        event = checked_shape(values.shape[1:] if shape is None else shape)
        lead = values.ndim - len(event)
        if lead < 0 or tuple(values.shape[lead:]) != event:
            raise InvalidArgumentError(f"values of shape {tuple(values.shape)} do not end in the event's shape {event}")
        single = self._single_channel(event, _checked_share(share))
        self._require_kept(single)
        if single != event:
            values = values.sum(tuple(range(lead, lead + self._channel_axes(event))), keepdim=True)
        return values, single

    def _channel_axes(self, event: Event) -> int:
        """How many leading axes of the event number its channels."""
        return 1 if len(event) > 1 else 0

    def _single_channel(self, event: Event, shared: tuple[str, ...]) -> Event:
        """The event with one channel if channels share the mask, else the event."""
        if "channel" not in shared:
            return event
        axes = self._channel_axes(event)
        if axes == 0:
            raise InvalidArgumentError(
                f"{type(self).__name__}: an event of shape {event} has no channels to share a mask"
            )
        return (1,) * axes + event[axes:]

    def _require_kept(self, event: Event) -> None:
        """Refuse what has no normalized mask."""
        never = int(np.count_nonzero(self._mean(event) < np.finfo(np.float64).tiny))
        if never:
            raise InvalidArgumentError(
                f"{self!r} never keeps {never} of {math.prod(event)} units, so its mask cannot be divided by its mean; "
                "keep every unit with a positive probability, or sample with scale='none' or 'count'"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            raise AttributeError(f"{type(self).__name__} is immutable; build another law, or call with_rate")
        super().__setattr__(name, value)

    def _parameters(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskLaw) or type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._parameters(), other._parameters()
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)

    def __hash__(self) -> int:
        return hash((type(self), *(_hashable(value) for value in self._parameters().values())))

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(value)}" for name, value in self._parameters().items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _hashable(value: Any) -> Any:
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def _shown(value: Any) -> str:
    return f"<array of shape {value.shape}>" if isinstance(value, np.ndarray) else repr(value)


def checked_shape(shape: Sequence[int]) -> Event:
    """An event's shape as a tuple of positive integers."""
    try:
        event = tuple(operator.index(side) for side in shape)
    except TypeError as error:
        raise InvalidArgumentError(f"an event's shape is a tuple of positive integers, got {brief(shape)}") from error
    if not all(side > 0 for side in event):
        raise InvalidArgumentError(f"an event's shape is a tuple of positive integers, got {event}")
    return event


def _checked_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch of events, whose axes may be empty."""
    try:
        full = tuple(operator.index(side) for side in shape)
    except TypeError:
        full = ()
    if not full or min(full) < 0:
        raise InvalidArgumentError(f"shape must be (N, *event), got {brief(shape)}")
    return full


def _checked_share(share: Share) -> tuple[str, ...]:
    shared = (share,) if isinstance(share, str) else share
    if not isinstance(shared, Collection) or not all(isinstance(name, str) and name in _SHARED for name in shared):
        raise InvalidArgumentError(f"share names 'batch' and 'channel', got {brief(share)}")
    return tuple(shared)


def checked_probability(value: Any, name: str, *, positive: bool = False) -> float | NDArray[np.float64]:
    """A probability, or a read-only float64 array of them, from a number, a sequence, an array or a tensor."""
    if isinstance(value, (float, int)) and not isinstance(value, bool):  # so that compilers can follow schedules
        if not (0.0 < value <= 1.0 or (value == 0.0 and not positive)):
            raise InvalidArgumentError(f"{name} must lie in {'(' if positive else '['}0, 1], got {value}")
        return float(value)
    array = real_numbers(value, name)
    if array.size == 0:
        raise InvalidArgumentError(f"{name} must be a probability or an array of them, got no number")
    low = array > 0.0 if positive else array >= 0.0
    if not bool(np.all(low & (array <= 1.0))):
        raise InvalidArgumentError(f"{name} must lie in {'(' if positive else '['}0, 1], got {brief(value)}")
    if array.ndim == 0:
        return float(array)
    array.setflags(write=False)
    return array


def real_numbers(value: Any, name: str) -> NDArray[np.float64]:
    """A float64 array of its own from numbers, sequences, arrays and tensors."""
    if isinstance(value, (bool, np.bool_)):
        raise InvalidArgumentError(f"{name} must be a number or an array of numbers, got {value!r}")
    try:
        return np.array(numbers(value))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{name} must be a number or an array of numbers, got {brief(value)}") from error


def single_probability(value: Any, name: str) -> float:
    """One probability, for laws that have a single rate."""
    probability = checked_probability(value, name)
    if not isinstance(probability, float):
        raise InvalidArgumentError(f"{name} must be one number, got an array of shape {probability.shape}")
    return probability
