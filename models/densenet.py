"""DenseNet-BC for 32 x 32 images, tapped at any layer.

Huang, Liu, van der Maaten, Weinberger 2017, "Densely Connected Convolutional Networks". A dense
layer is BN-ReLU-conv1x1(4k)-BN-ReLU-conv3x3(k), its output appended to its input as [x, new]; a
transition is BN-ReLU-conv1x1(half)-average pool 2; the head is BN-ReLU-mean-linear. There are three
dense blocks of (depth - 4) / 6 layers each. (The paper on inverting Feature Visualization mentions
max pooling between the blocks. The common DenseNet-BC, and this one, takes the average.)

One definition serves training and inference. Images are (B, H, W, 3) float pixels in [0, 1]. The
normalization by mean and standard deviation is part of the network, and its constants are part of
the variables. Inside, activations are (C, H, W, B), see `layers`; every tap returns (B, h, w, c).
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ifv_jax.checks import check_integer
from ifv_jax.engine.plain_path import local
from models import densenet_porting, layers, porting, weights_io
from models.network import Network, check_images

MEAN = (0.4914, 0.4822, 0.4465)  # CIFAR-10 training images, pixels in [0, 1]
STD = (0.2470, 0.2435, 0.2616)
MOMENTUM = 0.9  # of the running statistics

_kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")

INPUT_SHAPE = (32, 32, 3)
WEIGHTS = Path(__file__).parent / "weights"
_RECIPES = {
    "cifar10": "",
    "cifar10_without_4": " --without-class 4",
    "cifar10_depth100": " --depth 100",
    "cifar10_depth100_without_4": " --depth 100 --without-class 4",
}
_TRAIN = "python -m models.training.densenet --data cifar-10-batches-py --out"

_SHAPE = {"depth": 1000, "growth_rate": 1000, "classes": 100_000}
"""Parts of an architecture, each with a bound above that of any network."""

Moments = tuple[jax.Array, jax.Array]


def layers_per_block(depth: int) -> int:
    """Computes the number of dense layers in each of the three blocks.

    Args:
      depth: depth of the network, 6 n + 4.

    Returns:
      n.

    Raises:
      ValueError: no DenseNet-BC has this depth.
    """
    count, rest = divmod(depth - 4, 6)
    if count < 1 or rest:
        raise ValueError(f"expected a depth of 6 n + 4 (10, 16, 40, 100, ...), got {depth}")
    return count


def layer_names(depth: int) -> tuple[str, ...]:
    """Lists all layers that can be tapped, in the order of computation.

    `dense1` is the output of the whole block with all channels, which is that of its last layer.
    `dense1/layer3` is the output [x, new] of its third layer.

    Args:
      depth: depth of the network, 6 n + 4.

    Returns:
      The names of the layers.
    """
    names = ["conv1"]
    for block in (1, 2, 3):
        names += [f"dense{block}/layer{i + 1}" for i in range(layers_per_block(depth))]
        names += [f"dense{block}"] + ([f"trans{block}"] if block < 3 else [])
    return (*names, "head_norm", "logits")


class BatchNormRelu(nn.Module):
    """Batch normalization and ReLU of (C, H, W, B)."""

    @nn.compact
    def __call__(self, x: jax.Array, statistics: Sequence[Moments] | None) -> jax.Array:
        """Normalizes and applies ReLU.

        Args:
          x: (C, H, W, B).
          statistics: the batch moments of the parts of x in training; None in inference.

        Returns:
          (C, H, W, B).
        """
        channels = x.shape[0]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if statistics is None:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = (jnp.concatenate(values) for values in zip(*statistics, strict=True))
            if not self.is_initializing():
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        factor = scale * lax.rsqrt(var + layers.EPSILON)
        return layers.scale_shift_relu(x, factor, bias - mean * factor)


class Pointwise(nn.Module):
    """1x1 convolution without bias; kernel (C, features)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(C, H, W, B) -> (features, H, W, B)."""
        kernel = self.param("kernel", _kernel_init, (x.shape[0], self.features))
        return layers.pointwise(x, kernel)


class Conv3x3(nn.Module):
    """3x3 convolution, zero padding 1, without bias; kernel (3, 3, C, features)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(C, H, W, B) -> (features, H, W, B)."""
        kernel = self.param("kernel", _kernel_init, (3, 3, x.shape[0], self.features))
        return layers.conv3x3(x, kernel)


class DenseLayer(nn.Module):
    """BN-ReLU-conv1x1(4k)-BN-ReLU-conv3x3(k): (C, H, W, B) -> the new (k, H, W, B)."""

    growth_rate: int

    @nn.compact
    def __call__(self, x: jax.Array, statistics: Sequence[Moments] | None) -> jax.Array:
        """Computes the new channels.

        Args:
          x: (C, H, W, B).
          statistics: the batch moments of the parts of x in training; None in inference.

        Returns:
          (growth_rate, H, W, B).
        """
        x = BatchNormRelu(name="norm1")(x, statistics)
        x = Pointwise(4 * self.growth_rate, name="conv1")(x)
        inner = None if statistics is None else [layers.moments(x)]
        x = BatchNormRelu(name="norm2")(x, inner)
        return Conv3x3(self.growth_rate, name="conv2")(x)


class Transition(nn.Module):
    """BN-ReLU-conv1x1(half)-average pool 2: (C, H, W, B) -> (C/2, H/2, W/2, B)."""

    @nn.compact
    def __call__(self, x: jax.Array, statistics: Sequence[Moments] | None) -> jax.Array:
        """Halves the channels and the resolution.

        Args:
          x: (C, H, W, B).
          statistics: the batch moments of the parts of x in training; None in inference.

        Returns:
          (C/2, H/2, W/2, B).
        """
        x = BatchNormRelu(name="norm")(x, statistics)
        return layers.average_pool2(Pointwise(x.shape[0] // 2, name="conv")(x))


class Classifier(nn.Module):
    """Linear layer that starts at zero: (B, C) -> (B, classes)."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, C) -> logits (B, classes)."""
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[1], self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return layers.matmul(x, kernel) + bias


