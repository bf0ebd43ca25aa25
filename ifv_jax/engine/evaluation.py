"""The significance and its gradient, for all lanes: what an optimizer asks of the network."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.engine import lanes, network
from ifv_jax.objective import Objective
from ifv_jax.types import PyTree


class Evaluation(NamedTuple):
    """What one pass through the network says of all lanes, lane axis first."""

    response: jax.Array  # (lanes, n)
    significance: jax.Array  # (lanes,)
    gradient: PyTree  # dS/dv, like v

    @property
    def largest(self) -> jax.Array:
        """The largest entry of each lane's gradient, (lanes,)."""
        return jnp.abs(lanes.flatten(self.gradient)).max(axis=1)


def evaluate(
    objective: Objective,
    devices: lanes.Devices,
    variables: PyTree,
    targets: jax.Array,
    v: PyTree,
    shift: network.Shift | None = None,
    jitter: int = 0,
) -> Evaluation:
    """Evaluates S_k(f(v), t) and its gradient at v.

    Args:
      objective: S_k on top of f.
      devices: the lanes are spread over them.
      variables: the network's weights.
      targets: (lanes, n).
      v: parameters, (lanes, ...).
      shift: how the images are shifted, if they are.
      jitter: by how many pixels at most.
    """
    count = targets.shape[0]
    turns = network.turns(devices, count)
    found = None
    for first in turns:
        here, t, moved = (v, targets, shift)
        if len(turns) > 1:
            here, t, moved = network.some(devices, first, (v, targets, shift))
        at = network.forward(objective.response, devices, variables, here, moved, jitter)
        s, cotangents = _towards(objective, devices, at.response, t)
        gradient = network.pull_back(devices, at.pull, cotangents)
        part = (at.response, s, gradient)
        if len(turns) == 1:
            found = part
            break
        if found is None:
            found = network.empty(devices, count, part)
        found = network.put(devices, first, found, part)
        if lanes.alone(devices):  # what is queued on the CPU would compete for its cores
            jax.block_until_ready(found)
    assert found is not None
    r, s, gradient = found
    return Evaluation(r, s, _like(devices, v, gradient))


@partial(jax.jit, static_argnums=(0, 1))
def _towards(objective, devices, r, t):
    """(S, dS/dr)."""

    def call(_, r, t):
        s, pull = jax.vjp(lambda r: objective.of_response(r, t), r)
        return s, pull(jnp.ones_like(s))[0]

    return lanes.on_each_device(call, devices)(None, r, t)


@partial(jax.jit, static_argnums=0)
def _like(devices, v, flat):
    return lanes.on_each_device(lambda _, v, flat: lanes.unflatten(flat, v), devices)(None, v, flat)
