"""How far a trained model is from what its dropout asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .._core.random import Seed, torch_generator
from .._core.text import brief
from ..errors import InvalidArgumentError, NonFiniteError
from ._blocks import Channel, Path
from ._comoments import CoMoments
from ._connect import Connect
from ._criterion import check_loss
from ._diagnose_head import HeadProblem, diagnose_head
from ._diagnose_stack import StackProblem, diagnose_stack
from ._diagnosis import ModelDiagnosis
from ._executed import Call, calls_of, evaluated, is_linear, named_leaves, run
from ._fixed_features import QuadraticForm
from ._independent import Bernoulli
from ._labeled_batches import Targets, labeled_batches, targets_of
from ._law import MaskLaw
from ._linear_head import LinearHead
from ._noise_before import DEFAULT_KEEP, FoundNoise, flattened, noise_before, on_units
from .deep_linear._strengths import layer_strengths

__all__ = ["diagnose"]

_PASSING = (nn.Identity, nn.Flatten)


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    law: MaskLaw | Sequence[MaskLaw] | None = None,
    keep_probability: Any = None,
    loss: Any = None,
    max_examples: int | None = None,
    generator: Seed | None = None,
) -> ModelDiagnosis:
    """Value of dropout's regularizer on a trained model, its bounds, and singular values against their prediction.

    Looks at the last `torch.nn.Linear` that the model runs; a model that runs nothing but linear layers (and dropout,
    `torch.nn.Identity`, `torch.nn.Flatten`) is diagnosed as a whole, see `obverse.dropout.deep_linear.diagnose`. The
    model is in evaluation mode meanwhile, and left as it was.

    Parameters
    ----------
    model : torch.nn.Module
    data : tuple of arrays, Dataset, DataLoader, or iterable of pairs
        Inputs and targets: class labels of an integer dtype (n,), which count as one-hot rows, or numbers (n, K).
    law : MaskLaw or sequence of MaskLaw, optional
        Of the mask on the inputs of the last layer; for a linear stack on every hidden layer, or one each.
    keep_probability : float or array, optional
        In place of ``law``: independent units, with one rate or one each; for a linear stack one for all hidden layers
        or one each. With neither, the rate of the dropout layer right before the last layer (of torch or of this
        package) counts, and if there is none, 0.5; ``rate_source`` says which.
    loss : str or torch.nn.Module, optional
        As in `explicit_penalty`; by default cross-entropy for class labels, logistic for truth values of one output,
        else squared.
    max_examples : int, optional
        Read no more than so many examples: drawn at random from a tuple or a Dataset, the first ones of anything that
        comes in batches.
    generator : int, torch.Generator or numpy.random.Generator, optional
        Seed or generator of that draw; the global generator by default.

    Returns
    -------
    ModelDiagnosis

    Raises
    ------
    InvalidArgumentError
        The model runs no linear layer; data, targets, law or loss do not fit.
    NonFiniteError
        The features are not finite.

    Notes
    -----
    Moments are summed batch by batch in float64, in memory of O(d^2) for d units. With ``H`` the second moment of the
    features and ``U`` the last layer, the squared loss has ``Omega = <Cbar, U'U o H>`` exactly (Pal, Lane, Vidal and
    Haeffele, 2020; theory note, 2 and 3.8). Free features: singular values of the targets, shrunk as one hidden layer
    shrinks them (3.4). Fixed features: ``U = C_yh (S + Cbar o H)^+``, ``S`` centered if the layer has a bias (derived).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from obverse.dropout import diagnose
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    >>> found = diagnose(model, (torch.randn(50, 4), torch.randn(50, 2)))
    >>> found.rate_source
    "read from '2' (Dropout)"
    >>> found.ratio >= 1
    True
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if law is not None and keep_probability is not None:
        raise InvalidArgumentError("give law or keep_probability, not both")
    if loss is not None:
        check_loss(loss)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    leaves = named_leaves(model)
    if not any(is_linear(module) for _, module in leaves):
        kinds = sorted({type(module).__name__ for _, module in leaves})
        raise InvalidArgumentError(f"the model has no torch.nn.Linear to diagnose; it has {', '.join(kinds) or 'none'}")
    source = None if generator is None else torch_generator(generator, "generator")
    batches = labeled_batches(data, max_examples, source)
    with evaluated(model):
        first = next(batches)
        with calls_of(leaves) as calls:
            returned = run(model, first[0])
        ran = [index for index, call in enumerate(calls) if is_linear(call.module)]
        if not ran:
            raise InvalidArgumentError("the model ran none of its torch.nn.Linear layers, so there is none to diagnose")
        caveats = _caveats(calls[ran[-1]], returned)
        everything = chain([first], batches)
        if _is_stack(calls, ran):
            stated = law if keep_probability is None else keep_probability
            masks = _masks(calls, ran, stated)
            try:
                layer_strengths(masks.entries, [calls[index].output.shape[1] for index in ran[:-1]])
            except InvalidArgumentError as error:
                if stated is not None:
                    raise
                caveats.append(f"The last layer of a linear stack alone, for {error}.")
            else:
                return _stack(model, everything, [calls[index] for index in ran], masks, loss, caveats)
        return _head(model, everything, calls, ran[-1], (law, keep_probability, loss), caveats)


