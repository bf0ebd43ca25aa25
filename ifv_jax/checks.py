"""Checks of input at the public boundary. Shapes and dtypes always; values where they are known.

Inside a user's `jit` values are tracers and cannot be looked at: there, what would have been an
error of value becomes the status of the sample.
"""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ifv_jax.errors import InputError
from ifv_jax.status import Status
from ifv_jax.types import PyTree


def is_concrete(*arrays) -> bool:
    """Whether the values are known now, that is, not traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays))


def check_images(images, shape: tuple[int, int, int]) -> jax.Array:
    """Images as given, checked: (batch, *shape), floating point, finite, in [0, 1], batch >= 1."""
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != tuple(shape):
        raise InputError(
            f"images of shape (batch, {', '.join(map(str, shape))})",
            f"shape {images.shape}",
            "Add a batch axis with images[None], or resize them first.",
        )
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
        if not (low >= 0 and high <= 1):
            raise InputError(
                "finite pixels in [0, 1]",
                f"values from {low:g} to {high:g}",
                "Preprocessing such as mean and std belongs into the network's apply function.",
            )
    return images


def check_batch(v: PyTree) -> int:
    """The number of samples in a pytree of parameters, leading axis batch; at least one."""
    leaves = jax.tree.leaves(v)
    if not leaves or leaves[0].shape[0] == 0:
        raise InputError("at least one sample", "an empty batch", "Pass one sample or more.")
    return leaves[0].shape[0]


def check_some_finite(status, where: str) -> None:
    """Raises if every single sample is non-finite: then it is the network, not the samples."""
    if np.all(np.asarray(status) == Status.NON_FINITE):
        raise InputError(
            "a network that is finite for at least one sample",
            f"NaN or infinity in {where} of all of them",
            "Check the weights and the preprocessing; feed it one image by hand.",
        )


def check_targets(targets, features: int | None = None) -> jax.Array:
    """Targets as given, checked: (batch, features), finite, of unit length within 1e-3."""
    targets = jnp.asarray(targets)
    expected = f"targets of shape (batch, {'features' if features is None else features})"
    if targets.ndim != 2 or (features is not None and targets.shape[1] != features):
        raise InputError(
            expected,
            f"shape {targets.shape}",
            "One target is a row over the features of the response; see `ifv_jax.sample_targets`.",
        )
    if targets.shape[0] == 0:
        raise InputError("at least one target", "an empty batch", "Pass one target or more.")
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise InputError(
            expected + ", floating point", f"dtype {targets.dtype}", "Convert them first."
        )
    if is_concrete(targets):
        length = np.linalg.norm(np.asarray(targets, np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(length - 1) < 1e-3))
        if wrong.size:
            raise InputError(
                "finite targets of unit length",
                f"length {length[wrong[0]]:g} at target {wrong[0]} ({wrong.size} such)",
                "Divide each by its length; a zero or non-finite target has no direction.",
            )
    return targets


def check_key(key) -> jax.Array:
    """A single JAX PRNG key, `jax.random.key(seed)` or the older `PRNGKey`."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = dtype == jnp.uint32 and getattr(key, "ndim", 0) == 1
    if not (typed or raw):
        raise InputError("a single PRNG key", f"{type(key).__name__}", "Pass jax.random.key(seed).")
    return key if typed else jax.random.wrap_key_data(key)
