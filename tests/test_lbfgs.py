"""What L-BFGS does where a line search finds nothing better: kinks, and memory that misleads."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import lbfgs

MEMORY = 3


def evaluate(function):
    """(variables, v (1, m), t) -> (S (1,), dS/dv (1, m))."""

    def run(variables, v, t):
        s, gradient = jax.value_and_grad(lambda v: function(v[0]))(v)
        return s[None], gradient

    return run


def start(function, v):
    s, gradient = jax.value_and_grad(function)(v)
    return lbfgs.start(v, s, gradient, MEMORY)


def climb(function, state, steps):
    advance = partial(lbfgs.advance, evaluate(function), steps=steps, memory=MEMORY)
    return jax.jit(advance)({}, jnp.zeros(1), state, jnp.asarray(steps))


def test_on_the_tip_of_a_kink_a_lane_ends_where_it_is():
    """-|v| is largest at 0, where its gradient is not zero as it is written here."""
    tip = lambda v: -jnp.where(v >= 0, v, -v).sum()  # noqa: E731
    state, history = climb(tip, start(tip, jnp.zeros(4)), 10)
    assert not state.active and state.failures == lbfgs.MAX_FAILURES
    np.testing.assert_array_equal(state.v, 0)
    np.testing.assert_array_equal(history, 0)


def test_a_lane_whose_steps_vanish_begins_anew():
    """With a memory that scales the gradient to nothing, also after the pairs were forgotten."""
    smooth = lambda v: -jnp.sum((v - 1) ** 2)  # noqa: E731
    state = start(smooth, jnp.zeros(4))
    state = state._replace(
        inner=state.inner._replace(gamma=jnp.full_like(state.inner.gamma, 1e-30))
    )
    once, _ = climb(smooth, state, 1)
    assert (once.failures, once.inner.gamma) == (1, state.inner.gamma)
    twice, _ = climb(smooth, once, 1)
    assert (twice.failures, twice.inner.gamma) == (2, 1) and twice.active
    done, history = climb(smooth, twice, 30)
    np.testing.assert_allclose(done.v, 1, atol=1e-4)
    assert (np.diff(history) >= 0).all()
