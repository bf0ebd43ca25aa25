"""GoogLeNet (Inception v1) in its two common variants, tapped at any layer.

Source: Szegedy et al. 2015, "Going Deeper with Convolutions". `bvlc` is the Caffe replication. It
has local response normalization, biases and no batch normalization, and takes mean-subtracted BGR
input from 0 to 255. `torchvision` was ported from TensorFlow. It has batch normalization instead of
both, 3x3 where the paper has 5x5 (the names keep `5x5`) and a 2x2 fourth pool, and takes input from
-1 to 1. Images are (B, H, W, 3) float RGB pixels in [0, 1] for both, because the conversion is part
of the network. There are no auxiliary heads and no dropout: this is for inference.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ifv_jax.engine.plain_path import local
from models import googlenet_porting
from models.network import Network, check_images

SIZE = 224
"""Height and width of the images in pixels."""

SMALLEST = 32
"""Smallest height and width in pixels. Below it, a pool would have no input."""

CLASSES = 1000

INCEPTIONS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of the branches of each module, in the order of `BRANCHES`."""

BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")


@dataclass(frozen=True)
class Variant:
    """The differences between the two networks.

    Attributes:
      batch_norm: batch normalization. Otherwise there are biases, and local response normalization
        near the input.
      wide_kernel: kernel size of the branch called 5x5.
      pool4: window of the fourth pool.
      bgr: the channels are blue, green, red.
      mean: mean of the pixels in [0, 1], in the network's channel order.
      std: standard deviation of the pixels in [0, 1].
    """

    batch_norm: bool
    wide_kernel: int
    pool4: int
    bgr: bool
    mean: tuple[float, float, float]
    std: float


VARIANTS = {
    "bvlc": Variant(False, 5, 3, bgr=True, mean=(104 / 255, 117 / 255, 123 / 255), std=1 / 255),
    # ImageNet's mean and deviation followed by `transform_input` is 2 x - 1.
    "torchvision": Variant(True, 3, 2, bgr=False, mean=(0.5, 0.5, 0.5), std=0.5),
}


def layer_names(variant: str) -> tuple[str, ...]:
    """Lists all layers that can be tapped, in the order of computation.

    `inception4c` is the module's output, the branches `1x1`, `3x3`, `5x5` and `pool_proj` along the
    channels. `inception4c/3x3` is one branch of it. All are taken after the ReLU.

    Args:
      variant: `bvlc` or `torchvision`.

    Returns:
      The names of the layers.

    Raises:
      ValueError: there is no such variant.
    """
    normalized = not _variant(variant).batch_norm
    names = ["conv1", "pool1", *["norm1"] * normalized, "conv2_reduce", "conv2"]
    names += [*["norm2"] * normalized, "pool2"]
    for module in INCEPTIONS:
        names += [f"{module}/{branch}" for branch in BRANCHES] + [module]
        if module in ("inception3b", "inception4e"):
            names.append(f"pool{module[9]}")
    return (*names, "pool5", "logits")


def max_pool(
    x: Float[Array, "b h w c"], window: int, stride: int, padding: int = 0
) -> Float[Array, "b h2 w2 c"]:
    """Applies max pooling that rounds the size of its output up ("ceil mode").

    Args:
      x: (B, H, W, C).
      window: side of the window in pixels.
      stride: step between windows in pixels.
      padding: pixels that are added on each side.

    Returns:
      (B, H', W', C).
    """

    def pad(size: int) -> tuple[int, int]:
        steps = -(-(size + 2 * padding - window) // stride)
        return padding, steps * stride + window - size - padding

    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, window, window, 1),
        (1, stride, stride, 1),
        [(0, 0), pad(x.shape[1]), pad(x.shape[2]), (0, 0)],
    )


