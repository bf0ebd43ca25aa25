"""Trains a DenseNet-BC on CIFAR-10, resumable after kill -9 with a bit-identical result.

    python -m models.training.densenet --data cifar-10-batches-py --out runs/all
    python -m models.training.densenet --data cifar-10-batches-py --out runs/wo4 --without-class 4

The recipe is SGD with Nesterov momentum 0.9, weight decay 1e-4 on the kernels, cross-entropy, a
one-cycle learning rate (cosine, peak 0.2 after a quarter of the steps), batch 64, a classifier
initialised at zero, and images that are flipped, padded by 4 and cropped back. `--without-class`
leaves out the images of one class and keeps all ten logits; the network is then tested on the other
classes.

At depth 40 the images grow during the training: the first 5 of 12 epochs see them area-averaged to
16 x 16, the next 4 to 24 x 24, the last 3 in full. This is the work of 6.5 full epochs and takes 70
to 100 minutes on one CPU core (AVX2). A warm restart (Loshchilov & Hutter 2017) then continues from
finished weights:

    python -m models.training.densenet --data cifar-10-batches-py --out runs/all2 \\
        --start-from runs/all --epochs 4 --small-epochs 0 --medium-epochs 0 --peak-rate 0.1 --seed 1

The included weights `cifar10` come from both in turn: 87.86 % after the first training, 89.04 %
after the second, which took 65 minutes beside other work. From depth 100 on, the default is the
usual recipe for a GPU, 160 epochs at full size. It is expected to reach 94 % (others trained this
architecture to 94.5 %), and was not run here.

The same command continues an interrupted training from its last checkpoint in OUT.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ifv_jax.engine.fingerprints import fingerprint, program
from ifv_jax.engine.plain_path import local
from models import weights_io
from models.densenet import DenseNet, load, make_apply
from models.training import checkpoints, cifar10, evaluate, identity, reports
from models.training.reports import Recipe, State

WEIGHT_DECAY = 1e-4


def make_optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Makes SGD with weight decay on kernels, and none on biases and batch normalization.

    Args:
      recipe: the recipe.
      steps: number of steps of the whole training.

    Returns:
      The optimizer.
    """
    rate = optax.cosine_onecycle_schedule(steps, recipe.peak_rate, pct_start=0.25, div_factor=10)

    def is_kernel(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.add_decayed_weights(WEIGHT_DECAY, is_kernel),
        optax.sgd(rate, momentum=0.9, nesterov=True),
    )


def make_step(net: DenseNet, optimizer: optax.GradientTransformation):
    """Makes a training step, which is compiled once per image size.

    Args:
      net: the network.
      optimizer: the optimizer.

    Returns:
      A function step(state, constants, key, images, labels, epoch, size) -> state.
    """

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


def train(recipe: Recipe, data: Path, out: Path, save_every: int) -> Path:
    """Runs or continues a training.

    Args:
      recipe: the recipe.
      data: the folder cifar-10-batches-py.
      out: folder for checkpoints and weights.
      save_every: steps between two checkpoints.

    Returns:
      The path of the weights.

    Raises:
      ValueError: the folder contains another training, or the data do not fit the recipe.
    """
    sizes = recipe.sizes()
    split, test = (_split(recipe, local(data), name) for name in ("train", "test"))
    out = local(out)
    per_epoch = len(split.labels) // recipe.batch_size
    if not per_epoch:
        raise ValueError(f"expected at least {recipe.batch_size} images, got {len(split.labels)}")
    key_init, key_augment = jax.random.split(jax.random.key(recipe.seed))

    net = DenseNet(recipe.depth, recipe.growth_rate)
    optimizer = make_optimizer(recipe, recipe.epochs * per_epoch)
    if recipe.start_from is None:
        start_card, variables = None, jax.jit(net.init)(key_init, jnp.zeros((1, 16, 16, 3)))
    else:
        start_card, variables = _start(recipe)
    constants = variables["constants"]
    zeros = jnp.zeros(recipe.epochs)
    state = State(
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
        zeros,
        zeros.astype(jnp.int32),
    )
    train_step = make_step(net, optimizer)
    # The folder is changed only now, so that a training that cannot begin leaves nothing behind.
    contents = {
        "training images": lambda: fingerprint(split),
        "test images": lambda: fingerprint(test),
        "weights to start from": lambda: fingerprint(variables),
        "program": lambda: _program(train_step, recipe, state, constants, split),
    }
    identity.check(out, recipe, contents)
    with checkpoints.manager(out / "checkpoints", save_every) as manager:
        first, state = checkpoints.restore(manager, state)
        if first:
            print(f"resumed after step {first}", flush=True)
        progress = reports.Progress(sizes, per_epoch, recipe.batch_size, first)
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
    score = evaluate.accuracy(make_apply(net.depth, net.growth_rate, 10), variables, test)
    weights = out / "weights.npz"
    card = reports.card(recipe, state, per_epoch, score, len(test.labels), start_card)
    weights_io.save(weights, variables, card)
    print(f"test accuracy {score:.4f} on {len(test.labels)} images; wrote {weights}", flush=True)
    return weights


