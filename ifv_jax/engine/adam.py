"""Adam on independent lanes (Kingma & Ba 2014, through optax), all lanes of a batch at once."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import lanes
from ifv_jax.engine.climbing import Optimizer
from ifv_jax.engine.evaluation import Evaluation
from ifv_jax.engine.problem import Group
from ifv_jax.types import PyTree


class AdamState(NamedTuple):
    """All lanes, lane axis first."""

    v: PyTree
    optimizer: PyTree  # optax's state, one for each lane
    finite: jax.Array  # (lanes,) bool; a lane that is not stays where it was


def adam(group: Group, stuck: np.ndarray) -> Optimizer:
    """Climbs by Adam. It ends early once all lanes are stuck, (lanes,) bool, or not finite."""
    config = group.problem.config

    def start(v: PyTree, at: Evaluation) -> AdamState:
        return _start(config.learning_rate, v)

    def advance(state: AdamState, steps: int):
        found = []
        for _ in range(steps):
            taken = _taken(state.optimizer) if config.jitter else None
            at = group.evaluate(state.v, taken)
            found.append(at.significance)
            state = _step(config.learning_rate, group.problem.devices, state, at)
        return state, np.stack([np.asarray(s) for s in found], axis=1)

    def alive(state: AdamState) -> bool:
        return bool(np.any(np.asarray(state.finite) & ~stuck))

    return Optimizer("adam", config.adam_steps, start, advance, alive)


@partial(jax.jit, static_argnums=0)
def _start(learning_rate: float, v: PyTree) -> AdamState:
    import optax  # Imported late: it costs a quarter of a second.

    count = jax.tree.leaves(v)[0].shape[0]
    return AdamState(v, jax.vmap(optax.adam(learning_rate).init)(v), jnp.ones(count, bool))


def _taken(optimizer: PyTree) -> jax.Array:
    """How many steps each lane has taken, (lanes,)."""
    import optax

    return optax.tree_utils.tree_get(optimizer, "count")


@partial(jax.jit, static_argnums=(0, 1))
def _step(learning_rate, devices, state: AdamState, at: Evaluation) -> AdamState:
    import optax

    def call(_, state: AdamState, at: Evaluation) -> AdamState:
        gradient = jax.tree.map(jnp.negative, at.gradient)  # optax descends, FV climbs
        updates, inner = jax.vmap(optax.adam(learning_rate).update)(gradient, state.optimizer)
        moved = optax.apply_updates(state.v, updates)
        finite = jnp.isfinite(at.significance) & jnp.isfinite(lanes.flatten(gradient)).all(axis=1)
        v, inner = lanes.where(finite, (moved, inner), (state.v, state.optimizer))
        return AdamState(v, inner, state.finite & finite)

    return lanes.on_each_device(call, devices)(None, state, at)
