"""Starting points from which targets can be climbed, as far as such can be found."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import lanes
from ifv_jax.engine.evaluation import Evaluation
from ifv_jax.engine.problem import Group
from ifv_jax.objective import Objective
from ifv_jax.types import PyTree


class Starts(NamedTuple):
    """Where lanes start, lane axis first."""

    v: PyTree
    at: Evaluation  # there
    silent: jax.Array  # (lanes,) bool, still so after all restarts
    flat: jax.Array  # (lanes,) bool, the same
    restarts: jax.Array  # (lanes,) int32


def starts(group: Group) -> Starts:
    """Finds starting points.

    Where the gradient is exactly zero, no optimizer would move: a target is silent there if its
    significance is zero, too, and else the response is flat. Each restart draws a new point, three
    times as far out as the last (up to a standard deviation of 2). A flat start that the user gave
    may be an optimum and is kept.
    """
    objective, devices = group.problem.objective, group.problem.devices

    def stuck(at: Evaluation) -> tuple[jax.Array, jax.Array]:
        still = at.largest == 0
        silent = still & (at.significance == 0)
        flat = still & ~silent & jnp.isfinite(at.significance) & (group.start is None)
        return silent, flat

    v = _fresh(objective, group.keys, 0) if group.start is None else group.start
    v = lanes.place(v, devices)
    tried = jnp.zeros(len(group.keys), jnp.int32)
    at = group.evaluate(v)
    silent, flat = stuck(at)
    for attempt in range(1, group.problem.config.restarts + 1):
        again = silent | flat
        if not np.any(np.asarray(again)):
            break
        fresh = _fresh(objective, group.keys, attempt)
        v = lanes.place(lanes.where(again, fresh, v), devices)
        tried = tried + again
        at = group.evaluate(v)
        silent, flat = stuck(at)
    return Starts(v, at, silent, flat, tried)


@partial(jax.jit, static_argnames=("objective", "attempt"))
def _fresh(objective: Objective, keys, attempt: int):
    factor = min(3.0**attempt, 200.0)
    init = objective.response.parametrization.init
    one = lambda key: lanes.take(init(jax.random.fold_in(key, attempt), 1), 0)  # noqa: E731
    return jax.tree.map(lambda a: factor * a, jax.vmap(one)(keys))
