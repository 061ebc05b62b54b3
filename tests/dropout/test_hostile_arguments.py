"""Every public function gives a finite result for hostile arguments, or refuses them in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import obverse.dropout as dropout
from obverse.dropout import deep_linear
from obverse.errors import InvalidArgumentError, ObverseError

NAN, INF = float("nan"), float("inf")
C, M = np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])
W = [np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])]

ARRAYS: dict[str, Any] = {
    "nan": np.array([[1.0, NAN], [0.0, 1.0]]),
    "infinite": np.array([[1.0, -INF], [0.0, 1.0]]),
    "tensor-of-nan": torch.full((2, 2), NAN),
    "empty": np.zeros(0),
    "no-rows": np.zeros((0, 2)),
    "no-columns": np.zeros((2, 0)),
    "nothing": np.zeros((0, 0)),
    "one-row": np.ones((1, 2)),
    "complex": M * 1j,
    "complex-tensor": torch.ones(2, 2, dtype=torch.complex64),
    "text": np.array([["a", "b"], ["c", "d"]]),
    "word": "abc",
    "none": None,
    "object": object(),
    "ragged": [[1, 2], [3]],
    "number": 1.0,
    "too-many-axes": np.ones((2, 2, 2)),
    "whole": np.ones((2, 2), dtype=int),
    "half": torch.ones(2, 2, dtype=torch.float16),
    "huge": np.full((2, 2), 1e300),
    "tiny": np.full((2, 2), 1e-300),
    "zero": np.zeros((2, 2)),
}
NUMBERS: dict[str, Any] = {
    "negative": -0.5,
    "large": 1.5,
    "nan": NAN,
    "infinite": INF,
    "zero": 0.0,
    "word": "half",
    "none": None,
    "complex": 1j,
    "truth": True,
    "object": object(),
    "array-with-nan": np.array([0.5, NAN]),
    "empty": np.zeros(0),
    "list": [0.5, 0.5, 0.5],
    "text": ARRAYS["text"],
    "complex-array": ARRAYS["complex"],
}
COUNTS: dict[str, Any] = {
    "negative": -1,
    "zero": 0,
    "fraction": 1.5,
    "nan": NAN,
    "word": "2",
    "none": None,
    "truth": True,
    "array": np.array([1, 2]),
    "list": [2, 0],
    "numpy": np.int64(2),
}
WEIGHTS = {**ARRAYS, **{f"first-{name}": [bad, W[1]] for name, bad in ARRAYS.items()}, "no-layer": []}
WEIGHTS |= {f"last-{name}": [W[0], bad] for name, bad in ARRAYS.items()} | {"no-units": [W[0][:0], W[1][:, :0]]}
PROBLEM = {"weights": (WEIGHTS, W), "keep_probability": (NUMBERS, 0.5), "covariance": (ARRAYS, C)}
VECTOR = {"vector": (ARRAYS, M), "k": (COUNTS, 1)}
MATRIX = {"matrix": (ARRAYS, M)}
SIZES = {"singular_values": (ARRAYS, [2.0, 1.0]), "depth": (COUNTS, 1)}
WIDTHS = {**SIZES, "widths": (COUNTS, 2)}
MODEL = nn.Sequential(nn.Linear(2, 3), dropout.Dropout(0.5), nn.Linear(3, 2))

# The arguments of every public function: what is tried, and a value that is right.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, tuple[dict[str, Any], Any]]]] = {
    "k_support_norm": (dropout.k_support_norm, VECTOR),
    "k_support_dual_norm": (dropout.k_support_dual_norm, VECTOR),
    "k_support_gradient": (dropout.k_support_gradient, VECTOR),
    "k_support_prox": (dropout.k_support_prox, {**VECTOR, "step": (NUMBERS, 0.5)}),
    "nuclear_norm": (dropout.nuclear_norm, MATRIX),
    "nuclear_dual_norm": (dropout.nuclear_dual_norm, MATRIX),
    "nuclear_gradient": (dropout.nuclear_gradient, MATRIX),
    "nuclear_prox": (dropout.nuclear_prox, {**MATRIX, "step": (NUMBERS, 0.5)}),
    "spectral_k_support_norm": (dropout.spectral_k_support_norm, {**MATRIX, "k": (COUNTS, 1)}),
    "spectral_k_support_dual_norm": (dropout.spectral_k_support_dual_norm, {**MATRIX, "k": (COUNTS, 1)}),
    "spectral_k_support_gradient": (dropout.spectral_k_support_gradient, {**MATRIX, "k": (COUNTS, 1)}),
    "spectral_k_support_prox": (
        dropout.spectral_k_support_prox,
        {**MATRIX, "k": (COUNTS, 1), "step": (NUMBERS, 0.5)},
    ),
    "explicit_penalty": (
        dropout.explicit_penalty,
        {
            "head": (ARRAYS, torch.tensor(M)),
            "features": (ARRAYS, torch.tensor(M)),
            "law": (NUMBERS, dropout.Bernoulli(0.5)),
            "loss": (COUNTS, "squared"),
            "form": (COUNTS, "auto"),
            "samples": (COUNTS, 1),
            "units": (COUNTS, None),
            "generator": (NUMBERS, None),
        },
    ),
    "marginalized": (
        dropout.marginalized,
        {
            "model": (ARRAYS, MODEL),
            "loss": (ARRAYS, "squared"),
            "form": (COUNTS, "auto"),
            "samples": (COUNTS, 1),
            "generator": (NUMBERS, None),
        },
    ),
    "insert_dropout": (
        lambda model, rules: dropout.insert_dropout(model, rules).remove(),
        {"model": (ARRAYS, MODEL), "rules": (ARRAYS, {"0": dropout.Dropout(0.5)})},
    ),
    "inserted_dropout": (dropout.inserted_dropout, {"model": (ARRAYS, None)}),
    "follow": (
        dropout.follow,
        {"layers": ({"none": None, "number": 1.0, "word": "abc"}, MODEL), "optimizer": (ARRAYS, None)},
    ),
    "diagnose": (
        lambda x, y, **options: dropout.diagnose(nn.Linear(2, 2), (x, y), **options),
        {
            "x": (ARRAYS, torch.ones(2, 2)),
            "y": (ARRAYS, torch.ones(2, 2)),
            "keep_probability": (NUMBERS, 0.5),
            "max_examples": (COUNTS, None),
            "generator": (NUMBERS, None),
        },
    ),
    "explicit_regularizer": (deep_linear.explicit_regularizer, PROBLEM),
    "drop_path_moment": (
        deep_linear.drop_path_moment,
        {"moment": (ARRAYS, C), "branch": (ARRAYS, M), "keep_probability": (NUMBERS, 0.5)},
    ),
    "nuclear_norm_bound": (deep_linear.nuclear_norm_bound, PROBLEM),
    "schatten_bound": (deep_linear.schatten_bound, PROBLEM),
    "mask_bound": (
        deep_linear.mask_bound,
        {"product": (ARRAYS, M), "mask_covariance": (ARRAYS, C), "covariance": (ARRAYS, C)},
    ),
    "sliding_block_bound": (
        deep_linear.sliding_block_bound,
        {
            "product": (ARRAYS, M),
            "seed_probability": (NUMBERS, 0.5),
            "block_size": (COUNTS, 1),
            "width": (COUNTS, 2),
        },
    ),
    "deep_linear.diagnose": (deep_linear.diagnose, {**PROBLEM, "cross_covariance": (ARRAYS, M)}),
    "equalize": (deep_linear.equalize, PROBLEM),
    "equalizing_rotation": (deep_linear.equalizing_rotation, {"matrix": (ARRAYS, C)}),
    "objective": (
        deep_linear.objective,
        {**PROBLEM, "cross_covariance": (ARRAYS, M), "target_second_moment": (ARRAYS, 50.0)},
    ),
    "gradient": (deep_linear.gradient, {**PROBLEM, "cross_covariance": (ARRAYS, M)}),
    "global_optimum": (
        deep_linear.global_optimum,
        {
            "covariance": (ARRAYS, C),
            "cross_covariance": (ARRAYS, M),
            "target_second_moment": (ARRAYS, 50.0),
            "keep_probability": (NUMBERS, 0.5),
            "widths": (COUNTS, 2),
            "block_size": (COUNTS, 1),
        },
    ),
    "induced_regularizer": (
        deep_linear.induced_regularizer,
        {
            "product": (ARRAYS, M),
            "keep_probability": (NUMBERS, 0.5),
            "widths": (COUNTS, 2),
            "covariance": (ARRAYS, C),
            "block_size": (COUNTS, 1),
        },
    ),
    "phases": (deep_linear.phases, {**WIDTHS, "block_size": (COUNTS, 1)}),
    "predicted_ranks": (
        deep_linear.predicted_ranks,
        {**WIDTHS, "keep_probabilities": (NUMBERS, [0.5]), "block_size": (COUNTS, 1)},
    ),
    "rank_one_keep_probability": (deep_linear.rank_one_keep_probability, WIDTHS),
    "spectrum_summary": (
        deep_linear.spectrum_summary,
        {
            **SIZES,
            "width": (COUNTS, 2),
            "block_size": (COUNTS, 1),
            "keep": ({"negative": [-1.0], "nan": [NAN], "word": "half"}, [0.5]),
        },
    ),
    "second_moments": (deep_linear.second_moments, {"inputs": (ARRAYS, M), "targets": (ARRAYS, M)}),
}
LAWS: dict[str, tuple[Callable[..., Any], dict[str, tuple[dict[str, Any], Any]]]] = {
    **{
        name: (getattr(dropout, name), {"keep_probability": (NUMBERS, 0.5)})
        for name in ("Bernoulli", "Channel", "Path", "Connect", "Gaussian", "Rademacher")
    },
    "Blocks": (dropout.Blocks, {"keep_probability": (NUMBERS, 0.5), "block_size": (COUNTS, 2)}),
    "SlidingBlock": (
        dropout.SlidingBlock,
        {"block_size": (COUNTS, 2), "drop_rate": (NUMBERS, 0.5), "dims": (COUNTS, 2), "seeds": (COUNTS, "valid")},
    ),
    "Empirical": (dropout.Empirical, {"samples": (ARRAYS, M)}),
    "mean": (dropout.Bernoulli(0.5).mean, {"shape": (COUNTS, (2, 2))}),
    "covariance": (dropout.Channel(0.5).covariance, {"shape": (COUNTS, (2, 2)), "share": (COUNTS, ())}),
    "quadratic_form": (dropout.Blocks(0.5, 2).quadratic_form, {"values": (ARRAYS, M), "share": (COUNTS, ())}),
    "hadamard": (dropout.SlidingBlock(2, drop_rate=0.2, dims=1).hadamard, {"matrix": (ARRAYS, M)}),
    "window_bound": (dropout.SlidingBlock(2, drop_rate=0.2, dims=1).window_bound, {"values": (ARRAYS, M)}),
    "second_moment": (dropout.Connect(0.5).second_moment, {"weight": (ARRAYS, M), "moment": (ARRAYS, C)}),
    "output_variance": (dropout.Connect(0.5).output_variance, {"weight": (ARRAYS, M), "inputs": (ARRAYS, M)}),
    "with_rate": (dropout.Gaussian(0.5).with_rate, {"drop_rate": (NUMBERS, 0.3)}),
    "sample": (
        dropout.Bernoulli(0.5).sample,
        {"shape": (COUNTS, (3, 2)), "generator": (NUMBERS, None), "dtype": (COUNTS, None), "scale": (COUNTS, "none")},
    ),
}
NAMED = {"share": (COUNTS, ()), "scale": (COUNTS, "marginal"), "mode": (COUNTS, "noise"), "schedule": (NUMBERS, None)}
LAYERS: dict[str, tuple[Callable[..., Any], dict[str, tuple[dict[str, Any], Any]]]] = {
    "Dropout": (
        dropout.Dropout,
        {"p": (NUMBERS, 0.5), "noise": (COUNTS, "bernoulli"), "generator": (NUMBERS, None), **NAMED},
    ),
    "DropPath": (dropout.DropPath, {"p": (NUMBERS, 0.5), **NAMED}),
    **{
        name: (getattr(dropout, name), {"p": (NUMBERS, 0.5), "block_size": (COUNTS, 2), "gamma": (COUNTS, "exact")})
        for name in ("DropBlock1d", "DropBlock2d", "DropBlock3d")
    },
    "DropConnect": (
        dropout.DropConnect,
        {
            "module": (ARRAYS, nn.Linear(2, 2)),
            "p": (NUMBERS, 0.5),
            "samples": (COUNTS, 3),
            "share": (COUNTS, ()),
            "inference": (COUNTS, "mean"),
            "activation": (COUNTS, None),
        },
    ),
    "MaskLayer": (dropout.MaskLayer, {"law": (NUMBERS, dropout.Bernoulli(0.5)), "p": (NUMBERS, 0.5)}),
    "LinearSchedule": (dropout.LinearSchedule, {"steps": (COUNTS, 2), "begin": (COUNTS, 1)}),
    "CosineSchedule": (dropout.CosineSchedule, {"steps": (COUNTS, 2), "begin": (COUNTS, 1)}),
}
ALL = {**FUNCTIONS, **LAWS, **LAYERS}
# Not functions of arguments, or made by functions that are tried.
OTHERS = {"ConstantSchedule", "InsertedDropout", "MaskLaw", "Marginalized", "ModelDiagnosis", "NoiseLayer", "Schedule"}
# Tried by the command line's tests.
FILES = {"singular_values_of_file", "swept_spectrum"}
RESULTS = {"Diagnosis", "GlobalOptimum", "InducedRegularizer", "MaskBound", "NuclearNormBound", "Phase"}


def is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, (np.ndarray, np.generic, float)):
        return bool(np.isfinite(value).all())
    if isinstance(value, (tuple, list)):
        return all(map(is_finite, value))
    if is_dataclass(value):  # a ratio to nothing is NaN by definition, as is what no relaxation has
        kept = (field.name for field in fields(value) if field.name not in ("ratio", "relaxed_keep_probability"))
        return all(is_finite(getattr(value, name)) for name in kept)
    return True


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, (_, arguments) in ALL.items() for argument in arguments]
)
def test_a_finite_result_or_one_line(name: str, argument: str) -> None:
    function, arguments = ALL[name]
    right = {key: value for key, (_, value) in arguments.items()}
    for what, bad in arguments[argument][0].items():
        try:
            result = function(**{**right, argument: bad})
        except ObverseError as error:
            said, result = str(error), None
        else:
            said = "a message of one line"
        assert is_finite(result), (what, result)
        assert "\n" not in said, (what, said)
        assert 10 < len(said) < 400, (what, said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_complex_numbers_and_text_are_never_accepted(name: str) -> None:
    function, arguments = FUNCTIONS[name]
    right = {key: value for key, (_, value) in arguments.items()}
    for argument, (tried, _) in arguments.items():
        for what in {"nan", "infinite", "complex", "complex-tensor", "text", "word"} & set(tried):
            with pytest.raises(ObverseError, match=r"."):
                function(**{**right, argument: tried[what]})


def test_every_public_name_is_tried() -> None:
    names = set(dropout.__all__) - {"deep_linear"}
    assert names - set(ALL) == OTHERS
    assert set(deep_linear.__all__) - set(ALL) == RESULTS | FILES


def test_what_is_said() -> None:
    for call in (
        lambda: deep_linear.induced_regularizer(np.full((2, 2), NAN), 0.5, 2),
        lambda: dropout.nuclear_norm(np.full((2, 2), NAN)),
    ):
        with pytest.raises(InvalidArgumentError, match="must be finite"):
            call()
    with pytest.raises(InvalidArgumentError, match="at least one weight layer"):
        deep_linear.nuclear_norm_bound(np.zeros((0, 2)), 0.5)
    with pytest.raises(InvalidArgumentError, match="layer 1 has no units"):
        deep_linear.nuclear_norm_bound(WEIGHTS["no-units"], 0.5)
    with pytest.raises(InvalidArgumentError, match="real numbers"):
        deep_linear.second_moments(M * 1j, M)
    with pytest.raises(InvalidArgumentError, match="overflow"):
        deep_linear.explicit_regularizer([1e300 * M, W[1]], 0.5)


def test_edges_have_their_values() -> None:
    assert deep_linear.nuclear_norm_bound([W[0], W[1][:0]], 0.5).value == 0
    assert deep_linear.explicit_regularizer([W[0], W[1][:0]], 0.5) == 0
    assert deep_linear.induced_regularizer(M[:0], 0.5, 2).value == 0
    assert dropout.nuclear_norm(M[:0]) == dropout.k_support_norm(np.zeros(0), 1) == 0
    assert dropout.nuclear_norm(M[:1]) == pytest.approx(np.sqrt(5))
