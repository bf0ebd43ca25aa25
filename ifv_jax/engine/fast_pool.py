"""Max pooling from shifted slices, whose gradient needs no scatter.

XLA's CPU backend spends more than ten times as long on `select_and_scatter`, which JAX uses, as on
the slices (98 ms against 7 ms at 4 x 112 x 112 x 64). Ties go to the first of the window, as there.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MOST_TAPS = 64
"""Larger windows are left as they are: one slice for each element would be too many."""


def applies(params: dict[str, Any], dtype: Any) -> bool:
    """Whether the form below holds for a `reduce_window_max` of these parameters."""
    return (
        dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64)
        and 1 < np.prod(params["window_dimensions"]) <= MOST_TAPS
        and max(params["base_dilation"]) == 1
        and max(params["window_dilation"]) == 1
    )


def fast_max_pool(params: dict[str, Any]) -> Callable[[jax.Array], jax.Array]:
    """Max pooling with the parameters of `reduce_window_max`."""
    window, strides = params["window_dimensions"], params["window_strides"]
    padding = params["padding"]
    taps = _taps(window)

    def slices(x: jax.Array) -> list[jax.Array]:
        low = jnp.asarray(-jnp.inf, x.dtype)
        x = lax.pad(x, low, [(before, after, 0) for before, after in padding])
        counts = [(n - w) // s + 1 for n, w, s in zip(x.shape, window, strides, strict=True)]
        ends = [(c - 1) * s + 1 for c, s in zip(counts, strides, strict=True)]
        return [
            lax.slice(x, tap, [t + e for t, e in zip(tap, ends, strict=True)], strides)
            for tap in taps
        ]

    def compete(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The largest of each window, and which it was; NaN is larger than all."""
        best, *rest = slices(x)
        winner = lax.full(best.shape, 0, jnp.uint8)
        for number, one in enumerate(rest, start=1):
            # Not `maximum`: its derivative halves ties, and inside of loops JAX differentiates
            # what is written here for a second derivative.
            better = lax.bitwise_or(lax.gt(one, best), lax.ne(one, one))
            winner = lax.select(better, lax.full(best.shape, number, jnp.uint8), winner)
            best = lax.select(better, one, best)
        return best, winner

    @jax.custom_jvp
    def pool(x: jax.Array) -> jax.Array:
        return compete(x)[0]

    @pool.defjvp
    def tangent(primals, tangents):
        (x,), (dx,) = primals, tangents
        winner = compete(lax.stop_gradient(x))[1]
        gather = functools.partial(_gather, window=window, strides=strides, padding=padding)
        # A checkpoint, so that for reverse mode the winner is kept and not a mask for each tap.
        return pool(x), jax.checkpoint(gather, prevent_cse=False)(dx, winner)

    return pool


def _taps(window: Sequence[int]) -> list[tuple[int, ...]]:
    """Places in the window, first to last: ties go to the first."""
    return list(itertools.product(*(range(w) for w in window)))


def _gather(
    dx: jax.Array,
    winner: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> jax.Array:
    """What `dx` has where each window's largest element stood.

    Written for the sake of its transpose, the gradient, which JAX reads off from the last line to
    the first: dx[s q + p] = sum_b g[q - b] (where tap s b + p won), phase by phase, put together.
    """
    number = {tap: i for i, tap in enumerate(_taps(window))}
    groups = [-(-w // s) for w, s in zip(window, strides, strict=True)]
    counts = [n + b - 1 for n, b in zip(winner.shape, groups, strict=True)]
    padded = [n + 2 * (b - 1) for n, b in zip(winner.shape, groups, strict=True)]
    # Padded once and kept out of the fusion: slices of memory are read quickly, pads are not.
    edges = [(b - 1, b - 1, 0) for b in groups]
    winner = lax.optimization_barrier(lax.pad(winner, jnp.uint8(MOST_TAPS), edges))
    phases = list(itertools.product(*(range(s) for s in strides)))
    zero = jnp.zeros((), dx.dtype)
    zeros = lax.full(counts, 0, dx.dtype)
    chosen = []
    for phase, plane in zip(phases, _planes(dx, counts, strides, padding), strict=True):
        for shift in itertools.product(*(range(b) for b in groups)):
            tap = tuple(s * b + p for s, b, p in zip(strides, shift, phase, strict=True))
            if tap in number:
                starts = [b - 1 - i for b, i in zip(groups, shift, strict=True)]
                ends = [n + i for n, i in zip(counts, starts, strict=True)]
                one = lax.slice(winner, starts, ends)
                won = lax.eq(one, lax.full(one.shape, number[tap], jnp.uint8))
                rest = [(i, n - e, 0) for i, n, e in zip(starts, padded, ends, strict=True)]
                some = lax.select(won, plane, zeros)
                chosen.append(lax.pad(some, zero, rest))
    total = lax.optimization_barrier(functools.reduce(lax.add, chosen))
    return lax.slice(total, [b - 1 for b in groups], counts)


def _planes(
    x: jax.Array,
    counts: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> list[jax.Array]:
    """x[s q + p] for all phases p, after `padding`: an array over q for each."""
    edges = [
        (before, n * s - before - size, 0)
        for (before, _), size, n, s in zip(padding, x.shape, counts, strides, strict=True)
    ]
    whole = lax.pad(x, jnp.zeros((), x.dtype), edges)
    phases = math.prod(strides)
    if phases == 1:
        return [whole]
    rank = len(counts)
    whole = whole.reshape([a for pair in zip(counts, strides, strict=True) for a in pair])
    whole = whole.transpose([*range(1, 2 * rank, 2), *range(0, 2 * rank, 2)])
    whole = whole.reshape(phases, *counts)
    # Split rather than indexed: the transpose is one concatenation instead of a sum of pads.
    return [plane[0] for plane in lax.split(whole, [1] * phases)]
