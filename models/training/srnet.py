"""Trains the SRNet on isosurfaces of volumes, resumable after kill -9 with a bit-identical result.

    python -m models.training.srnet --volumes FOLDER --out runs/srnet
    python -m models.training.srnet --out runs/srnet                    only analytic volumes
    python -m models.training.srnet .. --start-from runs/srnet --out runs/more    continues it

Views are rendered once and kept in OUT/views. Crops that bilinear upsampling gets wrong are drawn
more often, each as one of its eight mirror images.

The loss follows Weiss et al. 2019: L1 with weight 2 on the mask, and inside the surface 1 on
ambient occlusion and 10 on depth. Normals have 50 times their squared error, because at silhouettes
the mean of the possible normals is wanted and not their median (the source has weight 1 on the mask
and 10 times L1 on normals). A quarter of each batch gets its own first output as the previous
frame, and a squared difference keeps the two frames similar. The camera does not move (in the
source it does, and the frame is warped). The optimizer is Adam with a one-cycle learning rate.

Volumes named in `srnet_data.TEST_VOLUMES` are never trained on. The card gives the scores on
`TEST_VIEWS` views of each, beside those of bilinear upsampling.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ifv_jax.engine.fingerprints import fingerprint, program
from ifv_jax.engine.plain_path import local
from models import srnet, weights_io
from models.training import checkpoints, identity, reports, srnet_data, srnet_scores, volumes
from models.training.srnet_data import Pairs

TEST_VIEWS = 24
"""Number of test views of each volume. Scores of views differ by a decibel."""

WEIGHTS = {"mask": 2.0, "occlusion": 1.0, "normal": 50.0, "depth": 10.0, "temporal": 1.0}
"""Weights of the terms of the loss."""


class Recipe(NamedTuple):
    """Everything that determines the result. A resumed training must have the same recipe.

    Attributes:
      steps: number of steps.
      batch_size: number of crops per step.
      crop: side of a crop in low resolution, in pixels.
      views: number of views of each volume.
      size: side of a view in high resolution, in pixels.
      peak_rate: largest learning rate.
      seed: seed of everything that is drawn.
      start_from: weights to start from, as for `srnet.load`; None for random ones.
    """

    steps: int
    batch_size: int
    crop: int
    views: int
    size: int
    peak_rate: float
    seed: int
    start_from: str | None = None


class State(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      params: parameters of the network.
      optimizer: state of the optimizer.
      losses: loss of each step, float32 (steps,).
    """

    params: Any
    optimizer: Any
    losses: jax.Array


def forward(params: Any, low: jax.Array, previous: jax.Array | None = None) -> jax.Array:
    """Computes the network's output for images of any size.

    Args:
      params: parameters of the network.
      low: geometry images, (B, h, w, 5).
      previous: the previous output, (B, 4 h, 4 w, 6); None stands for zeros.

    Returns:
      (B, 4 h, 4 w, 6).
    """
    output = srnet.SRNet().apply({"params": params}, low, previous)
    assert isinstance(output, jax.Array)  # a pair only if variables were made mutable
    return output


def frame_loss(output: jax.Array, high: jax.Array) -> jax.Array:
    """Computes the weighted distance of outputs to the truth.

    Args:
      output: outputs of the network, (B, H, W, 6).
      high: rendered images, (B, H, W, 6).

    Returns:
      A scalar.
    """
    inside = high[..., :1]
    area = jnp.maximum(inside.sum(), 1)
    difference = jnp.abs(output - high)
    mask = jnp.abs(output[..., :1] - (2 * inside - 1)).mean()
    normal = (jnp.square(difference[..., 1:4]) * inside).sum() / (3 * area)
    depth, occlusion = ((difference[..., i : i + 1] * inside).sum() / area for i in (4, 5))
    return (
        WEIGHTS["mask"] * mask
        + WEIGHTS["normal"] * normal
        + WEIGHTS["depth"] * depth
        + WEIGHTS["occlusion"] * occlusion
    )


