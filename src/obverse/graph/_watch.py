"""Watching one run of a model: every function that its code calls on real tensors, whatever Python does around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import InvalidArgumentError
from ._arguments import fix_all, flows_in, swap, tensors_in
from ._constants import constant_flow, derive
from ._copies import shared_copy, unwrapped
from ._flow import Flow, Knowledge
from ._hollow import Hollow, NumbersNeededError
from ._inputs import Inputs, as_inputs
from ._layers import handler_of
from ._names import RANDOM
from ._numbers import followed_lengths, mark_attributes
from ._operations import apply
from ._weighted import barrier

__all__ = ["analyze", "outputs_of"]

# What a tensor is asked about itself, which follows when it becomes smaller.
_QUESTIONS = frozenset(
    [
        "shape",
        "size",
        "dim",
        "ndim",
        "ndimension",
        "dtype",
        "device",
        "numel",
        "nelement",
        "layout",
        "is_cuda",
        "is_sparse",
        "is_quantized",
        "is_meta",
        "is_nested",
        "requires_grad",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "stride",
        "storage_offset",
        "len",
        "hash",
        "element_size",
        "itemsize",
        "nbytes",
        "get_device",
        "is_leaf",
        "grad_fn",
        "names",
        "has_names",
        "is_cpu",
        "is_mps",
        "is_xpu",
        "is_inference",
        "data_ptr",
        "untyped_storage",
        "_version",
        "is_same_size",
        "grad",
        "is_conj",
        "is_neg",
        "is_signed",
        "result_type",
        "can_cast",
        "promote_types",
        "names",
        "output_nr",
        "volatile",
        "is_tensor",
        "is_storage",
        "repr",
        "format",
        "is_set_to",
        "is_shared",
        "is_pinned",
        "retains_grad",
        "register_hook",
        "is_mkldnn",
        "is_vulkan",
        "is_ipu",
        "is_xla",
        "is_mtia",
        "is_maia",
        "is_sparse_csr",
        "dim_order",
        "_is_view",
        "_base",
        "dir",
        "reduce_ex",
        "type_string",
    ]
)


# Functions that read their input by weights, so that channels begin even where the input is a constant.
_LAYERS = frozenset(
    [
        "linear",
        "addmm",
        "matmul",
        "embedding",
        "layer_norm",
        "rms_norm",
        "batch_norm",
        "group_norm",
        "conv1d",
        "conv2d",
        "conv3d",
    ]
)
_LENGTHS = ("shape", "size", "len", "numel", "nelement")


class _Watch(TorchFunctionMode):
    """Follows tensors through the functions that are called on them."""

    def __init__(self, know: Knowledge, hollow: bool = True) -> None:
        super().__init__()
        self.hollow = Hollow(hollow)
        self.know = know
        self.owners: list[str] = []
        self.failed_in = ""  # the innermost module that the last error came from
        self._error: BaseException | None = None
        self.inside = 0  # depth of layers that are understood as a whole
        self._flows: dict[int, tuple[torch.Tensor, Flow]] = {}
        # Tensors that no input can change: those that the model holds, and what functions make of them alone.
        self._constants: dict[int, torch.Tensor] = {id(tensor): tensor for tensor in _held_by(know.model)}
        # Tensors whose memory was written to by way of another one; what has to stay if they are looked at again.
        self._overwritten: dict[int, list[tuple[torch.Tensor, str]]] = {}
        self._written: dict[int, torch.Tensor] = {}  # memory that something followed was written into

    # ------------------------------------------------------------------ what is followed
    def flow_of(self, tensor: torch.Tensor) -> Flow | None:
        """What is known of a tensor; None for what does not depend on an input."""
        found = self._flows.get(id(tensor))
        if found is not None:
            for label, reason in self._overwritten.pop(id(tensor), ()):
                self.know.channels.pin(label, reason)
            return found[1]
        known = id(tensor) in self._constants
        if known and not (self._written and _storage(tensor) in self._written):
            return None
        twin = self._same_memory(tensor)
        fix_all(self.know, tensor, "its memory is written to")
        # It came about unseen, or through memory that was written to: nothing is known of it.
        flow = self.know.whole(tensor) if twin is None else twin
        self.follow(tensor, flow)
        return self._flows[id(tensor)][1]

    def _same_memory(self, tensor: torch.Tensor) -> Flow | None:
        """The flow of a followed tensor that is the same memory under another object."""
        place = _place(tensor)
        if place is None:
            return None
        for held, flow in self._flows.values():
            if _place(held) == place:
                return flow
        return None

    def follow(self, tensor: torch.Tensor, flow: Flow) -> None:
        """Remember what is known of a tensor."""
        if tuple(tensor.shape) != flow.shape:
            reason = f"what {self.owners[-1] if self.owners else 'the model'} gives has another shape than was expected"
            self.know.channels.pin(flow.label, reason)
            flow = self.know.whole(tensor)
        self._flows[id(tensor)] = (tensor, replace(flow, real=tensor))

    def trust(self, *tensors: torch.Tensor) -> None:
        """Remember tensors as constants."""
        for tensor in tensors:
            self._constants[id(tensor)] = tensor

    def seen(self, value: Any) -> Any:
        """The same nesting with flows in place of the tensors that are followed."""
        return swap(value, lambda one: self.flow_of(one) or one if isinstance(one, torch.Tensor) else one)

    def assign(self, result: Any, flows: Any) -> None:
        """Follow the tensors of a result; where the flows do not match its nesting, nothing is known of them."""
        if isinstance(result, torch.Tensor):
            if isinstance(flows, Flow):
                self.follow(result, flows)
            else:
                self.assign_whole(result, flows)
        elif isinstance(result, list | tuple) and isinstance(flows, list | tuple) and len(flows) == len(result):
            for one, flow in zip(result, flows, strict=True):
                self.assign(one, flow)
        else:
            self.assign_whole(result, flows)

    def assign_whole(self, result: Any, flows: Any) -> None:
        """Follow the tensors of a result of which nothing is known."""
        reason = f"what {self.owners[-1] if self.owners else 'the model'} gives is nested in another way than expected"
        for flow in flows_in(flows):
            self.know.channels.pin(flow.label, reason)
        for tensor in outputs_of(result):
            self.follow(tensor, self.know.whole(tensor))

    # ------------------------------------------------------------------ functions
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        name, in_place = _named(func)
        if name in _QUESTIONS:
            answer = func(*args, **kwargs)
            return followed_lengths(answer) if name in _LENGTHS else answer
        given = self.seen(args), self.seen(kwargs)
        every = tensors_in((args, kwargs))
        followed = bool(flows_in(given))
        if followed and (in_place or name == "setitem") and args and isinstance(given[0][0], torch.Tensor):
            # A constant that is written to: what it was before.
            given = (self.know.snapshot(args[0]), *given[0][1:]), given[1]
        result, changed = self.hollow.run(func, name, in_place, args, kwargs, given)
        if in_place and every and every[0].is_inference():
            changed = every[:1]
        owner = self.owners[-1] if self.owners else ""
        if name in ("set_data", "set_real", "set_imag", "set"):
            self._replaced(name, owner, args, given)
            return result
        if not followed:
            lifted = self._lifted(name, args, kwargs)
            if lifted is None:
                self._constant(name, owner, func, args, kwargs, result)
                return result
            given = lifted, given[1]
        target = args[0] if name == "setitem" else result
        out_of_place = _twin_of(func, name) if in_place or name == "setitem" else func
        flows = self._flows_by_table(name, owner, out_of_place, given, (args, kwargs), target)
        if flows is None and not changed:
            self._constant(name, owner, func, args, kwargs, result)
            return result
        if changed:
            if not isinstance(flows, Flow):
                barrier(self.know, f"{name} in {owner or 'the model'} writes to its arguments", *flows_in(given))
            self._changed_in_place(changed, flows, name, owner)
        if name != "setitem":
            self.assign(result, flows)
        return result

    def _flows_by_table(self, name: str, owner: str, call: Any, given: Any, plain: Any, target: Any) -> Any:
        """What the table of functions makes of the flows; whatever it trips over is a barrier."""
        try:
            return apply(self.know, name, owner, call, given[0], given[1], target)
        except Exception as error:
            line = next(iter(str(error).splitlines()), "")[:120]
            where = f"{name} in {owner or 'the model'}"
            reason = f"{where} is used in a way that is not understood ({type(error).__name__}: {line})"
            for tensor in tensors_in(plain):
                fix_all(self.know, tensor, reason)
            return barrier(self.know, reason, *flows_in(given), like=target)

    def _replaced(self, name: str, owner: str, args: Any, given: Any) -> None:
        """An attribute of a tensor that is set, such as its data: nothing is known of it afterwards."""
        reason = f"{name} in {owner or 'the model'} replaces what a tensor holds"
        for flow in flows_in(given):
            self.know.channels.pin(flow.label, reason)
        for tensor in tensors_in(args):
            fix_all(self.know, tensor, reason)
        if args and isinstance(args[0], torch.Tensor):
            self.follow(args[0], self.know.whole(args[0]))

    def _lifted(self, name: str, args: Any, kwargs: Any) -> Any:
        """The arguments of a layer that reads a constant, the constant as a flow; None for other functions."""
        if name not in _LAYERS or not args or not isinstance(args[0], torch.Tensor):
            return None
        place = next((i for i, one in enumerate(args[:3]) if not self._is_weight(one)), None)
        if name in ("linear", "matmul") and place is None:
            place = 0
        weights = [one for one in tensors_in((args, kwargs)) if self._is_weight(one)]
        if place is None or not weights or not isinstance(args[place], torch.Tensor):
            return None
        axes = [] if name == "embedding" else [1 - args[place].ndim if name.startswith("conv") else -1]
        flow = constant_flow(self.know, args[place], axes)
        return (*args[:place], flow, *args[place + 1 :])

    def _is_weight(self, one: Any) -> bool:
        return isinstance(one, nn.Parameter) and bool(self.know.sources(one))

    def _constant(self, name: str, owner: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if name in RANDOM:
            for tensor in outputs_of(result):
                self.follow(tensor, self.know.whole(tensor))
            return
        self.trust(*outputs_of(result))
        try:
            derive(self.know, name, owner, func, args, kwargs, result)
        except Exception as error:
            for tensor in tensors_in((args, kwargs)):
                fix_all(self.know, tensor, f"{name} in {owner or 'the model'} is not understood ({error})")

    def _changed_in_place(self, changed: list[torch.Tensor], flows: Any, name: str, owner: str) -> None:
        """A tensor that was written to, and all that look at the same memory."""
        reason = f"{name} in {owner or 'the model'} writes into memory that another tensor shows"
        for tensor in changed:
            made = flows if isinstance(flows, Flow) and flows.shape == tuple(tensor.shape) else None
            storage, place = _storage(tensor), _place(tensor)
            if storage is not None:
                self._written[storage] = tensor
            if made is not None and id(tensor) not in self._flows and tensor._is_view():
                self.know.channels.pin(made.label, reason)  # what it is a part of may not be followed
            for held, flow in list(self._flows.values()):
                if held is tensor or storage is None or _storage(held) != storage:
                    continue
                if made is not None and _place(held) == place:
                    self.follow(held, made)
                    continue
                if not _overlap(held, tensor):
                    continue
                labels = [flow.label] if made is None else [flow.label, made.label]
                self._overwritten.setdefault(id(held), []).extend((label, reason) for label in labels)
                self.follow(held, self.know.whole(held))
            self.follow(tensor, made if made is not None else self.know.whole(tensor))
            fix_all(self.know, tensor, f"{name} in {owner or 'the model'} writes into it")

    # ------------------------------------------------------------------ modules
    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know in whose code a function stands, and hand layers that are registered as a whole to their rule."""
        hooks = []
        for name, module in model.named_modules():
            handler = handler_of(module)
            hooks.append(module.register_forward_pre_hook(self._enter(name, handler), prepend=True, with_kwargs=True))
            hooks.append(module.register_forward_hook(self._leave(name, handler), with_kwargs=True, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, name: str, handler: Any) -> Any:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.owners.append(name)
            self.inside += handler is not None

        return enter

    def _leave(self, name: str, handler: Any) -> Any:
        def leave(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            error = sys.exc_info()[1]
            if error is not None and error is not self._error:
                self._error, self.failed_in = error, name
            if self.owners and self.owners[-1] == name:
                self.owners.pop()
            if handler is None:
                return
            self.inside -= 1
            if self.inside or result is None:
                return
            self.inside += 1  # what a rule computes is not followed
            try:
                flows = flows_in(self.seen((args, kwargs)))
                if flows:
                    self.assign(result, self._by_rule(name, module, handler, flows, result))
                else:
                    self.trust(*outputs_of(result))
            finally:
                self.inside -= 1

        return leave

    def _by_rule(self, name: str, module: nn.Module, handler: Any, flows: list[Flow], result: Any) -> Any:
        reason = f"{name} ({type(module).__name__}) takes several inputs"
        if len(flows) == 1:
            try:
                return handler(self.know, name, module, flows[0])
            except Exception as error:
                reason = f"{name} ({type(module).__name__}) is not understood ({type(error).__name__}: {error})"
        for tensor in module.parameters():
            fix_all(self.know, tensor, reason)
        return barrier(self.know, reason, *flows, like=result)


def _held_by(model: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers and tensors that modules hold otherwise."""
    for module in model.modules():
        yield from outputs_of(list(vars(module).values()))
    yield from model.parameters()
    yield from model.buffers()


def _storage(tensor: torch.Tensor) -> int | None:
    """Address of the memory that a tensor shows, None where it has none."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):  # wrappers, sparse and virtual tensors
        return None


def _place(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Where and how a tensor lies in memory."""
    if _storage(tensor) is None:
        return None
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _overlap(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of one memory have an element in common."""
    if first.dtype != second.dtype:
        return True
    marks = torch.zeros(first.untyped_storage().nbytes() // max(1, first.element_size()), dtype=torch.bool)

    def seen(one: torch.Tensor) -> torch.Tensor:
        shape = [1 if stride == 0 else size for size, stride in zip(one.shape, one.stride(), strict=True)]
        return marks.as_strided(shape, one.stride(), one.storage_offset())

    seen(first).fill_(True)
    return bool(seen(second).any())


def _named(func: Any) -> tuple[str, bool]:
    """Name of a function without what marks it as a getter, an operator or one that works in place."""
    name = str(getattr(func, "__name__", func))
    if name in ("__get__", "__set__"):
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
        return ("set_" + name if func.__name__ == "__set__" else name), False
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        if name in _IN_PLACE:
            return name[1:], True
        return _REVERSED.get(name, name), False
    if name.endswith("_") and not name.endswith("__"):
        return name[:-1], True
    return name, False


_IN_PLACE = frozenset(
    ["iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "iand", "ior", "ixor", "imatmul", "imod"]
)
_REVERSED = {
    "radd": "add", "rsub": "rsub", "rmul": "mul", "rtruediv": "rdiv", "rpow": "rpow", "rand": "and", "ror": "or",
    "rmatmul": "rmatmul", "rfloordiv": "floordiv",
}  # fmt: skip


def _twin_of(func: Any, name: str) -> Any:
    """The function that gives what one that works in place leaves."""
    if name == "setitem":
        return func
    twin = getattr(torch.Tensor, name, None) or getattr(torch, name, None)
    if twin is None:
        twin = getattr(torch.Tensor, f"__{name}__", None) or getattr(torch.nn.functional, name, None)
    return twin or func


# ------------------------------------------------------------------------------------------------- the analysis
def analyze(model: nn.Module, example_inputs: Any, *, assume_zeroed: bool = False) -> Knowledge:
    """Run a model once and find its channels, their classes, and the values that no input changes.

    Parameters
    ----------
    model : nn.Module
        Left as it is. Compiled models and the wrappers of data parallelism are looked into.
    example_inputs : tensor, tuple of positional or mapping of keyword arguments
        One batch, as the model takes it.
    assume_zeroed : bool, default False
        Whether a channel that goes will have been zeroed with everything that writes it, as training by groups does,
        instead of judging by the weights as they are.

    Raises
    ------
    InvalidArgumentError
        If ``model`` is no module or does not run on the example inputs; the message says where.
    """
    inputs, inner = as_inputs(example_inputs), unwrapped(model)
    try:
        know, watch, result = _watched(inner, inputs.copied(), assume_zeroed, hollow=True)
    except NumbersNeededError:
        know, watch, result = _watched(inner, inputs.copied(), assume_zeroed, hollow=False)
    for tensor in outputs_of(result):
        flow = watch.flow_of(tensor)
        if flow is not None:
            know.channels.pin(flow.label, "it is an output of the model")
        for source in know.sources(tensor):
            know.fix(source.name, "it is an output of the model")
    know.settle()
    return know


def _watched(model: nn.Module, inputs: Inputs, assume_zeroed: bool, *, hollow: bool) -> tuple[Knowledge, _Watch, Any]:
    """One run under watch: what was learned, who watched, and what the model gave."""
    twin = shared_copy(model).eval()
    know = Knowledge(twin, assume_zeroed=assume_zeroed)
    mark_attributes(twin)
    watch = _Watch(know, hollow)
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for tensor in inputs.tensors():
            watch.follow(tensor, know.whole(tensor))
        with torch.no_grad(), watch.watching(twin), watch:
            return know, watch, inputs.call(twin)
    except NumbersNeededError:
        raise
    except Exception as error:
        if hollow:
            # Only a run that computes everything may say that the model does not run.
            raise NumbersNeededError from error
        where = f" in {watch.failed_in}" if watch.failed_in else ""
        line = next(iter(str(error).splitlines()), "")[:300]
        raise InvalidArgumentError(
            f"{type(model).__name__} does not run on the example inputs ({type(error).__name__}{where}: {line})"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def outputs_of(value: Any) -> list[torch.Tensor]:
    """The tensors of an output: in sequences, mappings and dataclasses, however deep. Caches are no outputs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for one in value.values() for tensor in outputs_of(one)]
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in outputs_of(one)]
    if is_dataclass(value) and not isinstance(value, type):
        return [tensor for one in fields(value) for tensor in outputs_of(getattr(value, one.name))]
    return []
