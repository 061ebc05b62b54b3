"""Label criteria in runs: they train, resume, share processes, and read texts; calibration is on the record."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interruptions import StopAt, same_result
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from obverse import cli
from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.labels import label_criteria
from obverse.training import (
    Batches,
    InterruptedRunError,
    Recipe,
    _confidence,
    build_model,
    read_source,
    results_table,
    run_recipe,
)
from obverse.training._checkpoint import read_json
from obverse.training._words import TOKENS, encode_words

Fields = Callable[..., dict[str, Any]]

WORDS = {
    "sea": ["wave", "boat", "tide", "anchor", "sail", "harbor", "gull", "salt", "current", "reef"],
    "sky": ["cloud", "wind", "star", "moon", "plane", "bird", "rain", "thunder", "comet", "dusk"],
    "soil": ["root", "seed", "worm", "clay", "field", "plough", "stone", "harvest", "mole", "fern"],
}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sentences of five words, four of which tell their class."""
    generator = torch.Generator().manual_seed(0)
    file = tmp_path / "texts.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["title", "body", "label"])
        for row in range(300):
            name = list(WORDS)[row % 3]
            picks = torch.randint(10, (4,), generator=generator).tolist()
            other = list(WORDS)[(row + 1) % 3]
            words = [WORDS[name][pick] for pick in picks] + [WORDS[other][picks[0]]]
            writer.writerow([" ".join(words[:2]).title(), ", ".join(words[2:]) + ".", name])
    return file


@pytest.mark.parametrize("name", label_criteria())
def test_every_criterion_trains(quick: Fields, name: str) -> None:
    fields = quick(face="none", budget=None, labels=name, epochs=6)
    metrics = run_recipe(Recipe.from_mapping(fields))
    run = metrics["runs"][0]
    assert run["labels"]["name"] == name
    assert run["test"]["error"] < 0.15
    assert run["history"][-1]["validation_loss"] < run["history"][0]["validation_loss"]


def test_the_default_is_the_cross_entropy(quick: Fields, tmp_path: Path) -> None:
    plain = run_recipe(Recipe.from_mapping(quick(label_smoothing=0.2, out=str(tmp_path / "plain"))))
    named = run_recipe(Recipe.from_mapping(quick(labels="smoothing:smoothing=0.2", out=str(tmp_path / "named"))))
    ours, theirs = plain["runs"][0], named["runs"][0]
    assert theirs["test"]["error"] == ours["test"]["error"]
    assert [e["train_loss"] for e in theirs["history"]] == pytest.approx([e["train_loss"] for e in ours["history"]])


@pytest.mark.parametrize(
    "labels", ["adaptive:update=average", "adaptive", "pairwise", "online", "early-learning", "disturb"]
)
@pytest.mark.parametrize(
    "step", [pytest.param(14, marks=pytest.mark.slow), 21]
)  # the end of an epoch, the middle of one
def test_resumed_criteria_end_where_uninterrupted_ones_do(
    quick: Fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str, step: int
) -> None:
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    run_recipe(Recipe.from_mapping(quick(labels=labels, out=whole)))
    with monkeypatch.context() as patch:
        StopAt(patch, step)
        with pytest.raises(InterruptedRunError):
            run_recipe(Recipe.from_mapping(quick(labels=labels, out=cut)))
    run_recipe(Recipe.from_mapping(quick(labels=labels, out=cut)), resume=True)
    same_result(whole, cut)


def test_class_relations_and_calibration_are_on_the_record(quick: Fields) -> None:
    fields = quick(labels="adaptive:strength=1,update=average", face="none", budget=None)
    metrics = run_recipe(Recipe.from_mapping(fields))
    run = metrics["runs"][0]
    relations = torch.tensor(run["labels"]["relations"])
    assert relations.shape == (len(metrics["data"]["classes"]),) * 2
    torch.testing.assert_close(relations.sum(1), torch.ones(len(relations)))
    test = run["test"]
    assert test["negative_log_likelihood"] == pytest.approx(test["loss"], rel=1e-6)
    assert test["scaled_negative_log_likelihood"] <= test["negative_log_likelihood"] + 0.05
    assert 0 <= test["calibration_error"] <= 1
    assert sum(row[2] for row in test["reliability"]) == metrics["data"]["test"]
    page = (Path(fields["out"]) / "report.html").read_text(encoding="utf-8")
    assert "Confidence and accuracy" in page
    assert ("not determined by the validation rows" in page) == test["temperature_is_bounded"]
    assert "What is related to what" in page


