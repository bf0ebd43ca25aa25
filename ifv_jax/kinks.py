"""J without the directions that cross kinks: the closed form at an input that rests on them.

Maximizing S through ReLUs and maxima ends where pieces of the network meet. S climbs towards such
a kink from both sides: across it no gradient vanishes, and along it all gradients agree and do
vanish (the VU decomposition of Lemarechal, Oustry & Sagastizabal 2000). So the closed form holds on
the directions of v along which the gradient is the same all around v. Gradients at points drawn
nearby (as in Burke, Lewis & Overton 2005) differ by what the kinks contribute; what these
differences span is taken out of J. The gradient is that of S for the objective, J^T W t, so an
estimate of the objective is needed first: the solution on all directions, then on the remaining
ones, again. Only the input is used, not the optimizer that found it.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax import lanes
from ifv_jax.checks import check_key
from ifv_jax.errors import InputError
from ifv_jax.jacobian import Jacobian, Linearization, linearize
from ifv_jax.objective import Response
from ifv_jax.types import Device, PyTree

ROUNDS = 2
"""Estimates of the objective after the first; a third changes nothing (measured)."""

CUTOFF = 1e-10
"""Squared differences below this fraction of the largest are round-off."""


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
    pairs, deviation = around.pairs, around.deviation
    if int(pairs) != pairs or pairs < 1:
        raise InputError("a positive integer of pairs", repr(pairs), "Try 16.")
    if not 0 < deviation < float("inf"):
        raise InputError("a positive, finite deviation", repr(deviation), "Try 1.5e-4.")
    if 2 * pairs + features > parameters:
        raise InputError(
            f"2 pairs + {features} features of at most {parameters}, the parameters of a sample",
            f"{pairs} pairs",
            "Take fewer: each pair costs two directions of J.",
        )
    return around._replace(key=check_key(around.key))


def without_kinks(
    response: Response,
    variables: PyTree,
    v: PyTree,
    jac: Jacobian,
    cotangents: jax.Array,
    around: Perturbations,
    samples: np.ndarray,
    devices: Sequence[Device] | None,
) -> Linearization:
    """r and J J^T on the directions along which gradients J^T cotangent agree around v.

    Args: as of `invert`; `jac` is J at v; `cotangents` (batch, n) the estimates of W t; `samples`
    (batch,) numbers the samples in their whole batch, so that how it was split does not matter.
    """
    used = lanes.resolve_devices(devices)
    ((padded, _),) = lanes.groups(len(samples), len(samples), used)
    each = lanes.place(lanes.take((v, jnp.asarray(samples), jnp.asarray(cotangents)), padded), used)
    key_data = jax.random.key_data(around.key)
    here, differences = _pull_near(response, used, variables, key_data, 0, 0.0, *each), []
    for pair in range(around.pairs):
        for by in (around.deviation, -around.deviation):
            near = _pull_near(response, used, variables, key_data, pair, by, *each)
            differences.append(near - here)
    rows = jnp.stack(differences, axis=1)[: len(samples)]
    both = linearize(Jacobian(jac.response, jnp.concatenate([jac.matrix, rows], axis=1)))
    with jax.enable_x64(True):
        return Linearization(jac.response, _complement(both.gram, jac.matrix.shape[1]))


@partial(jax.jit, static_argnums=1)
def _complement(gram: jax.Array, n: int) -> jax.Array:
    """J J^T without what lies in the span of the other rows: a Schur complement."""
    among, across = gram[:, n:, n:], gram[:, :n, n:]
    values, vectors = jnp.linalg.eigh(among)
    kept = values > CUTOFF * values[:, -1:]
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    turned = across @ vectors
    return gram[:, :n, :n] - (turned * inverse[:, None]) @ turned.swapaxes(1, 2)


@partial(jax.jit, static_argnames=("response", "devices"))
def _pull_near(
    response: Response, devices, variables, key_data, pair, by, v, samples, cotangents
) -> jax.Array:
    """J^T cotangent at v + by e, (lanes, m); e is drawn for each sample and pair."""

    def call(shared, v, samples, cotangents):
        variables, key_data, pair, by = shared
        near = _moved(v, jax.random.wrap_key_data(key_data), samples, pair, by)
        _, pull = jax.vjp(partial(response, variables), near)
        return lanes.flatten(pull(cotangents)[0])

    shared = (variables, key_data, pair, by)
    return lanes.spread(call, devices)(shared, v, samples, cotangents)


def _moved(v: PyTree, key: jax.Array, samples: jax.Array, pair, by) -> PyTree:
    leaves, structure = jax.tree.flatten(v)

    def direction(sample):
        own = jax.random.fold_in(jax.random.fold_in(key, sample), pair)
        keys = jax.random.split(own, len(leaves))
        return [
            jax.random.normal(k, leaf.shape[1:], leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]

    moved = [leaf + by * e for leaf, e in zip(leaves, jax.vmap(direction)(samples), strict=True)]
    return jax.tree.unflatten(structure, moved)
