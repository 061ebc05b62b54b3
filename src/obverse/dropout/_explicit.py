"""The regularizer that a dropout layer adds to the loss on average, as a number with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._core.checks import count
from .._core.random import Seed
from .._core.recomputation import repeatable
from .._core.text import brief
from ..errors import InvalidArgumentError
from ._connect import Connect
from ._criterion import Criterion, criterion
from ._curvature import gauss_newton
from ._law import MaskLaw
from ._linear_head import LinearHead
from ._noise import known_name
from ._removal import drops_groups, removals

__all__ = ["FORMS", "chosen_form", "explicit_penalty", "linear_penalty"]

FORMS = ("auto", "exact", "quadratic", "sampled", "leave-one-out")


def explicit_penalty(
    head: Any,
    features: torch.Tensor,
    law: MaskLaw,
    loss: Any = "squared",
    *,
    target: torch.Tensor | None = None,
    form: str = "auto",
    generator: Seed | None = None,
    samples: int = 1,
    units: int | None = None,
) -> torch.Tensor:
    """Expected loss under masks on the features, minus the loss without: the regularizer that dropout is.

    Parameters
    ----------
    head : torch.nn.Module, torch.Tensor or callable
        What maps features to outputs: a linear layer, a matrix (K, d), or anything else. Linear heads, also behind
        ``nn.Flatten`` or a global average pool (``nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)``),
        have closed forms.
    features : torch.Tensor
        ``h``, what the mask would multiply: (N, d) or (N, C, H, W) and the like.
    law : MaskLaw
        Of the mask on the features, or `Connect` for masks on the weights of a linear head.
    loss : str or torch.nn.Module
        ``"squared"`` (mean over examples of the sum over outputs), ``"cross-entropy"``, ``"logistic"``, or an
        `torch.nn.MSELoss`, `torch.nn.CrossEntropyLoss` or `torch.nn.BCEWithLogitsLoss`, whose averaging, weights,
        smoothing and ignored index hold.
    target : torch.Tensor, optional
        As the loss takes it. Needed for weighted classes, ignored examples, and ``"leave-one-out"`` with a head that
        is not linear.
    form : {"auto", "exact", "quadratic", "sampled", "leave-one-out"}
        See the notes.
    generator : int, torch.Generator or numpy.random.Generator, optional
        Seed or generator of the random forms; the global generator by default.
    samples : int
        Probes of ``"sampled"``, one backward pass each.
    units : int, optional
        With ``"leave-one-out"``: how many groups of units to take away, drawn at random and weighted so that the
        estimate is unbiased. By default all: K numbers for each unit and example of a linear head, a forward pass for
        each group of others. Not for `Connect`.

    Returns
    -------
    torch.Tensor
        A scalar; gradients flow to the head and to the features.

    Raises
    ------
    InvalidArgumentError
        An unknown loss or form; shapes that do not fit; ``"exact"`` where there is no exact form; a law whose masks
        drop no groups with ``"leave-one-out"``.

    Notes
    -----
    ``"exact"``: squared loss, affine head: ``<Cbar, (U'U) o H>``, ``H = (1/N) sum h h'`` (Pal, Lane, Vidal and
    Haeffele, 2020; derived, theory note, sections 2 and 6.3). Other heads than linear layers are tested for being
    affine at two further points.

    ``"quadratic"``: ``(1/2) <Cbar, (J' H_L J) o h h'>``, ``H_L`` second derivative of the loss in the outputs, ``J``
    derivative of the head. Closed for linear heads (softmax: ``(lam/2) sum_j h_j^2 Var_{c~p}(U_cj)``; logistic: Wager,
    Wang and Liang, 2013), K backward passes for others. ``"sampled"``: the same on average, value and gradient, from
    ``samples`` backward passes (compare Wei, Kakade and Ma, 2020).

    ``"leave-one-out"``: ``sum_b lam_b [l(h - h_b) - l(h) + <h_b, dl/dh>]`` over what the mask drops at once: units,
    blocks, channels, windows, single weights (derived, theory note, section 8.3).

    **Accuracy.** For masks that drop, the relative error of the quadratic forms does not vanish with the drop rate: a
    drop takes a whole unit away, which is no small change unless each unit adds little to the outputs. It was 5 to 60
    percent in small networks, and more in narrow saturating layers. It does vanish for Gaussian or Rademacher noise on
    linear heads. For others the quadratic forms also leave out the curvature of the head itself, ``sum_k dl/du_k``
    times the second derivative of output k: a term of the same order, with which the regularizer may be negative.
    Leave-one-out is exact to first order in the drop rate, for every loss and head. Hence ``"auto"``: exact where
    there is an exact form; for linear heads leave-one-out where the law drops groups, quadratic where it does not;
    for other heads ``"sampled"``, the only form at the price of one backward pass, and exact on average if head and
    loss happen to be affine and squared.

    Examples
    --------
    >>> import torch
    >>> from obverse.dropout import Bernoulli, explicit_penalty
    >>> head = torch.nn.Linear(3, 1, bias=False)
    >>> _ = torch.nn.init.ones_(head.weight)
    >>> float(explicit_penalty(head, torch.tensor([[1.0, 2.0, 2.0]]), Bernoulli(0.5)))
    9.0
    """
    known_name("form", form, FORMS)
    _check(features, law, samples, units)
    with repeatable(generator) as source:
        return _penalty(head, features, law, loss, target, form, source, samples, units)


def _penalty(
    head: Any,
    features: torch.Tensor,
    law: MaskLaw,
    loss: Any,
    target: torch.Tensor | None,
    form: str,
    generator: torch.Generator | None,
    samples: int,
    units: int | None,
) -> torch.Tensor:
    """`explicit_penalty` of checked arguments."""
    linear = LinearHead.of(head)
    if linear is None:
        if isinstance(law, Connect):
            raise InvalidArgumentError(
                "masks on weights need to know the weights: give head=nn.Linear(...) or its matrix with Connect"
            )
        return _general(head, features, law, loss, target, form, generator, samples, units)
    linear.check(features)
    if linear.weight.dtype != features.dtype and not torch.is_autocast_enabled(features.device.type):
        raise InvalidArgumentError(f"the head is {linear.weight.dtype}, the features are {features.dtype}: convert one")
    if isinstance(law, Connect) and linear.pooled:
        raise InvalidArgumentError("with Connect give the linear layer itself, and the pooled features")
    outputs = linear.outputs(features)
    terms = criterion(loss, outputs, target)
    form = chosen_form(form, terms, law)
    if form == "sampled":
        if isinstance(law, Connect):
            raise InvalidArgumentError("masks on weights of a linear head have closed forms; use form='quadratic'")
        return _differentiated(linear.outputs, features, law, loss, target, samples, generator)
    return linear_penalty(linear, features, outputs, law, terms, form, units, generator)


def chosen_form(form: str, loss: Criterion, law: MaskLaw) -> str:
    """What ``"auto"`` means for a linear head; raises where ``"exact"`` cannot be had."""
    if form == "auto":
        if loss.kind == "squared":
            return "exact"
        return "leave-one-out" if drops_groups(law) or isinstance(law, Connect) else "quadratic"
    if form == "exact":
        _require_squared(loss)
    return form


def _require_squared(loss: Criterion) -> None:
    if loss.kind != "squared":
        raise InvalidArgumentError(
            f"the expected {loss.kind} loss has no closed form; use form='leave-one-out' (exact to first order in the "
            "drop rate), 'quadratic' or 'sampled'"
        )


def linear_penalty(
    head: LinearHead,
    features: torch.Tensor,
    outputs: torch.Tensor,
    law: MaskLaw,
    loss: Criterion,
    form: str,
    units: int | None,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """The closed forms of a linear head."""
    if form != "leave-one-out":
        return loss.mean(head.quadratic(law, features, outputs, loss))
    if isinstance(law, Connect):
        if units is not None:
            raise InvalidArgumentError("units= draws groups of units, and Connect drops weights: leave it out")
        return loss.mean(head.leave_one_weight_out(law, features, outputs, loss))
    groups = removals(law, tuple(features.shape[1:]), features)
    if units is not None:
        groups = groups.subset(units, generator)
    return loss.mean(head.leave_one_out(groups, features, outputs, loss))


def _check(features: torch.Tensor, law: MaskLaw, samples: int, units: int | None) -> None:
    if not isinstance(law, MaskLaw):
        raise InvalidArgumentError(f"law must be a mask law such as Bernoulli(0.9), got {brief(law)}")
    if not isinstance(features, torch.Tensor) or not features.is_floating_point() or features.dim() < 2:
        raise InvalidArgumentError("features must be a floating tensor of shape (N, d) or (N, C, H, W) and the like")
    if not torch.compiler.is_compiling() and not bool(features.isfinite().all()):
        raise InvalidArgumentError("features must be finite, got NaN or infinity")
    count("samples", samples)
    if units is not None:
        count("units", units)


def _general(
    head: Any,
    features: torch.Tensor,
    law: MaskLaw,
    loss: Any,
    target: torch.Tensor | None,
    form: str,
    generator: torch.Generator | None,
    samples: int,
    units: int | None,
) -> torch.Tensor:
    """Heads known by their values alone."""
    if not callable(head):
        raise InvalidArgumentError(f"head must be a module, a matrix or a callable, got {brief(head)}")
    if form == "leave-one-out":
        return _left_out(head, features, law, loss, target, generator, units)
    if form == "exact":
        _require_affine(head, features, loss)
    probes = None if form in ("exact", "quadratic") else samples
    return _differentiated(head, features, law, loss, target, probes, generator)


def _differentiated(
    head: Callable[[torch.Tensor], torch.Tensor],
    features: torch.Tensor,
    law: MaskLaw,
    loss: Any,
    target: torch.Tensor | None,
    probes: int | None,
    generator: torch.Generator | None,
) -> torch.Tensor:
    with torch.enable_grad():
        hidden = _own(features)
        outputs = head(hidden)
        terms = criterion(loss, outputs, target)

        def measure(gradient: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
            form: torch.Tensor = law.form(gradient * masked)
            return form

        return gauss_newton(outputs, [hidden], [measure], terms, probes=probes, generator=generator)[0]


def _left_out(
    head: Callable[[torch.Tensor], torch.Tensor],
    features: torch.Tensor,
    law: MaskLaw,
    loss: Any,
    target: torch.Tensor | None,
    generator: torch.Generator | None,
    units: int | None,
) -> torch.Tensor:
    groups = removals(law, tuple(features.shape[1:]), features)
    if units is not None:
        groups = groups.subset(units, generator)
    with torch.enable_grad():
        hidden = _own(features)
        outputs = head(hidden)
        terms = criterion(loss, outputs, target)
        base = terms.values(outputs)
        (slope,) = torch.autograd.grad(base.sum(), hidden, create_graph=True)
        drift = (slope * hidden).flatten(1)
        total = torch.zeros_like(base)
        size = drift.shape[1]
        for weight, index in zip(groups.weight, groups.index, strict=True):
            inside = index[index < size]
            kept = torch.ones(size, dtype=hidden.dtype, device=hidden.device).index_fill(0, inside, 0.0)
            left = terms.values(head(hidden * kept.reshape(hidden.shape[1:])))
            total = total + weight * (left - base + drift[:, inside].sum(1))
        return terms.mean(total)


def _own(features: torch.Tensor) -> torch.Tensor:
    """The features as a node of their own, so that gradients stop there."""
    return features.view_as(features) if features.requires_grad else features.detach().requires_grad_()


def _require_affine(head: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor, loss: Any) -> None:
    with torch.no_grad():
        middle = head(features)
        _require_squared(criterion(loss, middle, None))
        size = features.abs().amax().clamp(min=torch.finfo(features.dtype).tiny)
        shift = size * torch.cos(torch.arange(features.numel(), device=features.device).to(features) ** 2).reshape(
            features.shape
        )
        bend = head(features + shift) + head(features - shift) - 2.0 * middle
        spread = (head(features + shift) - middle).abs().amax() + middle.abs().amax()
        if bool(bend.abs().amax() > 1e3 * torch.finfo(features.dtype).eps * spread):
            raise InvalidArgumentError(
                "form='exact' holds for heads that are affine in the features, and this one is not; use "
                "'leave-one-out', 'quadratic' or 'sampled'"
            )
