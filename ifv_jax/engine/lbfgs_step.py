"""L-BFGS of one lane: the one module that knows jaxopt (Byrd et al. 1995, zoom search).

jaxopt is no longer maintained but its zoom line search reaches better optima after Adam than
`optax.lbfgs` (measured; see docs). It is imported when first needed.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ifv_jax.types import PyTree

MAX_LINE_SEARCH = 15
"""Evaluations after which a line search is given up; a healthy one takes one or two."""

MAX_FAILURES = 3
"""After the first the memory is forgotten, after the second all begins anew, then a lane ends."""

FIRST_STEP = 1e-3
"""Root mean square change of v in the very first trial step, before any curvature is known."""


class LbfgsState(NamedTuple):
    """One lane, or a batch of them with a leading axis."""

    v: PyTree  # the current point
    inner: Any  # jaxopt's state
    scale: jax.Array  # () positive; the loss is -scale * significance
    failures: jax.Array  # () int32; line searches without success, in a row
    active: jax.Array  # () bool; False once there were MAX_FAILURES of them


@cache
def _jaxopt():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import jaxopt
    return jaxopt


def _solver(loss: Callable, memory: int):
    # unroll=False: with implicit_diff=False jaxopt would otherwise run each search to its bound.
    # The default max_stepsize=1 fails half the searches where gradients are tiny.
    return _jaxopt().LBFGS(
        fun=loss,
        value_and_grad=True,
        implicit_diff=False,
        unroll=False,
        linesearch="zoom",
        maxls=MAX_LINE_SEARCH,
        max_stepsize=16.0,
        history_size=memory,
        tol=0.0,
    )


def start(v: PyTree, significance, gradient: PyTree, memory: int) -> LbfgsState:
    """State of one lane at v, where S and dS/dv have these values; nothing is evaluated.

    The loss is scaled so that a unit step along its gradient changes v by FIRST_STEP.
    """
    leaves = jax.tree.leaves(gradient)
    square = sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in leaves)
    usable = (square > 0) & jnp.isfinite(square) & jnp.isfinite(significance)
    size = sum(g.size for g in leaves)
    scale = FIRST_STEP * jnp.sqrt(size / jnp.where(usable, square, 1.0))

    def known(_):
        return -scale * significance, jax.tree.map(lambda g: -scale * g, gradient)

    inner = _solver(known, memory).init_state(v)
    inner = inner._replace(stepsize=jnp.ones_like(inner.stepsize))
    return LbfgsState(v, inner, scale, jnp.zeros((), jnp.int32), usable)


def _forget(state: LbfgsState) -> LbfgsState:
    """The state with an empty memory; its scale of the gradient, gamma, is kept."""
    inner = state.inner
    empty = jax.tree.map(jnp.zeros_like, (inner.s_history, inner.y_history, inner.rho_history))
    return state._replace(
        inner=inner._replace(s_history=empty[0], y_history=empty[1], rho_history=empty[2])
    )


def _renew(state: LbfgsState, memory: int) -> LbfgsState:
    """The state as `start` would give it here, whose trial step is longer than late ones."""
    inner = state.inner
    gradient = jax.tree.map(lambda g: -g / state.scale, inner.grad)
    return start(state.v, -inner.value / state.scale, gradient, memory)


def step(
    evaluate: Callable[[PyTree], tuple[jax.Array, PyTree]], state: LbfgsState, memory: int
) -> LbfgsState:
    """Takes one step of one lane; `evaluate(v)` gives S and its gradient, like v.

    A lane whose line search finds nothing better `MAX_FAILURES` times in a row ends.
    """

    def loss(v):
        s, gradient = evaluate(v)
        return -state.scale * s, jax.tree.map(lambda a: -state.scale * a, gradient)

    v, inner = _solver(loss, memory).update(state.v, state.inner)
    better = inner.value < state.inner.value
    finite = jnp.isfinite(inner.value) & jnp.isfinite(inner.error)
    # At a kink (ReLU, max pooling) the curvature from the other side misleads, and a short
    # step sees nothing but the kink: what was remembered is given up before the lane is.
    none = jnp.zeros_like(state.failures)
    moved = LbfgsState(v, inner, state.scale, none, inner.error > 0)
    stuck = jax.tree.map(
        lambda a, b: jnp.where(state.failures == 0, a, b), _forget(state), _renew(state, memory)
    )
    failures = state.failures + 1
    stuck = stuck._replace(failures=failures, active=finite & (failures < MAX_FAILURES))
    return jax.tree.map(lambda new, old: jnp.where(finite & better, new, old), moved, stuck)


def significance(state: LbfgsState) -> jax.Array:
    """S at the current point."""
    return -state.inner.value / state.scale
