"""One count of zeros in lines, table, page and record, and what there is to say of a budget in all of them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from obverse import cli
from obverse.errors import InvalidArgumentError
from obverse.training import Recipe, run_recipe
from obverse.training._comparison import cell_result


def call(fields):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    return CliRunner().invoke(cli.app, ["sparsify", *options], catch_exceptions=True)


@pytest.mark.parametrize("groups", ["weights", "units", "inputs", "channels"])
def test_lines_table_page_and_record_agree(quick, tmp_path, groups):
    result = call(quick(groups=groups, budget="60%"))
    assert result.exit_code == 0, result.output
    (run,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["runs"]
    share = f"{run['sparsity']:.2%}"
    lines = [line for line in result.output.splitlines() if "epoch 6/6" in line]
    assert f"sparsity {share} " in lines[0]
    assert share in result.output.split("epoch 6/6")[1].split("finetune")[1]  # the table
    assert run["trajectory"][-1]["sparsity"] == pytest.approx(run["sparsity"], abs=1e-12)
    assert run["history"][-1]["sparsity"] == pytest.approx(run["sparsity"], abs=1e-12)
    assert f"{run['size']['nonzero']:,} of " in (tmp_path / "out" / "report.html").read_text()
    weights, nonzero = (sum(layer[key] for layer in run["layers"]) for key in ("weights", "nonzero"))
    assert run["sparsity"] == 1 - nonzero / weights
    assert 0 < weights <= run["parameters"]
    assert 0 < run["size"]["bitmask_bytes"] < run["size"]["dense_bytes"]


def test_a_comparison_counts_matrices_whatever_falls(quick):
    metrics = run_recipe(Recipe.from_mapping(quick(groups="channels", budget=0.6)))
    (run,) = metrics["runs"]
    matrices = 6 * 128 + 128 * 64 + 64 * 3
    result = cell_result(metrics, matrices, matrices)
    # Units that fall take biases with them, which are no entries of matrices.
    zeros = sum(layer["weights"] - layer["nonzero"] for layer in run["layers"])
    assert 0 < result["weights"] == matrices - run["zero_weights"]
    assert run["zero_weights"] < zeros


def test_a_budget_below_one_weight_in_every_layer_is_one_line(quick, tmp_path):
    result = call(quick(budget="100000x"))
    assert isinstance(result.exception, InvalidArgumentError)
    assert "cannot be met beyond a sparsity of 0.9997" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_weights_without_a_path_are_in_lines_record_and_page(quick, tmp_path):
    result = call(quick(data="digits", batch_size=128, budget="1500x"))
    assert result.exit_code == 0, result.output
    (run,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["runs"]
    (note,) = run["notes"]
    assert "has a path to the output" in note
    assert note in result.output.replace("\n", "")
    assert "has a path to the output" in (tmp_path / "out" / "report.html").read_text()