def _channels_last(pieces: Sequence[jax.Array]) -> jax.Array:
    # Transposed piece by piece, so that XLA can take a slice of the result from one piece.
    return jnp.concatenate([x.transpose(3, 1, 2, 0) for x in pieces], axis=-1)


class DenseNet(nn.Module):
    """`apply(variables, images, upto=LAYER)`; variables: params, batch_stats, constants."""

    depth: int = 40
    growth_rate: int = 12
    classes: int = 10

    @nn.compact
    def __call__(
        self, images: jax.Array, *, upto: str = "logits", train: bool = False
    ) -> jax.Array:
        """Computes the activations of a layer. Nothing behind the layer is computed.

        Args:
          images: pixels in [0, 1], (B, H, W, 3) with H and W multiples of 4.
          upto: name of the layer.
          train: normalize by the moments of the batch, and update the running statistics.

        Returns:
          (B, h, w, c), or (B, classes) for the logits.

        Raises:
          ValueError: there is no such layer.
        """
        names = layer_names(self.depth)
        if upto not in names:
            raise ValueError(f"expected one of the layers {', '.join(names)}, got {upto!r}")
        mean = self.variable("constants", "mean", jnp.asarray, MEAN).value
        std = self.variable("constants", "std", jnp.asarray, STD).value
        x = layers.to_channels_first((images - mean) / std)
        x = Conv3x3(2 * self.growth_rate, name="conv1")(x)
        if upto == "conv1":
            return _channels_last([x])
        for block in (1, 2, 3):
            # A block's output stays in pieces, so that a slice of a tap needs few of them.
            pieces = [x]
            # The moments of each piece are computed once, not by every layer that reads it.
            statistics = [layers.moments(x)] if train else None
            for i in range(layers_per_block(self.depth)):
                layer = f"dense{block}/layer{i + 1}"
                name = layer.replace("/", "_")
                new = DenseLayer(self.growth_rate, name=name)(x, statistics)
                pieces = [*pieces, new]
                if statistics is not None:
                    statistics = [*statistics, layers.moments(new)]
                if upto == layer:
                    return _channels_last(pieces)
                x = layers.append(x, new)
            if upto == f"dense{block}":
                return _channels_last(pieces)
            if block < 3:
                x = Transition(name=f"trans{block}")(x, statistics)
                if upto == f"trans{block}":
                    return _channels_last([x])
        x = BatchNormRelu(name="head_norm")(x, statistics)
        if upto == "head_norm":
            return _channels_last([x])
        features = x.mean((1, 2)).T
        return Classifier(self.classes, name="head")(features)


