"""Rewritten functions: equal in value and gradient to the originals, whatever these are made of."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ifv_jax.engine import rewriting
from ifv_jax.engine.rewriting import on_cpu


def program(function, *args) -> str:
    """The gradient of a function with respect to its second argument, as JAX prints it."""
    return str(jax.make_jaxpr(jax.grad(lambda *a: jnp.sum(function(*a)), argnums=1))(*args))


# One program, and not the best of it: most of the time here is XLA's.
sooner = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def agree(function, variables, x, *, rewritten=True):
    """In float64, so that nothing but a wrong formula can tell them apart."""
    with jax.enable_x64(True):
        variables, x = (
            jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree) for tree in (variables, x)
        )
        closed = jax.make_jaxpr(function)(variables, x)
        assert rewriting.concerns(closed.jaxpr, rewriting.quick) == rewritten
        weights = jax.random.normal(jax.random.key(9), jax.eval_shape(function, variables, x).shape)

        def total(f):
            return lambda v, x: jnp.sum(weights * jnp.sin(f(v, x)))

        def both(variables, x):
            return [
                jax.value_and_grad(total(f), argnums=(0, 1))(variables, x)
                for f in (function, on_cpu(function))
            ]

        one, other = sooner(both)(variables, x)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@settings(max_examples=12)
@given(
    size=st.integers(6, 9), kernel=st.integers(1, 4), stride=st.integers(1, 4),
    dilation=st.integers(1, 2), low=st.integers(0, 3), high=st.integers(0, 3),
)  # fmt: skip
def test_convolutions_of_all_shapes(size, kernel, stride, dilation, low, high):
    def conv(w, x):
        return lax.conv_general_dilated(
            x, w, (stride, 1), [(low, high), (1, 0)], rhs_dilation=(dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    fast = not (stride > 1 and dilation > 1)
    w, x = normal(kernel, 3, 2, 4), normal(2, size, 6, 2, seed=1)
    agree(conv, w, x, rewritten=fast)


@pytest.mark.parametrize("numbers", [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NCHW"),
                                     ("HWNC", "IOHW", "NHWC")])  # fmt: skip
@pytest.mark.parametrize("stride", [1, 2])
def test_layouts(numbers, stride):
    sizes = {"N": 2, "C": 3, "H": 7, "W": 8}
    x = normal(*(sizes[c] for c in numbers[0]))
    kernel = {"O": 4, "I": 3, "H": 3, "W": 2}
    w = normal(*(kernel[c] for c in numbers[1]), seed=1)

    def conv(w, x):
        return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=numbers)

    agree(conv, w, x)


def test_one_and_three_dimensions():
    def one(w, x):
        return lax.conv_general_dilated(x, w, (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))

    agree(one, normal(3, 2, 4), normal(2, 9, 2, seed=1))

    def three(w, x):
        return lax.conv_general_dilated(
            x, w, (1, 2, 1), "VALID", dimension_numbers=("NHWDC", "HWDIO", "NHWDC")
        )

    agree(three, normal(2, 3, 2, 2, 3), normal(1, 4, 6, 5, 2, seed=1))


def test_what_is_left_alone():
    def grouped(w, x):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    agree(grouped, normal(3, 3, 2, 4), normal(2, 6, 6, 4, seed=1), rewritten=False)

    def transposed(w, x):
        return lax.conv_transpose(x, w, (2, 2), "SAME")

    agree(transposed, normal(3, 3, 2, 4), normal(2, 5, 5, 2, seed=1), rewritten=False)

    @jax.custom_vjp
    def own(w, x):
        return lax.conv(x, w, (1, 1), "SAME")

    own.defvjp(lambda w, x: (own(w, x), (w, x)), lambda residuals, g: residuals)
    agree(own, normal(3, 2, 3, 3), normal(2, 2, 6, 6, seed=1), rewritten=False)


@settings(max_examples=12)
@given(
    size=st.integers(5, 9), window=st.integers(1, 4), stride=st.integers(1, 5),
    low=st.integers(0, 1), high=st.integers(0, 3), ties=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_max_pools_of_all_shapes(size, window, stride, low, high, ties, seed):
    x = normal(2, size, 7, 3, seed=seed)
    if ties:  # many, also with zeros, as after a ReLU
        x = np.maximum(np.round(x), 0)

    def pool(_, x):
        return nn.max_pool(x, (window, 2), (stride, 2), [(min(low, window - 1), high), (0, 0)])

    agree(pool, np.zeros(1), x)


def test_pools_pass_nan_on():
    x = normal(1, 6, 6, 1)
    x[0, 2, 3] = np.nan
    pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))  # noqa: E731
    np.testing.assert_array_equal(jax.jit(on_cpu(pool))(jnp.asarray(x)), pool(jnp.asarray(x)))


def test_inside_of_other_transformations():
    w = {"a": normal(3, 3, 3, 3), "b": normal(4, 3, 3, 3, 3, seed=1) / 5}
    x = normal(2, 8, 8, 3, seed=2)

    def conv(w, x):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def network(w, x):
        x = jax.jit(conv)(w["a"], x)
        x = jax.checkpoint(lambda w, x: jnp.tanh(conv(w, x)))(w["a"], x)
        x, sums = lax.scan(lambda x, w: (jnp.tanh(conv(w, x)), x.sum((1, 2))), x, w["b"])
        x = lax.cond(sums.sum() > 0, lambda x: conv(w["a"], x), lambda x: 2 * conv(w["a"], x), x)
        x = jax.nn.relu(x)  # a custom_jvp
        return nn.max_pool(x, (3, 3), (2, 2), "SAME").sum((1, 2)) + sums.sum(0)

    agree(network, w, x)
    w, x = jax.tree.map(jnp.asarray, (w, x))
    assert "select_and" in program(network, w, x)
    assert "select_and" not in program(on_cpu(network), w, x)


class Small(nn.Module):
    """As in Flax's MNIST example."""

    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.relu(nn.Conv(8, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.max_pool(nn.relu(nn.Conv(8, (5, 5), (2, 2))(x)), (2, 2), (2, 2))
        return nn.Dense(5)(x.reshape(len(x), -1))


def test_a_flax_network_with_batches_and_vmap():
    module, x = Small(), normal(3, 16, 16, 1)
    variables = sooner(module.init)(jax.random.key(0), jnp.asarray(x))
    agree(module.apply, variables, x)
    one = lambda f: lambda x: f(variables, x[None])[0].sum()  # noqa: E731
    x = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(
        *(sooner(jax.vmap(jax.grad(one(f))))(x) for f in (on_cpu(module.apply), module.apply)),
        atol=1e-5,
    )


def test_nothing_to_do_is_not_touched():
    calls = []

    def dense(w, x):
        calls.append(1)
        return x @ w

    for call in (on_cpu(dense), jax.jit(on_cpu(dense))):
        np.testing.assert_array_equal(call(jnp.ones((3, 2)), jnp.ones((4, 3))), 3)
    assert calls == [1, 1]


def test_static_results_and_pytrees():
    def network(w, x):
        y = lax.conv_general_dilated(
            x["image"], w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return {"y": y, "constant": jnp.arange(3.0), "x": x["image"]}

    w, x = jnp.asarray(normal(3, 3, 2, 2)), {"image": jnp.asarray(normal(1, 5, 5, 2, seed=1))}
    one, other = network(w, x), jax.jit(on_cpu(network))(w, x)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-6)


def test_divisors_that_are_smaller_become_factors():
    """By channel, by a sum, by a constant; whole numbers and equal shapes are left alone."""

    def divided(w, x):
        return jax.nn.softmax(x / w) / 1.7 + (x / (2 + jnp.cos(x)))

    def broadcasting(function):
        closed = jax.make_jaxpr(jax.grad(lambda w, x: function(w, x).sum(), argnums=1))(w, x)
        divisions = [e for e in closed.jaxpr.eqns if e.primitive.name == "div"]
        return [e for e in divisions if e.invars[1].aval.size < e.outvars[0].aval.size]

    with jax.enable_x64(True):
        w, x = jnp.asarray(normal(3)), jnp.asarray(normal(2, 4, 3, seed=1))
        assert broadcasting(divided) and not broadcasting(on_cpu(divided))
        gradients = [
            jax.grad(lambda w, x, f=f: jnp.sin(f(w, x)).sum(), argnums=(0, 1))(w, x)
            for f in (divided, on_cpu(divided))
        ]
        for a, b in zip(*gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        alone = jax.make_jaxpr(lambda x, i: (x / (1 + x), lax.div(i, 3)))(x, jnp.arange(3)).eqns
    assert [eqn.primitive.name for eqn in alone].count("div") == 2
    assert not any(map(rewriting.steady, alone))