def _split(recipe: Recipe, data: Path, name: str) -> cifar10.Split:
    split = cifar10.without_class(cifar10.load(data, name), recipe.without_class)
    return cifar10.Split(split.images[: recipe.limit], split.labels[: recipe.limit])


def _program(train_step, recipe: Recipe, state: State, constants, split: cifar10.Split) -> str:
    """Hashes the program of a step, at the smallest size of the images."""
    step = functools.partial(train_step, size=min(recipe.sizes()))
    images, labels = split.images[: recipe.batch_size], split.labels[: recipe.batch_size]
    return program(step, state, constants, jax.random.key(0), images, labels, 0)


def _start(recipe: Recipe):
    """Loads the card and variables to start from."""
    start = load(str(recipe.start_from))
    depth, growth_rate = (start.card["architecture"][name] for name in ("depth", "growth_rate"))
    if (depth, growth_rate) != (recipe.depth, recipe.growth_rate):
        raise ValueError(
            f"expected weights of depth {recipe.depth} and growth rate {recipe.growth_rate} to "
            f"start from, got {recipe.start_from} with {depth} and {growth_rate}; "
            f"add --depth {depth} --growth-rate {growth_rate}"
        )
    # Copies, because each step overwrites the memory of its state.
    return dict(start.card), jax.tree.map(jnp.array, start.variables)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m models.training.densenet",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--data", type=Path, required=True, help="folder cifar-10-batches-py")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, weights")
    parser.add_argument("--depth", type=int, default=40, help="6 n + 4")
    parser.add_argument("--growth-rate", type=int, default=12)
    parser.add_argument("--epochs", type=int, help="12 below depth 100, else 160")
    parser.add_argument("--small-epochs", type=int, help="of these at 16 x 16; 5 of 12, or 0")
    parser.add_argument("--medium-epochs", type=int, help="then at 24 x 24; a third, or 0")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--peak-rate", type=float, default=0.2, help="largest learning rate")
    parser.add_argument("--without-class", type=int, help="leave this class out")
    parser.add_argument("--start-from", help="go on from these weights, as for densenet.load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only so many images, to try things out")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: the arguments; by default those of the process.
    """
    options = _parse(arguments)
    progressive = options.depth < 100
    epochs = options.epochs or (12 if progressive else 160)
    small, medium = options.small_epochs, options.medium_epochs
    recipe = Recipe(
        depth=options.depth,
        growth_rate=options.growth_rate,
        epochs=epochs,
        small_epochs=(5 * epochs // 12 if progressive else 0) if small is None else small,
        medium_epochs=(epochs // 3 if progressive else 0) if medium is None else medium,
        batch_size=options.batch_size,
        peak_rate=options.peak_rate,
        without_class=options.without_class,
        seed=options.seed,
        limit=options.limit,
        start_from=options.start_from,
    )
    train(recipe, options.data, options.out, options.save_every)


if __name__ == "__main__":
    main()
