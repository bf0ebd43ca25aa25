"""What a training is, what it says while it runs, and the card it leaves beside its weights."""

import datetime
import math
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from models.provenance import commit, hardware
from models.training import cifar10


class Recipe(NamedTuple):
    """Everything that decides the result; a resumed training must have the same."""

    depth: int
    growth_rate: int
    epochs: int
    small_epochs: int  # at 16 x 16, first
    medium_epochs: int  # at 24 x 24, next; the rest at 32 x 32
    batch_size: int
    peak_rate: float
    without_class: int | None
    seed: int
    limit: int | None  # number of training images, None: all
    start_from: str | None = None  # weights to go on from, as for densenet.load; None: random

    def sizes(self) -> list[int]:
        """Image size of each epoch."""
        full = self.epochs - self.small_epochs - self.medium_epochs
        if min(full, self.small_epochs, self.medium_epochs) < 0 or self.epochs < 1:
            raise ValueError(
                "expected epochs >= small epochs + medium epochs >= 0, got "
                f"{self.epochs}, {self.small_epochs} and {self.medium_epochs}"
            )
        return [16] * self.small_epochs + [24] * self.medium_epochs + [32] * full


class State(NamedTuple):
    """What a checkpoint holds."""

    params: Any
    batch_stats: Any
    optimizer: Any
    loss: jax.Array  # (epochs,) float32, sum of the batches' mean losses
    correct: jax.Array  # (epochs,) int32, training images classified correctly


class Progress:
    """Prints a line every few seconds, with images a second and the time that is left."""

    def __init__(self, sizes: list[int], per_epoch: int, batch_size: int, first: int):
        self.per_epoch, self.batch_size, self.first = per_epoch, batch_size, first
        # Work up to each step, in pixels: an epoch at 16 x 16 takes a quarter of one at 32 x 32.
        self.work = np.cumsum(np.repeat(np.square(sizes), per_epoch))
        self.steps, self.last = first, time.monotonic()
        self.speed: float | None = None  # work a second, averaged

    def __call__(self, step: int, state: State) -> None:
        """To be called after each step."""
        every = max(1, min(50, self.per_epoch // 2))
        if step % every and step != len(self.work):
            return
        epoch = (step - 1) // self.per_epoch
        done = step - epoch * self.per_epoch
        loss = float(state.loss[epoch]) / done  # waits for the device
        correct = float(state.correct[epoch]) / done / self.batch_size
        now = time.monotonic()
        seconds, count = now - self.last, step - self.steps
        speed = (self.work[step - 1] - (self.work[self.steps - 1] if self.steps else 0)) / seconds
        self.speed = speed if self.speed is None else 0.8 * self.speed + 0.2 * speed
        eta = datetime.timedelta(seconds=round((self.work[-1] - self.work[step - 1]) / self.speed))
        print(
            f"epoch {epoch + 1}/{len(self.work) // self.per_epoch} step {step}/{len(self.work)} "
            f"loss {loss:.3f} accuracy {correct:.3f} "
            f"{count * self.batch_size / seconds:.0f} images/s, {eta} left",
            flush=True,
        )
        self.steps, self.last = step, now


class Pace:
    """Prints how far a training of equal steps is, how fast, and how long it will take."""

    def __init__(self, steps: int, first: int):
        self.steps, self.last, self.began = steps, first, time.monotonic()

    def __call__(self, step: int, what: str) -> None:
        """To be called now and then; `what` is printed beside it."""
        now = time.monotonic()
        seconds = (now - self.began) / (step - self.last)
        left = datetime.timedelta(seconds=round(seconds * (self.steps - step)))
        print(f"step {step}/{self.steps} {what} {seconds:.2f} s a step, {left} left", flush=True)
        self.last, self.began = step, now


def card(
    recipe: Recipe, state: State, per_epoch: int, score: float, images: int, start_card: Any = None
) -> dict[str, Any]:
    """What to know about the weights: data, recipe, commit, score. `score` is the test accuracy.

    `start_card` is that of the weights the training went on from, so that the whole history of
    the weights is in their card.
    """
    without = "" if recipe.without_class is None else f" without class {recipe.without_class}"
    return {
        "architecture": {
            "name": "DenseNet-BC",
            "depth": recipe.depth,
            "growth_rate": recipe.growth_rate,
            "classes": 10,
        },
        "parameters": sum(math.prod(a.shape) for a in jax.tree.leaves(state.params)),
        "input": "(B, 32, 32, 3) float32, pixels in [0, 1]",
        "data": f"CIFAR-10{without}",
        "class_names": cifar10.CLASSES,
        "test_accuracy": score,
        "test_images": images,
        "train_loss": [round(float(x) / per_epoch, 5) for x in state.loss],
        "train_accuracy": [
            round(float(x) / (per_epoch * recipe.batch_size), 5) for x in state.correct
        ],
        "image_size": recipe.sizes(),
        "recipe": {
            name: _portable([value])[0] if isinstance(value, str) else value
            for name, value in recipe._asdict().items()
        },
        **provenance("models.training.densenet"),
        "started_from": start_card,
    }


def provenance(module: str) -> dict[str, Any]:
    """Command, commit, date, hardware and versions of the script that runs."""
    return {
        "command": shlex.join(["python", "-m", module, *_portable(sys.argv[1:])]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def _portable(arguments: list[str]) -> list[str]:
    """The arguments without this machine's folders: absolute paths become their last part."""
    return [Path(a).name if a.startswith("/") else a for a in arguments]