@functools.cache  # one function for each architecture, so that `jit` traces it once
def make_apply(depth: int, growth_rate: int, classes: int):
    """Makes the apply function of a trained DenseNet-BC.

    Args:
      depth: depth of the network, 6 n + 4.
      growth_rate: new channels per dense layer.
      classes: number of logits.

    Returns:
      A pure function apply(variables, images, *, upto="logits").
    """
    net = DenseNet(depth, growth_rate, classes)

    def apply(variables: Any, images: jax.Array, *, upto: str = "logits") -> jax.Array:
        """Images (B, 32, 32, 3), pixels in [0, 1] -> (B, h, w, c), or (B, classes) for logits."""
        check_images(images, INPUT_SHAPE)
        result = net.apply(variables, jnp.asarray(images), upto=upto)
        assert isinstance(result, jax.Array)  # a pair only if variables were made mutable
        return result

    return apply


def load(name_or_path: str | Path) -> Network:
    """Loads a DenseNet-BC with its weights.

    Args:
      name_or_path: `cifar10` or `cifar10_without_4`, whose weights are in `models/weights` (depth
        40; the latter never saw class 4, deer), or a path. A path is the folder of a training, its
        `weights.npz`, or a PyTorch checkpoint (`.pth.tar`, `.pth`, `.pt`, `.safetensors`, or its
        arrays as `.npz`), see `densenet_porting`.

    Returns:
      The network.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file cannot be read, or contains another architecture.
    """
    path = _find(name_or_path)
    card = weights_io.load_card(path)
    arrays = porting.stored(path)
    ported = not any(name.startswith("params/") for name in arrays.shapes)
    if ported:
        shape = densenet_porting.architecture(arrays.shapes, path)
        architecture = dict(zip(_SHAPE, shape, strict=True))
        card = {"architecture": architecture, "source": str(path), **card}
    else:
        shape = _shape(card, path)
    template = jax.eval_shape(
        DenseNet(*shape).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    )
    if ported:
        per_block = layers_per_block(shape[0])
        variables = densenet_porting.variables(arrays, template, per_block, path)
    else:
        variables = weights_io.fit(arrays, template, path)
    return Network(make_apply(*shape), variables, INPUT_SHAPE, layer_names(shape[0]), card)


def _find(name_or_path: str | Path) -> Path:
    name = str(name_or_path)
    if name in _RECIPES:
        path = WEIGHTS / f"{name}.npz"
        if path.is_file():
            return path
        raise FileNotFoundError(
            f"expected the weights of {name} at {path}, got no such file; train them: "
            f"{_TRAIN} runs/{name}{_RECIPES[name]}, then load('runs/{name}')"
        )
    path = local(name_or_path)
    if path.is_dir():
        if not (path / "weights.npz").is_file():
            raise FileNotFoundError(
                f"expected weights.npz in {path}, got a folder without it; "
                f"finish the training with the command it began with: {_TRAIN} {path} ..."
            )
        return path / "weights.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"expected one of {', '.join(_RECIPES)}, or the path of a checkpoint or of "
            f"a folder made by training, got {name!r}, which does not exist"
        )
    return path


def _shape(card: Mapping[str, Any], path: Path) -> tuple[int, int, int]:
    try:
        shape = [
            check_integer(card["architecture"][name], name, least=1, most=largest)
            for name, largest in _SHAPE.items()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected the architecture ({', '.join(_SHAPE)}) in {path.with_suffix('.json')}, "
            f"got {_got(card)}; keep the card beside the weights, or train them again"
        ) from error
    return shape[0], shape[1], shape[2]


def _got(card: Mapping[str, Any]) -> str:
    return repr(card["architecture"]) if "architecture" in card else "none"
