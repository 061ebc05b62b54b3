"""Random graphs with random dead units: always equal, never larger, nothing left for a second time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from obverse import compact
from obverse.compact import parameters


class _Chain(nn.Module):
    """Linear layers with random activations; some add or concatenate what came before."""

    def __init__(self, widths: list[int], links: list[str]) -> None:
        super().__init__()
        self.links = links
        layers, size = [], 4
        for width, link in zip(widths, links, strict=True):
            width = size if link == "add" else width
            layers.append(nn.Linear(size, width))
            size = size + width if link == "cat" else width
        self.layers, self.head = nn.ModuleList(layers), nn.Linear(size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, link in enumerate(self.links):
            y = self.layers[index](x)
            y = torch.tanh(y) if index % 2 else torch.relu(y)
            x = x + y if link == "add" else torch.cat([x, y], -1) if link == "cat" else y
        return self.head(x)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 7), min_size=4, max_size=4),
    links=st.lists(st.sampled_from(["plain", "add", "cat"]), min_size=4, max_size=4),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_random_graphs(widths, links, share, seed):
    generator = torch.Generator().manual_seed(seed)
    model = _Chain(widths, links)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            for axis in range(parameter.ndim) if parameter.ndim > 1 else ():
                dead = torch.rand(parameter.shape[axis], generator=generator) < share
                parameter.index_fill_(axis, dead.nonzero()[:, 0], 0.0)
    inputs = torch.randn(3, 4, generator=generator)
    small, certificate = compact(model, inputs)
    assert not any("refused" in note for note in certificate.notes), str(certificate)
    assert parameters(small) <= parameters(model)
    assert compact(small, inputs)[1].changes == []
