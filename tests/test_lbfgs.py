"""What L-BFGS does where a line search finds nothing better: kinks, and memory that misleads."""

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import host_control, lbfgs_step

MEMORY = 3


def start(function, v):
    s, gradient = jax.value_and_grad(function)(v)
    return lbfgs_step.start(v, s, gradient, MEMORY)


def climb(function, state, steps):
    evaluate = jax.value_and_grad(function)
    step = jax.jit(lambda state: lbfgs_step.step(evaluate, state, MEMORY))
    history = []
    for _ in range(steps):
        if state.active:
            state = step(state)
        history.append(float(lbfgs_step.significance(state)))
    return state, history


def test_on_the_tip_of_a_kink_a_lane_ends_where_it_is():
    """-|v| is largest at 0, where its gradient is not zero as it is written here."""
    tip = lambda v: -jnp.where(v >= 0, v, -v).sum()  # noqa: E731
    state, history = climb(tip, start(tip, jnp.zeros(4)), 10)
    assert not state.active and state.failures == lbfgs_step.MAX_FAILURES
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


def test_followed_on_the_host_a_step_is_what_it_is_compiled_as_a_whole():
    """On the valley of Rosenbrock, whose line searches take one to several evaluations."""

    def valley(v):
        return -jnp.sum(100 * (v[1:] - v[:-1] ** 2) ** 2 + (1 - v[:-1]) ** 2)

    evaluate = jax.jit(jax.value_and_grad(valley))
    whole = other = start(valley, jnp.array([-1.2, 1.0, -0.5]))

    @host_control.marked
    def asked(v):
        return jnp.zeros(()), v

    step = host_control.plan(lambda state: lbfgs_step.step(asked, state, MEMORY), other)
    compiled = jax.jit(lambda state: lbfgs_step.step(evaluate, state, MEMORY))
    counts = []
    for _ in range(12):
        running, count, answer = step(other), 0, None
        try:
            while True:
                (v,) = running.send(answer)
                answer, count = evaluate(v), count + 1
        except StopIteration as end:
            other = end.value
        counts.append(count)
        whole = compiled(whole)
        np.testing.assert_allclose(other.v, whole.v, rtol=1e-4, atol=1e-5)
    assert min(counts) < max(counts)
    assert lbfgs_step.significance(other) > 0.1 * valley(jnp.array([-1.2, 1.0, -0.5]))
