"""Jitter: images are seen shifted at random, so that FV finds what does not hang on single pixels.

Transformation robustness in its simplest form (Mordvintsev et al. 2015; Olah et al. 2017).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_STREAM = 0x6A697474  # sets the shifts' keys apart from those of the starting points


def shifted(pixels: int, keys: jax.Array, taken: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A view of images (lanes, H, W, C): each rolled by up to `pixels` along both axes.

    The shift depends on the lane's key and on how many steps it has taken (lanes,), and so comes
    out the same when a run is resumed.
    """

    def shift(key: jax.Array, taken: jax.Array, image: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), taken)
        by = jax.random.randint(key, (2,), -pixels, pixels + 1)
        return jnp.roll(image, by, axis=(0, 1))

    return lambda images: jax.vmap(shift)(keys, taken, images)
