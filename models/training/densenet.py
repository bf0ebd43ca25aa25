"""Train a DenseNet-BC on CIFAR-10, resumable after kill -9 with a bit-identical result.

    python -m models.training.densenet --data cifar-10-batches-py --out runs/all
    python -m models.training.densenet --data cifar-10-batches-py --out runs/wo4 --without-class 4

SGD with Nesterov momentum 0.9, weight decay 1e-4 on the kernels, cross-entropy, one-cycle learning
rate (cosine, peak 0.2 after a quarter of the steps), batch 64, classifier initialised at zero, images
flipped, padded by 4 and cropped back. `--without-class` leaves the images of one class out and keeps
all ten logits; the network then is tested on the other classes.

Progressive resizing: at depth 40 the first 5 of 15 epochs see the images area-averaged to 16 x 16, the
next 6 to 24 x 24, the last 4 in full, 8.6 full epochs' worth of work. One CPU core (AVX2) takes about
1 h 45 min and gets to 88 % or better. From depth 100 the default is the usual long recipe for a GPU,
160 epochs at full size, which is expected to reach 94 % or better (not run here).

The same command continues an interrupted training from its last checkpoint in OUT.
"""

import argparse
import datetime
import functools
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from models import weights_io
from models.densenet import DenseNet
from models.training import checkpoints, cifar10

WEIGHT_DECAY = 1e-4


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

    def sizes(self) -> list[int]:
        """Image size of each epoch."""
        full = self.epochs - self.small_epochs - self.medium_epochs
        return [16] * self.small_epochs + [24] * self.medium_epochs + [32] * full


class State(NamedTuple):
    """What a checkpoint holds."""

    params: Any
    batch_stats: Any
    optimizer: Any
    loss: jax.Array  # (epochs,) float32, sum of the batches' mean losses
    correct: jax.Array  # (epochs,) int32, training images classified correctly


def make_optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """SGD whose weight decay acts on kernels, not on biases and batch normalization."""
    rate = optax.cosine_onecycle_schedule(steps, recipe.peak_rate, pct_start=0.25, div_factor=10)

    def is_kernel(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.add_decayed_weights(WEIGHT_DECAY, is_kernel),
        optax.sgd(rate, momentum=0.9, nesterov=True),
    )


def make_train_step(net: DenseNet, optimizer: optax.GradientTransformation):
    """`step(state, constants, key, images, labels, epoch, size) -> state`, compiled per size."""

    @functools.partial(jax.jit, static_argnames="size", donate_argnums=0)
    def step(state: State, constants, key, images, labels, epoch, size: int) -> State:
        pixels = cifar10.augment(key, images).astype(jnp.float32) / 255
        pixels = cifar10.downsample(pixels, size)

        def loss_fn(params):
            variables = {
                "params": params,
                "batch_stats": state.batch_stats,
                "constants": constants,
            }
            logits, updates = net.apply(variables, pixels, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            correct = jnp.sum(jnp.argmax(logits, 1) == labels)
            return losses.mean(), (updates["batch_stats"], correct)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (batch_stats, correct)), grads = grad_fn(state.params)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        return State(
            optax.apply_updates(state.params, updates),
            batch_stats,
            optimizer_state,
            state.loss.at[epoch].add(loss),
            state.correct.at[epoch].add(correct),
        )

    return step


@functools.partial(jax.jit, static_argnums=0)
def _predict(net: DenseNet, variables, images: jax.Array) -> jax.Array:
    return jnp.argmax(net.apply(variables, images.astype(jnp.float32) / 255), 1)


def accuracy(net: DenseNet, variables, split: cifar10.Split, batch_size: int = 250) -> float:
    """Share of the images that the network classifies correctly, between 0 and 1."""
    correct = 0
    for start in range(0, len(split.labels), batch_size):
        part = slice(start, start + batch_size)
        correct += np.sum(_predict(net, variables, split.images[part]) == split.labels[part])
    return float(correct) / len(split.labels)


