"""Rewritten functions in all precisions, and in forward mode: as plain JAX, where that works."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ifv_jax as ifv
from ifv_jax.engine.rewriting import concerns, on_cpu, quick, steady

sooner = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(*shape, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def conv(w, x, *, stride=1, preferred=None):
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=preferred,
    )  # fmt: skip


def close(a, b, dtype):
    """To a few units of the dtype's precision, at the scale of the whole array."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=0, atol=8 * float(jnp.finfo(dtype).eps) * np.abs(b).max())


LOW = ("bfloat16", "float16")
KINDS = [
    ("bfloat16", None, 1), ("bfloat16", None, 2), ("float16", None, 1), ("float16", None, 2),
    ("bfloat16", "float32", 1), ("float16", "float32", 2), ("bfloat16", "bfloat16", 1),
    ("float32", "float32", 2), ("float32", "float64", 1),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "preferred", "stride"), KINDS)
def test_convolutions_in_low_precision(dtype, preferred, stride):
    """Values, gradients, tangents and gradients of gradients; each with the dtype of plain JAX."""

    def network(w, x):
        y = conv(w, jax.nn.relu(conv(w, x, stride=stride, preferred=preferred)).astype(w.dtype))
        return nn.max_pool(y, (2, 2), (2, 2)) / y.shape[1]

    def answers(f, w, x):
        total = lambda w, x: jnp.sin(f(w, x).astype(jnp.float32)).sum()  # noqa: E731
        both = jax.grad(total, argnums=(0, 1))
        slope = lambda x: jnp.cos(both(w, x)[1].astype(jnp.float32)).sum()  # noqa: E731
        return f(w, x), both(w, x), jax.jvp(f, (w, x), (w, x)), jax.grad(slope)(x)

    with jax.enable_x64(preferred == "float64"):
        w, x = normal(3, 3, 2, 2, dtype=dtype), normal(1, 6, 6, 2, seed=1, dtype=dtype)
        one, other = sooner(lambda w, x: [answers(f, w, x) for f in (network, on_cpu(network))])(
            w, x
        )
    for a, b in zip(*map(jax.tree.leaves, (other, one)), strict=True):
        assert a.dtype == b.dtype
        close(a, b, dtype)


def test_low_precision_is_rewritten_where_dtypes_agree():
    for dtype, preferred, fast in [("bfloat16", None, True), ("bfloat16", "float32", False)]:
        w, x = normal(3, 3, 2, 2, dtype=dtype), normal(1, 6, 6, 2, dtype=dtype)
        program = jax.make_jaxpr(functools.partial(conv, preferred=preferred))(w, x)
        assert concerns(program, quick) == fast


@pytest.mark.parametrize("low", LOW)
def test_mixed_networks(low):
    """Flax's way: float32 weights, layers that compute in less, and a float32 head."""

    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), dtype=low)(x))
            x = nn.BatchNorm(use_running_average=True, dtype=low)(x)
            x = nn.avg_pool(nn.max_pool(nn.Conv(4, (3, 3), (2, 2), dtype=low)(x), (2, 2)), (2, 2))
            return nn.Dense(3)(x.mean((1, 2)))

    x = normal(2, 8, 8, 3)
    variables = sooner(Mixed().init)(jax.random.key(0), x)

    def slopes(x):
        total = lambda f: lambda x: jnp.sin(f(variables, x)).sum()  # noqa: E731
        return [jax.value_and_grad(total(f))(x) for f in (Mixed().apply, on_cpu(Mixed().apply))]

    for a, b in zip(*map(jax.tree.leaves, sooner(slopes)(x)), strict=True):
        assert a.dtype == b.dtype
        close(b, a, low)


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("divisor", [3.0, 50176.0, 3e4, 1e-4, 1e-6])
def test_divisions_in_low_precision_are_as_exact(low, divisor):
    """The reciprocal of 50176, the pixels of 224 x 224, has three bits in float16."""
    x = jnp.asarray([[1.0, 2.0, 3.5, 7.0], [-1.0, 0.5, 0.25, 100.0]], low)
    y = jnp.asarray([[divisor], [divisor]], low)
    divide = lambda x, y: x / y  # noqa: E731
    exact = np.asarray(x, np.float64) / np.asarray(y, np.float64)
    with np.errstate(over="ignore"):
        exact = exact.astype(np.float32).astype(x.dtype)
    found = jax.jit(on_cpu(divide))(x, y)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(exact, np.float32))
    assert steady(jax.make_jaxpr(divide)(x, y).eqns[-1]) is not None


