"""S_k, how strongly a response points along a target, and W, from which its gradient follows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import InputError, as_array, check_real, describe


def check_cosine_power(cosine_power: float) -> float:
    """`k` as a float; raises `InputError` unless it is a real number >= 0."""
    do = "The paper uses k = 2 with the cosine term and k = 0 without it."
    return check_real(cosine_power, "cosine_power", "a real cosine power k >= 0", least=0, do=do)


def _responses(r) -> jax.Array:
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


def unit(r: jax.Array) -> jax.Array:
    """r / |r| along the last axis; zero, with zero gradient, where r = 0. Any float dtype."""
    # Scaled by the largest entry first, so that |r|^2 neither overflows nor underflows. By its
    # reciprocal: XLA rewrites a division by a broadcast scalar for one device, not for several.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(r), axis=-1, keepdims=True))
    scaled = r * (1 / jnp.where(scale > 0, scale, 1))
    square = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    alive = square > 0
    return jnp.where(alive, scaled * (1 / jnp.sqrt(jnp.where(alive, square, 1))), 0)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _signed_power(c: jax.Array, k: float) -> jax.Array:
    """c |c|^k. Its derivative (k + 1) |c|^k is finite at c = 0, which autodiff cannot see."""
    return c if k == 0 else c * jnp.abs(c) ** k


@_signed_power.defjvp
def _signed_power_jvp(k, primals, tangents):
    (c,), (dc,) = primals, tangents
    slope = jnp.ones_like(c) if k == 0 else (k + 1) * jnp.abs(c) ** k
    return _signed_power(c, k), slope * dc


def significance(r: jax.Array, t: jax.Array, *, cosine_power: float) -> jax.Array:
    """S_k(r, t) = <r, t> |cos(r, t)|^k, the dot-times-cosine objective (Sec. 2).

    Args:
      r: responses (..., n). t: unit targets (..., n), same dtype. cosine_power: k >= 0.
    Returns: (...). Zero with zero gradient where r = 0.

    The paper writes cos^k. The absolute value changes nothing at even k and for <r, t> >= 0; for
    <r, t> < 0 it avoids NaN at fractional k and a pull towards -t at odd k.
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
    # |r| = <r, r / |r|>, through `unit` so that it is safe at r = 0 as well.
    length = jnp.sum(r * unit(r), axis=-1)
    return length * _signed_power(cosine, k)


def weight_matrix(r: jax.Array, *, cosine_power: float) -> jax.Array:
    """W(r) = (k + 1) I - k rh rh^T (Sec. 2.1), symmetric: (..., n) -> (..., n, n).

    grad_v S_k(f(v), t) = |cos|^k J^T W(r) t for unit t: the gradient is linear in the objective.
    """
    k = check_cosine_power(cosine_power)
    r = _responses(r)
    rh = unit(r)
    eye = jnp.eye(r.shape[-1], dtype=r.dtype)
    return (k + 1) * eye - k * rh[..., :, None] * rh[..., None, :]
