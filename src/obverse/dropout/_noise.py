"""What all dropout layers share: a mask law, a schedule of its rate, and who watches instead of noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from .._core.text import brief
from ..errors import InvalidArgumentError, StateError, UnknownNameError, WrongTypeError
from ._law import MaskLaw, real_numbers
from ._opaque import opaque_draw, registered
from ._schedule import Schedule, as_schedule

__all__ = ["Measure", "NoiseLayer", "Recorder", "drop_probability", "follow"]

# Variance, example by example, of <gradient, noise> for what a layer would add to its output: from the gradient at that
# output and the output.
Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_SCALES = ("marginal", "count", "none")
_SHARES = ("batch", "channel")


class Recorder(Protocol):
    """Receives what layers in the deterministic mode would have masked; see `marginalized`."""

    def record(self, layer: NoiseLayer, masked: torch.Tensor, measure: Measure) -> torch.Tensor:
        """Take note of one call of ``layer``, whose mask would multiply ``masked``, and return what it passes on."""
        ...

    def miss(self, layer: NoiseLayer) -> None:
        """Take note of one call of ``layer`` without gradients."""
        ...


class NoiseLayer(nn.Module):
    """Base of the dropout layers.

    Parameters
    ----------
    law : MaskLaw
        At the full drop rate.
    p : float or array
        The full drop rate of ``law``, or of each unit.
    share : str or tuple of str
        Any of ``"batch"``, ``"channel"``.
    scale : {"marginal", "count", "none"}
    schedule : Schedule, int or None
        Growth of the rate; a number is a linear ramp over that many steps. With a schedule the layer has a persistent
        buffer ``steps``, so that a resumed run goes on where it was; without one it has no state at all.
    generator : torch.Generator, optional
    mode : {"noise", "deterministic"}

    Notes
    -----
    The schedule moves when `step` is called, once per training step, not with every forward pass: with gradient
    accumulation, activation checkpointing, or a layer used twice, forward passes are not steps. `follow` ties it to
    the optimizer. Under `torch.compile` a changing rate costs one recompilation, when dropout begins, and a layer with
    a generator draws what it would draw uncompiled. `torch.utils.checkpoint` recomputes with the masks of the forward
    pass, also those of a generator; where it is itself compiled, a layer with a generator raises `StateError` in the
    backward pass.
    """

    # The first one is the default.
    modes: tuple[str, ...] = ("noise", "deterministic")
    steps: torch.Tensor | None

    def __init__(
        self,
        law: MaskLaw,
        p: Any,
        *,
        scale: str = "marginal",
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
        mode: str = "noise",
    ) -> None:
        super().__init__()
        known_name("scale", scale, _SCALES)
        shares = names_of_shares(share)
        known_name("mode", mode, self.modes)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InvalidArgumentError(f"generator must be a torch.Generator or None, got {brief(generator)}")
        self.full_law = law
        self.p = p
        self._full_rate = float(np.mean(p))
        self.scale = scale
        self.share = shares
        self.schedule = as_schedule(schedule)
        self.generator = generator
        self.mode = mode
        self.recorder: Recorder | None = None
        self._count = 0
        self._number = registered(self)
        if self.schedule is None:
            self.register_buffer("steps", None)
        else:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._refresh()

    @property
    def law(self) -> MaskLaw:
        """The law of the mask at the present drop rate."""
        return self._law

    @property
    def drop_rate(self) -> float:
        """The present drop rate: ``p``, on average over units, times what the schedule says."""
        return self._rate

    @property
    def silent(self) -> bool:
        """Whether nothing is dropped at the present rate."""
        return self._silent

    @property
    def deterministic(self) -> bool:
        """Whether training passes are without noise: the mode says so, or `marginalized` records this layer."""
        return self.mode == "deterministic" or self.recorder is not None

    def step(self) -> None:
        """Advance the schedule by one training step; without a schedule nothing happens."""
        if self.steps is None:
            return
        self._count += 1
        self.steps.fill_(self._count)
        self._refresh()

    def draw(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """A mask of ``shape``, (N, *event), with dtype and device of ``like``."""
        if torch.compiler.is_compiling() and (self.schedule is not None or self.generator is not None):
            mask: torch.Tensor = opaque_draw(like.detach(), list(shape), self._number)
            return mask
        return self.draw_now(shape, like)

    def draw_now(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """The same outside of a compiled graph, or traced into it."""
        return self.law.sample(
            shape, self.generator, share=self.share, scale=self.scale, dtype=like.dtype, device=like.device
        )

    def keep(self, masked: torch.Tensor, measure: Measure) -> torch.Tensor:
        """The output of a training pass without noise, which is noted where someone records."""
        if self.recorder is None:
            return masked
        if torch.compiler.is_compiling():
            raise StateError(
                "the marginalized objective differentiates at tensors inside the model, which torch.compile hides; "
                "run the model uncompiled inside marginalized(...)"
            )
        if not torch.is_grad_enabled():
            self.recorder.miss(self)
        else:
            # An own node of the graph: gradients here leave out the paths that go around the mask.
            masked = masked.view_as(masked) if masked.requires_grad else masked.detach().requires_grad_()
            return self.recorder.record(self, masked, measure)
        return masked

    def _refresh(self) -> None:
        """Bring law and rate up to date with the step."""
        if self.schedule is None:
            self._rate, self._law = self._full_rate, self.full_law
        else:
            fraction = float(self.schedule.fraction(self._count))
            if not 0.0 <= fraction <= 1.0:
                raise InvalidArgumentError(
                    f"schedule {self.schedule!r} gives {fraction} at step {self._count}; it must be in [0, 1]"
                )
            self._rate = self._full_rate * fraction
            self._law = self.full_law if fraction == 1.0 else self.full_law.with_rate(self._rate)
        self._silent = self._rate == 0.0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self.steps is not None and prefix + "steps" in state_dict:
            self._count = int(state_dict[prefix + "steps"])
            self._refresh()

    def __getstate__(self) -> dict[str, Any]:
        # Who records this layer does not record its copies.
        return {**self.__dict__, "recorder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._number = registered(self)

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, after the rate."""
        shown = [f"p={_brief(self.p)}"]
        if self.scale != "marginal":
            shown.append(f"scale={self.scale!r}")
        if self.share:
            shown.append(f"share={self.share!r}")
        if self.schedule is not None:
            shown.append(f"schedule={self.schedule!r}")
        if self.mode != self.modes[0]:
            shown.append(f"mode={self.mode!r}")
        return ", ".join(shown)


