"""A function split by what its weights determine: the same values, the weights' part once."""

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine import splitting

W = {"scale": jnp.array([1.0, 4.0]), "kernel": jnp.arange(6.0).reshape(3, 2)}
X = jnp.array([0.5, -1.0, 2.0])


def function(weights, x):
    folded = 1 / jnp.sqrt(weights["scale"])  # by the weights alone
    spread = jnp.broadcast_to(folded, (100, 2)).sum(0)  # so is this, but large
    y = x @ (weights["kernel"] * folded)
    return y + spread, weights["kernel"].T, 2.5, x


def test_the_values_are_those_of_the_function():
    closed = jax.make_jaxpr(function)(W, X)
    split = splitting.split(closed, 2)
    prepared = split.prepare(jax.tree.leaves(W))
    finished = split.finish(prepared, [X])
    got = [splitting.pick(place, prepared, finished) for place in split.place]
    for a, b in zip(got, function(W, X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_weights_part_is_prepared_and_nothing_is_spread_out():
    split = splitting.split(jax.make_jaxpr(function)(W, X), 2)
    prepared = split.prepare(jax.tree.leaves(W))
    assert max(a.size for a in prepared) == 6
    late = jax.make_jaxpr(lambda x: split.finish(prepared, [x]))(X)
    names = [eqn.primitive.name for eqn in late.jaxpr.eqns]
    assert "sqrt" not in names and "transpose" not in names and "broadcast_in_dim" in names
    assert split.place[1][0] == "prepared"


def test_what_has_effects_stays():
    def printing(w, x):
        jax.debug.print("{}", w)
        return w + x

    split = splitting.split(jax.make_jaxpr(printing)(1.0, 2.0), 1)
    late = jax.make_jaxpr(lambda x: split.finish(split.prepare([1.0]), [x]))(2.0)
    assert any(eqn.effects for eqn in late.jaxpr.eqns)