@pytest.mark.parametrize("model", ["text-bag", "text-transformer"])
@pytest.mark.parametrize("labels", [None, pytest.param("adaptive", marks=pytest.mark.slow), "pairwise"])
def test_texts(texts: Path, tmp_path: Path, model: str, labels: str | None) -> None:
    fields = {"data": str(texts), "model": model, "face": "none", "epochs": 12, "out": str(tmp_path / "run")}
    metrics = run_recipe(Recipe.from_mapping(fields | ({} if labels is None else {"labels": labels})))
    assert metrics["data"]["tokens"] == TOKENS
    assert metrics["runs"][0]["test"]["error"] < 0.2


def test_texts_can_be_trained_sparse(texts: Path, tmp_path: Path) -> None:
    recipe = Recipe(data=str(texts), model="text-bag", epochs=12, out=str(tmp_path / "run"))
    run = run_recipe(recipe)["runs"][0]
    assert run["sparsity"] == pytest.approx(0.95, abs=0.005)
    assert run["test"]["error"] < 0.2


def test_words() -> None:
    ids = encode_words(["Sea, sea!", "", "the sea"])
    assert ids.shape == (3, 4)
    assert ids[0, 0] == ids[0, 2] == ids[2, 1]
    assert ids[1].tolist() == [0, 0, 0, 0]
    assert int(ids.max()) < TOKENS
    assert (ids[0] > 0).all()
    assert encode_words(["one two three"], 2).shape == (1, 2)
    assert torch.equal(encode_words(["ONE two"]), encode_words(["one TWO"]))


def test_an_empty_text_has_a_finite_score() -> None:
    for name in ("text-bag", "text-transformer"):
        model = build_model(name, (5,), 3, tokens=TOKENS).eval()
        scores = model(torch.zeros(2, 5, dtype=torch.int32))
        assert scores.isfinite().all()
        loss = functional.cross_entropy(scores, torch.tensor([0, 1]))
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_padding_changes_nothing() -> None:
    for name in ("text-bag", "text-transformer"):
        model = build_model(name, (8,), 3, tokens=TOKENS).eval()
        short = encode_words(["tide and reef"], 8)
        torch.testing.assert_close(model(short[:, :3]), model(short), rtol=1e-4, atol=1e-5)


