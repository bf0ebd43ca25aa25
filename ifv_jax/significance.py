"""The significance S_k of a response for a target, and the matrix W that gives its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ifv_jax.checks import InputError, as_array, check_real, describe


def check_cosine_power(cosine_power: float) -> float:
    """Checks the power of the cosine term.

    Args:
      cosine_power: k.

    Returns:
      k as a Python float.

    Raises:
      InputError: k is not a real number >= 0.
    """
    do = "The paper uses k = 2 with the cosine term and k = 0 without it."
    return check_real(cosine_power, "cosine_power", "a real cosine power k >= 0", least=0, do=do)


def _responses(r: Float[ArrayLike, "*batch n"]) -> Float[Array, "*batch n"]:
    expected = "floating-point responses (..., n)"
    r = as_array(r, expected, "Pass what a response returns.")
    if r.ndim < 1 or r.shape[-1] < 1 or not jnp.issubdtype(r.dtype, jnp.floating):
        raise InputError(expected, describe(r), "Pass what a response returns.")
    return r


def _check_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        np.broadcast_shapes(a, b)
    except ValueError as error:
        do = "Pass one target for each response."
        raise InputError("responses and targets of one batch", f"{a} and {b}", do) from error


def unit(r: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Computes r / |r| along the last axis.

    Args:
      r: (..., n), any floating dtype.

    Returns:
      (..., n) in the dtype of r. Where r = 0, the result and its gradient are zero.
    """
    # r is scaled by its largest entry first, so that |r|^2 neither overflows nor underflows. It is
    # multiplied by the reciprocal, because XLA replaces a division by a broadcast scalar when it
    # compiles for one device, and does not when it compiles for several.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(r), axis=-1, keepdims=True))
    scaled = r * (1 / jnp.where(scale > 0, scale, 1))
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    alive = square > 0
    return jnp.where(alive, scaled * (1 / jnp.sqrt(jnp.where(alive, square, 1))), 0)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _signed_power(c: jax.Array, k: float) -> jax.Array:
    """Computes c |c|^k. Autodiff would miss that its derivative (k + 1) |c|^k is finite at 0."""
    return c if k == 0 else c * jnp.abs(c) ** k


@_signed_power.defjvp
def _signed_power_jvp(k, primals, tangents):
    (c,), (dc,) = primals, tangents
    slope = jnp.ones_like(c) if k == 0 else (k + 1) * jnp.abs(c) ** k
    return _signed_power(c, k), slope * dc


def significance(
    r: Float[ArrayLike, "*#batch n"], t: Float[ArrayLike, "*#batch n"], *, cosine_power: float
) -> Float[Array, "..."]:
    """Computes S_k(r, t) = <r, t> |cos(r, t)|^k, the dot-times-cosine objective (Sec. 2).

    The paper writes cos^k. The absolute value changes nothing at even k and for <r, t> >= 0. For
    <r, t> < 0 it avoids NaN at fractional k and a pull towards -t at odd k.

    Args:
      r: responses (..., n).
      t: unit targets (..., n) of the same dtype; the leading axes are broadcast.
      cosine_power: k >= 0.

    Returns:
      The significance (...). Where r = 0, it and its gradient are zero.

    Raises:
      InputError: the shapes do not fit, or k is not valid.
    """
    k = check_cosine_power(cosine_power)
    r, t = _responses(r), as_array(t, "targets (..., n)", "Pass unit vectors over the features.")
    if t.ndim < 1 or t.shape[-1] != r.shape[-1]:
        raise InputError(
            f"targets (..., {r.shape[-1]}) over the features of the response",
            f"shape {t.shape}",
            "Pass targets of the same layer and choice of features.",
        )
    _check_broadcast(r.shape[:-1], t.shape[:-1])
    if k == 0:
        return jnp.sum(r * t, axis=-1)
    cosine = jnp.sum(unit(r) * t, axis=-1)
    # |r| = <r, r / |r|>. Computed by `unit`, its gradient is finite at r = 0, too.
    length = jnp.sum(r * unit(r), axis=-1)
    return length * _signed_power(cosine, k)


def weight_matrix(
    r: Float[ArrayLike, "*batch n"], *, cosine_power: float
) -> Float[Array, "*batch n n"]:
    """Computes W(r) = (k + 1) I - k rh rh^T with rh = r / |r| (Sec. 2.1).

    For a unit vector t, grad_v S_k(f(v), t) = |cos|^k J^T W(r) t: the gradient is linear in the
    objective.

    Args:
      r: responses (..., n).
      cosine_power: k >= 0.

    Returns:
      W (..., n, n), symmetric.

    Raises:
      InputError: the shape or dtype of r, or k, is not valid.
    """
    k = check_cosine_power(cosine_power)
    r = _responses(r)
    rh = unit(r)
    eye = jnp.eye(r.shape[-1], dtype=r.dtype)
    return (k + 1) * eye - k * rh[..., :, None] * rh[..., None, :]
