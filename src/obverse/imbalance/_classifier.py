"""Decoupled classifiers: the last layer retrained on balanced batches, or rescaled by the norms of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .._core import checks
from ..errors import InvalidArgumentError, NonFiniteError
from ._margin import NormalizedLinear
from ._weighted_loss import CrossEntropyLoss

__all__ = ["retrain_classifier", "tau_normalize"]


def retrain_classifier(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    *,
    head: str | None = None,
    epochs: int = 10,
    learning_rate: float = 0.2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    reset: bool = True,
) -> nn.Module:
    """Learn the last layer anew on features that stay as they are (cRT).

    Parameters
    ----------
    model : Module
        A trained classifier; changed in place.
    batches : iterable of (inputs, targets)
        Gone through once in each epoch, as a `DataLoader` with a `ClassBalancedSampler`.
    head : str, optional
        Name of the last layer; by default the last `Linear` or `NormalizedLinear` in the model.
    epochs : int
        At least 1.
    learning_rate, momentum, weight_decay : float
        Of SGD; the rate falls to zero along half a cosine over the epochs.
    loss : callable, optional
        ``loss(logits, targets)``; by default `CrossEntropyLoss`.
    reset : bool
        Start from new weights (by ``head.reset_parameters()``), else from the present ones.

    Returns
    -------
    Module
        ``model``. All but the head is as before, buffers too; gradients, ``requires_grad`` and modes are restored.

    Raises
    ------
    InvalidArgumentError
        When there is no such head, or no batch.
    NonFiniteError
        When the loss is not finite; the head has then its weights of before.

    Notes
    -----
    Source: classifier retraining of Kang et al. (2020), whose settings are the defaults.
    """
    name, layer = _head(model, head)
    epochs = checks.count("epochs", epochs)
    learning_rate = checks.positive("learning_rate", learning_rate)
    momentum = checks.fraction("momentum", momentum, one=False)
    weight_decay = checks.nonnegative("weight_decay", weight_decay)
    criterion = CrossEntropyLoss() if loss is None else loss
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    asked = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    caught: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    finished = False
    try:
        model.eval()
        if reset:
            layer.reset_parameters()
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        optimizer = torch.optim.SGD(layer.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
            seen = 0
            for inputs, targets in batches:
                seen += 1
                caught.clear()
                with torch.no_grad():
                    model(inputs)
                if len(caught) != 1:
                    raise InvalidArgumentError(
                        f"the head {name!r} must run once in a forward pass, not {len(caught)} times"
                    )
                features = caught[0]
                where = f"in epoch {epoch} of retraining the head {name!r}"
                try:
                    value = criterion(layer.forward(features), targets)
                except NonFiniteError as error:
                    raise NonFiniteError(f"{error}, {where}") from error
                if not bool(torch.isfinite(value)):
                    raise NonFiniteError(f"the loss is {value.item()} {where}")
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            if not seen:
                raise InvalidArgumentError(
                    f"batches are empty in epoch {epoch}: give a loader, not an iterator of one pass"
                )
        finished = True
    finally:
        handle.remove()
        if not finished:
            layer.load_state_dict(before)
        for module, training in modes.items():
            module.training = training
        for parameter, (requires, gradient) in asked.items():
            parameter.requires_grad_(requires)
            parameter.grad = gradient
    return model


def tau_normalize(head: nn.Linear, tau: float = 1.0) -> nn.Linear:
    """A linear head with class vectors divided by a power of their norms, and no offsets.

    Parameters
    ----------
    head : Linear
        The last layer of a trained classifier; left as it is.
    tau : float
        0 leaves the vectors, 1 gives them length one; chosen on held-out data, usually from [0, 2].

    Returns
    -------
    Linear
        A copy with weights ``w_c / |w_c|^tau`` and, where there is a bias, zeros in it. Zero vectors stay zero.

    Notes
    -----
    Norms of class vectors grow with the counts of classes. Source: Kang et al. (2020).
    """
    if not isinstance(head, nn.Linear):
        raise InvalidArgumentError(f"head must be a torch.nn.Linear, got {type(head).__name__}")
    tau = checks.finite("tau", tau)
    changed = copy.deepcopy(head)
    with torch.no_grad():
        norms = changed.weight.norm(dim=1, keepdim=True)
        changed.weight.div_(torch.where(norms > 0, norms**tau, torch.ones_like(norms)))
        if changed.bias is not None:
            changed.bias.zero_()
    return changed


def _head(model: nn.Module, name: str | None) -> tuple[str, nn.Linear | NormalizedLinear]:
    layers = {key: module for key, module in model.named_modules() if isinstance(module, nn.Linear | NormalizedLinear)}
    if not layers:
        raise InvalidArgumentError("the model has no torch.nn.Linear or NormalizedLinear to retrain")
    if name is None:
        name = list(layers)[-1]
    if name not in layers:
        raise InvalidArgumentError(f"the model has no linear layer {name!r}; there are {', '.join(map(repr, layers))}")
    return name, layers[name]
