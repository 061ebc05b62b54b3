from __future__ import annotations

import re

import pytest
from torch import nn

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.sparsify import Rule
from obverse.sparsify._rules import select

DEFAULT = Rule("*", penalty="log-sum", strength=1.0, groups="weights")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.norm = nn.LayerNorm((4, 4))
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embedding.weight


def names(*rules: Rule) -> list[str]:
    return [selected.name for selected in select(Network(), rules, DEFAULT)]


def test_matrices_outside_normalization_are_taken_and_tied_weights_once() -> None:
    assert names() == ["encoder.0.weight", "encoder.3.weight", "embedding.weight"]
    tied = select(Network(), [], DEFAULT)[-1]
    assert tied.names == ("embedding.weight", "head.weight")
    assert len(tied.owners) == 2


@pytest.mark.parametrize(
    ("match", "left"),
    [
        ("encoder.0.weight", ["encoder.3.weight", "embedding.weight"]),
        ("encoder", ["embedding.weight"]),
        ("encoder.*", ["embedding.weight"]),
        ("head", ["encoder.0.weight", "encoder.3.weight"]),  # by its other name
        (nn.Conv2d, ["embedding.weight"]),
        (re.compile(r"encoder\.3"), ["encoder.0.weight", "embedding.weight"]),
        (["encoder.0", nn.Linear], ["encoder.3.weight"]),
    ],
)
def test_a_rule_leaves_out_what_it_matches(match: object, left: list[str]) -> None:
    assert names(Rule(match, skip=True)) == left  # type: ignore[arg-type]


def test_biases_are_taken_only_when_named_outright() -> None:
    assert "encoder.0.bias" not in names(Rule("encoder.*", strength=2.0))
    assert "encoder.0.bias" in names(Rule("encoder.0.bias", strength=2.0))
    assert "head.bias" in names(Rule("*.bias", strength=2.0))
    assert "head.bias" in names(Rule(re.compile("bias"), strength=2.0))


def test_the_last_rule_decides_and_fills_in_from_the_default() -> None:
    rules = [Rule(nn.Conv2d, strength=2.0), Rule("encoder.3", penalty="lasso")]
    found = {selected.name: selected.rule for selected in select(Network(), rules, DEFAULT)}
    assert (found["encoder.0.weight"].strength, found["encoder.0.weight"].penalty) == (2.0, "log-sum")
    assert (found["encoder.3.weight"].strength, found["encoder.3.weight"].penalty) == (1.0, "lasso")


def test_a_rule_that_matches_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean.*encoder\.0\.weight"):
        names(Rule("encodr.0.weight", skip=True))
    with pytest.raises(InvalidArgumentError, match="matches no parameter"):
        names(Rule(nn.LSTM, skip=True))


def test_frozen_parameters_are_left_alone_and_refused_when_a_rule_wants_only_them() -> None:
    model = Network()
    model.encoder.requires_grad_(False)
    assert [selected.name for selected in select(model, [], DEFAULT)] == ["embedding.weight"]
    with pytest.raises(InvalidArgumentError, match="frozen"):
        select(model, [Rule("encoder", strength=1.0)], DEFAULT)
    model.requires_grad_(False)
    with pytest.raises(InvalidArgumentError, match="nothing to regularize"):
        select(model, [], DEFAULT)


def test_a_rule_has_one_aim() -> None:
    with pytest.raises(InvalidArgumentError, match="not both"):
        Rule("*", budget=0.9, strength=1.0)