def _brief(rate: Any) -> str:
    if np.ndim(rate) == 0:
        return f"{float(rate):g}"
    return f"array of shape {tuple(np.shape(rate))}"


def known_name(kind: str, value: Any, known: Sequence[str]) -> None:
    """Raise for a value that is not one of the known names."""
    if not isinstance(value, str) or value not in known:
        raise UnknownNameError(kind, value if isinstance(value, str) else brief(value), known)


def names_of_shares(share: Any) -> tuple[str, ...]:
    """The axes over which masks are shared, as a tuple of their names."""
    shares = (share,) if isinstance(share, str) or not isinstance(share, Collection) else tuple(share)
    for name in shares:
        known_name("axis to share a mask over", name, _SHARES)
    return shares


def drop_probability(p: Any, *, scalar: bool = True) -> Any:
    """``p`` as a float, or where allowed as a float64 array; raises outside of [0, 1).

    A unit that is always dropped has no mean to be divided by, hence no 1.
    """
    try:
        rate = real_numbers(p, "p")
    except InvalidArgumentError:
        raise InvalidArgumentError(f"p must be a drop probability, got {brief(p)}") from None
    if scalar and rate.ndim:
        raise InvalidArgumentError(f"p must be one drop probability here, got an array of shape {rate.shape}")
    if rate.size == 0 or not bool(np.all((rate >= 0) & (rate < 1))):
        raise InvalidArgumentError(f"p must be a drop probability in [0, 1), got {brief(p)}")
    return float(rate) if rate.ndim == 0 else rate


def follow(layers: nn.Module | Iterable[Any], optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Let every step of an optimizer advance the schedules of dropout layers.

    Parameters
    ----------
    layers : torch.nn.Module or iterable of objects with ``step()``
        A model, whose own dropout layers are meant, or layers, or handles of `insert_dropout`.
    optimizer : torch.optim.Optimizer

    Returns
    -------
    torch.utils.hooks.RemovableHandle
        Its ``remove()`` ends it.

    Raises
    ------
    InvalidArgumentError
        There is nothing that could follow.
    WrongTypeError
        A layer has no ``step()``, or the optimizer is none.

    Notes
    -----
    With gradient accumulation the schedules move once per update, as they should. Updates that a gradient scaler
    skips do not count.
    """
    if isinstance(layers, nn.Module):
        followers: list[Any] = [module for module in layers.modules() if isinstance(module, NoiseLayer)]
    else:
        followers = list(layers) if isinstance(layers, Iterable) else [layers]
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise WrongTypeError(f"optimizer must be a torch.optim.Optimizer, got {brief(optimizer)}")
    stepless = [follower for follower in followers if not callable(getattr(follower, "step", None))]
    if stepless:
        raise WrongTypeError(f"layers must have step(), and {brief(stepless[0])} has not")
    if not followers:
        raise InvalidArgumentError(
            "there is no dropout layer in the model; for layers that insert_dropout placed give its handle: "
            "follow([handle], optimizer)"
        )

    def advance(*_: Any) -> None:
        for follower in followers:
            follower.step()

    handle: RemovableHandle = optimizer.register_step_post_hook(advance)
    return handle
