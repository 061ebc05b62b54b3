"""Options that several commands share; each is a field of a recipe, but for the recipe itself."""

from __future__ import annotations

from typing import Any

import typer

DATA: Any = typer.Option(None, help="digits, mnist, fashion-mnist, cifar10, owner/name or a path [digits].")
TARGET: Any = typer.Option(None, help="Label column of a table [label].")
MODEL: Any = typer.Option(
    None, help="mlp, lenet-300-100, lenet-5, resnet20, text-bag, text-transformer or package.module:factory [mlp]."
)
GROUPS: Any = typer.Option(
    None, help="weights, units, filters, inputs, or across tensors: channels, heads, hidden, embedding [weights]."
)
EPOCHS: Any = typer.Option(None, help="By default about 2500 steps.")
BATCH_SIZE: Any = typer.Option(None, help="Over all processes [64].")
OPTIMIZER: Any = typer.Option(None, help="sgd, adam or adamw [adam].")
LEARNING_RATE: Any = typer.Option(None, help="[0.002]")
MOMENTUM: Any = typer.Option(None, help="Of sgd [0.9].")
WEIGHT_DECAY: Any = typer.Option(None, help="[0]")
SCHEDULE: Any = typer.Option(None, help="constant, linear or cosine [cosine].")
LABEL_SMOOTHING: Any = typer.Option(None, help="[0]")
LABELS: Any = typer.Option(
    None, help="adaptive, pairwise, online, smoothing, ...; or name:option=value [the cross-entropy]."
)
AUGMENT: Any = typer.Option(None, help="Images: none, shift, flip or shift+flip [none].")
SEED: Any = typer.Option(None, help="First seed, and that of the data split [0].")
SEEDS: Any = typer.Option(None, help="How many seeds to run [1].")
VALIDATION_FRACTION: Any = typer.Option(None, help="Of the training rows [0.1].")
TEST_FRACTION: Any = typer.Option(None, help="Where the source has no test split [0.2].")
PRECISION: Any = typer.Option(None, help="fp32, bf16 or fp16 [fp32].")
DEVICE: Any = typer.Option(None, help="auto or cpu [auto].")
THREADS: Any = typer.Option(None, help="CPU threads [OMP_NUM_THREADS, else the faster number in a few timed steps].")
TRACKER: Any = typer.Option(None, help="none, csv or tensorboard [none].")
RECIPE: Any = typer.Option(None, help="Start from this recipe.yaml; other options override it.")
OUT: Any = typer.Option(None, help="Output folder [runs/<what was run>].")
RESUME: Any = typer.Option(False, "--resume", help="Go on from the checkpoint in the output folder.")
OVERWRITE: Any = typer.Option(False, "--overwrite", help="Replace an earlier run in the output folder.")