def test_test_texts_have_the_length_of_training_texts(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na b,0\nb a c,1\nc,0\nd e,1\n")
    (tmp_path / "test.csv").write_text("text,label\na b c d e f g,0\nb,1\n")
    source = read_source(str(tmp_path))
    assert source.train.is_text
    assert source.test is not None
    assert source.test.inputs.shape == (2, 3)


def test_a_factory_is_told_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_words.py").write_text(
        "from torch import nn\n"
        "def bag(num_classes, tokens):\n"
        "    return nn.Sequential(nn.EmbeddingBag(tokens, 8, padding_idx=0), nn.Linear(8, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = build_model("nets_of_words:bag", (5,), 3, tokens=100)
    assert isinstance(model[0], nn.EmbeddingBag)
    assert model[0].num_embeddings == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mlp"}, "takes numbers and the data are texts"),
        ({"augment": "flip"}, "is for images"),
    ],
)
def test_what_texts_refuse(texts: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    fields = {"data": str(texts), "model": "text-bag", "epochs": 1, "out": str(tmp_path / "run"), **changes}
    with pytest.raises(InvalidArgumentError, match=message):
        run_recipe(Recipe.from_mapping(fields))
    assert not (tmp_path / "run").exists()


def test_numbers_refuse_a_model_of_texts(quick: Fields) -> None:
    fields = quick(model="text-bag")
    with pytest.raises(InvalidArgumentError, match="takes texts and the data are numbers"):
        run_recipe(Recipe.from_mapping(fields))


def test_bad_labels_are_refused_before_anything_is_written(quick: Fields) -> None:
    with pytest.raises(UnknownNameError, match="adaptive"):
        Recipe.from_mapping({"labels": "adaptative"})
    with pytest.raises(InvalidArgumentError, match="leave out label_smoothing"):
        Recipe.from_mapping({"labels": "online", "label_smoothing": 0.1})
    with pytest.raises(InvalidArgumentError, match="name:option=value"):
        Recipe.from_mapping({"labels": "adaptive:strength"})
    fields = quick(labels="adaptive:strengths=2")
    with pytest.raises(InvalidArgumentError, match="has no option strengths"):
        run_recipe(Recipe.from_mapping(fields))
    assert not Path(fields["out"]).exists()


def test_a_recipe_with_labels_reads_back(tmp_path: Path) -> None:
    recipe = Recipe(labels="adaptive:strength=1,update=average,only_correct=true")
    assert recipe.labels is not None
    assert recipe.labels.parameters == {"strength": 1, "update": "average", "only_correct": True}
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.read(path).labels == recipe.labels
    assert "labels" not in Recipe().numbers()
    assert Recipe(labels="none").labels is None


def test_rows_come_in_twos_of_a_class() -> None:
    labels = torch.randint(4, (101,), generator=torch.Generator().manual_seed(0))
    for world in (1, 2):
        batches = Batches(101, 20, 3, 0, world, labels)
        order = torch.cat(batches.epoch(0))
        assert torch.equal(order.sort().values, torch.arange(101))
        strides = order[: 100 // (2 * world) * 2 * world].view(-1, 2, world)
        agree = (labels[strides[:, 0]] == labels[strides[:, 1]]).double().mean()
        assert agree > 0.9
        assert not torch.equal(order, torch.cat(batches.epoch(1)))


def test_the_command(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--data", str(texts), "--model", "text-bag", "--labels", "online:hard_share=0.7"]
    result = CliRunner().invoke(cli.app, ["train", *options, "--epochs", "3", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    metrics = read_json(folder / "metrics.json")
    assert metrics["recipe"]["face"] == "none"
    assert metrics["recipe"]["labels"] == {"name": "online", "parameters": {"hard_share": 0.7}}
    again = CliRunner().invoke(cli.app, ["train", "--resume", "--out", str(folder)])
    assert again.exit_code == 0, again.output
    assert math.isfinite(metrics["runs"][0]["test"]["calibration_error"])


def test_the_page_of_a_dense_run_speaks_of_confidence_and_not_of_zeros(quick: Fields) -> None:
    fields = quick(face="none", budget=None, labels="online")
    run_recipe(Recipe.from_mapping(fields))
    page = (Path(fields["out"]) / "report.html").read_text(encoding="utf-8")
    assert "with online labels" in page
    assert "after temperature scaling" in page
    for words in ("Where the zeros are", "The way to the budget", "Compression", "bitmask"):
        assert words not in page


@pytest.mark.parametrize("is_bounded", [True, False])
def test_the_table_says_where_no_temperature_was_determined(is_bounded: bool) -> None:
    figures = {"error": 0.1, "loss": 0.3, "temperature": 0.8, "temperature_is_bounded": is_bounded}
    metrics = {
        "recipe": {"face": "none"},
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "runs": [{"seed": 4, "test": figures, "seconds": 1.0}],
    }
    said = str(results_table(metrics).caption or "")
    assert ("Seed 4: the validation rows determine no temperature" in said) == is_bounded


def test_few_validation_rows_end_in_a_safe_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record has it, and nothing is printed on the way."""
    generator = torch.Generator().manual_seed(0)
    validation = 3.0 * torch.randn(24, 10, generator=generator)
    test = 3.0 * torch.randn(300, 10, generator=generator)
    labels = test.argmax(1)
    labels[:9] = (labels[:9] + 1) % 10
    splits = {"validation": (validation, validation.argmax(1)), "test": (test, labels)}
    monkeypatch.setattr(_confidence, "_scores", lambda trainer, samples: splits[samples])
    trainer: Any = SimpleNamespace(data=SimpleNamespace(validation="validation", test="test"))
    record = _confidence.confidence_record(trainer)
    assert record["temperature_is_bounded"] is True
    assert record["scaled_negative_log_likelihood"] < 1.1 * record["negative_log_likelihood"]