def train(recipe: Recipe, data: Path, out: Path, save_every: int) -> Path:
    """Run or continue a training; returns the path of its weights."""
    out.mkdir(parents=True, exist_ok=True)
    _check_same_recipe(out / "recipe.json", recipe)
    split = cifar10.without_class(cifar10.load(data, "train"), recipe.without_class)
    split = cifar10.Split(split.images[: recipe.limit], split.labels[: recipe.limit])
    per_epoch = len(split.labels) // recipe.batch_size
    if not per_epoch:
        raise ValueError(f"expected at least {recipe.batch_size} images, got {len(split.labels)}")
    sizes = recipe.sizes()
    key_init, key_augment = jax.random.split(jax.random.key(recipe.seed))

    net = DenseNet(recipe.depth, recipe.growth_rate)
    optimizer = make_optimizer(recipe, recipe.epochs * per_epoch)
    variables = jax.jit(net.init)(key_init, jnp.zeros((1, 16, 16, 3)))
    constants = variables["constants"]
    zeros = jnp.zeros(recipe.epochs)
    state = State(
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
        zeros,
        zeros.astype(jnp.int32),
    )
    with checkpoints.manager(out / "checkpoints", save_every) as manager:
        first, state = checkpoints.restore(manager, state)
        if first:
            print(f"resumed after step {first}", flush=True)
        train_step = make_train_step(net, optimizer)
        progress = _Progress(sizes, per_epoch, recipe.batch_size, first)
        order = np.array([])
        for i in range(first, recipe.epochs * per_epoch):
            epoch, batch = divmod(i, per_epoch)
            if not batch or i == first:
                rng = np.random.default_rng([recipe.seed, epoch])
                order = rng.permutation(len(split.labels))
            chosen = np.sort(order[batch * recipe.batch_size :][: recipe.batch_size])
            key = jax.random.fold_in(key_augment, i)
            images, labels = split.images[chosen], split.labels[chosen]
            state = train_step(state, constants, key, images, labels, epoch, sizes[epoch])
            checkpoints.save(manager, i + 1, state)
            progress(i + 1, state)

    variables = {
        "params": state.params,
        "batch_stats": state.batch_stats,
        "constants": constants,
    }
    test = cifar10.without_class(cifar10.load(data, "test"), recipe.without_class)
    test = cifar10.Split(test.images[: recipe.limit], test.labels[: recipe.limit])
    score = accuracy(net, variables, test)
    weights = out / "weights.npz"
    weights_io.save(weights, variables, _card(recipe, state, per_epoch, score, len(test.labels)))
    print(f"test accuracy {score:.4f} on {len(test.labels)} images; wrote {weights}", flush=True)
    return weights


def _check_same_recipe(path: Path, recipe: Recipe) -> None:
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(recipe._asdict()))
        os.replace(temporary, path)
        return
    old = json.loads(path.read_text())
    for name, value in recipe._asdict().items():
        if old.get(name) != value:
            raise ValueError(
                f"expected {name} = {old.get(name)}, with which the training in {path.parent} "
                f"began, got {value}; continue with the old value or choose another --out"
            )


class _Progress:
    """Prints a line every few seconds, with images a second and the time that is left."""

    def __init__(self, sizes: list[int], per_epoch: int, batch_size: int, first: int):
        self.per_epoch, self.batch_size, self.first = per_epoch, batch_size, first
        # Work up to each step, in pixels: an epoch at 16 x 16 takes a quarter of one at 32 x 32.
        self.work = np.cumsum(np.repeat(np.square(sizes), per_epoch))
        self.steps, self.last = first, time.monotonic()
        self.speed: float | None = None  # work a second, averaged

    def __call__(self, step: int, state: State) -> None:
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


def _card(recipe: Recipe, state: State, per_epoch: int, score: float, images: int) -> dict:
    device = jax.devices()[0]
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in _read_or_empty("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    seen = per_epoch * recipe.batch_size
    return {
        "architecture": {
            "name": "DenseNet-BC",
            "depth": recipe.depth,
            "growth_rate": recipe.growth_rate,
            "classes": 10,
        },
        "parameters": sum(math.prod(a.shape) for a in jax.tree.leaves(state.params)),
        "input": "(B, 32, 32, 3) float32, pixels in [0, 1]",
        "data": "CIFAR-10"
        + ("" if recipe.without_class is None else f" without class {recipe.without_class}"),
        "class_names": cifar10.CLASSES,
        "test_accuracy": score,
        "test_images": images,
        "train_loss": [round(float(x) / per_epoch, 5) for x in state.loss],
        "train_accuracy": [round(float(x) / seen, 5) for x in state.correct],
        "image_size": recipe.sizes(),
        "recipe": recipe._asdict(),
        "command": "python -m models.training.densenet " + " ".join(sys.argv[1:]),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": f"{device.platform} {device.device_kind}, {processor}, "
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
        " core(s)",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def _read_or_empty(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    here = Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m models.training.densenet",
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder cifar-10-batches-py")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, weights")
    parser.add_argument("--depth", type=int, default=40, help="6 n + 4")
    parser.add_argument("--growth-rate", type=int, default=12)
    parser.add_argument("--epochs", type=int, help="15 below depth 100, else 160")
    parser.add_argument("--small-epochs", type=int, help="of these at 16 x 16; a third, or 0")
    parser.add_argument("--medium-epochs", type=int, help="then at 24 x 24; two fifths, or 0")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--peak-rate", type=float, default=0.2, help="largest learning rate")
    parser.add_argument("--without-class", type=int, help="leave this class out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only so many images, to try things out")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _parse(arguments)
    progressive = options.depth < 100
    epochs = options.epochs or (15 if progressive else 160)
    small, medium = options.small_epochs, options.medium_epochs
    recipe = Recipe(
        depth=options.depth,
        growth_rate=options.growth_rate,
        epochs=epochs,
        small_epochs=(epochs // 3 if progressive else 0) if small is None else small,
        medium_epochs=(2 * epochs // 5 if progressive else 0) if medium is None else medium,
        batch_size=options.batch_size,
        peak_rate=options.peak_rate,
        without_class=options.without_class,
        seed=options.seed,
        limit=options.limit,
    )
    train(recipe, options.data, options.out, options.save_every)


if __name__ == "__main__":
    main()
