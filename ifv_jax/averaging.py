"""J averaged over small perturbations of v: the closed form at an input that rests on kinks.

Maximizing S through ReLUs and maxima ends where pieces of the network meet. S climbs towards such
a kink from all sides, so that no single gradient vanishes there; zero lies in the convex hull of
the gradients around it (Clarke 1975), which points drawn at random reveal (Burke, Lewis & Overton
2005). The weights W and the objective hardly change within the distance of a kink, so what vanishes
is w^T E[J], and the smallest left singular vector of W E[J] is the estimate. Only the input is
used, not the optimizer that found it.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.checks import check_key
from ifv_jax.errors import InputError
from ifv_jax.jacobian import Jacobian, jacobian
from ifv_jax.objective import Response
from ifv_jax.types import Device, PyTree


class Perturbations(NamedTuple):
    """Where J is averaged: at v + e and v - e for `pairs` normal draws e of a standard deviation.

    The deviation is to cover the kinks at v and no curvature: just above the smallest step that
    still changes the gradient. In units of v; 1e-4 suits sigmoid pixels and a DenseNet. Too narrow
    or too wide shows in the residual of the predictions, which needs no target to be known.
    """

    key: jax.Array
    pairs: int = 8
    deviation: float = 1e-4


def check_perturbations(around: Perturbations) -> Perturbations:
    """The same, once key, pairs and deviation make sense."""
    pairs, deviation = around.pairs, around.deviation
    if int(pairs) != pairs or pairs < 1:
        raise InputError("a positive integer of pairs", repr(pairs), "Try 8.")
    if not 0 < deviation < float("inf"):
        raise InputError("a positive, finite deviation", repr(deviation), "Try 1e-4.")
    return around._replace(key=check_key(around.key))


def average_jacobian(
    response: Response,
    variables: PyTree,
    v: PyTree,
    around: Perturbations,
    *,
    samples: jax.Array | None = None,
    chunk: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Jacobian:
    """The means of r and J over `around`; 2 pairs Jacobians of work, and memory for two.

    Args: as of `jacobian`; `samples` (batch,) numbers the samples of v in their whole batch, so
    that perturbations do not depend on how it was split; 0, 1, .. by default.
    """
    around = check_perturbations(around)
    samples = jnp.arange(jax.tree.leaves(v)[0].shape[0]) if samples is None else samples
    total = None
    for pair in range(around.pairs):
        for sign in (1.0, -1.0):
            near = _moved(v, around.key, jnp.asarray(samples), pair, sign * around.deviation)
            here = jacobian(response, variables, near, chunk=chunk, devices=devices)
            total = here if total is None else _add(total, here)
    assert total is not None  # there is one pair at least
    return Jacobian(*(a / (2 * around.pairs) for a in total))


@partial(jax.jit, donate_argnums=0)
def _add(total: Jacobian, here: Jacobian) -> Jacobian:
    return Jacobian(*(a + b for a, b in zip(total, here, strict=True)))


@jax.jit
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