def _caveats(head: Call, returned: Any) -> list[str]:
    same = isinstance(returned, torch.Tensor) and returned.numel() == head.output.numel()
    if same and torch.allclose(returned.reshape(-1), head.output.reshape(-1), equal_nan=True):
        return []
    return [f"The model goes on after its last linear layer {head.name!r}; the output of that layer is diagnosed."]


def _is_stack(calls: list[Call], ran: list[int]) -> bool:
    """Whether the model is a composition of its linear layers, by what ran and by the numbers."""
    linears = [calls[index] for index in ran]
    passing = [call.module for index, call in enumerate(calls) if index not in ran]
    plain = all(isinstance(module, _PASSING) or "dropout" in type(module).__name__.lower() for module in passing)
    if len(linears) < 2 or not plain or len({id(call.module) for call in linears}) < len(linears):
        return False
    if any(call.input.dim() != 2 or type(call.module) is not nn.Linear for call in linears):
        return False
    # What was recorded may have been changed in place since, by an activation that is no module: so compute anew.
    value = linears[0].input
    for call in linears:
        if call.input.shape != value.shape or not torch.allclose(call.input, value, rtol=1e-3, atol=_rounding(value)):
            return False
        value = F.linear(value, *(part.to(value) for part in _parameters(call.module) if part is not None))
    return True


def _rounding(values: torch.Tensor) -> float:
    size = float(values.abs().max()) if values.numel() else 0.0
    return 100.0 * torch.finfo(values.dtype).eps * size


def _read(
    model: nn.Module, batches: Iterator[tuple[Any, torch.Tensor]], first: Call, head: Call
) -> Iterator[tuple[torch.Tensor, torch.Tensor, Targets]]:
    """Inputs of the layer ``first``, inputs of the layer ``head``, and targets, batch by batch in float64."""
    watched = {id(call.module): (call.name, call.module) for call in (first, head)}
    for inputs, targets in batches:
        with calls_of(watched.values()) as calls:
            run(model, inputs)
        into = next(call for call in calls if call.module is first.module)
        last = [call for call in calls if call.module is head.module][-1]
        rows = [part.input.reshape(-1, part.input.shape[-1]) for part in (into, last)]
        found = targets_of(targets, last.output.reshape(-1, last.output.shape[-1]))
        wide = [_wide(part) for part in rows]
        if not bool(wide[1].isfinite().all()):
            raise NonFiniteError(f"the inputs of layer {head.name!r} are not finite on these data")
        yield wide[0], wide[1], found


def _wide(rows: torch.Tensor) -> torch.Tensor:
    return (rows.cpu() if rows.device.type == "mps" else rows).to(torch.float64)


