"""Control flow followed on the host: the same values as compiled, and asked what it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifv_jax.engine import host_control


def answered(running, answer):
    """Runs a generator, answering each request: (its result, the requests)."""
    requests, reply = [], None
    try:
        while True:
            request = running.send(reply)
            requests.append([float(np.sum(a)) for a in request])
            reply = [answer(*request)]
    except StopIteration as end:
        return end.value, requests


def square(x):
    return x * x


@host_control.marked
def asked(x):
    return x  # only the shape matters


def programs(f):
    def loop(x, n):
        def body(carry):
            i, x = carry
            return i + 1, jnp.where(i % 2 == 0, f(x) / 3, x + 1)

        return jax.lax.while_loop(lambda c: c[0] < n, body, (0, x))[1]

    def branch(x, n):
        return jax.lax.cond(n > 2, lambda x: f(x) + f(x + 1), lambda x: -x, x)

    def nested(x, n):
        inner = jax.jit(lambda x: branch(x, n) * 2)
        return {"a": loop(inner(x), n), "b": (x, 1.5)}

    def without(x, n):
        return x * n + 1

    return {"loop": loop, "branch": branch, "nested": nested, "without": without}


@pytest.mark.parametrize("n", [0, 2, 5])
@pytest.mark.parametrize("name", ["loop", "branch", "nested", "without"])
def test_the_values_are_those_of_the_compiled_program(name, n):
    x, n = jnp.array([0.5, -1.5]), jnp.asarray(n)
    running = host_control.plan(programs(asked)[name], x, n)(x, n)
    got, _ = answered(running, square)
    expected = jax.jit(programs(square)[name])(x, n)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)


def test_it_asks_where_it_is_called_and_nowhere_else():
    x = jnp.array(2.0)
    branch = host_control.plan(programs(asked)["branch"], x, jnp.asarray(3))
    assert answered(branch(x, jnp.asarray(3)), square)[1] == [[2.0], [3.0]]
    assert answered(branch(x, jnp.asarray(1)), square)[1] == []


def test_what_cannot_be_followed_is_said():
    with pytest.raises(NotImplementedError, match="'scan'"):
        host_control.plan(lambda x: jax.lax.scan(lambda c, _: (asked(c), 0), x, None, 3), 1.0)


def test_a_result_that_is_not_needed_is_not_computed():
    @host_control.marked
    def both(x):
        return x, x

    def values_alone(x):
        value, _ = both(x)
        return jax.lax.cond(value > 1, lambda x: x + 1, lambda x: both(x)[1], x)

    def run(x):
        running, computed, reply = host_control.plan(values_alone, x)(x), [], None

        def second(x):
            computed.append(float(x))
            return 10 * x

        try:
            while True:
                (request,) = running.send(reply)
                reply = [request, lambda x=request: second(x)]
        except StopIteration as end:
            return float(end.value), computed

    assert run(jnp.array(3.0)) == (4.0, [])
    assert run(jnp.array(0.5)) == (5.0, [0.5])
