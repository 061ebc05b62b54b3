"""The package as a user meets it: light imports, typed, and its names where they are promised."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PROMISED = {
    "obverse": ["Sparsifier", "Budget", "Rule", "save", "load"],
    "obverse.penalties": [
        *("Ridge", "Lasso", "Lp", "LogSum", "Log2Sum", "MCP", "SCAD", "CappedL1", "L0", "TargetedDropout", "Standout"),
        *("VariationalDropout", "EmpiricalBayes", "HardConcrete", "ConcreteDropout"),
    ],
    "obverse.dropout": [
        *("Bernoulli", "Gaussian", "Rademacher", "Blocks", "SlidingBlock", "Channel", "Path", "Empirical", "Dropout"),
        *("DropBlock1d", "DropBlock2d", "DropBlock3d", "DropConnect", "DropPath", "explicit_penalty", "diagnose"),
        *("nuclear_norm", "k_support_norm", "spectral_k_support_norm", "insert_dropout", "marginalized", "deep_linear"),
    ],
    "obverse.dropout.deep_linear": [
        *(
            "explicit_regularizer",
            "nuclear_norm_bound",
            "induced_regularizer",
            "global_optimum",
            "equalize",
            "diagnose",
        ),
    ],
    "obverse.compact": [
        *("save", "load", "accelerate", "push_to_folder", "load_from_folder", "export_onnx", "export_program"),
        *("macs", "parameters", "file_bytes", "latency", "Receipt"),
    ],
    "obverse.duality": ["effective_penalty", "adaptive_dropout", "check_subquadratic"],
}


@pytest.mark.parametrize("module", PROMISED)
def test_promised_names_are_there_and_listed(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in PROMISED[module]:
        assert getattr(loaded, name) is not None
        assert name in dir(loaded)
        assert name in loaded.__all__


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_obverse_is_light() -> None:
    loaded = modules_after("import obverse; obverse.__version__; dir(obverse)")
    assert loaded.isdisjoint({"torch", "sklearn", "matplotlib", "datasets", "accelerate", "numpy", "typer"})
    assert modules_after("import obverse.penalties, obverse.duality").isdisjoint(
        {"torch", "sklearn", "matplotlib", "datasets", "accelerate", "optuna"}
    )
    assert modules_after("import obverse.sparsify, obverse.dropout, obverse.compact").isdisjoint(
        {"sklearn", "matplotlib", "datasets", "accelerate", "optuna"}
    )


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    done = subprocess.run([sys.executable, "-m", "obverse.cli", "--help"], capture_output=True, text=True, check=True)
    for command in (
        "sparsify",
        "compare",
        "fit",
        "predict",
        "duality",
        "penalties",
        "dropout",
        "compact",
        "bench",
        "export",
    ):
        assert command in done.stdout
    assert modules_after("import obverse.cli").isdisjoint(
        {"torch", "sklearn", "matplotlib", "datasets", "accelerate", "optuna"}
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    import obverse

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = obverse.nonsense
