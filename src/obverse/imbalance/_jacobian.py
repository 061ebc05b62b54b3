"""Heteroskedastic regularization: the gradient of every example's loss at hidden layers is kept small, by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._core import checks
from .._core.random import Seed, torch_generator
from ..errors import InvalidArgumentError, StateError
from ._counts import Counts
from ._jacobian_arguments import as_strengths, check_options, of_groups, unwrapped
from ._jacobian_backends import Question, difference, last_layer, shared_difference, twice
from ._jacobian_choice import NOT_AGAIN, Backend, Choice, shared_factor
from ._jacobian_head import catching_output, last_linear, only_output
from ._jacobian_layers import Catch, catching, places
from ._jacobian_norms import Aggregate, Formula, Scale
from ._jacobian_operators import QuickOperators
from ._jacobian_replay import Pass, recording
from ._row_losses import RowLosses

__all__ = ["HeteroskedasticRegularizer"]


@dataclass
class _Pending:
    """A forward pass that waits for its penalty."""

    active: bool
    seen: Pass
    catch: Catch | None = None
    scores: list[Tensor] | None = None


@final
class HeteroskedasticRegularizer:
    """Penalty on the gradient of each example's loss at hidden layers, with a strength for each group.

    ``penalty = strength * mean_i strengths[group_i] * sum_j |d l_i / d h_j|^power``

    Parameters
    ----------
    model : Module
        Trained in your own loop; never wrapped, and hooked only inside `capture`. A `DistributedDataParallel` or
        compiled wrapper may be given as well; captured passes of compiled models run eagerly.
    strengths : array of shape (K,), optional
        Relative strength of each group, finite and not negative, as `group_strengths` gives them; by default 1.
    strength : float
        Factor on the whole; may be set again at any time.
    layers : list of str, optional
        Names or patterns (``"blocks.*.bn1"``) of modules. At norms the gradient is taken at the normalized output
        before scale and shift, where activations cannot be rescaled to escape; at linear layers, convolutions and the
        like at the input, as this layer alone sees it; at others at the output. By default all norms; without norms
        the outputs of embeddings; without these the inputs of hidden linear layers and convolutions.
    backend : {"auto", "double-backward", "finite-difference", "last-layer"}
        How the penalty is differentiated; see Notes. `reason` says why ``"auto"`` chose what `backend` shows.
    scale : {"sample", "batch_mean"}
        Gradients of the example's own loss, or, as first released, of the mean over the batch, so that the penalty
        shrinks with the batch.
    aggregate : {"sum", "root-sum-square"}
        Over layers: ``sum_j |g_j|^power`` or ``(sum_j |g_j|^2)^(power/2)``; they differ for ``power`` 1.
    power : {2, 1}
        Squared norms, for which `group_strengths` is derived; or, as first released, norms.
    every : int
        The penalty is computed in one of so many steps and multiplied by their number; zero in the others, which
        cost nothing.
    subset : float, optional
        Share of the rows, in (0, 1], on which it is computed, drawn anew in every step. They run through the model once
        more, apart; BatchNorm then normalizes them among themselves.
    loss : callable, optional
        Loss of every row: a loss of this room, whose weights are left out, or ``loss(logits, target)`` of shape (N,).
        By default the cross-entropy of logits (N, K).
    ignore_index : int
        Rows with this target count neither above nor below the fraction (of the default loss).
    batch_axis : int
        Axis of the rows in hidden tensors: 1 for sequences with time first.
    radius : float, optional
        Length of the largest offset in a finite difference; by default 4e-3, in float64 1e-5.
    seed : int, torch.Generator or numpy.random.Generator
        Of the ``subset``.

    Raises
    ------
    InvalidArgumentError
        For an argument that is not allowed; nothing has been changed then.

    Notes
    -----
    In the training loop::

        with regularizer.capture():
            logits = model(inputs)
        loss = criterion(logits, target) + regularizer(logits, target)

    with autocast, if any, entered outside of `capture`. The penalty is that of the unweighted loss whatever the
    criterion is, computed in float32, and does not depend on the size of the batch (but BatchNorm couples rows).
    Multiply the sum by a gradient scaler as usual: the penalty has a scale of its own. Gradient accumulation and
    data-parallel training average it as they average the loss.

    ``"double-backward"`` is exact for any activation; attention uses its plain kernel in captured passes.
    ``"finite-difference"`` compares gradients at the activations and a small step away, by two first-order passes. It
    is right to some 1e-3 in smooth networks and wrong where derivatives jump, as for ReLU: it is refused there.
    `total` makes it cheaper. ``"last-layer"`` is another penalty, at the input of the last linear layer only, which
    costs next to nothing. ``"auto"`` takes the finite difference for smooth networks in full precision.

    Source: Cao, Chen, Lu, Arechiga, Gaidon and Ma (2021), after their released code; per-example scale, squared form,
    finite difference and closed form derived.
    """

    def __init__(
        self,
        model: nn.Module,
        strengths: Counts | None = None,
        *,
        strength: float = 1.0,
        layers: Sequence[str] | None = None,
        backend: Backend = "auto",
        scale: Scale = "sample",
        aggregate: Aggregate = "sum",
        power: int = 2,
        every: int = 1,
        subset: float | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        ignore_index: int = -100,
        batch_axis: int = 0,
        radius: float | None = None,
        seed: Seed = 0,
    ) -> None:
        check_options(scale, aggregate, power, every, subset, radius, batch_axis)
        self.model, self._compiled = unwrapped(model)
        self.strength = strength
        self.strengths = as_strengths(strengths)
        self.every = every
        self.subset = None if subset == 1.0 else subset
        self.radius = radius
        self.step = 0
        self.generator = torch_generator(seed)
        self._losses = RowLosses(loss, ignore_index)
        self._formula = Formula(aggregate, power, scale)
        self._axis = batch_axis
        self._head = last_linear(self.model, layers) if backend == "last-layer" else None
        self._places = [] if self._head is not None else places(self.model, layers)
        if self._head is not None and self.subset is not None:
            raise InvalidArgumentError("subset saves nothing with backend='last-layer'; leave it out")
        self._choice = Choice(backend, self.model)
        self._pending: _Pending | None = None
        self._is_open = False

    @property
    def strength(self) -> float:
        """Factor on the whole penalty."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = checks.nonnegative("strength", value)

    @property
    def backend(self) -> str:
        """How the penalty is differentiated now; ``"auto"`` decides in the first step."""
        return self._choice.backend

    @property
    def reason(self) -> str:
        """Why it is this backend."""
        return self._choice.reason

    @property
    def is_active(self) -> bool:
        """Whether the coming step computes the penalty."""
        return self.step % self.every == 0 and self._strength > 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers at which gradients are measured."""
        return (self._head[0],) if self._head is not None else tuple(place.name for place in self._places)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """The model's forward pass of one training step happens in this block; hooks are gone when it ends.

        Raises
        ------
        StateError
            Inside another such block, or where gradients are switched off.
        """
        if self._is_open:
            raise StateError("capture() is already open; leave it before the next forward pass")
        if not torch.is_grad_enabled():
            raise StateError("capture() needs gradients; leave it out under no_grad, as when evaluating")
        self._pending = None
        self._is_open = True
        try:
            with ExitStack() as stack:
                pending = _Pending(self.is_active, stack.enter_context(recording(self.model)))
                if pending.active:
                    self._use_plain_kernels(stack)
                    if self._head is not None:
                        pending.scores = stack.enter_context(catching_output(self._head[1]))
                    elif self.subset is None:
                        pending.catch = stack.enter_context(catching(self._places))
                yield
            self._pending = pending
        finally:
            self._is_open = False

    def _use_plain_kernels(self, stack: ExitStack) -> None:
        if self._compiled:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if self._choice.may_differentiate_twice:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(QuickOperators())
            if any(isinstance(module, nn.RNNBase) for module in self.model.modules()):
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))

    def __call__(self, logits: Tensor, target: Tensor, groups: Tensor | None = None) -> Tensor:
        """The penalty of the forward pass in the last `capture`; the next step begins.

        Parameters
        ----------
        logits : Tensor, shape (N, K)
            What the model gave.
        target : Tensor, shape (N,)
            Classes, or what the ``loss`` takes.
        groups : Tensor of integers, shape (N,), optional
            Index of each row's group in ``strengths``; by default the target.

        Returns
        -------
        Tensor
            A scalar, zero in the steps between those of ``every``. Its gradient reaches the parameters by `backward`.

        Raises
        ------
        InvalidArgumentError
            For shapes that do not fit, and, on the CPU, for groups outside the strengths.
        StateError
            When no forward pass was captured, or it cannot serve this backend; the message says why.
        """
        return self._added(None, logits, target, groups)

    def total(self, loss: Tensor, logits: Tensor, target: Tensor, groups: Tensor | None = None) -> Tensor:
        """``loss + self(logits, target, groups)``, with passes shared where that gives the same.

        Parameters
        ----------
        loss : Tensor
            A scalar that depends on parameters through ``logits`` only; add other terms to the result.
        logits, target, groups
            As when called.

        Returns
        -------
        Tensor
            A scalar.

        Notes
        -----
        A finite difference needs the gradient at the activations first. When ``loss`` is a multiple of the summed
        losses of the rows, such as their mean, that is its own backward pass, which is then not run again: 6 products
        with each weight in place of 7, beside 3 of a plain step.
        """
        if loss.ndim != 0:
            raise InvalidArgumentError(f"loss must be a scalar, got shape {tuple(loss.shape)}")
        return self._added(loss, logits, target, groups)

    def _added(self, loss: Tensor | None, logits: Tensor, target: Tensor, groups: Tensor | None) -> Tensor:
        pending = self._pending
        if pending is None:
            raise StateError(
                "no forward pass was captured; run the model inside `with regularizer.capture():` before each call"
            )
        if pending.active:
            with torch.autocast(logits.device.type, enabled=False):
                result = self._answer(pending, loss, logits, target, groups)
        else:
            result = logits.new_zeros((), dtype=torch.float32) if loss is None else loss
        self._pending = None
        self.step += 1
        return result

    def _answer(
        self, pending: _Pending, loss: Tensor | None, logits: Tensor, target: Tensor, groups: Tensor | None
    ) -> Tensor:
        losses, kept = self._losses(logits, target)
        tau = kept.to(losses.dtype) * (self._strength * self.every)
        if self.strengths is not None:
            tau = tau * of_groups(self.strengths, target, groups, kept, losses.dtype)
        question = Question(losses, tau, kept.sum(), self._formula, self._axis)
        if self._head is not None:
            scores = only_output(self._head[0], pending.scores)
            slopes = self._losses.slopes(logits, target, kept) if scores is logits else None
            penalty = last_layer(question, self._head[1], scores, slopes)
        elif pending.catch is None:
            penalty = self._on_subset(question, pending.seen, logits, target, kept)
        else:
            question = replace(question, found=pending.catch.found)
            place = pending.seen.place_of(logits)

            def rerun() -> Tensor:
                assert place is not None
                return self._losses(pending.seen.again(place), target)[0].sum()

            checked = self._choice.is_settled
            self._choice.settle(logits, pending.seen, place, question.found)
            if self.backend == "finite-difference" and checked and loss is not None:
                factor = shared_factor(loss, logits, losses, pending.seen)
                if factor is not None:
                    parameters = [p for p in self.model.parameters() if p.requires_grad]
                    return shared_difference(question, loss, factor, parameters, self._places, rerun, self.radius)
            penalty = self._differentiated(question, rerun)
        return penalty if loss is None else loss + penalty

    def _on_subset(self, question: Question, seen: Pass, logits: Tensor, target: Tensor, kept: Tensor) -> Tensor:
        """The penalty of some rows, which run through the model once more."""
        assert self.subset is not None
        count = len(question.losses)
        place = seen.place_of(logits)
        if place is None or seen.calls != 1:
            raise StateError(NOT_AGAIN.format(what="subset"))
        state = self.generator.get_state()
        rows = torch.randperm(count, generator=self.generator)[: max(1, round(self.subset * count))]
        try:
            rows = rows.to(target.device)

            def rerun() -> tuple[Tensor, Tensor]:
                again = seen.again(place, rows, count, self._axis)
                return again, self._losses(again, target[rows])[0]

            with ExitStack() as stack:
                self._use_plain_kernels(stack)
                catch = stack.enter_context(catching(self._places))
                scores, losses = rerun()
            question = replace(
                question, losses=losses, tau=question.tau[rows], counted=kept[rows].sum(), found=catch.found
            )
            self._choice.settle(scores, seen, place, catch.found)
            return self._differentiated(question, lambda: rerun()[1].sum())
        except Exception:
            self.generator.set_state(state)
            raise

    def _differentiated(self, question: Question, rerun: Callable[[], Tensor]) -> Tensor:
        if self.backend == "finite-difference":
            penalty, miss = difference(question, self._places, rerun, self.radius)
            if self._choice.accepts(miss):
                return penalty
        return twice(question)

    def state_dict(self) -> dict[str, Tensor]:
        """The number of steps and the generator of subsets, for a run to go on as it would have."""
        return {"step": torch.tensor(self.step), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there.

        Raises
        ------
        InvalidArgumentError
            When this is no such state; nothing is changed then.
        """
        if set(state) != {"step", "generator"}:
            raise InvalidArgumentError(
                f"the state must have the entries step and generator, got {', '.join(map(str, state)) or 'none'}"
            )
        step = int(state["step"])
        if step < 0:
            raise InvalidArgumentError(f"step must be 0 or more, got {step}")
        try:
            self.generator.set_state(state["generator"].cpu())
        except (RuntimeError, TypeError) as error:
            raise InvalidArgumentError(f"generator is not the state of one: {error}") from error
        self.step = step
        self._pending = None

    def __repr__(self) -> str:
        return (
            f"HeteroskedasticRegularizer({type(self.model).__name__}, strength={self._strength:g}, "
            f"layers={len(self.layers)}, backend={self.backend!r}, every={self.every})"
        )
