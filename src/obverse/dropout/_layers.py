"""Dropout layers: units, blocks of neighbors in feature maps, whole residual branches.

In training each multiplies its input by a mask of mean one; in evaluation each returns its input, the very tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .._core.text import brief
from ..errors import InvalidArgumentError
from ._blocks import Path
from ._independent import Bernoulli, Gaussian, Rademacher
from ._law import MaskLaw
from ._noise import Measure, NoiseLayer, drop_probability, known_name
from ._schedule import Schedule
from ._sliding import SlidingBlock

__all__ = ["DropBlock1d", "DropBlock2d", "DropBlock3d", "DropPath", "Dropout", "MaskLayer"]

_NOISES = {"bernoulli": Bernoulli, "gaussian": Gaussian, "rademacher": Rademacher}


class MaskLayer(NoiseLayer):
    """A layer that multiplies by a mask of any law; `Dropout`, `DropBlock2d` and `DropPath` are made of it.

    Parameters
    ----------
    law : MaskLaw
        Law of the mask of one example.
    scale : {"marginal", "count", "none"}
        What the mask is divided by: its mean, unit by unit, so that the layer has no bias; the realized share of
        kept units, as published for DropBlock; nothing.
    share : str or tuple of str
        ``"batch"``: one mask for all examples; ``"channel"``: one for all channels of an example.
    generator : torch.Generator, optional
        Source of the masks; the global one by default.
    mode : {"noise", "deterministic"}
        ``"deterministic"`` passes the input on in training as well, for an objective whose penalty stands in for the
        noise; see `marginalized`.

    Raises
    ------
    UnknownNameError
        ``scale``, ``share`` or ``mode`` is not one of those.
    """

    def __init__(
        self,
        law: MaskLaw,
        p: Any = None,
        *,
        scale: str = "marginal",
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
        mode: str = "noise",
    ) -> None:
        if not isinstance(law, MaskLaw):
            raise InvalidArgumentError(f"law must be a mask law such as Bernoulli(0.9), got {brief(law)}")
        if p is None:
            # Without a rate of its own the law is taken as it is.
            if schedule is not None:
                raise InvalidArgumentError("a schedule needs p, the drop rate at its end")
            p = 1.0
        else:
            p = drop_probability(p, scalar=False)
        super().__init__(law, p, scale=scale, share=share, schedule=schedule, generator=generator, mode=mode)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``input`` times a mask in training, ``input`` itself in evaluation."""
        batched = self.batched(input)
        if not self.training or self.silent:
            return input
        if self.deterministic:
            return self.keep(input, self._measure(input, batched))
        if batched:
            return self.mask(input)
        return self.mask(input.unsqueeze(0)).squeeze(0)

    def batched(self, input: torch.Tensor) -> bool:
        """Whether the first axis counts examples; raises where the layer cannot take such an input."""
        return input.dim() > 1

    def mask(self, input: torch.Tensor) -> torch.Tensor:
        """A batch times a mask."""
        return input * self.draw(input.shape, input)

    def _measure(self, input: torch.Tensor, batched: bool) -> Measure:
        if self.scale != "marginal":
            raise InvalidArgumentError(
                f"scale={self.scale!r} changes the mean of what the layer passes on, so that no penalty can stand in "
                "for it; use scale='marginal' in the deterministic mode"
            )
        law, share = self.law, self.share

        def measure(gradient: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
            values = gradient * masked
            form: torch.Tensor = law.form(values if batched else values.unsqueeze(0), share=share)
            return form

        return measure

    def extra_repr(self) -> str:
        """The law and the arguments that differ from their defaults."""
        shown = super().extra_repr().split(", ", 1)
        return ", ".join([repr(self.full_law), *shown[1:]])


class Dropout(MaskLayer):
    """Dropout of single units, with one rate or a rate for each unit; `torch.nn.Dropout` takes the same ``p``.

    Parameters
    ----------
    p : float or array
        Drop probability in [0, 1). An array is broadcast against one example, all axes of the input but the first;
        inputs of one axis are one example.
    noise : {"bernoulli", "gaussian", "rademacher"}
        Law of the mask: kept or dropped; normal; ``1 +- s``. All have mean one and variance ``p / (1 - p)`` after
        scaling, and give the same expected squared loss of what is linear above them.
    scale, share, schedule, generator, mode
        See `MaskLayer`.

    Raises
    ------
    InvalidArgumentError
        ``p`` is not in [0, 1), or ``noise`` has no kept share to be scaled by.

    Notes
    -----
    Source: Srivastava et al. (2014); Gaussian noise section 10 there; that the noise counts through mean and
    covariance alone: Cavazza et al. (2018), Pal et al. (2020).
    """

    def __init__(
        self,
        p: Any = 0.5,
        *,
        noise: str = "bernoulli",
        scale: str = "marginal",
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
        mode: str = "noise",
    ) -> None:
        known_name("noise", noise, tuple(_NOISES))
        rate = drop_probability(p, scalar=False)
        super().__init__(
            _NOISES[noise](1.0 - rate),
            rate,
            scale=scale,
            share=share,
            schedule=schedule,
            generator=generator,
            mode=mode,
        )
        self.noise = noise
        plain = noise == "bernoulli" and scale == "marginal" and not self.share and generator is None
        # In a compiled graph the rate of torch's kernel is a constant.
        self._fused = plain and isinstance(rate, float) and schedule is None

    def mask(self, input: torch.Tensor) -> torch.Tensor:
        """A batch times a mask; the common case is torch's own kernel."""
        if self._fused:
            return F.dropout(input, self.drop_rate, training=True)
        return super().mask(input)

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, after the rate."""
        noise = "" if self.noise == "bernoulli" else f", noise={self.noise!r}"
        return NoiseLayer.extra_repr(self) + noise


class _DropBlock(MaskLayer):
    """Blocks of neighbors in feature maps of ``dims`` axes."""

    dims: int

    def __init__(
        self,
        p: float = 0.1,
        block_size: int | tuple[int, ...] = 7,
        *,
        gamma: str = "exact",
        scale: str = "marginal",
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
        mode: str = "noise",
    ) -> None:
        known_name("gamma", gamma, ("exact", "published"))
        rate = drop_probability(p)
        law = SlidingBlock(block_size, drop_rate=rate, published=gamma == "published", dims=self.dims)
        super().__init__(law, rate, scale=scale, share=share, schedule=schedule, generator=generator, mode=mode)
        self.block_size = block_size
        self.gamma = gamma

    def batched(self, input: torch.Tensor) -> bool:
        """Whether the first axis counts examples: (N, C, *map) against (C, *map)."""
        if input.dim() not in (self.dims + 1, self.dims + 2):
            axes = ", ".join(("D", "H", "W")[-self.dims :]) if self.dims > 1 else "L"
            raise InvalidArgumentError(
                f"{type(self).__name__} takes inputs of shape (N, C, {axes}) or (C, {axes}), got {tuple(input.shape)}"
            )
        return input.dim() == self.dims + 2

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, after rate and size of the blocks."""
        rate, *rest = NoiseLayer.extra_repr(self).split(", ", 1)
        gamma = [] if self.gamma == "exact" else [f"gamma={self.gamma!r}"]
        return ", ".join([rate, f"block_size={self.block_size}", *gamma, *rest])


_DROPBLOCK_DOC = """Dropout of blocks of neighbors in {where}, each channel its own unless shared.

    Parameters
    ----------
    p : float
        Share of a map that is dropped on average, in [0, 1).
    block_size : int{tuple}
        Edge of the blocks{edges}, even or odd; what exceeds the map is cut to it.
    gamma : {{"exact", "published"}}
        How often a block starts: so often that the mean share dropped is ``p``; or as published, which neglects that
        blocks overlap and drops less than ``p``.
    scale : {{"marginal", "count", "none"}}
        What the mask is divided by: its mean at each position, so that the layer has no bias; the realized share
        kept, as published; nothing.
    share : str or tuple of str
        ``"channel"``: one mask for all channels of an example; ``"batch"``: one for all examples.
    schedule : Schedule, int or None
        Growth of ``p``, a number being a linear ramp over that many calls of ``step()``; see `follow`.
    generator : torch.Generator, optional
    mode : {{"noise", "deterministic"}}
        See `marginalized`.

    Raises
    ------
    InvalidArgumentError
        ``p`` or ``block_size`` out of range; in the forward pass, an input of the wrong number of axes.

    Notes
    -----
    Input: (N, C, {axes}) or (C, {axes}). Source: Ghiasi, Lin and Le (2018); exact rate and scaling by position:
    derived, see `SlidingBlock`.
    """


class DropBlock1d(_DropBlock):
    __doc__ = _DROPBLOCK_DOC.format(where="sequences", tuple="", edges="", axes="L")
    dims = 1


class DropBlock2d(_DropBlock):
    __doc__ = _DROPBLOCK_DOC.format(where="images", tuple=" or (int, int)", edges=", for all axes or each", axes="H, W")
    dims = 2


class DropBlock3d(_DropBlock):
    __doc__ = _DROPBLOCK_DOC.format(
        where="volumes", tuple=" or (int, int, int)", edges=", for all axes or each", axes="D, H, W"
    )
    dims = 3


class DropPath(MaskLayer):
    """Dropout of a whole branch, example by example (stochastic depth): put it where a residual branch ends.

    Parameters
    ----------
    p : float
        Probability that the branch is dropped, in [0, 1).
    scale, share, schedule, generator, mode
        See `MaskLayer`; ``share="batch"`` drops the branch for all examples or none.

    Raises
    ------
    InvalidArgumentError
        ``p`` is not in [0, 1).

    Notes
    -----
    Input: (N, ...). A kept branch is divided by ``1 - p``, so that evaluation, which keeps all, is the mean network.
    Source: Huang et al. (2016); Larsson et al. (2017).
    """

    def __init__(
        self,
        p: float = 0.1,
        *,
        scale: str = "marginal",
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
        mode: str = "noise",
    ) -> None:
        rate = drop_probability(p)
        super().__init__(
            Path(1.0 - rate), rate, scale=scale, share=share, schedule=schedule, generator=generator, mode=mode
        )

    def batched(self, input: torch.Tensor) -> bool:
        """Always: without a batch there is no telling where an example ends."""
        if input.dim() == 0:
            raise InvalidArgumentError("DropPath takes inputs of shape (N, ...), got a single number")
        return True

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, after the rate."""
        return NoiseLayer.extra_repr(self)
