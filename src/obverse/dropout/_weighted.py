"""What a linear layer or convolution computes, as a function of its input and of weights that are not its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InvalidArgumentError

__all__ = ["Affine", "affine_of"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Affine:
    """A linear map (``dims = 0``) or a convolution over ``dims`` axes."""

    dims: int
    stride: tuple[int, ...] = ()
    padding: Any = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    # Padding by other values than zeros, done beforehand: mode and widths as `torch.nn.functional.pad` takes them.
    padding_mode: str = "zeros"
    pads: tuple[int, ...] = ()

    def batched(self, input: torch.Tensor) -> bool:
        """Whether the first axis counts examples."""
        return input.dim() > 1 if self.dims == 0 else input.dim() == self.dims + 2

    def __call__(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The output with the same weights for all examples."""
        if self.dims == 0:
            return F.linear(input, weight, bias)
        return self._convolve(self._padded(input), weight, bias, self.groups)

    def each(self, input: torch.Tensor, weights: torch.Tensor, biases: torch.Tensor | None) -> torch.Tensor:
        """The output with weights (N, *weight) and biases (N, K) of each example's own.

        Linear maps are a batched product, convolutions one grouped convolution with the examples as groups.
        """
        examples = len(input)
        if self.dims == 0:
            rows = input.reshape(examples, -1, input.shape[-1])
            output = torch.bmm(rows, weights.to(rows.dtype).transpose(1, 2))
            if biases is not None:
                output = output + biases.unsqueeze(1)
            return output.reshape(*input.shape[:-1], output.shape[-1])
        x = self._padded(input)
        merged = x.reshape(1, examples * x.shape[1], *x.shape[2:])
        output = self._convolve(
            merged, weights.flatten(0, 1), None if biases is None else biases.flatten(), examples * self.groups
        )
        return output.reshape(examples, -1, *output.shape[2:])

    def _padded(self, input: torch.Tensor) -> torch.Tensor:
        return input if self.padding_mode == "zeros" else F.pad(input, self.pads, mode=self.padding_mode)

    def _convolve(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
    ) -> torch.Tensor:
        padding = self.padding if self.padding_mode == "zeros" else 0
        output: torch.Tensor = _FUNCTIONS[self.dims](
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            groups,
        )
        return output


def affine_of(module: nn.Module) -> Affine:
    """What a module computes; raises where it is neither linear nor a convolution."""
    if isinstance(module, nn.Linear):
        return Affine(0)
    if isinstance(module, _CONVOLUTIONS):
        return Affine(
            len(module.kernel_size),
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            module.padding_mode,
            tuple(module._reversed_padding_repeated_twice),
        )
    raise InvalidArgumentError(
        f"DropConnect takes torch.nn.Linear, Conv1d, Conv2d or Conv3d, got {type(module).__name__}"
    )
