"""Normalizations and SiLU whose second derivatives take few passes over the numbers.

What torch composes for the derivative of their backward costs ten times the backward itself. Inside a captured pass
they are computed by the functions here, with the same values and first derivatives, from the same kernels. Formulas:
with ``n = (x - mean) s`` and ``P v = v - mean(v) - n mean(v n)`` the gradient is ``s P (w g)``, and the cotangent ``v``
of it gives ``w s P v`` for ``g`` and ``-s^2 (n mean(v P(w g)) + a P v + b P(w g))`` for ``x``, ``a = mean(w g n)``,
``b = mean(v n)``. Derived in docs/theory.md, section 11.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

__all__ = ["QuickOperators", "only_hidden_gradients"]

_aten: Any = torch.ops.aten


class _Asked:
    """Whether only gradients at hidden tensors are wanted, so that those of scales and shifts can be left out."""

    hidden_only = False


@contextmanager
def only_hidden_gradients() -> Iterator[None]:
    """Backward passes in the block are for hidden tensors alone."""
    before, _Asked.hidden_only = _Asked.hidden_only, True
    try:
        yield
    finally:
        _Asked.hidden_only = before


def _by_scale(gradient: Tensor, normalized: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return (gradient * normalized).sum(axes), gradient.sum(axes)


class _BatchNorm(torch.autograd.Function):
    """Normalization by the statistics of the batch, channel by channel."""

    is_smooth = True

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
    ) -> Any:
        out, center, scale = torch.native_batch_norm(x, weight, bias, mean, variance, True, momentum, eps)
        ctx.save_for_backward(x, weight, center, scale)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, center, scale = ctx.saved_tensors
        nothing = (None,) * 4
        if not torch.is_grad_enabled():
            mask = [ctx.needs_input_grad[0], weight is not None, weight is not None]
            found = _aten.native_batch_norm_backward(
                gradient, x, weight, None, None, center, scale, True, ctx.eps, mask
            )
            return (*(g if wanted else None for g, wanted in zip(found, mask, strict=True)), *nothing)
        of_x = _BatchNormBackward.apply(gradient, x, weight, center, scale, ctx.eps)  # type: ignore[no-untyped-call]
        if weight is None or _Asked.hidden_only:
            return (of_x, None, None, *nothing)
        axes = tuple(i for i in range(x.ndim) if i != 1)
        wide = x.to(center.dtype)
        spread = (wide.var(axes, correction=0, keepdim=True) + ctx.eps).sqrt()
        of_scale = _by_scale(gradient.to(wide.dtype), (wide - wide.mean(axes, keepdim=True)) / spread, axes)
        return (of_x, *(g.to(weight.dtype) for g in of_scale), *nothing)


class _BatchNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Any, center: Tensor, scale: Tensor, eps: float) -> Any:
        of_x, gn, g = _aten.native_batch_norm_backward(
            gradient, x, weight, None, None, center, scale, True, eps, [True, True, True]
        )
        ctx.save_for_backward(gradient, x, weight, center, scale, gn, g)
        ctx.eps = eps
        return of_x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        gradient, x, weight, center, s, gn, g = ctx.saved_tensors
        of_gradient, vn, vs = _aten.native_batch_norm_backward(
            v.contiguous(), x, weight, None, None, center, s, True, ctx.eps, [True, True, True]
        )
        axes = tuple(i for i in range(x.ndim) if i != 1)
        count = x.numel() // x.shape[1]
        vg = (v * gradient).sum(axes, dtype=s.dtype)
        of_weight = None if weight is None else s * (vg - vs * g / count - vn * gn / count)
        w = torch.ones_like(s) if weight is None else weight.to(s.dtype)
        a, b, mv, mg = w * gn / count, vn / count, vs / count, w * g / count
        of_x = _slope_of_x(v, gradient, x, w, s, center, a, b, mv, mg, w * vg / count, [1, -1] + [1] * (x.ndim - 2))
        return of_gradient, of_x, None if of_weight is None else of_weight.to(weight.dtype), None, None, None


def _slope_of_x(
    v: Tensor,
    gradient: Tensor,
    x: Tensor,
    w: Tensor,
    s: Tensor,
    center: Tensor,
    a: Tensor,
    b: Tensor,
    mv: Tensor,
    mg: Tensor,
    mvg: Tensor,
    shape: Sequence[int],
) -> Tensor:
    """``-s^2 (a (v - mv) + b (w g - mg) + n (mvg - mv mg - 3 a b))`` as one combination of v, g and x."""
    by_x = -(s**3) * (mvg - mv * mg - 3.0 * a * b)
    constant = s.square() * (a * mv + b * mg) - by_x * center
    # In place: fresh memory costs more than the arithmetic.
    found = torch.addcmul(constant.reshape(shape), v, (-s.square() * a).reshape(shape))
    found.addcmul_(gradient, (-s.square() * b * w).reshape(shape))
    found.addcmul_(x, by_x.reshape(shape))
    return found.to(x.dtype)


class _GroupNorm(torch.autograd.Function):
    """Normalization of groups of channels in every row."""

    is_smooth = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Any, bias: Any, eps: float) -> Any:
        rows, channels = x.shape[:2]
        ctx.sizes = (rows, channels, x.numel() // (rows * channels), groups)
        ctx.eps = eps
        out, center, scale = _aten.native_group_norm(x, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, center, scale)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, center, scale = ctx.saved_tensors
        gradient = gradient.contiguous()
        if not torch.is_grad_enabled():
            mask = [ctx.needs_input_grad[0], weight is not None, weight is not None]
            of_x, *rest = _aten.native_group_norm_backward(gradient, x, center, scale, weight, *ctx.sizes, mask)
            return (of_x if mask[0] else None, None, *(g if weight is not None else None for g in rest), None)
        of_x = _GroupNormBackward.apply(gradient, x, weight, center, scale, ctx.sizes)  # type: ignore[no-untyped-call]
        if weight is None or _Asked.hidden_only:
            return of_x, None, None, None, None
        groups = x.reshape(ctx.sizes[0], ctx.sizes[3], -1).to(center.dtype)
        normalized = (groups - groups.mean(2, keepdim=True)) / (
            groups.var(2, correction=0, keepdim=True) + ctx.eps
        ).sqrt()
        axes = (0, *range(2, x.ndim))
        of_scale = _by_scale(gradient.to(groups.dtype), normalized.reshape_as(x), axes)
        return (of_x, None, *(g.to(weight.dtype) for g in of_scale), None)


class _GroupNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Any, center: Tensor, scale: Tensor, sizes: Any) -> Any:
        ctx.save_for_backward(gradient, x, weight, center, scale)
        ctx.sizes = sizes
        return _aten.native_group_norm_backward(gradient, x, center, scale, weight, *sizes, [True, False, False])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        gradient, x, weight, center, s = ctx.saved_tensors
        rows, channels, size, groups = ctx.sizes
        count, own = size * channels // groups, channels // groups
        dtype = s.dtype
        # Every row's channels as channels of one row: the kernel then gives sums over a channel in a row. Per group
        # and channel, (N G, C / G).
        single = (1, rows * channels, size)
        v3, g3, x3 = (t.reshape(single) for t in (v, gradient, x))
        s1, center1 = s.reshape(1, -1), center.reshape(1, -1)
        ones = torch.ones(rows * channels, dtype=dtype if weight is None else weight.dtype, device=x.device)
        sizes = (1, rows * channels, size, rows * groups)

        def sums(t: Tensor, of_x: bool) -> tuple[Tensor, Tensor, Tensor]:
            """``s P t`` where it is asked for, and the sums of ``t n`` and ``t``."""
            found = _aten.native_group_norm_backward(t, x3, center1, s1, ones, *sizes, [of_x, True, True])
            return found[0], found[1].to(dtype).view(-1, own), found[2].to(dtype).view(-1, own)

        of_gradient, vn, sv = sums(v3, True)
        _, gn, sg = sums(g3, False)
        svg = (v3 * g3).sum(2, dtype=dtype).view(-1, own)
        w = torch.ones(channels, dtype=dtype, device=x.device) if weight is None else weight.to(dtype)
        w = w.view(groups, own).repeat(rows, 1)
        s_, center_ = s.reshape(-1, 1), center.reshape(-1, 1)

        def mean(values: Tensor) -> Tensor:
            means: Tensor = values.sum(1, keepdim=True) / count
            return means

        mv, mg, mvg, a, b = mean(sv), mean(w * sg), mean(w * svg), mean(w * gn), mean(vn)
        of_weight = None
        if weight is not None:
            of_weight = (s_ * (svg - mv * sg - b * gn)).view(rows, channels).sum(0).to(weight.dtype)
            of_gradient = of_gradient.view(rows, channels, size).mul_(weight.view(-1, 1))
        v3, g3, x3 = (t.view(rows * groups, own, size) for t in (v3, g3, x3))
        of_x = _slope_of_x(v3, g3, x3, w, s_, center_, a, b, mv, mg, mvg, (rows * groups, -1, 1))
        return of_gradient.view_as(x), of_x.view_as(x), of_weight, None, None, None


class _Silu(torch.autograd.Function):
    """``x sigmoid(x)``."""

    is_smooth = True

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        found: Tensor = _aten.silu(x)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _aten.silu_backward(gradient, x)
        return _SiluBackward.apply(gradient, x)  # type: ignore[no-untyped-call]


class _SiluBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, x)
        found: Tensor = _aten.silu_backward(gradient, x)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        gradient, x = ctx.saved_tensors
        # The second derivative is p + s' - 2 p s', p = sigmoid(x), s' = p (1 + x (1 - p)) the first.
        by_first = _aten.silu_backward(v, x)
        of_x = v.sub(by_first, alpha=2.0).mul_(torch.sigmoid(x)).add_(by_first).mul_(gradient)
        return by_first, of_x


class QuickOperators(TorchFunctionMode):
    """Functions called in the block are replaced by those above where they are the same."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        quick = _QUICK.get(func)
        if quick is not None:
            found = quick(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    mean: Any,
    variance: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if not training or not x.requires_grad or (weight is None) != (bias is None) or x.numel() == x.shape[1]:
        return None
    return _BatchNorm.apply(x, weight, bias, mean, variance, momentum, eps)  # type: ignore[no-untyped-call]


def _group_norm(x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    # Under autocast torch computes it in float32.
    if not x.requires_grad or (weight is None) != (bias is None) or torch.is_autocast_enabled(x.device.type):
        return None
    # Made contiguous out here: what is saved must be the argument itself, for the gradient to reach it.
    return _GroupNorm.apply(x.contiguous(), num_groups, weight, bias, eps)  # type: ignore[no-untyped-call]


def _silu(x: Tensor, inplace: bool = False) -> Any:
    return _Silu.apply(x) if x.requires_grad and not inplace else None  # type: ignore[no-untyped-call]


_QUICK: dict[Any, Callable[..., Any]] = {F.batch_norm: _batch_norm, F.group_norm: _group_norm, F.silu: _silu}
