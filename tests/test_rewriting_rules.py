"""Networks with rules of their own for derivatives and batches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from ifv_jax.engine.rewriting import on_cpu
from tests.small_conv import W, X, conv, slope


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "gelu",
        "silu",
        "softplus",
        "softmax",
        "logsumexp",
        "elu",
        "glu",
        "standardize",
        "mish",
    ],
)
def test_rules_of_jax_s_own_are_no_obstacle(name):
    """All of them have rules for derivatives; the networks around them are rewritten."""
    activation = getattr(jax.nn, name)

    def network(w, x):
        y = jax.checkpoint(lambda x: x * activation(conv(w, x)).sum())(x)
        return lax.reduce_window(conv(w, y), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    texts = [str(jax.make_jaxpr(slope(f))(X)) for f in (network, on_cpu(network))]
    assert ["select_and_" in text for text in texts] == [True, False]


KINDS = ("custom_vjp", "custom_jvp", "custom_gradient", "custom_vmap")


@pytest.mark.parametrize(
    ("kind", "around"),
    [
        *itertools.product(KINDS, ("nothing", "checkpoint", "shard_map")),
        ("custom_jvp", "scan"),  # The others JAX itself cannot differentiate.
        ("custom_gradient", "scan"),
    ],
)
def test_rules_that_refer_to_the_function_around_them(kind, around):
    """They hold only where they were traced: such a network runs as it is written."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("d")
    wrap = {
        "nothing": lambda f: f,
        "checkpoint": jax.checkpoint,
        "scan": lambda f: lambda x: lax.scan(lambda x, _: (f(x), None), x, None, length=2)[0],
        "shard_map": functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec),
    }[around]

    def network(w, x):
        scale = jnp.sin(w).sum()
        plain = lambda x: x * scale  # noqa: E731
        if kind == "custom_vjp":
            f = jax.custom_vjp(plain)
            f.defvjp(lambda x: (f(x), None), lambda _, g: (2 * g * scale,))
        elif kind == "custom_jvp":
            f = jax.custom_jvp(plain)
            f.defjvp(lambda primals, tangents: (f(*primals), 2 * tangents[0] * scale))
        elif kind == "custom_gradient":
            f = jax.custom_gradient(lambda x: (x * scale, lambda g: 2 * g * scale))
        else:
            batched = jax.custom_batching.custom_vmap(plain)
            batched.def_vmap(lambda size, batched, x: (plain(x), batched[0]))
            f = lambda x: x + batched(lax.stop_gradient(x))  # noqa: E731
        return wrap(f)(conv(w, x))

    found = []
    for f in (network, on_cpu(network)):
        one = lambda w, x, f=f: slope(f, w)(x)  # noqa: E731
        both = lambda w, x, one=one: (one(w, x), jax.vmap(lambda x: one(w, x[None]))(x))  # noqa: E731
        found.append(jax.jit(both)(W, X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *found)
