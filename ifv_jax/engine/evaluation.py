"""The significance and its gradient, for all lanes: what an optimizer asks of the network."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.engine import lanes, network, programs
from ifv_jax.engine.network import Network, Shift
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
    within: Network,
    targets: jax.Array,
    v: PyTree,
    shift: Shift | None = None,
    jitter: int = 0,
) -> Evaluation:
    """Evaluates S_k(f(v), t) and its gradient at v.

    Args:
      objective: S_k on top of f.
      within: the network of f, with its weights.
      targets: (lanes, n).
      v: parameters, (lanes, ...).
      shift: how the images are shifted, if they are.
      jitter: by how many pixels at most.
    """

    def some(lane):
        t, v, shift = lane
        return _part(objective, within, t, v, shift, jitter)

    traced = programs.is_traced((within.variables, targets, v))
    r, s, gradient = network.in_turns(within.devices, some, (targets, v, shift), traced=traced)
    return Evaluation(r, s, _like(within.devices, v, gradient))


def significance(
    objective: Objective, within: Network, targets: jax.Array, v: PyTree
) -> tuple[jax.Array, Callable[[], PyTree]]:
    """Evaluates S_k(f(v), t), and its gradient once that is asked for.

    Args:
      objective: S_k on top of f.
      within: the network of f, with its weights.
      targets: (lanes, n); as many lanes as are computed together.
      v: parameters, (lanes, ...).

    Returns: S (lanes,), and a function that returns dS/dv.
    """
    at = within.forward(v)
    s, cotangents = _towards(objective, within.devices, at.response, targets)
    return s, cache(lambda: _like(within.devices, v, at.pull_back(cotangents)))


def _part(objective, within: Network, t, v, shift, jitter):
    """(r, S, dS/dv flat) of some lanes. Their residuals do not outlive them."""
    at = within.forward(v, shift, jitter)
    s, cotangents = _towards(objective, within.devices, at.response, t)
    return at.response, s, at.pull_back(cotangents)


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
