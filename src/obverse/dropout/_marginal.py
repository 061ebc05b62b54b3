"""Training without noise: every dropout layer of a model passes its input on, and a penalty stands in for its noise."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from .._core.checks import count
from .._core.random import Seed, torch_generator
from .._core.recomputation import repeatable
from ..errors import InvalidArgumentError, StateError, WrongTypeError
from ._criterion import Criterion, check_loss, criterion
from ._curvature import gauss_newton
from ._explicit import chosen_form, linear_penalty
from ._insert import inserted_dropout, inserted_layers
from ._layers import MaskLayer
from ._linear_head import LinearHead
from ._noise import Measure, NoiseLayer, known_name

__all__ = ["Marginalized", "marginalized"]

_FORMS = ("auto", "quadratic", "sampled", "leave-one-out")


def marginalized(
    model: nn.Module,
    loss: Any,
    *,
    form: str = "auto",
    samples: int = 1,
    units: int | None = None,
    generator: Seed | None = None,
) -> Marginalized:
    """Replace the noise of all dropout layers of a model by the penalty that it is on average.

    Parameters
    ----------
    model : torch.nn.Module
        With layers of this package, its own or inserted ones. Those of torch keep their noise.
    loss : str or torch.nn.Module
        As for `explicit_penalty`.
    form : {"auto", "quadratic", "sampled", "leave-one-out"}
        See the notes. ``"leave-one-out"`` is for models whose only noise is right before the last linear layer.
    samples : int
        Probes of the sampled form, one backward pass each.
    units : int, optional
        How many units or groups leave-one-out takes away, drawn at random and weighted so that the estimate is
        unbiased; by default all, K numbers for each unit and example.
    generator : int, torch.Generator or numpy.random.Generator, optional
        Seed or generator of the probes and units; the global generator by default.

    Returns
    -------
    Marginalized
        A context manager, whose ``penalty(outputs, target)`` follows each forward pass in training.

    Raises
    ------
    InvalidArgumentError
        The model has no dropout layer, or an argument is not allowed.

    Notes
    -----
    The penalty is the sum over layers of ``(1/2) <Cbar, (J' H J) o h h'>`` (theory note, section 8.2): ``h`` what the
    layer would have masked, ``J`` the derivative of the outputs in it, ``H`` the second derivative of the loss in the
    outputs. Noise of several layers also multiplies; those terms, of second order in the rates, are left out.

    A layer whose output goes right into the `torch.nn.Linear` that returns the outputs has a closed form: exact for the
    squared loss, leave-one-out (the default where the law drops groups) or quadratic for others; see
    `explicit_penalty`, also on the accuracy of all forms. All other layers share one backward pass for each of
    ``samples`` random probes, or with ``form="quadratic"`` for each output; for the squared loss this is exact, or
    exact on average, where what follows the layer is affine. Where it is not, the curvature of the layers above is left
    out, a term of the same order that may have the other sign. ``form="leave-one-out"`` has no such estimate: there
    `penalty` raises `InvalidArgumentError` for all layers but the one before the last linear layer.

    Not under `torch.compile` and not with reentrant activation checkpointing, which hide what the penalty
    differentiates at: both raise `StateError`. ``use_reentrant=False`` is exact.

    Examples
    --------
    >>> import torch
    >>> from obverse.dropout import DropPath, marginalized
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), DropPath(0.1), torch.nn.Linear(4, 2))
    >>> x, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    >>> with marginalized(model, "cross-entropy") as m:
    ...     outputs = model(x)
    ...     total = torch.nn.functional.cross_entropy(outputs, y) + m.penalty(outputs, y)
    >>> total.backward()
    """
    known_name("form", form, _FORMS)
    samples = count("samples", samples)
    units = None if units is None else count("units", units)
    generator = None if generator is None else torch_generator(generator, "generator")
    return Marginalized(model, loss, form, samples, units, generator)


@dataclass
class _Record:
    layer: NoiseLayer
    # What the mask would multiply, its version, and the copy that the model goes on with and may change in place.
    masked: torch.Tensor
    version: int
    passed: torch.Tensor
    measure: Measure
    # The linear layer that took it in, what that returned, and the version of that.
    head: LinearHead | None = None
    outputs: torch.Tensor | None = None
    outputs_version: int = 0

    def returns(self, outputs: torch.Tensor) -> bool:
        """Whether these are the outputs of the linear layer, as it returned them."""
        return self.outputs is outputs and outputs._version == self.outputs_version


class Marginalized:
    """The running replacement of noise by a penalty; made by `marginalized`.

    It begins with ``with`` and ends with it. What it holds of a forward pass it lets go with the penalty, with the
    next forward pass, and at its end.
    """

    def __init__(
        self, model: nn.Module, loss: Any, form: str, samples: int, units: int | None, generator: torch.Generator | None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise WrongTypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        named = list(model.named_modules())
        if inserted_layers(model):
            named += inserted_dropout(model).layers.items()
        layers = [layer for _, layer in named if isinstance(layer, NoiseLayer)]
        if not layers:
            raise InvalidArgumentError("the model has no dropout layer of this package, its own or inserted")
        check_loss(loss)
        self._model, self._layers = model, layers
        self._names = {id(layer): name for name, layer in named}
        self._loss, self._form, self._samples, self._generator = loss, form, samples, generator
        self._units = units
        self._records: list[_Record] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._missed: NoiseLayer | None = None
        self._ran = False

    def __enter__(self) -> Self:
        busy = [type(layer).__name__ for layer in self._layers if layer.recorder is not None]
        if busy:
            raise StateError(f"{busy[0]} of this model is marginalized already; leave that context first")
        for layer in self._layers:
            layer.recorder = self
        self._handles.append(self._model.register_forward_pre_hook(_Begin(self), prepend=True))
        for module in self._model.modules():
            if type(module) is nn.Linear:
                # After inserted layers on its input, before those on its output.
                self._handles.append(module.register_forward_hook(_Head(self), prepend=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in self._layers:
            layer.recorder = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.forget()

    def begin(self) -> None:
        """A forward pass of the model begins: what is left of the one before goes."""
        self.forget()
        self._ran = torch.is_grad_enabled()

    def forget(self) -> None:
        """Let go of the activations of the last forward pass."""
        self._records.clear()
        self._missed = None
        self._ran = False

    def record(self, layer: NoiseLayer, masked: torch.Tensor, measure: Measure) -> torch.Tensor:
        """Take note of one call of a layer, and return what it passes on; called by the layer."""
        passed = masked.clone()
        if torch._C._current_graph_task_id() != -1:  # checkpointing computes the layer again, which is noted already
            return passed
        self._records.append(_Record(layer, masked, masked._version, passed, measure))
        return passed

    def miss(self, layer: NoiseLayer) -> None:
        """Take note that a layer was called without gradients; called by the layer."""
        self._missed = layer

    def reach(self, module: nn.Linear, taken: torch.Tensor, returned: torch.Tensor) -> None:
        """Take note of a linear layer that a masked tensor went into; called by a hook."""
        for record in self._records:
            if record.passed is taken and taken._version == 0 and taken.dim() == 2:
                record.head = LinearHead(module.weight, module.bias, False)
                record.outputs, record.outputs_version = returned, returned._version

    def penalty(self, outputs: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """The penalty of the forward pass that gave ``outputs``.

        Parameters
        ----------
        outputs : torch.Tensor
            What the loss is given, (N, K) or (N, K, positions).
        target : torch.Tensor, optional
            As the loss takes it; needed where the loss weights classes or ignores examples.

        Returns
        -------
        torch.Tensor
            A scalar with gradients; zero where every rate is zero, and for a model in evaluation mode.

        Raises
        ------
        StateError
            There was no forward pass with gradients since the last penalty, or a layer ran without them.
        """
        if not self._ran:
            raise StateError(
                "penalty() needs a forward pass of the model, with gradients enabled, inside marginalized(...), and "
                "each pass gives one penalty"
            )
        records, missed = list(self._records), self._missed
        self.forget()
        if missed is not None:
            raise StateError(
                f"{self._named(missed)} ran without gradients, in torch.no_grad() or in torch.utils.checkpoint with "
                "use_reentrant=True, so that its penalty is not known; checkpoint with use_reentrant=False"
            )
        for record in records:
            if record.masked._version != record.version:
                raise InvalidArgumentError(
                    f"the input of {self._named(record.layer)} was changed in place after the layer read it, so that "
                    "its penalty is not known; change a copy in the model"
                )
        terms = criterion(self._loss, outputs, target)
        with repeatable(self._generator) as generator:
            return self._total(records, outputs, terms, generator)

    def _total(
        self, records: list[_Record], outputs: torch.Tensor, terms: Criterion, generator: torch.Generator | None
    ) -> torch.Tensor:
        total = outputs.new_zeros(())
        others = []
        for record in records:
            closed = self._closed(record, outputs, terms, generator)
            if closed is None:
                others.append(record)
            else:
                total = total + closed
        if others:
            parts = gauss_newton(
                outputs,
                [record.masked for record in others],
                [record.measure for record in others],
                terms,
                probes=None if self._form == "quadratic" else self._samples,
                generator=generator,
            )
            total = total + torch.stack(parts).sum()
        return total

    def _closed(
        self, record: _Record, outputs: torch.Tensor, terms: Criterion, generator: torch.Generator | None
    ) -> torch.Tensor | None:
        """The penalty of a layer right before the last linear one, where it has a closed form."""
        layer, head = record.layer, record.head
        if self._form == "sampled":
            return None
        masks_units = isinstance(layer, MaskLayer) and "channel" not in layer.share
        if head is None or not record.returns(outputs) or not masks_units:
            if self._form == "leave-one-out":
                raise InvalidArgumentError(
                    f"form='leave-one-out' is for a layer with a mask of units right before the torch.nn.Linear that "
                    f"returns the outputs, and {self._named(layer)} is not one; use form='sampled' or 'quadratic', or "
                    "add explicit_penalty(head, ..., form='leave-one-out') with the part of the model above as head"
                )
            return None
        form = chosen_form(self._form, terms, layer.law)
        return linear_penalty(head, record.masked, outputs, layer.law, terms, form, self._units, generator)

    def _named(self, layer: NoiseLayer) -> str:
        return f"{self._names[id(layer)]!r} ({type(layer).__name__})"


class _Watch:
    """A hook that holds on to nothing: a copied or pickled model gets one that does nothing."""

    def __init__(self, watcher: Marginalized | None) -> None:
        self._watcher = weakref.ref(watcher) if watcher is not None else None

    @property
    def watcher(self) -> Marginalized | None:
        return self._watcher() if self._watcher is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None,)


class _Begin(_Watch):
    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if (watcher := self.watcher) is not None:
            watcher.begin()


class _Head(_Watch):
    def __call__(self, module: nn.Linear, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if (watcher := self.watcher) is not None and inputs:
            watcher.reach(module, inputs[0], output)
