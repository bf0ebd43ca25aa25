"""SRNet, the generator of isosurface super-resolution, tapped at any layer.

Source: Weiss, Chu, Thuerey, Westermann 2019, "Volumetric Isosurface Rendering with Deep
Learning-Based Super-Resolution", after Sajjadi et al. 2018. The network turns a geometry image
(mask, normal, depth) of low resolution into one of four times the size, with ambient occlusion. The
previous high-resolution output, warped to the new view, is an optional input; the first frame has
none (zeros).

Images are (B, h, w, 5) float: mask in [0, 1], unit normal in view space with z towards the viewer,
depth in [0, 1]. Outputs are (B, 4 h, 4 w, 6): mask in about [-1, 1], normal, depth, ambient
occlusion. `finish` brings them into their exact ranges.
"""

import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ifv_jax.engine.plain_path import local
from models import porting, weights_io
from models.convolution import conv3x3
from models.network import Network, check_images

SCALE = 4
BLOCKS = 10
WIDTH = 64
INPUTS = 5  # mask, normal, depth
OUTPUTS = 6  # and ambient occlusion
INPUT_SHAPE = (32, 32, INPUTS)
WEIGHTS = Path(__file__).parent / "weights"

RELU = 2.0
"""Variance of a kernel, times its number of inputs, that keeps the scale of a ReLU network."""

SMALL = 0.02
"""The same for layers whose output is added to a sum. Training starts near bilinear upsampling."""


def layer_names() -> tuple[str, ...]:
    """Lists all layers that can be tapped, in the order of computation.

    Returns:
      The names of the layers; `block8` is the output of the 8th residual block.
    """
    blocks = [f"block{i + 1}" for i in range(BLOCKS)]
    return ("conv1", *blocks, "upsample1", "upsample2", "conv2", "output")


def upsample(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Upsamples bilinearly, with pixel centres at halves.

    Args:
      x: (B, H, W, C).
      factor: ratio of the sizes.

    Returns:
      (B, factor H, factor W, C).
    """
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, factor * height, factor * width, channels), "bilinear")


def space_to_depth(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    """Moves the pixels of each 4 x 4 cell into the channels.

    Args:
      x: (B, 4 h, 4 w, C).

    Returns:
      (B, h, w, 16 C). The 16 pixels of a channel are adjacent.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // SCALE, SCALE, width // SCALE, SCALE, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height // SCALE, width // SCALE, channels * SCALE**2)


class Conv3x3(nn.Module):
    """3x3 convolution with bias, zero padding 1; kernel (3, 3, inputs, features)."""

    features: int
    inputs: int = WIDTH
    variance: float = RELU

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, features). Trailing channels that are zero may be left out."""
        init = nn.initializers.variance_scaling(self.variance, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (3, 3, self.inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv3x3(x, kernel[:, :, : x.shape[-1]]) + bias


class SRNet(nn.Module):
    """`apply(variables, images, previous, upto=LAYER)`; variables: params."""

    @nn.compact
    def __call__(
        self, images: jax.Array, previous: jax.Array | None = None, *, upto: str = "output"
    ) -> jax.Array:
        """Computes the activations of a layer. Nothing behind the layer is computed.

        Args:
          images: geometry images, (B, h, w, 5).
          previous: the previous output, (B, 4 h, 4 w, 6); None stands for zeros.
          upto: name of the layer.

        Returns:
          The activations, (B, H, W, c).

        Raises:
          ValueError: there is no such layer.
        """
        if upto not in layer_names():
            raise ValueError(f"expected one of the layers {', '.join(layer_names())}, got {upto!r}")
        # The network takes a mask from -1 to 1.
        low = jnp.concatenate([2 * images[..., :1] - 1, images[..., 1:]], -1)
        x = low
        if previous is not None:
            x = jnp.concatenate([low, space_to_depth(previous)], -1)
        inputs = INPUTS + OUTPUTS * SCALE**2
        x = nn.relu(Conv3x3(WIDTH, inputs, name="conv1")(x))
        if upto == "conv1":
            return x
        for i in range(BLOCKS):
            y = nn.relu(Conv3x3(WIDTH, name=f"block{i + 1}_conv1")(x))
            x = x + Conv3x3(WIDTH, variance=SMALL, name=f"block{i + 1}_conv2")(y)
            if upto == f"block{i + 1}":
                return x
        for i in (1, 2):
            x = nn.relu(Conv3x3(WIDTH, name=f"upsample{i}")(upsample(x, 2)))
            if upto == f"upsample{i}":
                return x
        x = nn.relu(Conv3x3(WIDTH, name="conv2")(x))
        if upto == "conv2":
            return x
        x = Conv3x3(OUTPUTS, variance=SMALL, name="output")(x)
        return x.at[..., :INPUTS].add(upsample(low, SCALE))


def finish(output: Float[Array, "b h w 6"]) -> Float[Array, "b h w 6"]:
    """Brings outputs into their ranges, to show them or to feed them back as the previous frame.

    Args:
      output: outputs of the network, (B, H, W, 6).

    Returns:
      (B, H, W, 6) with mask in [-1, 1], unit normals, depth and occlusion in [0, 1].
    """
    mask, normal, rest = output[..., :1], output[..., 1:4], output[..., 4:]
    length = jnp.sqrt(jnp.maximum((normal**2).sum(-1, keepdims=True), 1e-12))
    return jnp.concatenate([jnp.clip(mask, -1, 1), normal / length, jnp.clip(rest, 0, 1)], axis=-1)


@functools.cache  # one function for each size, so that `jit` traces it once
def make_apply(size: int):
    """Makes the apply function of the SRNet.

    Args:
      size: height and width of the geometry images in pixels.

    Returns:
      A pure function apply(variables, images, previous=None, *, upto="output").
    """
    net = SRNet()

    def apply(
        variables: Any,
        images: jax.Array,
        previous: jax.Array | None = None,
        *,
        upto: str = "output",
    ) -> jax.Array:
        """Images (B, size, size, 5), see the module -> activations (B, h, w, c)."""
        check_images(images, (size, size, INPUTS))
        result = net.apply(variables, jnp.asarray(images), previous, upto=upto)
        assert isinstance(result, jax.Array)  # a pair only if variables were made mutable
        return result

    return apply


def load(name_or_path: str | Path = "srnet", *, size: int = INPUT_SHAPE[0]) -> Network:
    """Loads the SRNet with its weights.

    Args:
      name_or_path: `srnet`, whose weights are in `models/weights`, or the folder of a training or
        its `weights.npz`.
      size: height and width of the geometry images in pixels.

    Returns:
      The network.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file cannot be read, or contains another network.
    """
    path = WEIGHTS / "srnet.npz" if str(name_or_path) == "srnet" else local(name_or_path)
    if path.is_dir():
        path = path / "weights.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"expected SRNet's weights at {path}, got no such file; train them: "
            "python -m models.training.srnet --volumes FOLDER --out runs/srnet"
        )
    variables = weights_io.fit(porting.stored(path), template(), path)
    card = weights_io.load_card(path)
    return Network(make_apply(size), variables, (size, size, INPUTS), layer_names(), card)


def template() -> Any:
    """Computes the shapes and dtypes of the variables.

    Returns:
      The variables, nested, with `jax.ShapeDtypeStruct` as leaves.
    """
    images = jax.ShapeDtypeStruct((1, 8, 8, INPUTS), jnp.float32)
    return jax.eval_shape(SRNet().init, jax.random.key(0), images)
