"""Checks of arrays at the public boundary: their kind, targets, and batches of samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from ifv_jax.checks.errors import InputError
from ifv_jax.checks.values import describe, is_concrete
from ifv_jax.status import Status
from ifv_jax.types import PyTree


def as_array(value, expected: str, do: str) -> jax.Array:
    """Converts a value to a JAX array of real numbers or booleans.

    Args:
      value: an array, or nested lists of numbers.
      expected: what is expected, for the message.
      do: what to do about a mistake.

    Returns:
      The array.

    Raises:
      InputError: the value is no such array.
    """
    try:
        array = jnp.asarray(value)
    except Exception as error:  # JAX has several kinds for objects, strings and ragged lists
        raise InputError(expected, describe(value), do) from error
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or jnp.issubdtype(
        array.dtype, jnp.complexfloating
    ):
        raise InputError(expected, describe(array), do)
    return array


def as_host(value, expected: str, do: str) -> Float64[np.ndarray, "..."]:
    """Converts a value that is not traced to a NumPy float64 array.

    Args:
      value: an array, or nested lists of numbers.
      expected: what is expected, for the message.
      do: what to do about a mistake.

    Returns:
      The array.

    Raises:
      InputError: the value is no array of real numbers or booleans, or it is traced.
    """
    if value is not None:
        try:
            array = np.asarray(value)
            if array.dtype.kind in "iufb" or jnp.issubdtype(array.dtype, jnp.floating):
                return array.astype(np.float64)
        except Exception as error:  # a tracer, an object, ragged lists
            raise InputError(expected, describe(value), do) from error
    raise InputError(expected, describe(value), do)


def check_batch(v: PyTree) -> int:
    """Counts the samples in a pytree of parameters.

    Args:
      v: parameters, leading axis batch.

    Returns:
      The number of samples, >= 1.

    Raises:
      InputError: there is no sample.
    """
    leaves = jax.tree.leaves(v)
    if not leaves or leaves[0].shape[0] == 0:
        raise InputError("at least one sample", "an empty batch", "Pass one sample or more.")
    return leaves[0].shape[0]


def check_some_finite(status, where: str) -> None:
    """Refuses a batch without any finite sample, because then the network is at fault.

    Args:
      status: status codes (batch,).
      where: what was not finite, for the message.

    Raises:
      InputError: the status of every sample is NON_FINITE.
    """
    if np.all(np.asarray(status) == Status.NON_FINITE):
        raise InputError(
            "a network that is finite for at least one sample",
            f"NaN or infinity in {where} of all of them",
            "Check the weights and the preprocessing; feed it one image by hand.",
        )


def check_targets(targets, features: int | None = None) -> Float[Array, "batch n"]:
    """Checks targets. The values are checked only if they are known, that is, not traced.

    Args:
      targets: (batch, n) with batch >= 1, floating point, finite, of unit length within 1e-3.
      features: n, the number of features; None accepts any.

    Returns:
      The targets as a JAX array.

    Raises:
      InputError: the targets are anything else.
    """
    expected = f"targets of shape (batch, {'features' if features is None else features})"
    do = "One target is a row over the features of the response; see `ifv_jax.sample_targets`."
    targets = as_array(targets, expected, do)
    if targets.ndim != 2 or (features is not None and targets.shape[1] != features):
        raise InputError(expected, f"shape {targets.shape}", do)
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
