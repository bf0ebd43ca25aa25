"""Parametrizations phi, which turn unconstrained parameters `v` into valid images.

A parametrization consists of pure functions. Images are (batch, H, W, C) float32 pixels in [0, 1].
Preprocessing is part of the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from ifv_jax.checks import InputError, check_flag, check_hashable, check_integers, describe
from ifv_jax.checks.images import check_images

START_SCALE = 0.01
"""Standard deviation of a new start: v ~ N(0, 0.01^2)."""

CLIP = 1 / 512
"""Given images are clipped to [1/512, 1 - 1/512], because the sigmoid never reaches 0 or 1."""

_COLOUR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOUR_CORRELATION = _COLOUR_ROOT / np.linalg.norm(_COLOUR_ROOT, axis=0).max()
"""Lucid's square root of the colour covariance of ImageNet, divided by its largest column norm."""


def _as_they_are(images: jax.Array) -> jax.Array:
    return images


@dataclass(frozen=True)
class Parametrization:
    """A parametrization phi: pure functions that belong together.

    Attributes:
      init: (key, batch) -> v, a new start. The leading axis of v is `batch`.
      apply: v -> images (batch, H, W, C), which is phi itself.
      shape: (H, W, C) of one image.
      invert: images -> v with apply(v) = images up to clipping; None if no inverse exists.
      in_unit_range: images -> the same images with all channels in [0, 1], to compare and show
        them. By default it returns its argument.

    Raises:
      InputError: a part is not a hashable function, or `shape` is not an image shape.
    """

    init: Callable[[jax.Array, int], jax.Array]
    apply: Callable[[jax.Array], jax.Array]
    shape: tuple[int, int, int]
    invert: Callable[[jax.Array], jax.Array] | None = None
    in_unit_range: Callable[[jax.Array], jax.Array] = _as_they_are

    def __post_init__(self):
        for name in ("init", "apply", "invert", "in_unit_range"):
            function = getattr(self, name)
            if name == "invert" and function is None:
                continue
            if not callable(function):
                raise InputError(
                    f"a function as `{name}`",
                    describe(function),
                    "See Parametrization, or use `sigmoid_pixels` or `fourier`.",
                )
            check_hashable(function, name)
        object.__setattr__(self, "shape", check_shape(self.shape))


def check_shape(shape) -> tuple[int, int, int]:
    """Checks the shape of an image.

    Args:
      shape: height, width and channels.

    Returns:
      The shape as a tuple of positive Python integers.

    Raises:
      InputError: `shape` is anything else.
    """
    do = "Pass the network's input shape without a batch axis."
    height, width, channels = check_integers(
        shape, "shape", 3, do, what="an image shape (height, width, channels), positive integers"
    )
    return height, width, channels


def _check_shape(shape, decorrelate) -> tuple[tuple[int, int, int], bool]:
    shape, decorrelate = check_shape(shape), check_flag(decorrelate, "decorrelate")
    if decorrelate and shape[-1] != 3:
        raise InputError(
            "3 channels for colour decorrelation",
            f"shape {shape}",
            "Pass decorrelate=False for images that are not RGB.",
        )
    return shape, decorrelate


def _to_pixels(
    logits: Float[Array, "batch h w c"], decorrelate: bool
) -> Float[Array, "batch h w c"]:
    if decorrelate:
        logits = logits @ jnp.asarray(COLOUR_CORRELATION.T, logits.dtype)
    return jax.nn.sigmoid(logits)


def _to_logits(
    images: Float[Array, "batch h w c"], shape: tuple[int, int, int], decorrelate: bool
) -> Float[Array, "batch h w c"]:
    images = jnp.clip(check_images(images, shape), CLIP, 1 - CLIP)
    logits = jnp.log(images) - jnp.log1p(-images)
    if decorrelate:
        logits = logits @ jnp.asarray(np.linalg.inv(COLOUR_CORRELATION.T), logits.dtype)
    return logits


def sigmoid_pixels(shape: tuple[int, int, int], *, decorrelate: bool = False) -> Parametrization:
    """Makes the parametrization x = sigmoid(v) with v (batch, H, W, C).

    Args:
      shape: (H, W, C) of one image.
      decorrelate: multiply the colours of v by `COLOUR_CORRELATION` before the sigmoid, as Lucid
        does. This requires C = 3.

    Returns:
      The parametrization, with an inverse.

    Raises:
      InputError: `shape` is not an image shape, or does not fit `decorrelate`.
    """
    shape, decorrelate = _check_shape(shape, decorrelate)
    return Parametrization(
        init=lambda key, batch: START_SCALE * jax.random.normal(key, (batch, *shape)),
        apply=partial(_to_pixels, decorrelate=decorrelate),
        shape=shape,
        invert=partial(_to_logits, shape=shape, decorrelate=decorrelate),
    )


def fourier_scale(height: int, width: int) -> Float64[np.ndarray, "{height} {width}//2+1"]:
    """Computes Lucid's energy scaling for an orthonormal Fourier transform.

    Args:
      height: H, in pixels.
      width: W, in pixels.

    Returns:
      s = 1 / (4 max(f, 1 / max(H, W))) with frequencies f in cycles per pixel; float64
      (H, W // 2 + 1).
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    return 1 / (4 * np.maximum(frequency, 1 / max(height, width)))


def fourier(
    shape: tuple[int, int, int], *, scaled: bool = False, decorrelate: bool = False
) -> Parametrization:
    """Makes the parametrization x = sigmoid(irfft2(s z)) of a spectrum z (Sec. 3.7).

    The transform is orthonormal. v contains the real and imaginary parts of z: (batch, H,
    W // 2 + 1, C, 2).

    Args:
      shape: (H, W, C) of one image.
      scaled: use s = `fourier_scale`, which favours low frequencies, instead of s = 1.
      decorrelate: decorrelate colours as in `sigmoid_pixels`. This requires C = 3.

    Returns:
      The parametrization, with an inverse.

    Raises:
      InputError: `shape` is not an image shape, or does not fit `decorrelate`.
    """
    shape, decorrelate = _check_shape(shape, decorrelate)
    scaled = check_flag(scaled, "scaled")
    height, width, channels = shape
    spectrum_shape = (height, width // 2 + 1, channels, 2)
    scale = fourier_scale(height, width)[:, :, None] if scaled else np.ones((1, 1, 1))

    def init(key: jax.Array, batch: int) -> jax.Array:
        return START_SCALE * jax.random.normal(key, (batch, *spectrum_shape))

    def apply(v: Float[Array, "batch h frequencies c 2"]) -> Float[Array, "batch h w c"]:
        spectrum = jnp.asarray(scale, v.dtype) * jax.lax.complex(v[..., 0], v[..., 1])
        logits = jnp.fft.irfft2(spectrum, s=(height, width), axes=(1, 2), norm="ortho")
        return _to_pixels(logits, decorrelate)

    def invert(images: Float[Array, "batch h w c"]) -> Float[Array, "batch h frequencies c 2"]:
        logits = _to_logits(images, shape, decorrelate)
        spectrum = jnp.fft.rfft2(logits, axes=(1, 2), norm="ortho") / jnp.asarray(
            scale, logits.dtype
        )
        return jnp.stack([spectrum.real, spectrum.imag], axis=-1)

    return Parametrization(init, apply, shape, invert)
