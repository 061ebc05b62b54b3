"""A recipe reads back as it was written, and one line says what is wrong with a bad one."""

from __future__ import annotations

import pytest
import yaml

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.training import Recipe, parse_budget, read_recipe


@pytest.mark.parametrize(
    ("given", "sparsity"),
    [(0.95, 0.95), ("0.95", 0.95), ("95%", 0.95), (" 99.5 % ", 0.995), ("20x", 0.95), ("20X", 0.95), ("1e-1", 0.1)],
)
def test_budgets(given, sparsity):
    assert parse_budget(given) == pytest.approx(sparsity, rel=1e-12)


@pytest.mark.parametrize("given", [0, 1, 1.5, -0.1, "0%", "100%", "1x", "0.5x", "95", "lots", "", True, "nan", "inf"])
def test_budgets_out_of_range(given):
    with pytest.raises(InvalidArgumentError, match="budget"):
        parse_budget(given)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"penalty": "mcp:gamma=3", "face": "reweighted", "budget": "20x", "epochs": 3, "threads": 2},
        {"strength": 1e-4, "optimizer": "sgd", "learning_rate": 0.1, "schedule": "linear"},
        {"data": "x: y #.csv", "target": "null", "penalty": {"name": "log-sum", "parameters": {"epsilon": 0.25}}},
    ],
)
def test_round_trip(tmp_path, fields):
    recipe = Recipe.from_mapping(fields)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"epoch": 3}, "unknown recipe field 'epoch'; did you mean 'epochs'"),
        ({"penalty": {"name": "mcp", "gamma": 3}}, "unknown recipe field 'gamma'"),
        ({"epochs": 0}, "'epochs': must be at least 1; got 0"),
        ({"epochs": "many"}, "'epochs'"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"strength": -1}, "strength"),
        ({"budget": 1.0}, "out of range"),
        ({"budget": None}, "budget .* or a strength"),
        ({"budget": 0.9, "strength": 1e-3}, "not both"),
        ({"face": "prox"}, "unknown face 'prox'.*'proximal'"),
        ({"model": "lenet5"}, "did you mean 'lenet-5'"),
        ({"penalty": "log-sum:epsilon"}, "name:parameter=number"),
        ({"seed": -1}, "seed"),
        ({"validation_fraction": 1}, "validation_fraction"),
    ],
)
def test_errors_are_one_line(fields, match):
    with pytest.raises(InvalidArgumentError, match=match) as caught:
        Recipe.from_mapping(fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "epochs: 1\nseed: 2\nepochs: 3\n",
        "penalty:\n  name: lasso\n  name: mcp\n",
        "a: &a [1, 1]\nb: [*a, *a, *a]\n",
        "epochs: " + "9" * 5000,
        "width: " + "1" * 400,
        "epochs: 2020-13-45",
        "[" * 5000,
        "? [1, 2]\n: 3\n",
        "epochs: true",
        "epochs: .nan",
        "width: 1e9",
        "width: .inf",
        "learning_rate: 1e300",
        "weight_decay: 1e31",
        "strength: 1e31",
        "batch_size: 10000000000",
        "penalty: {name: log-sum, parameters: {epsilon: 1.0e+300}}",
        "penalty: {name: log-sum, parameters: {epsilon: 1.0e-300}}",
        "penalty: {name: log-sum, parameters: {epsilon: .nan}}",
        "labels: {name: adaptive, parameters: {strength: .inf}}",
        'out: "a\\0b"',
        'data: ""',
        "model: ''",
    ],
)
def test_files_with_a_value_that_no_run_can_use(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InvalidArgumentError, match=r"recipe|labels|strength") as caught:
        Recipe.read(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_binary_file_and_a_folder_are_no_recipe(tmp_path):
    (tmp_path / "r.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(InvalidArgumentError, match="not text in UTF-8"):
        Recipe.read(tmp_path / "r.yaml")
    with pytest.raises(InvalidArgumentError, match="cannot read recipe"):
        Recipe.read(tmp_path)


def test_numbers_of_label_options_are_numbers_in_every_notation():
    labels = Recipe.from_mapping({"labels": "adaptive:strength=1e-3,update=average,only_correct=true"}).labels
    assert labels.parameters == {"strength": 1e-3, "update": "average", "only_correct": True}


@pytest.mark.parametrize("value", ["[1", "{a", "1e300", "nan", "*a"])
def test_label_options_that_are_no_plain_value(value):
    with pytest.raises(InvalidArgumentError, match="strength") as caught:
        Recipe.from_mapping({"labels": f"adaptive:strength={value}"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "just text", "", "a: [1, 2", "1: 2", "!!python/object/apply:os.system ['true']", "\x00"]
)
def test_files_that_are_no_recipe(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InvalidArgumentError) as caught:
        Recipe.read(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InvalidArgumentError, match="no such recipe"):
        Recipe.read(tmp_path / "r.yaml")


def test_a_new_goal_replaces_the_old():
    assert Recipe().but(strength=0.1).budget is None
    assert Recipe(budget=None, strength=0.1).but(budget="90%").strength is None
    with pytest.raises(InvalidArgumentError, match="not both"):
        Recipe().but(budget=0.9, strength=0.1)


def test_given_fields_override_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\nbudget: 0.9\n")
    recipe = read_recipe({"epochs": 4}, path)
    assert (recipe.epochs, recipe.budget) == (4, 0.9)
    with pytest.raises(UnknownNameError):
        read_recipe({"model": "nope"}, path)


def test_a_file_does_not_get_to_import_code(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: os:system\n")
    with pytest.raises(InvalidArgumentError, match="--model os:system"):
        read_recipe({}, path)
    assert read_recipe({"model": "os:system"}, path).model == "os:system"


def test_default_folder():
    assert str(Recipe().folder()) == "runs/digits-mlp-log-sum-proximal-0.95"
    assert str(Recipe(data="a/b/some data.csv", budget=None, strength=0.5).folder()) == (
        "runs/some-data-mlp-log-sum-proximal-strength-0.5"
    )


def test_dense_training_has_no_goal():
    recipe = Recipe.from_mapping({"face": "none"})
    assert (recipe.budget, recipe.strength, recipe.penalty) == (None, None, None)
    assert not {"budget", "strength", "penalty"} & set(recipe.numbers())
    assert Recipe.from_mapping(yaml.safe_load(recipe.to_yaml())) == recipe
    assert recipe.but(face="proximal").budget == 0.95
    assert Recipe().but(face="none", width=0.5).folder().name == "digits-mlp-dense-width-0.5"
    for name, value in (("budget", 0.5), ("strength", 1.0), ("penalty", "mcp")):
        with pytest.raises(InvalidArgumentError, match=f"face none trains dense: leave out the {name}"):
            Recipe.from_mapping({"face": "none", name: value})


def test_a_face_with_a_penalty_of_its_own():
    assert Recipe().penalty.name == "log-sum"
    assert Recipe(face="learned-eta").penalty.name == "log-sum"
    own = Recipe().but(face="hard-concrete")
    assert own.penalty is None
    assert own.folder().name == "digits-mlp-hard-concrete-0.95"
    assert own.but(face="reweighted").penalty.name == "log-sum"
    assert Recipe(penalty="mcp").but(face="reweighted").penalty.name == "mcp"


def test_what_is_as_it_always_was_is_not_written():
    # So that checkpoints from before there was a width still belong to their recipes.
    assert "width" not in Recipe().numbers()
    assert Recipe(width=0.5).numbers()["width"] == 0.5
