"""Networks made of whatever JAX has: rewritten, they do what they do as written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import io_callback
from jax.sharding import PartitionSpec

from ifv_jax.engine.rewriting import concerns, on_cpu, quick


def conv(w, x):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


NETWORKS = {}


def network(function):
    """A network of (weights (3, 3, 2, 2), images (n, 4, 4, 2)); all of them have convolutions."""
    NETWORKS[function.__name__] = function
    return function


@network
def scan(w, x):
    def step(x, layer):
        scale, index = layer
        x = jnp.tanh(conv(w * scale, x))
        return x, (x.sum((1, 2)), index)

    layers = (jnp.arange(1.0, 4.0), jnp.arange(3))
    x, (sums, _) = lax.scan(step, x, layers, reverse=True, unroll=2)
    return x + sums.sum(0)[:, None, None]


@network
def scan_without_carry_or_results(w, x):
    _, ys = lax.scan(lambda c, k: (c, conv(k, x)), None, jnp.stack([w, 2 * w]))
    lax.scan(lambda c, k: (c, None), None, ys)
    return ys.sum(0)


@network
def nested_loops(w, x):
    inner = lambda x: lax.fori_loop(0, 2, lambda i, x: jnp.tanh(conv(w, x) / (i + 1)), x)  # noqa: E731
    return lax.map(lambda one: inner(one[None])[0], x)


@network
def while_loop(w, x):
    def body(state):
        return state[0] + 1, jnp.tanh(conv(lax.stop_gradient(w), state[1]))

    _, y = lax.while_loop(lambda s: s[0] < 3, body, (0, lax.stop_gradient(x)))
    return conv(w, x) + y


@network
def associative_scan(w, x):
    mixed = lambda a, b: jnp.tanh(jax.vmap(functools.partial(conv, w))(a) + b)  # noqa: E731
    return lax.associative_scan(mixed, jnp.stack([x, 2 * x, -x]))[2]


@network
def branches(w, x):
    x = lax.cond(x.sum() > 0, lambda x: conv(w, x), lambda x: conv(2 * w, x), x)
    return lax.switch(x.argmax() % 3, [lambda x: x, jnp.sin, lambda x: conv(w, x)], x)


@network
def platforms(w, x):
    return lax.platform_dependent(x, cpu=functools.partial(conv, w), default=jnp.sin)


def checkpointed(policy):
    @functools.partial(jax.checkpoint, policy=policy)
    def block(w, x):
        return jnp.tanh(conv(w, jnp.sin(conv(w, x))))

    return lambda w, x: block(w, x)


for name in ("nothing_saveable", "everything_saveable", "dots_saveable"):
    NETWORKS[f"checkpoint_{name}"] = checkpointed(getattr(jax.checkpoint_policies, name))


@network
def names(w, x):
    with jax.named_scope("layer"):
        x = jax.named_call(conv, name="convolution")(w, x)
    return checkpoint_name(x, "here")


@network
def inner_jits(w, x):
    table = jnp.arange(6.0).reshape(1, 1, 3, 2).sum(2, keepdims=True)

    @functools.partial(jax.jit, static_argnames=("times", "kind"))
    def layer(x, times, *, kind):
        for _ in range(times):
            x = {"sin": jnp.sin, "tanh": jnp.tanh}[kind](conv(w, x) + table + np.ones(2, "f4"))
        return x

    donating = jax.jit(conv, donate_argnums=1)
    return donating(w, layer(layer(x, 2, kind="sin"), 1, kind="tanh") + 1)


@network
def jit_without_results(w, x):
    jax.jit(lambda x: None)(x)
    jax.jit(lambda: None)()
    return conv(w, x)


@network
def printing(w, x):
    jax.debug.print("{}", x.shape[0])
    jax.jit(lambda x: jax.debug.print("{}", x.sum(), ordered=False))(x)
    jax.debug.callback(lambda x: None, x)
    return jax.jit(lambda x: (jax.debug.print("inner"), conv(w, x))[1])(x)


@network
def callbacks(w, x):
    x = conv(w, x)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    y = jax.pure_callback(np.sin, shape, lax.stop_gradient(x), vmap_method="sequential")
    io_callback(lambda x: None, None, lax.stop_gradient(x))
    return x + y


@network
def own_rules(w, x):
    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def scaled(x, by):
        return x * by

    @scaled.defjvp
    def _(by, primals, tangents):
        return scaled(*primals, by), 3 * by * tangents[0]

    return jax.nn.silu(jax.nn.relu(scaled(conv(w, x), 2.0)))


@network
def own_gradient(w, x):
    @jax.custom_gradient
    def clipped(x):
        return x, lambda g: jnp.clip(g, -0.5, 0.5)

    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
    return rounded(clipped(conv(w, x)))


@network
def own_batching(w, x):
    @jax.custom_batching.custom_vmap
    def f(x):
        return jnp.sin(x)

    @f.def_vmap
    def _(size, batched, x):
        return jnp.sin(x), batched[0]

    return conv(w, x) + f(lax.stop_gradient(x))


@network
def random_keys(w, x):
    key = jax.random.key(0)
    keys = jax.random.split(key, 2)
    kept = jax.jit(lambda k, x: jax.random.bernoulli(k, 0.5, x.shape))(keys[0], x)
    x = conv(w, jnp.where(kept, x, 0))
    _, noise = lax.scan(lambda k, _: (jax.random.fold_in(k, 1), jax.random.normal(k)), key, None, 2)
    return x + noise.sum() + jax.random.uniform(jax.random.PRNGKey(3))


@network
def other_primitives(w, x):
    x = conv(w, x)
    n, h, *_ = x.shape
    m = x.reshape(n, h, -1)
    gram = m @ m.mT + 3 * jnp.eye(h)
    y = jnp.linalg.cholesky(gram).sum() + jnp.fft.rfft(m).real.sum() + jnp.sort(m).sum()
    solved = lax.custom_linear_solve(
        lambda z: 2 * z, m, lambda _, b: b / 2, transpose_solve=lambda _, b: b / 2
    )
    return x + y + solved.sum() + lax.optimization_barrier(x)


@network
def ragged(w, x):
    x = conv(w, x)
    return x + lax.ragged_dot(x[0, 0], jnp.sin(w[:2, 0]), jnp.array([1, 3])).sum()


@network
def mapped_over_devices(w, x):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    d = PartitionSpec("d")
    mapped = jax.shard_map(
        lambda w, x: jnp.tanh(conv(w, x)) + lax.axis_index("d"),
        mesh=mesh, in_specs=(PartitionSpec(), d), out_specs=d,
    )  # fmt: skip
    return mapped(w, x) + conv(w, x)


@network
def mutable(w, x):
    total = jax.new_ref(jnp.zeros_like(x))
    total[...] = conv(w, x)
    total[...] += x
    return total[...]


WITHOUT = {
    "own_gradient": ("jvp", "second"),
    "ragged": ("vmap",),
}
"""What JAX itself refuses."""


def answers(f, w, x, name):
    """What one can ask of a function of (w, x), for images x."""

    def total(x):
        return jnp.sin(f(w, x)).sum()

    asked = {
        "value": lambda: f(w, x),
        "gradient": lambda: jax.grad(total)(x),
        "vmap": lambda: jax.vmap(lambda x: jax.grad(total)(x[None]))(x),
        "jvp": lambda: jax.jvp(total, (x,), (jnp.sin(x),)),
        "second": lambda: jax.jvp(jax.grad(total), (x,), (jnp.sin(x),)),
    }
    return {ask: of() for ask, of in asked.items() if ask not in WITHOUT.get(name, ())}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_all_kinds(name):
    f, w, x = NETWORKS[name], normal(3, 3, 2, 2), normal(2, 4, 4, 2, seed=1)
    assert concerns(jax.make_jaxpr(f)(w, x), quick)
    sooner = {"xla_backend_optimization_level": 0}  # Compiled as one program, for the same reason.

    @functools.partial(jax.jit, compiler_options=sooner)
    def both(w, x):
        return [answers(each, w, x, name) for each in (f, on_cpu(f))]

    one, other = both(w, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, other)