def _head(
    model: nn.Module,
    batches: Iterator[tuple[Any, torch.Tensor]],
    calls: list[Call],
    index: int,
    asked: tuple[Any, Any, Any],
    caveats: list[str],
) -> ModelDiagnosis:
    law, keep_probability, loss = asked
    head, found = calls[index], noise_before(calls, index)
    if isinstance(law, Sequence):
        raise InvalidArgumentError(f"the model is no linear stack: give one law, of the inputs of {head.name!r}")
    given = law if keep_probability is None else Bernoulli(keep_probability)
    chosen, event, source = _chosen(given, found)
    if given is None:
        caveats = [*caveats, *found.caveats]
    weight, bias = _parameters(head.module)
    chosen.variance(tuple(weight.shape) if isinstance(chosen, Connect) else event)  # refuses what does not fit
    form, used = None, loss
    moments, residual, lowest = CoMoments(), 0.0, 0.0
    for _, features, targets in _read(model, batches, head, head):
        if used is None:
            used = targets.suggests
        linear = LinearHead(weight.to(features.device), None if bias is None else bias.to(features.device), False)
        outputs = linear.outputs(features)
        if used != "squared":
            form = QuadraticForm(linear, chosen, event, used) if form is None else form
            form.add(features, outputs, _as_loss_takes(used, targets))
        numbers = targets.numbers.to(features.device)
        moments.add(torch.cat([features, numbers], 1))
        residual += float((outputs - numbers).square().sum())
        lowest = min(lowest, float(features.min()))
    problem = HeadProblem(head.name, weight, bias, chosen, event, source, used, moments, residual, form, lowest)
    return diagnose_head(problem, caveats)


@dataclass(frozen=True)
class _Masks:
    """What acts between the layers of a stack, where it came from, and what there is to say of it."""

    entries: Any
    source: str
    caveats: tuple[str, ...] = ()


def _masks(calls: list[Call], ran: list[int], stated: Any) -> _Masks:
    if stated is not None:
        return _Masks(stated, "as given")
    found = [noise_before(calls, index) for index in ran]
    caveats = [text for part in found for text in part.caveats]
    if found[0].law is not None:
        caveats.append("Dropout of the inputs is ridge-like; it is not part of this diagnosis.")
    sources = dict.fromkeys(part.source for part in found[1:] if part.source)
    if not sources:
        return _Masks([Bernoulli(DEFAULT_KEEP)] * (len(ran) - 1), _assumed(), tuple(caveats))
    laws = [
        flattened(part.law, part.event) or part.law if isinstance(part.law, (Channel, Path)) else part.law
        for part in found[1:]
    ]
    return _Masks(laws, ", ".join(sources), tuple(caveats))


def _stack(
    model: nn.Module,
    batches: Iterator[tuple[Any, torch.Tensor]],
    linears: list[Call],
    masks: _Masks,
    loss: Any,
    caveats: list[str],
) -> ModelDiagnosis:
    moments, residual, used = CoMoments(), 0.0, loss
    layers = [_parameters(call.module) for call in linears]
    for inputs, features, targets in _read(model, batches, linears[0], linears[-1]):
        used = targets.suggests if used is None else used
        numbers = targets.numbers.to(inputs.device)
        outputs = LinearHead(*layers[-1], False).outputs(features.cpu())
        moments.add(torch.cat([inputs, numbers], 1))
        residual += float((outputs - numbers.cpu()).square().sum())
    names = [call.name for call in linears]
    problem = StackProblem(names, layers, masks.entries, masks.source, used, moments, residual)
    return diagnose_stack(problem, [*caveats, *masks.caveats])


def _chosen(given: Any, found: FoundNoise) -> tuple[MaskLaw, tuple[int, ...], str]:
    if given is not None:
        if not isinstance(given, MaskLaw):
            raise InvalidArgumentError(f"law must be a mask law such as Bernoulli(0.9), got {brief(given)}")
        return given, on_units(given, found.event), "as given"
    if found.law is not None:
        return found.law, found.event, found.source
    return Bernoulli(DEFAULT_KEEP), found.event, _assumed()


def _assumed() -> str:
    return f"assumed, for no dropout layer was found (keep probability {DEFAULT_KEEP})"


def _parameters(module: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight, bias = module.weight, module.bias
    return weight.detach().cpu().double(), None if bias is None else bias.detach().cpu().double()


def _as_loss_takes(loss: Any, targets: Targets) -> torch.Tensor:
    return targets.given if check_loss(loss)[0] == "cross-entropy" else targets.numbers
