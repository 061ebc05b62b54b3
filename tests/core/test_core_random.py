"""Seeds: an integer, a torch generator and a NumPy generator mean the same in every function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from obverse._core import random
from obverse.errors import InvalidArgumentError


def draws(generator: Any) -> list[float]:
    if isinstance(generator, torch.Generator):
        return torch.rand(3, generator=generator).tolist()
    return list(generator.random(3))


@pytest.mark.parametrize("make", [random.torch_generator, random.numpy_generator])
def test_integers_begin_anew_and_generators_move_on(make: Any) -> None:
    assert draws(make(3)) == draws(make(3)) == draws(make(np.int64(3)))
    assert draws(make(3)) != draws(make(4))
    for build in (np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)):
        one, other = build(1), build(1)
        first = draws(make(one))
        assert draws(make(one)) != first
        assert draws(make(other)) == first


def test_the_given_generator_is_drawn_from_itself() -> None:
    torch_one, numpy_one = torch.Generator(), np.random.default_rng(0)
    assert random.torch_generator(torch_one) is torch_one
    assert random.numpy_generator(numpy_one) is numpy_one
    assert draws(random.numpy_generator(None)) != draws(random.numpy_generator(None))


def test_a_seed_number_does_not_depend_on_what_was_drawn() -> None:
    generator, other = torch.Generator().manual_seed(7), np.random.default_rng(7)
    before = random.seed_number(generator), random.seed_number(other)
    draws(generator)
    draws(other)
    assert (random.seed_number(generator), random.seed_number(other)) == before
    assert random.seed_number(7) == before[0] == 7
    assert 0 <= before[1] < 2**63


@pytest.mark.parametrize("function", [random.seed_number, random.torch_generator, random.numpy_generator])
@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", [1], np.zeros((30, 30))], ids=lambda seed: str(seed)[:8])
def test_all_else_is_refused_in_one_line(function: Any, seed: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^seed must be an integer of at least 0[^\n]{1,250}$"):
        function(seed)


def test_derived_seeds_differ_in_every_number_and_are_seeds() -> None:
    parts = [(seed, step, call) for seed in (0, 1, 2**62) for step in range(20) for call in range(20)]
    found = {random.derive(*part) for part in parts}
    assert len(found) == len(parts)
    assert all(0 <= number < 2**62 for number in found)
    # One bit more in any number changes about half of the bits.
    for place in range(3):
        flips = []
        for part in parts:
            moved = list(part)
            moved[place] ^= 1
            flips.append(bin(random.derive(*part) ^ random.derive(*moved)).count("1"))
        assert 28 < sum(flips) / len(flips) < 34
    assert random.derive(1, 2) != random.derive(2, 1)
