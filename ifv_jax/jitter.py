"""Jitter: random shifts of the images, so that a result does not depend on single pixels.

This is the simplest form of transformation robustness (Mordvintsev et al. 2015; Olah et al. 2017).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

_STREAM = 0x6A697474  # separates the keys of the shifts from those of the starting points


def shifted(
    pixels: int, keys: Key[Array, " lanes"], taken: Int[Array, " lanes"]
) -> Callable[[jax.Array], jax.Array]:
    """Makes a function that shifts images at random.

    The shift depends only on the lane's key and on its number of steps, so it is the same when a
    run is resumed.

    Args:
      pixels: largest shift along each axis, in pixels.
      keys: one PRNG key per lane, (lanes,).
      taken: number of steps that each lane has taken, integers (lanes,).

    Returns:
      A function that rolls each image of a batch (lanes, H, W, C) by up to `pixels` along both
      spatial axes.
    """

    def shift(
        key: Key[Array, ""], taken: Int[Array, ""], image: Float[Array, "h w c"]
    ) -> Float[Array, "h w c"]:
        key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), taken)
        by = jax.random.randint(key, (2,), -pixels, pixels + 1)
        return jnp.roll(image, by, axis=(0, 1))

    return lambda images: jax.vmap(shift)(keys, taken, images)
