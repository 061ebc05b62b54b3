"""Random labels under activation checkpointing: the gradient belongs to the loss that was shown."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from obverse.errors import StateError
from obverse.labels import DisturbLabel


@pytest.mark.parametrize("own", [False, True], ids=["seed", "generator"])
def test_the_gradient_is_that_of_the_loss(own: bool) -> None:
    torch.manual_seed(0)
    target = torch.randint(5, (40,))

    def criterion() -> DisturbLabel:
        return DisturbLabel(0.5, seed=3, generator=torch.Generator().manual_seed(3) if own else None)

    plain, checked = criterion(), criterion()
    for _ in range(3):
        first = torch.randn(40, 5, requires_grad=True)
        second = first.detach().clone().requires_grad_()
        expected = plain(first, target)
        found = checkpoint(checked, second, target, use_reentrant=False)
        assert found.item() == expected.item()
        expected.backward()
        found.backward()
        assert torch.equal(first.grad, second.grad)
    assert plain.calls == checked.calls


def test_a_first_pass_without_gradients_is_refused() -> None:
    logits = torch.randn(40, 5, requires_grad=True)
    target = torch.randint(5, (40,))
    shown = checkpoint(DisturbLabel(0.5, generator=torch.Generator()), logits, target, use_reentrant=True)
    with pytest.raises(StateError, match="gradient would belong to other noise"):
        shown.backward()