@pytest.mark.parametrize("divisor", [1e38, 3e38, 1e-38, 2e-39, 0.0, float("inf"), -1e38, 7.0])
def test_divisors_without_a_reciprocal(divisor):
    x = jnp.asarray([0.0, 1.0, -2e-38, 1e38, 3e38, float("inf"), float("nan")])
    divide = lambda x: x / divisor  # noqa: E731
    one, other = jax.jit(
        lambda x: [jax.vmap(jax.value_and_grad(f))(x) for f in (divide, on_cpu(divide))]
    )(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)


def pool(window, stride):
    return lambda w, x: nn.max_pool(conv(w, x), (window, window), (stride, stride), "SAME")


@pytest.mark.parametrize(
    "network",
    [
        lambda w, x: jnp.tanh(conv(w, x)),
        lambda w, x: conv(w, jnp.sin(conv(w, x, stride=2)), stride=3),
        pool(2, 2), pool(3, 1), pool(3, 2), pool(1, 2), pool(2, 3),
        lambda w, x: lax.scan(lambda x, w: (pool(2, 1)(w, x), x.sum()), x, jnp.stack([w, w]))[0],
        lambda w, x: jax.checkpoint(pool(2, 2))(w, x),
    ],
)  # fmt: skip
def test_forward_mode_and_second_order(network):
    """`jvp`, `jacfwd`, `linearize`, and all four orders of a second derivative."""

    def answers(f, w, x):
        g = lambda x: jnp.sin(f(w, x)).sum((1, 2))  # noqa: E731
        total = lambda w, x: jnp.cos(f(w, x)).sum()  # noqa: E731
        y, forward = jax.linearize(functools.partial(f, w), x)
        return {
            "jvp": jax.jvp(f, (w, x), (jnp.cos(w), jnp.sin(x))),
            "linearize": (y, forward(jnp.sin(x)), jax.linear_transpose(forward, x)(jnp.cos(y))),
            "jacfwd": jax.jacfwd(g)(x),
            "jacrev": jax.jacrev(g)(x),
            "mixed": jax.grad(lambda w: jnp.sin(jax.grad(total, 1)(w, x)).sum())(w),
            "second": [
                outer(lambda x: jax.grad(total, 1)(w, x)[0, 0])(x)
                for outer in (jax.jacfwd, jax.jacrev)
            ],
            "forward twice": jax.jvp(lambda x: jax.jvp(g, (x,), (x,))[1], (x,), (x,)),
            "reverse over forward": jax.grad(lambda x: jax.jvp(g, (x,), (x,))[1].sum())(x),
        }  # fmt: skip

    with jax.enable_x64(True):
        # Halves: there are ties, in which the first of a window has all the gradient.
        w = jnp.round(normal(3, 3, 2, 2, dtype="float64"))
        x = jnp.round(2 * normal(1, 4, 4, 2, seed=1, dtype="float64")) / 2
        assert concerns(jax.make_jaxpr(network)(w, x), quick)
        one, other = sooner(lambda w, x: [answers(f, w, x) for f in (network, on_cpu(network))])(
            w, x
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), one, other)


def test_forward_mode_of_a_response_and_the_switch():
    apply = lambda w, x: pool(2, 2)(w, x[..., :2])  # noqa: E731
    make = functools.partial(ifv.make_response, apply, ifv.sigmoid_pixels((6, 6, 3)), ifv.mean)
    with jax.enable_x64(True):
        w, v = normal(3, 3, 2, 3, dtype="float64"), normal(1, 6, 6, 3, seed=1, dtype="float64")
        on, off = make(), make(rewrite=False)
        assert on != off and on == make(rewrite=True)
        found = [
            sooner(lambda w, v, f=f: (jax.jacfwd(f, 1)(w, v), jax.jacrev(f, 1)(w, v)))(w, v)
            for f in (on, off)
        ]
        first = found[0][0]
        jax.tree.map(lambda a: np.testing.assert_allclose(a, first, atol=1e-12), found)
        texts = [str(jax.make_jaxpr(jax.grad(lambda v, f=f: f(w, v).sum()))(v)) for f in (on, off)]
    assert ["select_and_" in text for text in texts] == [False, True]
    with pytest.raises(ifv.InputError, match="rewrite"):
        make(rewrite="no")
