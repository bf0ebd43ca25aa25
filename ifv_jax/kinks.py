"""J without the directions that cross kinks: the closed form at an input that rests on them.

Maximizing S through ReLUs and maxima ends where pieces of the network meet. S climbs towards such
a kink from both sides: across it no gradient vanishes, and along it all gradients agree and do
vanish (the VU decomposition of Lemarechal, Oustry & Sagastizabal 2000). So the closed form holds on
the directions of v along which the gradient is the same all around v. Gradients at points drawn
nearby (as in Burke, Lewis & Overton 2005) differ by what the kinks contribute; what these
differences span is taken out of J. Differences that are round-off or curvature are not, see
`ifv_jax.crossings`: where no kink was crossed, J is left as it is, to the bit. The gradient is that
of S for the objective, J^T W t, so an estimate of the objective is needed first: the solution on
all directions, then on the remaining ones, again. Only the input is used, not the optimizer that
found it.

What is promised: Feature Visualization, J and the plain closed form have the same bits on any
number of CPU devices. Off kinks only up to round-off, which the program for another number of
devices may have on some processors: within 0.1 degrees for the networks of the tests, 0.02 measured
between instruction sets (AVX2, AVX, SSE 4.2) at deviations up to 1e-3. Kinks as close to v as
round-off are real and may be seen from the other side: at optima of a DenseNet, which lie on
hundreds of them, predictions changed by up to 0.35 degrees between instruction sets, and by nothing
between one device and three.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax import crossings
from ifv_jax.checks import InputError, check_integer, check_key, check_kind, check_real
from ifv_jax.engine import lanes, network
from ifv_jax.engine.concurrency import concurrently
from ifv_jax.jacobian import Jacobian, Linearization, gram_matrix, linearize
from ifv_jax.objective import Response
from ifv_jax.types import Device, PyTree

ROUNDS = 2
"""Estimates of the objective after the first; a third changes nothing (measured)."""

GRAM_CUTOFF = 1e-12
"""Squared lengths below this fraction of the largest are round-off of the float64 Gram matrix."""


class Perturbations(NamedTuple):
    """Where gradients are compared: at v + e and v - e for `pairs` normal draws e.

    The deviation of e is to cover the kinks at v and little curvature: just above the smallest step
    that changes the gradient. In units of v; the default suits sigmoid pixels and a DenseNet. 2
    pairs directions are taken out of J. Whether that helped shows in the residual of the
    predictions, which needs no target to be known.
    """

    key: jax.Array
    pairs: int = 16
    deviation: float = 1.5e-4


def check_perturbations(around: Perturbations, features: int, parameters: int) -> Perturbations:
    """The same, once key, pairs and deviation make sense and leave J enough directions."""
    do = "Pass Perturbations(jax.random.key(0)), or leave `kinks` out."
    check_kind(around, Perturbations, "kinks", do)
    pairs = check_integer(around.pairs, "pairs", least=1)
    deviation = check_real(
        around.deviation, "deviation", "a positive, finite deviation", above=0, do="Try 1.5e-4."
    )
    if 2 * pairs + features > parameters:
        raise InputError(
            f"2 pairs + {features} features of at most {parameters}, the parameters of a sample",
            f"{pairs} pairs",
            "Take fewer: each pair costs two directions of J.",
        )
    return Perturbations(check_key(around.key), pairs, deviation)


def without_kinks(
    response: Response,
    variables: PyTree,
    v: PyTree,
    jac: Jacobian,
    cotangents: jax.Array,
    around: Perturbations,
    samples: np.ndarray,
    devices: Sequence[Device] | None,
    plain: Linearization | None = None,
) -> Linearization:
    """r and J J^T on the directions along which gradients J^T cotangent agree around v.

    Args: as of `invert`; `jac` is J at v; `cotangents` (batch, n) the estimates of W t; `samples`
    (batch,) numbers the samples in their whole batch, so that how it was split does not matter;
    `plain` is linearize(jac); where no kink was crossed, its J J^T is returned to the bit.
    """
    plain = linearize(jac) if plain is None else plain
    cotangents = jnp.asarray(cotangents).astype(jac.response.dtype)
    pull = _puller(response, variables, v, cotangents, around, samples, devices)
    here = pull(0, 0)
    around_it = [(pair, step) for pair in range(around.pairs) for step in (1, -1)]
    used = lanes.resolve_devices(devices)
    apart = concurrently(lambda at: pull(*at) - here, around_it, used)
    plus, minus = jnp.stack(apart[::2], axis=1), jnp.stack(apart[1::2], axis=1)
    aside = pull(0, crossings.ASIDE) - here
    found = crossings.sizes(plus, minus, aside)
    noise = crossings.noise(jac, np.asarray(plain.gram), cotangents, here)
    kept = crossings.crossed(found, noise)
    sure = crossings.on_a_kink(found, noise)

    def jumps(pair: int) -> np.ndarray:
        halves = (pull(pair, step) - here for step in (0.5, -0.5))
        return ~np.asarray(crossings.shrinks(plus[:, pair], minus[:, pair], *halves))

    # Where the first pair has crossed a kink for certain, the others need no closer look.
    if kept[:, 0].any():
        kept[:, 0] &= sure | jumps(0)
        sure = sure | kept[:, 0]
    for pair in map(int, np.flatnonzero((kept & ~sure[:, None]).any(axis=0))):
        kept[:, pair] &= sure | jumps(pair)
    gram = plain.gram
    if kept.any():
        rows = crossings.crossing_rows(plus, minus, found, kept)
        both = gram_matrix(jnp.concatenate([jac.matrix, rows], axis=1))
        with jax.enable_x64(True):
            gram = _complement(gram, both, noise)
    unknown = np.asarray(~np.isfinite(found.even).all(axis=1))  # a gradient nearby is not finite
    return Linearization(jac.response, np.where(unknown[:, None, None], np.nan, gram))


@jax.jit
def _complement(plain: jax.Array, gram: jax.Array, noise: jax.Array) -> jax.Array:
    """J J^T without what lies in the span of the other rows: a Schur complement.

    `plain` is the (n, n) part of `gram`, to the bit that of `linearize`. Directions in which the
    rows reach no further than `noise` are not taken out; beyond it they fade in, so that round-off
    decides nothing at the bound.
    """
    n = plain.shape[1]
    among, across = gram[:, n:, n:], gram[:, :n, n:]
    values, vectors = jnp.linalg.eigh(among)
    bound = jnp.maximum(jnp.square(noise)[:, None], GRAM_CUTOFF * values[:, -1:])
    beyond = values > bound
    share = jnp.clip(values / jnp.where(beyond, bound, 1) - 1, 0, 1)
    inverse = jnp.where(beyond, share / jnp.where(beyond, values, 1), 0)
    turned = across @ vectors
    return plain - (turned * inverse[:, None]) @ turned.swapaxes(1, 2)


def _puller(response, variables, v, cotangents, around, samples, devices):
    """(pair, step) -> J^T cotangent at v + step e of that pair, (batch, m)."""
    used = lanes.resolve_devices(devices)
    ((padded, _),) = lanes.groups(len(samples), len(samples), used)
    each = lanes.place(lanes.take((v, jnp.asarray(samples), cotangents), padded), used)
    key_data = jax.random.key_data(around.key)
    within = network.Network(response, used, variables)

    def pull(pair: int, step: float) -> jax.Array:
        def some(lane):
            v, numbers, c = lane
            near = _near(used, v, key_data, numbers, int(pair), (around.deviation, float(step)))
            return within.forward(near).pull_back(c)

        found = network.in_turns(used, some, each)
        return found[: len(samples)]

    return pull


@partial(jax.jit, static_argnums=0)
def _near(devices, v, key_data, samples, pair, by) -> PyTree:
    """v + step e, (lanes, ...); e is drawn for each sample and pair."""

    def call(shared, v, samples):
        key_data, pair, by = shared
        return _moved(v, jax.random.wrap_key_data(key_data), samples, pair, *by)

    return lanes.on_each_device(call, devices)((key_data, pair, by), v, samples)


def _moved(v: PyTree, key: jax.Array, samples: jax.Array, pair, deviation, step) -> PyTree:
    """v + step e. Moved by -step, v goes exactly as far to the other side."""
    leaves, structure = jax.tree.flatten(v)

    def direction(sample):
        own = jax.random.fold_in(jax.random.fold_in(key, sample), pair)
        keys = jax.random.split(own, len(leaves))
        return [
            jax.random.normal(k, leaf.shape[1:], leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]

    def move(leaf, e):
        e = (jnp.abs(step) * deviation * e).astype(leaf.dtype)
        # Rounded to a step that both sums hold exactly: otherwise curvature would not cancel.
        e = (leaf + e) - leaf
        e = leaf - (leaf - e)
        return leaf + jnp.sign(step).astype(leaf.dtype) * e

    moved = [move(leaf, e) for leaf, e in zip(leaves, jax.vmap(direction)(samples), strict=True)]
    return jax.tree.unflatten(structure, moved)
