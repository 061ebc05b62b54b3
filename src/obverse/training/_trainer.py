"""One run: a model, a seed, and the loop that trains it to its budget."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidArgumentError, NonFiniteError
from ..sparsify import SparsityWarning
from ._attach import attach
from ._batches import Batches, augment_images
from ._checkpoint import read_checkpoint, write_checkpoint
from ._interrupt import Asking, InterruptedRunError
from ._loss import training_loss
from ._models import build_model
from ._recipe import Recipe
from ._samples import Samples
from ._split import Data

__all__ = ["Trainer", "identity", "learning_rate", "same_recipe"]

# A short epoch does not pay for its checkpoint: what a kill can cost is a second of work, or one epoch.
_CHECKPOINT_SECONDS = 1.0
_EVALUATION_ROWS = 2048


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Learning rate of ``step`` (from 0) out of ``total``: a function of the step alone, without state."""
    left = 1 - step / total
    factor = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left)))}
    return recipe.learning_rate * factor[recipe.schedule]


class Trainer:
    """Trains one model with one seed.

    Parameters
    ----------
    recipe : Recipe
        With ``epochs`` decided.
    data : Data
        On the device of the accelerator.
    seed : int
        Decides initial weights, batches, augmentation, the noise of dropout and what is drawn of labels.
    accelerator : accelerate.Accelerator
        Device, precision and processes.

    Attributes
    ----------
    model : torch.nn.Module
        The plain model.
    sparsifier : obverse.Sparsifier or DenseTraining
        The latter stands in where the recipe trains dense.
    loss : SmoothedLoss or CriterionLoss
        What is minimized, beside the penalty.
    history : list of dict
        One entry per finished epoch.
    step, total_steps : int
    """

    def __init__(self, recipe: Recipe, data: Data, seed: int, accelerator: Any) -> None:
        if recipe.epochs is None:
            raise InvalidArgumentError("the recipe leaves epochs open; decide them first")
        if recipe.augment != "none" and not data.is_image:
            raise InvalidArgumentError(f"augment {recipe.augment!r} is for images, and {data.name} holds features")
        self.recipe, self.data, self.seed, self.accelerator = recipe, data, seed, accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.epochs = recipe.epochs

        torch.manual_seed(seed)
        classes = len(data.classes)
        self.model: nn.Module = build_model(recipe.model, data.input_shape, classes, recipe.width, data.tokens)
        self.model = self.model.to(accelerator.device)
        self.loss = training_loss(recipe, data, self.model, seed)
        pairs = data.train.labels.cpu() if self.loss.pairs else None
        self.batches = Batches(len(data.train), recipe.batch_size, seed, self.rank, self.world, pairs)
        self.total_steps = self.epochs * self.batches.per_epoch
        self.optimizer = _optimizer(recipe, self.model)
        self.sparsifier = attach(recipe, self.model, self.optimizer, self.total_steps, seed, data)
        for group in self.loss.parameter_groups():
            self.optimizer.add_param_group(group)
        # What a face learns may have a rate of its own; the schedule keeps its ratio to that of the weights.
        self._rates = [group["lr"] / recipe.learning_rate for group in self.optimizer.param_groups]
        # Equal weights on every process, but independent noise in the model's own layers.
        torch.manual_seed(seed + 1_000_003 * self.rank)
        self._forward, self._stepper = accelerator.prepare(self.model, self.optimizer)

        self.epoch = self.index = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self._sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)

    # ------------------------------------------------------------------ training
    def fit(
        self,
        checkpoint: Path | None = None,
        stop: Asking | None = None,
        on_step: Callable[[Trainer, float], None] | None = None,
        on_epoch: Callable[[Trainer], None] | None = None,
    ) -> None:
        """Train from the current state to the end, and make the zeros exact.

        Parameters
        ----------
        checkpoint : Path, optional
            File to keep the state in.
        stop : Asking, optional
            Looked at after every step.
        on_step, on_epoch : callable, optional
            Called with the trainer (and the loss of the step).

        Raises
        ------
        InterruptedRunError
            When asked to stop; the checkpoint is written first.
        NonFiniteError
            When the loss is NaN or infinite.
        """
        with warnings.catch_warnings():
            # What a Sparsifier has to say is in its notes, which the displays and the record show.
            warnings.simplefilter("ignore", SparsityWarning)
            self._fit(checkpoint, stop, on_step, on_epoch)

    def _fit(
        self,
        checkpoint: Path | None,
        stop: Asking | None,
        on_step: Callable[[Trainer, float], None] | None,
        on_epoch: Callable[[Trainer], None] | None,
    ) -> None:
        started, before, written = time.perf_counter(), self.seconds, -math.inf
        asked = False
        while self.epoch < self.epochs:
            order = self.batches.epoch(self.epoch)
            self._forward.train()
            if self.index == 0:
                self.loss.start_epoch()
            while self.index < len(order):
                loss = self._step(order[self.index])
                self.index += 1
                self.step += 1
                asked = self._agree(loss, stop is not None and stop.asked)
                self.seconds = before + time.perf_counter() - started
                if on_step is not None:
                    on_step(self, loss)
                if asked and self.index < len(order):
                    self._interrupted(checkpoint)
            self._end_epoch()
            self.seconds = before + time.perf_counter() - started
            if on_epoch is not None:
                on_epoch(self)
            now = time.perf_counter()
            if checkpoint is not None and (now - written > _CHECKPOINT_SECONDS or self.world > 1):
                self.save(checkpoint)
                written = now
            if asked and self.epoch < self.epochs:
                self._interrupted(checkpoint)
        self.sparsifier.finish()
        self.seconds = before + time.perf_counter() - started

    def _step(self, batch: Tensor) -> float:
        recipe, data = self.recipe, self.data
        rows = self.batches.share(batch).to(data.train.labels.device)
        inputs, labels = data.train.inputs[rows], data.train.labels[rows]
        inputs = augment_images(inputs, recipe.augment, self.seed, self.step, self.rank, self.world, len(batch))
        rate = learning_rate(recipe, self.step, self.total_steps)
        for group, ratio in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = ratio * rate
        scores, fit = self.loss(self._forward, data.normalize(inputs), labels, rows)
        # Gradients are averaged over processes, so each weighs its rows by the number of processes.
        loss = fit * (self.world / len(batch)) + self.sparsifier.penalty()
        value = float(loss.detach())
        if math.isfinite(value):
            self.accelerator.backward(loss)
            self._stepper.step()
            self.sparsifier.step()
            self._stepper.zero_grad()
        elif self.world > 1:
            self.accelerator.backward(loss)  # the other processes wait in the exchange of gradients
        with torch.no_grad():
            self._sums[0] += fit.detach()
            self._sums[1] += (scores.argmax(1) == labels).sum()
        return value

    def _agree(self, loss: float, asked: bool) -> bool:
        """Whether any process was asked to stop; raises on all when the loss of any is not finite."""
        broken = not math.isfinite(loss)
        if self.world > 1:
            flags = torch.tensor([float(broken), float(asked)], device=self.accelerator.device)
            flags = self.accelerator.reduce(flags, "sum")
            broken, asked = bool(flags[0] > 0), bool(flags[1] > 0)
        if broken:
            named = next((n for n, p in self.model.named_parameters() if not p.isfinite().all()), None)
            where = f"; parameter {named!r} is not finite" if named else ""
            raise NonFiniteError(
                f"the loss is {loss} at step {self.step} (epoch {self.epoch + 1}){where}: "
                "lower the learning rate or the strength, or use precision fp32"
            )
        return asked

    def _end_epoch(self) -> None:
        sums = self.accelerator.reduce(self._sums.clone(), "sum").tolist()
        rows = len(self.data.train)
        self.loss.end_epoch()
        loss, error, _ = self.evaluate(self.data.validation)
        self.history.append(
            {
                "epoch": self.epoch + 1,
                "step": self.step,
                "train_loss": sums[0] / rows,
                "train_accuracy": sums[1] / rows,
                "validation_loss": loss,
                "validation_error": error,
                "sparsity": self._sparsity(),
                "strength": float(self.sparsifier.strength),
                "learning_rate": learning_rate(self.recipe, self.step - 1, self.total_steps),
                "phase": str(self.sparsifier.phase),
            }
        )
        self._sums.zero_()
        self.epoch, self.index = self.epoch + 1, 0

    def _sparsity(self) -> float:
        """Sparsity at the last application: before the support is frozen, zeros move in between."""
        points = self.sparsifier.trajectory
        if points and self.sparsifier.phase in ("ramp", "hold"):
            return float(points[-1]["sparsity"])
        return float(self.sparsifier.sparsity)

    def _interrupted(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            raise InterruptedRunError(f"interrupted at step {self.step} of {self.total_steps}; nothing was kept")
        self.save(checkpoint)
        raise InterruptedRunError(f"interrupted at step {self.step} of {self.total_steps}")

    # ------------------------------------------------------------------ evaluation
    @torch.no_grad()
    def evaluate(self, samples: Samples) -> tuple[float, float, list[list[int]]]:
        """Mean cross-entropy, error rate and confusion counts (rows: true class) on all ``samples``."""
        if self.world > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
        classes = len(self.data.classes)
        device = self.accelerator.device
        loss = torch.zeros((), dtype=torch.float64, device=device)
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        training = self.model.training
        self.model.eval()
        try:
            for start in range(self.rank * _EVALUATION_ROWS, len(samples), self.world * _EVALUATION_ROWS):
                rows = slice(start, start + _EVALUATION_ROWS)
                with self.accelerator.autocast():
                    scores = self.model(self.data.normalize(samples.inputs[rows])).float()
                labels = samples.labels[rows]
                loss += functional.cross_entropy(scores.double(), labels, reduction="sum")
                counts += torch.bincount(labels * classes + scores.argmax(1), minlength=classes * classes)
        finally:
            self.model.train(training)
        loss, counts = self.accelerator.reduce(loss, "sum"), self.accelerator.reduce(counts, "sum")
        confusion = counts.view(classes, classes)
        right = int(confusion.diagonal().sum())
        return float(loss) / len(samples), (len(samples) - right) / len(samples), confusion.tolist()

    # ------------------------------------------------------------------ checkpoints
    def save(self, path: Path) -> None:
        """Write the whole state; only the first process writes, all take part."""
        random = [_random_state(self.accelerator.device)]
        if self.world > 1:
            from accelerate.utils import gather_object

            random = gather_object(random)
        sums = self.accelerator.reduce(self._sums.clone(), "sum")
        labels = self.loss.state_dict()
        if self.accelerator.is_main_process:
            write_checkpoint(
                path,
                {
                    "recipe": identity(self.recipe, self.data, self.seed),
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
                    "sparsifier": self.sparsifier.state_dict(),
                    "labels": labels,
                    "random": random,
                    "position": {"epoch": self.epoch, "index": self.index, "step": self.step},
                    "sums": sums.cpu(),
                    "history": self.history,
                    "seconds": self.seconds,
                },
            )
        self.accelerator.wait_for_everyone()

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        InvalidArgumentError
            When the file is of another recipe, data set, seed, model or number of processes (`DamagedFileError` where
            it is not what `save` wrote).
        """
        state = read_checkpoint(path)
        same_recipe(state.get("recipe"), identity(self.recipe, self.data, self.seed), path)
        if len(state["random"]) != self.world:
            raise InvalidArgumentError(
                f"{path} was written by {len(state['random'])} processes and this run has {self.world}"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.sparsifier.load_state_dict(state["sparsifier"])
            self.loss.load_state_dict(state["labels"])
            if self.accelerator.scaler and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            _restore_random(state["random"][self.rank], self.accelerator.device)
            position = state["position"]
            self.epoch, self.index, self.step = position["epoch"], position["index"], position["step"]
            self.history, self.seconds = state["history"], state["seconds"]
            # The sums of all processes are kept by the first one, so that they are counted once.
            self._sums.copy_(state["sums"] if self.rank == 0 else torch.zeros_like(state["sums"]))
        except (KeyError, IndexError) as error:
            raise InvalidArgumentError(f"checkpoint {path} is incomplete: {error} is missing") from error
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            # Torch says "Error(s) in loading", and on the lines that follow, which.
            line = next(iter(str(error).strip().splitlines()[-1:]), type(error).__name__).strip()
            raise InvalidArgumentError(
                f"cannot resume {path}: it does not fit the model {self.recipe.model} of now: {line}"
            ) from error


def identity(recipe: Recipe, data: Data, seed: int) -> dict[str, Any]:
    """What must agree between the run that wrote a file and the run that continues from it."""
    fields = recipe.numbers()
    # More seeds may be added to a study, and where its curves are shown does not change them.
    for name in ("seed", "seeds", "tracker"):
        fields.pop(name, None)
    split = {"split_seed": recipe.seed, "run_seed": seed}
    return {**fields, **split, "data_statistics": data.describe()}


def same_recipe(found: Any, wanted: dict[str, Any], path: Path) -> None:
    """Raise, naming the first field that differs, unless ``found`` equals ``wanted``."""
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"{path} does not say which recipe it belongs to")
    for field in (*wanted, *found):
        if found.get(field) != wanted.get(field):
            raise InvalidArgumentError(
                f"cannot resume {path}: {field} was {found.get(field)!r} and is {wanted.get(field)!r} now; "
                "resume with the same recipe, or start anew with --overwrite"
            )


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InvalidArgumentError(f"model {recipe.model} has no parameters to train")
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=decay)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_random(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
