"""Which backend serves a model: a finite difference where it is right, double backward elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError, UnknownNameError
from ._jacobian_layers import Caught
from ._jacobian_replay import Pass
from ._jacobian_smooth import kink, kinked_layer

__all__ = ["NOT_AGAIN", "Backend", "Choice", "shared_factor"]

Backend = Literal["auto", "double-backward", "finite-difference", "last-layer"]
_BACKENDS = ("auto", "double-backward", "finite-difference", "last-layer")
NOT_AGAIN = (
    "{what} runs the captured forward pass again: the model must run once in capture(), and the logits must be what it "
    "returned, not something made of it"
)


class Choice:
    """The backend of now, with its reason.

    What modules cannot tell (functional activations, arithmetic in half precision, passes that do not repeat) shows
    in the first pass; ``"auto"`` then goes over to double backward, and ``"finite-difference"`` is refused.

    Raises
    ------
    InvalidArgumentError
        When a finite difference is asked for in a model with kinks.
    """

    def __init__(self, asked: Backend, model: nn.Module) -> None:
        if asked not in _BACKENDS:
            raise UnknownNameError("backend", str(asked), _BACKENDS)
        self.backend: str = asked
        self.reason = "asked for"
        self.is_settled = asked in ("double-backward", "last-layer")
        self._is_auto = asked == "auto"
        self._device = next((p.device.type for p in model.parameters()), "cpu")
        if not self.is_settled:
            self.backend = "finite-difference"
            if self._is_auto:
                self.reason = "no layer with a kink; decided in the first pass"
            layer = kinked_layer(model)
            if layer is not None:
                self._give_up(f"the derivative of {layer} jumps, which a finite difference cannot see past")

    def _give_up(self, reason: str, *, for_good: bool = True) -> None:
        if not self._is_auto:
            raise InvalidArgumentError(f"backend='finite-difference' does not serve here: {reason}. Use 'auto'")
        self.backend, self.reason, self.is_settled = "double-backward", reason, for_good

    @property
    def may_differentiate_twice(self) -> bool:
        """Whether the coming pass must have second derivatives."""
        if self.backend == "double-backward":
            return True
        return self._is_auto and (not self.is_settled or torch.is_autocast_enabled(self._device))

    def settle(self, logits: Tensor, seen: Pass, place: int | None, found: Sequence[Caught]) -> None:
        """Look at a forward pass."""
        if self.backend != "finite-difference":
            return
        half = any(caught.dtype in (torch.float16, torch.bfloat16) for caught in found)
        if half or seen.is_autocast:
            self._give_up("a difference of gradients has no correct digits in half precision")
        elif place is None or seen.calls != 1:
            self._give_up(NOT_AGAIN.format(what="a finite difference"))
        elif not self.is_settled:
            operation = kink(logits)
            if operation is not None:
                self._give_up(f"the derivative of {operation} in the graph of the logits jumps or is unknown")

    def accepts(self, miss: Tensor) -> bool:
        """Whether a first difference agrees with the gradient it was taken along; later ones are taken on trust."""
        is_first = not self.is_settled
        if is_first and float(miss) > 1.0:
            self._give_up("the forward pass, run again, gives another loss: is there noise of another kind in it?")
            return False
        if self._is_auto and is_first:
            self.reason = "the graph of the logits has no kink"
        self.is_settled = True
        return True


def shared_factor(loss: Tensor, logits: Tensor, losses: Tensor, seen: Pass) -> Tensor | None:
    """The number by which ``loss`` is a multiple of the summed losses as functions of the logits; None if it is not."""
    if seen.wants_input_gradient or not loss.requires_grad or not _only_through(loss, logits):
        return None
    (own,) = torch.autograd.grad(losses.sum(), logits, retain_graph=True)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)
    if found[0] is None:
        return None
    given, own = found[0].flatten().to(losses.dtype), own.flatten().to(losses.dtype)
    factor = given @ own / (own @ own).clamp_min(torch.finfo(own.dtype).tiny)
    rest = (given - factor * own).norm()
    return factor if bool(rest <= 1e-5 * given.norm()) else None


def _only_through(loss: Tensor, logits: Tensor) -> bool:
    """Whether every path from ``loss`` to a leaf goes through ``logits``."""
    stack, seen = [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node is logits.grad_fn or node in seen:
            continue
        if hasattr(node, "variable"):
            return False
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions)
    return True
