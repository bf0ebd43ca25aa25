"""Adam on independent lanes (Kingma & Ba 2014, through optax), all lanes of a batch at once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.engine import lanes
from ifv_jax.types import PyTree


class AdamState(NamedTuple):
    """All lanes, lane axis first."""

    v: PyTree
    optimizer: PyTree  # optax's state, one for each lane
    finite: jax.Array  # (lanes,) bool; a lane that is not stays where it was


def start(learning_rate: float, v: PyTree) -> AdamState:
    """A fresh state at v, leading axis lanes."""
    import optax  # Imported late: it costs a quarter of a second.

    count = jax.tree.leaves(v)[0].shape[0]
    return AdamState(v, jax.vmap(optax.adam(learning_rate).init)(v), jnp.ones(count, bool))


def advance(
    evaluate: Callable,
    variables: PyTree,
    targets: jax.Array,
    state: AdamState,
    left: jax.Array,
    steps: int,
    learning_rate: float,
):
    """min(steps, left) steps of all lanes: (state, significance before each (lanes, steps)).

    `evaluate`: (variables, v, targets, steps each lane has taken (lanes,)) -> (significance
    (lanes,), its gradient like v).
    """
    import optax

    optimizer = optax.adam(learning_rate)

    def one(index, carry):
        state, values = carry
        taken = optax.tree_utils.tree_get(state.optimizer, "count")
        s, gradient = evaluate(variables, state.v, targets, taken)
        gradient = jax.tree.map(jnp.negative, gradient)  # optax descends, FV climbs
        updates, inner = jax.vmap(optimizer.update)(gradient, state.optimizer)
        finite = jnp.isfinite(s) & jnp.isfinite(lanes.flatten(gradient)).all(axis=1)
        v, inner = lanes.where(
            finite, (optax.apply_updates(state.v, updates), inner), (state.v, state.optimizer)
        )
        return AdamState(v, inner, state.finite & finite), values.at[:, index].set(s)

    values = jnp.zeros((targets.shape[0], steps))
    return jax.lax.fori_loop(0, jnp.minimum(steps, left), one, (state, values))
