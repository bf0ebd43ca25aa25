"""Layers in channels-first, batch-last layout, written as matrix products for the CPU.

Activations are (C, H, W, N): channels, height, width, batch. A pointwise convolution is then one
matrix product over contiguous memory, and a shift by a pixel moves whole rows of N values.

XLA's CPU convolutions, and above all their gradients, are slow. With JAX 0.10.2 on one core of an
AVX2 machine, a training step of a DenseNet-BC-40 (k = 12) with batch 32 takes 0.5 s in this form,
of which 0.3 s are matrix products at 55 to 75 GFlop/s. Three things made the difference:

* The 3x3 convolution multiplies first and shifts its few outputs afterwards, or shifts first if its
  inputs are fewer.
* Its gradient is written by hand in the same form.
* `optimization_barrier` keeps small weight transposes and the padding out of XLA's fusions. A pad
  that was fused with the preceding operation ran 5 times slower than alone.

The hand-written gradients support reverse mode only. `jax.grad`, `jax.vjp`, `jax.jacrev`, `vmap`
and gradients of gradients work; `jax.jvp` and `jax.jacfwd` do not.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-5
"""Added to the variance in batch normalization."""

_SHIFTS = tuple((dy, dx) for dy in range(3) for dx in range(3))


def matmul(a: Float[Array, "i j"], b: Float[Array, "j k"]) -> Float[Array, "i k"]:
    """Multiplies matrices in full float32. Otherwise NVIDIA GPUs round the factors to TF32.

    Args:
      a: (i, j).
      b: (j, k).

    Returns:
      (i, k).
    """
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def to_channels_first(images: Float[Array, "n h w c"]) -> Float[Array, "c h w n"]:
    """Transposes images to the layout of this module.

    Args:
      images: (N, H, W, C).

    Returns:
      (C, H, W, N).
    """
    return images.transpose(3, 1, 2, 0)


def _per_channel(values: jax.Array) -> jax.Array:
    """Reshapes (C,) to (C, 1, 1, 1), to scale or shift (C, H, W, N)."""
    return values[:, None, None, None]


# Pointwise convolution


@jax.custom_vjp
def _pointwise(x: jax.Array, transposed: jax.Array) -> jax.Array:
    y = matmul(transposed, x.reshape(x.shape[0], -1))
    return y.reshape(-1, *x.shape[1:])


def _pointwise_forward(x, transposed):
    return _pointwise(x, transposed), (x, transposed)


def _pointwise_backward(residuals, cotangent):
    x, transposed = residuals
    g = cotangent.reshape(cotangent.shape[0], -1)
    dx = matmul(lax.optimization_barrier(transposed.T), g).reshape(x.shape)
    return dx, matmul(g, x.reshape(x.shape[0], -1).T)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def pointwise(x: Float[Array, "c h w n"], kernel: Float[Array, "c o"]) -> Float[Array, "o h w n"]:
    """Applies a 1x1 convolution.

    Args:
      x: (C, H, W, N).
      kernel: (C, O).

    Returns:
      (O, H, W, N).
    """
    return _pointwise(x, lax.optimization_barrier(kernel.T))


# 3x3 convolution, stride 1, zero padding 1


def _pad(x):
    x = lax.optimization_barrier(x)
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _patches(x):
    """Makes nine shifted copies, shift-major: (C, H, W, N) -> (9 C, H W N)."""
    channels, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, dy : dy + height, dx : dx + width] for dy, dx in _SHIFTS]
    return jnp.stack(shifted).reshape(9 * channels, -1)


def _from_patches(patches, kernel, shape):
    """Multiplies a kernel (3, 3, C, O) with patches (9 C, H W N)."""
    matrix = lax.optimization_barrier(kernel.reshape(-1, kernel.shape[-1]).T)
    return matmul(matrix, patches).reshape(-1, *shape[1:])


def _shift_and_add(x, kernel):
    """Multiplies to 9 O channels, then adds nine shifted parts; kernel (3, 3, C, O)."""
    (channels, height, width, batch), outputs = x.shape, kernel.shape[-1]
    matrix = lax.optimization_barrier(kernel.transpose(0, 1, 3, 2).reshape(9 * outputs, channels))
    z = matmul(matrix, _pad(x).reshape(channels, -1))
    z = z.reshape(9, outputs, height + 2, width + 2, batch)
    shifted = [z[i, :, dy : dy + height, dx : dx + width] for i, (dy, dx) in enumerate(_SHIFTS)]
    return functools.reduce(jnp.add, shifted)


def _mirrored(kernel):
    """Makes the kernel of the transposed convolution: flipped in space, channels swapped."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


@jax.custom_vjp
def conv3x3(x: Float[Array, "c h w n"], kernel: Float[Array, "3 3 c o"]) -> Float[Array, "o h w n"]:
    """Applies a 3x3 convolution with stride 1 and zero padding 1.

    Args:
      x: (C, H, W, N).
      kernel: (3, 3, C, O).

    Returns:
      (O, H, W, N).
    """
    if kernel.shape[2] <= kernel.shape[3]:
        return _from_patches(_patches(x), kernel, x.shape)
    return _shift_and_add(x, kernel)


def _conv3x3_forward(x, kernel):
    return conv3x3(x, kernel), (x, kernel)


def _conv3x3_backward(residuals, g):
    x, kernel = residuals
    inputs, outputs = kernel.shape[2:]
    if inputs <= outputs:
        dx = _shift_and_add(g, _mirrored(kernel))
        dk = matmul(_patches(x), g.reshape(outputs, -1).T).reshape(3, 3, inputs, outputs)
        return dx, dk
    patches = lax.optimization_barrier(_patches(g))  # used twice, so written once
    dx = _from_patches(patches, _mirrored(kernel), x.shape)
    dk = matmul(patches, x.reshape(inputs, -1).T).reshape(3, 3, outputs, inputs)
    return dx, _mirrored(dk)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def average_pool2(x: Float[Array, "c h w n"]) -> Float[Array, "c h2 w2 n"]:
    """Averages over 2x2 windows.

    Args:
      x: (C, H, W, N) with even H and W.

    Returns:
      (C, H/2, W/2, N).
    """
    channels, height, width, batch = x.shape
    return x.reshape(channels, height // 2, 2, width // 2, 2, batch).mean((2, 4))


# Batch normalization and concatenation


def moments(x: Float[Array, "c h w n"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Computes the mean and the variance (without Bessel's correction) of each channel.

    Args:
      x: (C, H, W, N).

    Returns:
      Mean (C,) and variance (C,).
    """
    mean = x.mean((1, 2, 3))
    return mean, jnp.maximum((x * x).mean((1, 2, 3)) - mean * mean, 0)


def scale_shift_relu(
    x: Float[Array, "c h w n"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "c h w n"]:
    """Computes relu(x * scale + shift).

    Args:
      x: (C, H, W, N).
      scale: factor of each channel, (C,).
      shift: summand of each channel, (C,).

    Returns:
      (C, H, W, N).
    """
    return jax.nn.relu(x * _per_channel(scale) + _per_channel(shift))


def append(x: Float[Array, "c h w n"], new: Float[Array, "k h w n"]) -> Float[Array, "_ h w n"]:
    """Concatenates along the channels.

    The result is written to memory once for all layers that read it. Normalizing the pieces one by
    one before they are concatenated trained 8 % faster, but took four times as long to compile.

    Args:
      x: (C, H, W, N).
      new: (K, H, W, N).

    Returns:
      [x, new], (C + K, H, W, N).
    """
    return lax.optimization_barrier(jnp.concatenate([x, new]))