def local_response_norm(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Computes x / (1 + 1e-4 / 5 * sum of x^2 over 5 neighbouring channels)^(3/4).

    On the CPU a power takes XLA ten times as long as two square roots, and the gradient of a sum of
    slices takes twenty times as long as that of a window.

    Args:
      x: (B, H, W, C).

    Returns:
      (B, H, W, C).
    """
    padding = [(0, 0)] * 3 + [(2, 2)]
    sums = lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), padding)
    root = jnp.sqrt(1 + 1e-4 / 5 * sums)
    return x / (root * jnp.sqrt(root))


class Conv(nn.Module):
    """Convolution with its bias or batch normalization, then ReLU."""

    features: int
    kernel: int
    batch_norm: bool
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        padding = self.kernel // 2
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            [(padding, padding)] * 2,
            use_bias=not self.batch_norm,
            precision=lax.Precision.HIGHEST,  # otherwise NVIDIA GPUs round to TF32
            name="conv",
        )(x)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)
        return nn.relu(x)


class Inception(nn.Module):
    """Four branches in parallel, concatenated along the channels."""

    widths: tuple[int, ...]
    variant: Variant

    @nn.compact
    def __call__(self, x: jax.Array, upto: str | None) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, features), or the one branch named by `upto`."""

        def conv(name: str, kernel: int, x: jax.Array) -> jax.Array:
            width = self.widths[BRANCHES.index(name)]
            return Conv(width, kernel, self.variant.batch_norm, name=name)(x)

        # Each branch computes its own input, so that it can be computed without the others.
        branches: dict[str, Callable[[], jax.Array]] = {
            "1x1": lambda: conv("1x1", 1, x),
            "3x3_reduce": lambda: conv("3x3_reduce", 1, x),
            "3x3": lambda: conv("3x3", 3, branches["3x3_reduce"]()),
            "5x5_reduce": lambda: conv("5x5_reduce", 1, x),
            "5x5": lambda: conv("5x5", self.variant.wide_kernel, branches["5x5_reduce"]()),
            "pool_proj": lambda: conv("pool_proj", 1, max_pool(x, 3, 1, 1)),
        }
        if upto is not None:
            return branches[upto]()
        outputs = ("1x1", "3x3", "5x5", "pool_proj")
        return jnp.concatenate([branches[name]() for name in outputs], axis=-1)


class GoogLeNet(nn.Module):
    """`apply(variables, images, upto=LAYER)`; variables: params, and batch_stats if it has any."""

    variant: str
    classes: int = CLASSES

    @nn.compact
    def __call__(self, images: jax.Array, *, upto: str = "logits") -> jax.Array:
        """Computes the activations of a layer. Nothing behind the layer is computed.

        Args:
          images: RGB pixels in [0, 1], (B, H, W, 3).
          upto: name of the layer.

        Returns:
          (B, h, w, c); (B, 1024) for pool5, (B, classes) for logits.

        Raises:
          ValueError: there is no such layer.
        """
        names = layer_names(self.variant)
        if upto not in names:
            raise ValueError(f"expected one of the layers {', '.join(names)}, got {upto!r}")
        variant = VARIANTS[self.variant]
        x = images[..., ::-1] if variant.bgr else images
        x = (x - jnp.asarray(variant.mean, x.dtype)) / variant.std
        conv = functools.partial(Conv, batch_norm=variant.batch_norm)
        wanted, _, branch = upto.partition("/")
        steps: list[tuple[str, Callable[[jax.Array], jax.Array]]] = [
            ("conv1", lambda x: conv(64, 7, stride=2, name="conv1")(x)),
            ("pool1", lambda x: max_pool(x, 3, 2)),
            ("norm1", local_response_norm),
            ("conv2_reduce", lambda x: conv(64, 1, name="conv2_reduce")(x)),
            ("conv2", lambda x: conv(192, 3, name="conv2")(x)),
            ("norm2", local_response_norm),
            ("pool2", lambda x: max_pool(x, 3, 2)),
        ]
        for module, widths in INCEPTIONS.items():
            inner = branch if branch and module == wanted else None
            steps.append((module, functools.partial(self._inception, module, widths, inner)))
            if module == "inception3b":
                steps.append(("pool3", lambda x: max_pool(x, 3, 2)))
            if module == "inception4e":
                steps.append(("pool4", lambda x: max_pool(x, variant.pool4, 2)))
        steps.append(("pool5", lambda x: x.mean((1, 2))))
        head = functools.partial(nn.Dense, precision=lax.Precision.HIGHEST)
        steps.append(("logits", lambda x: head(self.classes, name="head")(x)))
        for name, step in steps:
            if name not in names:  # no local response normalization in this variant
                continue
            x = step(x)
            if name == wanted:
                return x
        raise AssertionError(upto)

    def _inception(self, name, widths, upto, x):
        return Inception(widths, VARIANTS[self.variant], name=name)(x, upto)


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(f"expected one of the variants {', '.join(VARIANTS)}, got {name!r}")
    return VARIANTS[name]


@functools.cache  # one function for each, so that `jit` traces it once
def make_apply(variant: str, size: int = SIZE, classes: int = CLASSES):
    """Makes the apply function of a GoogLeNet.

    Args:
      variant: `bvlc` or `torchvision`.
      size: height and width of the images in pixels.
      classes: number of logits.

    Returns:
      A pure function apply(variables, images, *, upto="logits").
    """
    net = GoogLeNet(variant, classes)

    def apply(variables: Any, images: jax.Array, *, upto: str = "logits") -> jax.Array:
        """Images (B, size, size, 3), pixels in [0, 1] -> (B, h, w, c), or (B, c)."""
        check_images(images, (size, size, 3))
        result = net.apply(variables, jnp.asarray(images), upto=upto)
        assert isinstance(result, jax.Array)  # a pair only if variables were made mutable
        return result

    return apply


def load(variant: str, path: str | Path, *, size: int = SIZE) -> Network:
    """Loads a GoogLeNet with its weights.

    Args:
      variant: `bvlc` or `torchvision`.
      path: for `torchvision` the `.pth` or `.safetensors` file; for `bvlc` the `.caffemodel`, its
        `.onnx` export, or an `.npz` of arrays by Caffe's layer names
        (`inception_4c/3x3_reduce/weight`); for both the folder that `python -m models.convert`
        made of it.
      size: height and width of the images in pixels, at least 32. The network was trained on 224.

    Returns:
      The network.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an argument is not valid, or the file cannot be read or contains another network.
    """
    _variant(variant)
    if size < SMALLEST:
        raise ValueError(f"expected images of at least {SMALLEST} pixels, got {size}")
    variables, card = googlenet_porting.read(
        variant, local(path), functools.partial(template, variant)
    )
    apply = make_apply(variant, size, card["architecture"]["classes"])
    return Network(apply, variables, (size, size, 3), layer_names(variant), card)


def template(variant: str, classes: int = CLASSES) -> Any:
    """Computes the shapes and dtypes of the variables.

    Args:
      variant: `bvlc` or `torchvision`.
      classes: number of logits.

    Returns:
      The variables, nested, with `jax.ShapeDtypeStruct` as leaves.
    """
    images = jax.ShapeDtypeStruct((1, SMALLEST, SMALLEST, 3), np.float32)
    return jax.eval_shape(GoogLeNet(variant, classes).init, jax.random.key(0), images)
