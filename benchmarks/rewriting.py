"""What the rewriting of `ifv_jax/engine/rewriting.py` gains or costs on networks of many kinds.

    python -m benchmarks.rewriting

Seconds of a gradient with respect to the images, rewritten over as written: inside a compiled loop,
as in Feature Visualization, and called by itself, as for a row of a Jacobian (where XLA may share a
convolution among all cores). One sample; medians of measurements in pairs, of which either side
begins in turn; each is the fastest of a few runs, since a run takes milliseconds. Below 1 the
rewriting pays; the aim is at most 1.03 anywhere.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import speed, summary
from benchmarks.command_line import parse
from benchmarks.start import start
from ifv_jax.engine.rewriting import on_cpu

STEPS = 10  # of the loop
RUNS = 5  # the fastest of which counts


class Net(nn.Module):
    """Stem, then three times the layer in question and a ReLU."""

    layer: Callable[[], Callable[[jax.Array], jax.Array]]
    channels: int = 32
    dimensions: int = 2
    depth: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(1, ..., 3) to (1, ..., channels)."""
        x = nn.relu(nn.Conv(self.channels, (3,) * self.dimensions)(x))
        for _ in range(self.depth):
            x = nn.relu(self.layer()(x))
        return x


class Scanned(nn.Module):
    """The same convolution many times, by `lax.scan`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(1, H, W, 3) to (1, H, W, 32)."""
        x = nn.Conv(32, (3, 3))(x)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 32, 32))

        def step(x, _):
            numbers = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            return nn.relu(y), None

        return lax.scan(step, x, length=4)[0]


class Classifier(nn.Module):
    """The convolutional network of Flax's MNIST example."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(1, H, W, 3) to (1, 10)."""
        for features in (32, 64):
            x = nn.avg_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(x.reshape(len(x), -1))))


conv = partial(nn.Conv, 32, (3, 3))
halved = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
smeared = partial(nn.max_pool, window_shape=(3, 3), padding="SAME")
NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Flax's MNIST example": (Classifier(), (1, 28, 28, 3)),
    "3x3": (Net(conv), (1, 48, 48, 3)),
    "5x5": (Net(partial(nn.Conv, 32, (5, 5))), (1, 48, 48, 3)),
    "1x1": (Net(partial(nn.Conv, 32, (1, 1))), (1, 48, 48, 3)),
    "stride 2": (Net(partial(conv, strides=2), depth=2), (1, 96, 96, 3)),
    "stride 4, 7x7": (Net(partial(nn.Conv, 32, (7, 7), 4), depth=1), (1, 96, 96, 3)),
    "dilation 2": (Net(partial(conv, kernel_dilation=2)), (1, 48, 48, 3)),
    "asymmetric padding": (Net(partial(conv, padding=((2, 0), (0, 1)))), (1, 48, 48, 3)),
    "grouped": (Net(partial(conv, feature_group_count=4)), (1, 48, 48, 3)),
    "depthwise": (Net(partial(conv, feature_group_count=32)), (1, 48, 48, 3)),
    "transposed": (Net(partial(nn.ConvTranspose, 32, (3, 3), (2, 2)), depth=1), (1, 32, 32, 3)),
    "1-D": (Net(partial(nn.Conv, 32, (9,)), dimensions=1), (1, 2048, 3)),
    "3-D": (Net(partial(nn.Conv, 16, (3, 3, 3)), 16, 3, 2), (1, 16, 16, 16, 3)),
    "max pool 2, stride 2": (Net(lambda: halved, depth=2), (1, 96, 96, 3)),
    "max pool 3, stride 1": (Net(lambda: smeared), (1, 48, 48, 3)),
    "checkpoint": (Net(lambda: nn.remat(nn.Conv)(32, (3, 3))), (1, 48, 48, 3)),
    "scan": (Scanned(), (1, 48, 48, 3)),
}


def gradient(function: Callable) -> Callable:
    """(variables, images) -> the gradient of a sum over activations with respect to the images."""
    return jax.grad(lambda variables, x: jnp.sum(jnp.sin(function(variables, x))), argnums=1)


def in_a_loop(function: Callable) -> Callable:
    """A compiled loop of (variables, images): small steps along the gradient."""
    slope = gradient(function)

    def run(variables, images):
        return lax.fori_loop(0, STEPS, lambda _, x: x + 1e-3 * slope(variables, x), images)

    return jax.jit(run)


def by_itself(function: Callable) -> Callable:
    """The same steps, each a call of its own."""
    slope = gradient(function)
    step = jax.jit(lambda variables, x: x + 1e-3 * slope(variables, x))

    def run(variables, images):
        for _ in range(STEPS):
            images = jax.block_until_ready(step(variables, images))
        return images

    return run


def compare(
    how: Callable, module: nn.Module, shape: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """Milliseconds a step as written and rewritten, and the ratio of runs side by side."""
    images = jax.random.normal(jax.random.key(0), shape)
    variables = module.init(jax.random.key(1), images)
    runs = {"as_written": how(module.apply), "rewritten": how(on_cpu(module.apply))}
    seconds = {name: [] for name in runs}
    for i in range(repeats):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            seconds[name].append(speed.timed(partial(runs[name], variables, images), RUNS)[0])
    found = {name: 1e3 * float(np.median(s)) / STEPS for name, s in seconds.items()}
    return found | {"ratio": summary.ratio(seconds["rewritten"], seconds["as_written"])}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(
        __doc__,
        arguments,
        repeats={"default": 7},
        only={"choices": list(NETWORKS), "default": list(NETWORKS)},
        out={"default": Path("benchmarks/results/rewriting")},
    )
    start()
    cases = []
    for name in options.only:
        module, shape = NETWORKS[name]
        found = {
            how.__name__: compare(how, module, shape, options.repeats)
            for how in (in_a_loop, by_itself)
        }
        for how, each in found.items():
            cells = [f"{key} {each[key]:8.3f} ms" for key in ("as_written", "rewritten")]
            ratio = " ".join(f"{key} {value:.3f}" for key, value in each["ratio"].items())
            print(f"{name:<22}{how:<11}{'   '.join(cells)}   ratio {ratio}", flush=True)
        cases.append({"name": name, "milliseconds_a_step": summary.rounded(found)})
    summary.write(options.out, cases, repeats=options.repeats)


if __name__ == "__main__":
    main()
