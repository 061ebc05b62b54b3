"""DropConnect: masks on the weights of a layer, drawn for every example."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from .._core.checks import count
from .._core.recomputation import repeatable
from .._core.text import brief
from ..errors import InvalidArgumentError, StateError, WrongTypeError
from ._connect import Connect
from ._noise import NoiseLayer, drop_probability, known_name, names_of_shares
from ._schedule import Schedule
from ._weighted import Affine, affine_of

__all__ = ["DropConnect"]

_INFERENCES = ("mean", "moments")


class DropConnect(NoiseLayer):
    """A linear layer or convolution whose weights are dropped in training, example by example.

    Parameters
    ----------
    module : torch.nn.Linear, torch.nn.Conv1d, Conv2d or Conv3d, optional
        The layer. Its parameters are taken over under their own names, ``weight`` and ``bias``, so that state dicts
        fit with and without DropConnect. None is for `insert_dropout`, which attaches it to a layer of a model.
    p : float
        Probability that a weight is dropped, in [0, 1).
    mode : {"weights", "local", "deterministic"}
        In training ``"weights"`` masks weights; ``"local"`` draws each pre-activation from the normal law of the same
        mean and variance ``lam sum_j W_ij^2 v_j^2``: the same expected squared loss at the cost of two ordinary passes
        and one random number per output. Positions of a convolution or sequence then have independent noise, where
        a mask of weights is one for all positions of an example; with a generator it is not for `torch.compile`.
        ``"deterministic"`` is without noise, for an objective whose penalty stands in for it; see `marginalized`.
    inference : {"mean", "moments"}
        Evaluation with the mean weights, or, as Wan et al. do, the mean of ``activation`` over pre-activations drawn
        from the normal law just named.
    activation : callable, optional
        Applied to the output in training and evaluation alike; needed for ``"moments"``, which averages behind it.
    samples : int
        Draws of ``"moments"``.
    bias : bool
        Whether the bias is dropped as well, as Wan et al. have it.
    share : {(), "batch"}
        ``"batch"``: one mask for all examples, the cheapest, with the most variance in the gradient.
    schedule, generator
        See `NoiseLayer`.

    Raises
    ------
    InvalidArgumentError
        Another kind of module, ``p`` out of range, ``"moments"`` without an activation.

    Notes
    -----
    Output ``(Z o W) v + b`` with entries of ``Z`` zero or ``1 / (1 - p)``: dropped weights are made up for in
    training, so that evaluation takes the weights as they are. Source: Wan et al. (2013), "Regularization of neural
    networks using DropConnect"; the local draw: derived (theory note, section 7), after the local reparametrization
    of Kingma, Salimans and Welling (2015). In the deterministic mode the penalty is that of the local draw, which
    is exact for inputs (N, d).

    A linear layer takes (d,), (N, d) or (N, positions, d), where all positions of an example share a mask.
    """

    modes = ("weights", "local", "deterministic")
    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(
        self,
        module: nn.Module | None = None,
        p: float = 0.5,
        *,
        mode: str = "weights",
        inference: str = "mean",
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        samples: int = 100,
        bias: bool = False,
        share: str | tuple[str, ...] = (),
        schedule: Schedule | int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        rate = drop_probability(p)
        known_name("inference", inference, _INFERENCES)
        if inference == "moments" and activation is None:
            raise InvalidArgumentError(
                "inference='moments' averages what follows an activation: give activation=..., such as torch.relu"
            )
        samples = count("samples", samples)
        if activation is not None and not callable(activation):
            raise WrongTypeError(f"activation must be callable, got {brief(activation)}")
        if "channel" in names_of_shares(share):
            raise InvalidArgumentError("weights have no channels to share a mask; share may be 'batch' or ()")
        affine = None if module is None else affine_of(module)
        super().__init__(Connect(1.0 - rate), rate, share=share, schedule=schedule, generator=generator, mode=mode)
        self.inference = inference
        self.activation = activation
        self.samples = samples
        self.masks_bias = bias
        self._affine = affine
        if module is None:
            self.weight = self.bias = None
        else:
            if not isinstance(module.weight, nn.Parameter):
                raise InvalidArgumentError(
                    "the layer's weight is computed, by a parametrization perhaps, and cannot be taken over; leave the "
                    "layer in its model and attach DropConnect with insert_dropout"
                )
            self.weight = module.weight
            self.register_parameter("bias", module.bias)  # type: ignore[arg-type]
        self.train(module.training if module is not None else True)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The layer's output, (N, K, ...): with noise in training."""
        if self._affine is None or self.weight is None:
            raise StateError("this DropConnect has no layer: give it one, DropConnect(nn.Linear(...)), or insert it")
        output = self.of(self._affine, input, self.weight, self.bias, None)
        return output if self.activation is None or self._averages else self.activation(output)

    def attached(self, module: nn.Module, input: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output that a layer of a model has with noise, given the one without."""
        return self.of(affine_of(module), input, module.weight, module.bias, output)  # type: ignore[arg-type]

    def check(self, module: nn.Module) -> None:
        """Raise where this cannot be attached to a layer of a model."""
        affine_of(module)
        if self._affine is not None:
            raise InvalidArgumentError("this DropConnect has a layer of its own; insert DropConnect(p=...)")
        if self.activation is not None:
            raise InvalidArgumentError(
                "an activation belongs to the model where DropConnect is inserted; for inference='moments' build the "
                "model with DropConnect(nn.Linear(...), activation=...)"
            )

    @property
    def _averages(self) -> bool:
        return not self.training and self.inference == "moments" and not self.silent

    def of(
        self,
        affine: Affine,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        plain: torch.Tensor | None,
    ) -> torch.Tensor:
        """The output from input and parameters; ``plain`` is the one without noise where it is known."""
        noisy = self.training and not self.silent
        if noisy and not self.deterministic and self.mode == "weights":
            return self._masked(affine, input, weight, bias)
        if plain is None:
            plain = affine(input, weight, bias)
        if noisy and self.deterministic:
            variance = self._variance(affine, input, weight, bias) if self.recorder is not None else None

            def measure(gradient: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
                assert variance is not None
                terms = gradient.square() * variance
                return terms.flatten(1).sum(1) if affine.batched(input) else terms.sum().unsqueeze(0)

            return self.keep(plain, measure)
        if noisy or self._averages:
            deviation = _root(self._variance(affine, input, weight, bias)).to(plain.dtype)
            if noisy:
                return plain + deviation * self._normal(plain)
            assert self.activation is not None
            total = self.activation(plain + deviation * self._normal(plain))
            for _ in range(self.samples - 1):
                total = total + self.activation(plain + deviation * self._normal(plain))
            return total / self.samples
        return plain

    def _masked(
        self, affine: Affine, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        batched = affine.batched(input)
        x = input if batched else input.unsqueeze(0)
        if "batch" in self.share or len(x) == 0:
            own = None if bias is None else bias * self._mask(1, bias)[0]
            return affine(input, weight * self._mask(1, weight)[0], own)
        weights = weight * self._mask(len(x), weight)
        biases = None if bias is None else (bias * self._mask(len(x), bias)).expand(len(x), -1)
        output = affine.each(x, weights, biases)
        return output if batched else output.squeeze(0)

    def _mask(self, rows: int, parameter: torch.Tensor) -> torch.Tensor:
        if parameter.dim() == 1 and not self.masks_bias:
            return torch.ones_like(parameter).unsqueeze(0)
        return self.draw((rows, *parameter.shape), parameter)

    def draw_now(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """A mask of weights; who shares it is settled by how many are drawn."""
        return self.law.sample(shape, self.generator, dtype=like.dtype, device=like.device)

    def _variance(
        self, affine: Affine, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """``lam (W o W)(v o v)``, plus ``lam b o b`` where the bias is masked."""
        squared_bias = bias.square() if bias is not None and self.masks_bias else None
        if input.dtype == torch.float16 or torch.is_autocast_enabled(input.device.type):
            # Squares leave the range of half precision long before the values do.
            with torch.autocast(input.device.type, enabled=False):
                wide = None if squared_bias is None else squared_bias.float()
                power = affine(input.float().square(), weight.float().square(), wide)
        else:
            power = affine(input.square(), weight.square(), squared_bias)
        return power * (self.drop_rate / (1.0 - self.drop_rate))

    def _normal(self, like: torch.Tensor) -> torch.Tensor:
        if self.generator is None:
            return torch.randn_like(like)
        with repeatable(self.generator):
            drawn = torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=self.generator.device)
        return drawn.to(like.device)

    def extra_repr(self) -> str:
        """The layer's sizes and the arguments that differ from their defaults."""
        shown = [] if self.weight is None else [f"weight={tuple(self.weight.shape)}"]
        shown.append(super().extra_repr())
        if self.inference != "mean":
            shown.append(f"inference={self.inference!r}, samples={self.samples}")
        if self.masks_bias:
            shown.append("bias=True")
        return ", ".join(shown)


def _root(power: torch.Tensor) -> torch.Tensor:
    """The square root with slope zero, not infinity, at zero, where there is no noise either."""
    return torch.where(power > 0, power, 1.0).sqrt() * (power > 0)
