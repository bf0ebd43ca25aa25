"""Which pairs of gradients differ because a kink was crossed, not by round-off or curvature.

Gradients at v + e and v - e differ from the one at v by d+ and d-. Curvature is odd in e, d+ = H e
and d- = -H e, and cancels in the even part d+ + d-. A kink is crossed by one of the two and stays.
What curvature leaves in the even part shrinks to a quarter when e is halved; a kink's jump does
not shrink. Round-off is measured, see `noise`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.jacobian import Jacobian

NOISE = 16
"""What is below so many times the round-off of one gradient is not looked at.

Even parts reached 2.8 times in smooth test networks of float32, float16 and bfloat16."""

LEAST_NOISE = 8
"""The least round-off, in units of the dtype's. Float32 gradients have 1 to 5; a bound that does
not depend on the machine decides the same on all of them. Where an optimum of a DenseNet lies on
kinks, differences are 1,000 times NOISE LEAST_NOISE or more."""

EVEN = 0.25
"""|d+ + d-| over |d+ - d-| from which on a pair may have crossed a kink. In smooth test networks
0.1 at a deviation of 0.1 and less at smaller ones; at optima of a DenseNet 0.45 to 1.1."""

ONE_SIDED = 0.1
"""Below this fraction of |d+ + d-| the smaller difference is taken for curvature."""

SHRUNK = 0.25
"""An even part that halving e quarters, up to this fraction of it, is that of a smooth function."""

ASIDE = 1 / 16
"""The step, in units of e, that leaves a kink on which v lies exactly."""


class Sizes(NamedTuple):
    """Lengths of the differences of each pair, float64."""

    plus: np.ndarray  # (batch, pairs) |d+|
    minus: np.ndarray  # (batch, pairs) |d-|
    even: np.ndarray  # (batch, pairs) |d+ + d-|
    odd: np.ndarray  # (batch, pairs) |d+ - d-|
    aside: np.ndarray  # (batch,) |d0|, d0 the difference at v + ASIDE e of the first pair
    even_aside: np.ndarray  # (batch, pairs) |d+ + d- - 2 d0|


def sizes(plus: jax.Array, minus: jax.Array, aside: jax.Array) -> Sizes:
    """From differences (batch, pairs, m) and, `aside`, (batch, m)."""
    return Sizes(*(np.asarray(a, np.float64) for a in _sizes(plus, minus, aside)))


@jax.jit
def _sizes(plus, minus, aside):
    even = plus + minus
    return (
        *map(_length, (plus, minus, even, plus - minus, aside)),
        _length(even - 2 * aside[:, None]),
    )


def noise(jac: Jacobian, gram: np.ndarray, cotangents: jax.Array, gradient: jax.Array):
    """Up to which length a difference of gradients J^T c may be round-off, float64 (batch,).

    At an optimum the terms c_i J_i cancel: their size, not the gradient's, says how far it is
    rounded. And the gradient pulled back at once and the one put together from the rows of J are
    equal but for round-off, of whatever precision the network computes in on this device.
    """
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    measured = _apart(jac.matrix.astype(wide), cotangents.astype(wide), gradient.astype(wide))
    c = np.asarray(cotangents, np.float64)
    terms = np.sqrt(np.einsum("bi,bii->b", c * c, np.asarray(gram)))
    least = LEAST_NOISE * float(jnp.finfo(gradient.dtype).eps) * terms
    return NOISE * np.maximum(np.asarray(measured, np.float64), least)


@jax.jit
def _apart(matrix, cotangents, gradient):
    together = jnp.einsum("bi,bij->bj", cotangents, matrix, precision=jax.lax.Precision.HIGHEST)
    return _length(together - gradient)


def on_a_kink(found: Sizes, noise: np.ndarray) -> np.ndarray:
    """Whether v lies exactly on kinks, (batch,).

    There the gradient may be the mean of both sides and a kink's jump odd, as curvature is. A small
    step then changes the gradient by as much as a large one.
    """
    return (found.aside > noise) & (found.aside > 4 * ASIDE * found.odd[:, 0] / 2)


def crossed(found: Sizes, noise: np.ndarray) -> np.ndarray:
    """Which pairs may have crossed a kink, (batch, pairs)."""
    on = on_a_kink(found, noise)[:, None]
    even = np.where(on, np.maximum(found.even, found.even_aside), found.even)
    return (even > noise[:, None]) & (even > EVEN * found.odd)


@jax.jit
def shrinks(plus, minus, half_plus, half_minus) -> jax.Array:
    """Whether the even part of a pair, (batch, m) each, is quartered when e is halved, (batch,)."""
    even, half = plus + minus, half_plus + half_minus
    return _length(4 * half - even) <= SHRUNK * _length(even)


def crossing_rows(plus, minus, found: Sizes, kept: np.ndarray) -> jax.Array:
    """What the kept pairs say of the kinks, (batch, 2 pairs, m), zero for the others.

    Both differences; where only one of the two crossed a kink, the even part, without curvature.
    """
    smaller = np.minimum(found.plus, found.minus)
    on_one_side = kept & (smaller < ONE_SIDED * found.even)
    first = jnp.where(on_one_side[..., None], plus + minus, plus)
    rows = [jnp.where(kept[..., None], first, 0)]
    rows.append(jnp.where((kept & ~on_one_side)[..., None], minus, 0))
    return jnp.concatenate(rows, axis=1)


def _length(rows: jax.Array) -> jax.Array:
    """Along the last axis; squares neither overflow nor underflow."""
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(rows), axis=-1)
    scaled = rows / jnp.where(largest > 0, largest, 1)[..., None]
    return largest * jnp.sqrt(jnp.sum(scaled * scaled, axis=-1))
