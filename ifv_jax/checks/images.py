"""The check of given images, which clips rounding errors and refuses everything else."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ifv_jax.checks import as_array, is_concrete
from ifv_jax.checks.errors import InputError

PIXEL_ROUNDING = 2e-6
"""Pixels up to this far outside [0, 1] are clipped: a resize or a division rounds so."""


def check_images(images, shape: tuple[int, int, int]) -> Float[Array, "batch h w c"]:
    """Checks given images.

    Args:
      images: an array, or nested lists, of shape (batch, *shape) with batch >= 1, floating point,
        finite, in [0, 1]. The values are checked only if they are known, that is, not traced.
      shape: (H, W, C) of one image.

    Returns:
      The images as a JAX array, with pixels clipped that are off by `PIXEL_ROUNDING` or less.

    Raises:
      InputError: the images are anything else.
    """
    expected = f"images of shape (batch, {', '.join(map(str, shape))})"
    images = as_array(images, expected, "Pass an array of floating-point pixels in [0, 1].")
    if images.ndim != 4 or images.shape[1:] != tuple(shape):
        raise InputError(expected, f"shape {images.shape}", _reshaping(images.shape, tuple(shape)))
    if images.shape[0] == 0:
        raise InputError("at least one image", "an empty batch", "Pass one image or more.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            "floating-point pixels in [0, 1]",
            f"dtype {images.dtype}",
            "Divide 8-bit images by 255 first.",
        )
    if is_concrete(images):
        low, high = float(images.min()), float(images.max())
        if not (low >= -PIXEL_ROUNDING and high <= 1 + PIXEL_ROUNDING):
            do = "Preprocessing such as mean and std belongs into the network's apply function."
            if low >= 0 and 2 < high <= 255:
                do = "Divide 8-bit images by 255 first."
            raise InputError("finite pixels in [0, 1]", f"values from {low:g} to {high:g}", do)
        if low < 0 or high > 1:
            images = jnp.clip(images, 0, 1)
    return images


def _reshaping(got: tuple[int, ...], shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    if got == shape:
        return "Add a batch axis with images[None]."
    if got[1:] == (channels, height, width):
        return "Move the channels last: images.transpose(0, 2, 3, 1)."
    if got[1:] == (height, width):
        last = "images[..., None]" if channels == 1 else f"images[..., None].repeat({channels}, -1)"
        return f"Add the channel axis: {last}."
    return "Add a batch axis with images[None], or resize them first."