def loss(params: Any, low: jax.Array, high: jax.Array) -> jax.Array:
    """Computes the loss of first frames, and of second frames of a quarter of the batch.

    Args:
      params: parameters of the network.
      low: geometry images, (B, h, w, 5).
      high: the truth, (B, 4 h, 4 w, 6).

    Returns:
      A scalar.
    """
    first = forward(params, low)
    some = -(-len(low) // 4)
    previous = jax.lax.stop_gradient(srnet.finish(first[:some]))
    second = forward(params, low[:some], previous)
    temporal = jnp.square(second - previous).mean()
    return (
        frame_loss(first, high)
        + 0.25 * frame_loss(second, high[:some])
        + WEIGHTS["temporal"] * temporal
    )


@functools.cache
def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Makes Adam with a one-cycle schedule.

    Args:
      recipe: the recipe.

    Returns:
      The optimizer.
    """
    return optax.adam(optax.cosine_onecycle_schedule(recipe.steps, recipe.peak_rate, 0.1))


@functools.cache  # compiled once for each optimizer
def make_step(optimizer: optax.GradientTransformation):
    """Makes a compiled training step.

    Args:
      optimizer: the optimizer.

    Returns:
      A function step(state, low, high, index) -> state.
    """
    return jax.jit(_step(optimizer), donate_argnums=0)


def _step(optimizer: optax.GradientTransformation):
    def step(state: State, low, high, index) -> State:
        value, grads = jax.value_and_grad(loss)(state.params, low, high)
        updates, inner = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, inner, state.losses.at[index].set(value))

    return step


def _program(recipe: Recipe, state: State) -> str:
    """Hashes the program of a step."""
    small, big = recipe.crop, srnet.SCALE * recipe.crop
    low = jax.ShapeDtypeStruct((recipe.batch_size, small, small, srnet.INPUTS), jnp.float32)
    high = jax.ShapeDtypeStruct((recipe.batch_size, big, big, srnet.OUTPUTS), jnp.float32)
    return program(_step(make_optimizer(recipe)), state, low, high, 0)


def chances(pairs: Pairs, places: np.ndarray, crop: int) -> np.ndarray:
    """Computes how likely each crop is drawn: half uniformly, half by its difficulty.

    The difficulty is the squared error of bilinear upsampling in normals and mask, because smooth
    surfaces need no network.

    Args:
      pairs: the views.
      places: (view, y, x) of each crop, (n, 3).
      crop: side of a crop in low resolution, in pixels.

    Returns:
      Probabilities (n,), which sum to 1.
    """
    errors = []
    for i in range(len(pairs.low)):
        high = pairs.high[i]
        guess = srnet_scores.bilinear(pairs.low[i : i + 1])[0]
        wrong = (guess[..., 0] > 0) != (high[..., 0] > 0.5)
        error = wrong + high[..., 0] * np.square(guess[..., 1:4] - high[..., 1:4]).sum(-1)
        cells = error.reshape(len(high) // srnet.SCALE, srnet.SCALE, -1, srnet.SCALE).mean((1, 3))
        errors.append(np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0))))
    sums = np.stack(errors)  # over all cells above and to the left
    i, y, x = places.T
    inside = sums[i, y + crop, x + crop] - sums[i, y, x + crop]
    inside = inside - sums[i, y + crop, x] + sums[i, y, x] + 1e-12
    return 0.5 / len(places) + 0.5 * inside / inside.sum()


def train(recipe: Recipe, folder: Path | None, out: Path, save_every: int) -> Path:
    """Runs or continues a training.

    Args:
      recipe: the recipe.
      folder: folder of volumes; None uses only analytic ones.
      out: folder for checkpoints and weights.
      save_every: steps between two checkpoints.

    Returns:
      The path of the weights.

    Raises:
      ValueError: the folder `out` contains another training, or a volume cannot be used.
    """
    out, found = local(out), [] if folder is None else volumes.read_folder(folder)
    train_volumes, test_volumes = srnet_data.split(found)
    key_init, key_train, key_test = jax.random.split(jax.random.key(recipe.seed), 3)
    if recipe.start_from is None:
        start_card = None
        params = srnet.SRNet().init(key_init, jnp.zeros((1, 8, 8, srnet.INPUTS)))["params"]
    else:
        start = srnet.load(recipe.start_from)
        params, start_card = start.variables["params"], dict(start.card)
    optimizer = make_optimizer(recipe)
    state = State(params, optimizer.init(params), jnp.zeros(recipe.steps))
    # The folder is changed only now, so that a training that cannot begin leaves nothing behind.
    contents = {
        "training volumes": lambda: fingerprint(train_volumes),
        "test volumes": lambda: fingerprint(test_volumes),
        "weights to start from": lambda: fingerprint(params),
        "program": lambda: _program(recipe, state),
    }
    identity.check(out, recipe, contents)
    pairs = srnet_data.concatenate(
        _rendered(train_volumes, recipe.views, recipe.size, key_train, out)
    )
    places = srnet_data.crops(pairs, recipe.crop)
    likely = chances(pairs, places, recipe.crop)
    print(
        f"{len(pairs.low)} views of {len(train_volumes)} volumes, {len(places)} crops", flush=True
    )

    with checkpoints.manager(out / "checkpoints", save_every) as manager:
        first, state = checkpoints.restore(manager, state)
        if first:
            print(f"resumed after step {first}", flush=True)
        step = make_step(optimizer)
        progress = reports.Pace(recipe.steps, first)
        for i in range(first, recipe.steps):
            rng = np.random.default_rng([recipe.seed, i])
            chosen = places[rng.choice(len(places), recipe.batch_size, p=likely)]
            low, high = srnet_data.mirrored(srnet_data.batch(pairs, chosen, recipe.crop), rng)
            state = step(state, low, high, i)
            checkpoints.save(manager, i + 1, state)
            if (i + 1) % 50 == 0 or i + 1 == recipe.steps:
                progress(i + 1, f"loss {float(state.losses[max(0, i - 49) : i + 1].mean()):.4f}")

    tested = _rendered(test_volumes, TEST_VIEWS, recipe.size, key_test, out)
    report = {
        volume.name: srnet_scores.compare(state.params, pairs)
        for volume, pairs in zip(test_volumes, tested, strict=True)
    }
    weights = out / "weights.npz"
    names = [volume.name for volume in train_volumes]
    weights_io.save(
        weights, {"params": state.params}, card(recipe, state, names, report, start_card)
    )
    srnet_scores.picture(out / "comparison.png", state.params, tested)
    print(f"{json.dumps(report, indent=1)}\nwrote {weights}", flush=True)
    return weights


def _rendered(which: list, count: int, size: int, key: jax.Array, out: Path) -> list[Pairs]:
    seeds = np.asarray(jax.random.randint(key, (len(which),), 0, 2**30))
    parts = []
    for volume, seed in zip(which, seeds, strict=True):
        parts.append(srnet_data.views(volume, count, size, int(seed), out / "views"))
        print(f"{len(parts[-1].low)} views of {volume.name}", flush=True)
    return parts


def card(
    recipe: Recipe, state: State, trained_on: list[str], report: dict, start_card: dict | None
) -> dict[str, Any]:
    """Makes the card of the weights.

    Args:
      recipe: the recipe.
      state: the last state.
      trained_on: names of the volumes.
      report: scores on the test volumes.
      start_card: card of the weights that the training started from, or None.

    Returns:
      The card.
    """
    losses = np.asarray(state.losses)
    means = [float(part.mean()) for part in np.array_split(losses, min(50, len(losses)))]
    return {
        "architecture": {"name": "SRNet", "blocks": srnet.BLOCKS, "width": srnet.WIDTH},
        "parameters": sum(a.size for a in jax.tree.leaves(state.params)),
        "input": "(B, h, w, 5) float32: mask [0, 1], normal, depth [0, 1]",
        "data": "isosurfaces, orthographic",
        "trained_on": trained_on,
        "test": report,
        "train_loss": [round(mean, 5) for mean in means],
        "recipe": {
            **recipe._asdict(),
            "start_from": start_card and Path(recipe.start_from or "").name,
        },
        **reports.provenance("models.training.srnet"),
        "started_from": start_card,
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: the arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m models.training.srnet", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--volumes", type=Path, help="folder of volumes, see models.training.volumes"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, weights")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=16, help="pixels in low resolution")
    parser.add_argument("--views", type=int, default=8, help="of each volume, to train on")
    parser.add_argument("--size", type=int, default=256, help="pixels of a view")
    parser.add_argument("--peak-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", help="weights to go on from, as for srnet.load")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    options = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe._fields})
    if (
        recipe.size % srnet.SCALE
        or recipe.crop * srnet.SCALE > recipe.size
        or recipe.batch_size < 2
    ):
        parser.error(
            f"expected --size a multiple of {srnet.SCALE} and at least {srnet.SCALE} times --crop, "
            f"and --batch-size of 2 or more, got {recipe}"
        )
    train(recipe, options.volumes, options.out, options.save_every)


if __name__ == "__main__":
    main()
