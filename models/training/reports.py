"""The recipe of a training, its messages while it runs, and the card of its weights."""

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
    """Everything that determines the result. A resumed training must have the same recipe.

    Attributes:
      depth: depth of the network.
      growth_rate: new channels per dense layer.
      epochs: number of epochs.
      small_epochs: number of epochs at 16 x 16, which come first.
      medium_epochs: number of epochs at 24 x 24, which come next; the rest is at 32 x 32.
      batch_size: number of images per step.
      peak_rate: largest learning rate.
      without_class: class whose images are left out, or None.
      seed: seed of everything that is drawn.
      limit: number of images that are used; None for all.
      start_from: weights to start from, as for `densenet.load`; None for random ones.
    """

    depth: int
    growth_rate: int
    epochs: int
    small_epochs: int
    medium_epochs: int
    batch_size: int
    peak_rate: float
    without_class: int | None
    seed: int
    limit: int | None
    start_from: str | None = None

    def sizes(self) -> list[int]:
        """Lists the image size of each epoch, in pixels.

        Raises:
          ValueError: the numbers of epochs do not fit each other.
        """
        full = self.epochs - self.small_epochs - self.medium_epochs
        if min(full, self.small_epochs, self.medium_epochs) < 0 or self.epochs < 1:
            raise ValueError(
                "expected epochs >= small epochs + medium epochs >= 0, got "
                f"{self.epochs}, {self.small_epochs} and {self.medium_epochs}"
            )
        return [16] * self.small_epochs + [24] * self.medium_epochs + [32] * full


class State(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      params: parameters of the network.
      batch_stats: running statistics of batch normalization.
      optimizer: state of the optimizer.
      loss: sum of the batches' mean losses in each epoch, float32 (epochs,).
      correct: number of training images classified correctly in each epoch, int32 (epochs,).
    """

    params: Any
    batch_stats: Any
    optimizer: Any
    loss: jax.Array
    correct: jax.Array


class Progress:
    """Prints a line every few seconds, with images per second and the remaining time.

    Args:
      sizes: image size of each epoch, in pixels.
      per_epoch: number of steps per epoch.
      batch_size: number of images per step.
      first: number of steps that were done before.
    """

    def __init__(self, sizes: list[int], per_epoch: int, batch_size: int, first: int):
        self.per_epoch, self.batch_size, self.first = per_epoch, batch_size, first
        # Work up to each step in pixels: an epoch at 16 x 16 takes a quarter of one at 32 x 32.
        self.work = np.cumsum(np.repeat(np.square(sizes), per_epoch))
        self.steps, self.last = first, time.monotonic()
        self.speed: float | None = None  # work per second, averaged

    def __call__(self, step: int, state: State) -> None:
        """Reports progress. The training calls it after each step.

        Args:
          step: number of steps that are done.
          state: the state after this step.
        """
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
    """Prints the progress, the speed and the remaining time of a training of equal steps.

    Args:
      steps: number of steps.
      first: number of steps that were done before.
    """

    def __init__(self, steps: int, first: int):
        self.steps, self.last, self.began = steps, first, time.monotonic()

    def __call__(self, step: int, what: str) -> None:
        """Reports progress. The training calls it from time to time.

        Args:
          step: number of steps that are done.
          what: text that is printed as well.
        """
        now = time.monotonic()
        seconds = (now - self.began) / (step - self.last)
        left = datetime.timedelta(seconds=round(seconds * (self.steps - step)))
        print(f"step {step}/{self.steps} {what} {seconds:.2f} s a step, {left} left", flush=True)
        self.last, self.began = step, now


def card(
    recipe: Recipe, state: State, per_epoch: int, score: float, images: int, start_card: Any = None
) -> dict[str, Any]:
    """Makes the card of the weights, which contains their whole history.

    Args:
      recipe: the recipe.
      state: the last state.
      per_epoch: number of steps per epoch.
      score: accuracy on the test images.
      images: number of test images.
      start_card: card of the weights that the training started from, or None.

    Returns:
      The card: architecture, data, score, recipe, commit and machine.
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
    """Collects command, commit, date, hardware and versions of the running script.

    Args:
      module: name of the script's module.

    Returns:
      The facts by name.
    """
    return {
        "command": shlex.join(["python", "-m", module, *_portable(sys.argv[1:])]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def _portable(arguments: list[str]) -> list[str]:
    """Replaces absolute paths by their last part, so that no folder of this machine is named."""
    return [Path(a).name if a.startswith("/") else a for a in arguments]
