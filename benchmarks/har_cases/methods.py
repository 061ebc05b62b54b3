"""What is compared: each method with the values of its one setting, among which held-out data choose."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from obverse.imbalance import CrossEntropyLoss, DeferredReweighting, LDAMLoss, LogitAdjustedLoss, group_strengths

Strengths = Literal["uniform", "noise", "density", "both"]
LAMBDAS = {"mnist": (0.3, 1.0, 3.0), "cifar10": (0.03, 0.1, 0.3)}
"""Strengths tried; the larger ones of the digits would harm every class of the color images."""


@dataclass(frozen=True)
class Method:
    """A training method; its ``values`` are those of the setting that ``setting`` names, by default `LAMBDAS`.

    The penalty acts in one of ``every`` steps, that many times as strong.
    """

    setting: str
    values: tuple[float, ...] | None
    strengths: Strengths | None = None
    deferred: bool = False
    cosine: bool = False
    mixup: bool = False
    every: int = 1


METHODS: dict[str, Method] = {
    "ERM": Method("weight decay", (1e-4, 5e-4, 5e-3)),
    "uniform": Method("lambda", None, "uniform"),
    "noise-only": Method("lambda", None, "noise"),
    "density-only": Method("lambda", None, "density"),
    "HAR": Method("lambda", None, "both"),
    "HAR, every 4": Method("lambda", None, "both", every=4),
    "HAR+DRW": Method("lambda", None, "both", deferred=True),
    "LDAM-DRW": Method("margin", (0.1, 0.3, 0.5), deferred=True, cosine=True),
    "logit-adjusted": Method("temperature", (0.5, 1.0, 1.5)),
    "GCE": Method("q", (0.3, 0.5, 0.7)),
    "mixup": Method("alpha", (0.2, 0.5, 1.0), mixup=True),
}


def values_of(name: str, data: str) -> tuple[float, ...]:
    """What is tried of a method."""
    return METHODS[name].values or LAMBDAS[data]


def missing(name: str) -> str | None:
    """Why a method cannot run in this installation, or None."""
    if name == "GCE" and importlib.util.find_spec("obverse.labels") is None:
        return "this installation has no obverse.labels.GeneralizedCrossEntropy"
    return None


def criterion(name: str, value: float, counts: Tensor, start: int) -> nn.Module:
    """The loss of a method at a value of its setting; ``start`` is the epoch of deferred weights."""
    loss: nn.Module = CrossEntropyLoss()
    if name == "LDAM-DRW":
        loss = LDAMLoss(counts, max_margin=value)
    elif name == "logit-adjusted":
        loss = LogitAdjustedLoss(counts, temperature=value)
    elif name == "GCE":
        from obverse.labels import GeneralizedCrossEntropy

        loss = GeneralizedCrossEntropy(q=value)
    return DeferredReweighting(loss, counts, start=start) if METHODS[name].deferred else loss


def strengths(kind: Strengths, error: Tensor, counts: Tensor) -> Tensor:
    """``error^0.6 counts^-0.4`` of each class, or one of the two factors, or neither, divided by the largest."""
    exponents = {"uniform": (0.0, 0.0), "noise": (0.6, 0.0), "density": (0.0, 0.4), "both": (0.6, 0.4)}[kind]
    # Cross-fitting has smoothed the errors.
    return group_strengths(error, counts, exponents, smoothing=0.0).float()


def mixed(inputs: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Inputs mixed with a permutation of themselves, the permutation, and the share of the first."""
    # torch draws no beta variable from a generator.
    seed = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    partner = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    return share * inputs + (1 - share) * inputs[partner], partner, share
