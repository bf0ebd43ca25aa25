"""What a network does beside computing, what it is called with, and how it fails: as written."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.experimental import checkify, io_callback

import ifv_jax as ifv
from ifv_jax.engine.rewriting import on_cpu
from tests.small_conv import W, X, conv, normal, slope

ways = pytest.mark.parametrize(
    "way",
    [
        lambda f: f(W, X),
        lambda f: jax.jit(f)(W, X),
        lambda f: slope(f)(X),
        lambda f: jax.jit(slope(f))(X),
        lambda f: jax.vmap(slope(f))(X[:, None]),
        lambda f: jax.jvp(functools.partial(f, W), (X,), (X,)),
        lambda f: lax.scan(lambda x, _: (x + slope(f)(x), None), X, None, length=2),
    ],
    ids=["call", "jit", "gradient", "jitted gradient", "vmap", "forward", "loop"],
)


@ways
def test_effects_happen_as_often(way):
    seen = []

    def network(w, x):
        seen.append("traced")
        jax.debug.callback(lambda: seen.append("outer"))
        jax.debug.callback(lambda x: seen.append("of a value"), x.sum())

        def block(x):
            jax.debug.callback(lambda: seen.append("inner"))
            return conv(w, x)

        def step(x, _):
            io_callback(lambda: seen.append("step"), None, ordered=False)
            return jnp.tanh(conv(w, x)), None

        return lax.scan(step, jax.jit(block)(x), None, length=2)[0]

    counts = []
    for f in (network, on_cpu(network)):
        seen.clear()
        jax.block_until_ready(way(f))
        jax.effects_barrier()
        counts.append({name: seen.count(name) for name in set(seen)})
    assert counts[0] == counts[1]
    assert counts[0]["inner"] and counts[0]["outer"] and counts[0]["step"]


@ways
def test_an_error_is_the_network_s_own(way):
    """As it would be raised without the rewriting: no other error before or around it."""

    def network(w, x):
        conv(w, x)
        raise KeyError("a layer of this name")

    for f in (network, on_cpu(network)):
        with pytest.raises(KeyError, match="a layer of this name") as caught:
            way(f)
        assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w, x: conv(w, x[..., :1]),
        lambda w, x: conv(w, x) @ jnp.ones((3, 3)),
        lambda w, x: lax.scan(lambda x, _: (conv(w, x)[..., :1], None), x, None, length=2)[0],
        lambda w, x: lax.cond(True, lambda x: conv(w, x), lambda x: x[0], x),
        lambda w, x: {"layer": conv(w, x)}["layre"],
        lambda w, x: conv(w, x) if conv(w, x).sum() > 0 else x,
        lambda w, x: np.sin(conv(w, x)),
        lambda w, x: lax.while_loop(lambda x: x.sum() < 0, lambda x: conv(w, x), conv(w, x)),
    ],
)
def test_errors_of_all_kinds(wrong):
    """What plain JAX refuses under a jitted gradient is refused in the same words."""
    texts = []
    for f in (wrong, on_cpu(wrong)):
        with pytest.raises(Exception) as caught:
            jax.jit(slope(f))(X).block_until_ready()
        texts.append((type(caught.value), str(caught.value).split("\n")[0]))
    assert texts[0] == texts[1]


def test_a_network_that_looks_at_values():
    """Outside of `jit`, plain JAX lets it; then it is called as it is."""

    def network(w, x):
        y = conv(w, x)
        return y if float(np.asarray(lax.stop_gradient(y.sum()))) > 1e9 else 2 * y

    for way in (lambda f: f(W, X), lambda f: slope(f)(X)):
        np.testing.assert_array_equal(way(on_cpu(network)), way(network))


def test_leaves_that_are_not_arrays():
    """Static settings among the variables, and results of all kinds, stay what they are."""

    class Static:
        pass

    marker = Static()
    variables = {
        "w": W, "padding": "SAME", "times": 2, "none": None, "scale": np.float32(0.5),
        "table": np.arange(2), "marker": marker, "bias": 1.5, "function": jnp.tanh,
    }  # fmt: skip

    def network(variables, x):
        assert variables["marker"] is marker and isinstance(variables["table"], np.ndarray)
        for _ in range(variables["times"]):
            x = lax.conv_general_dilated(
                x, variables["w"], (1, 1), variables["padding"],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        x = variables["function"](x * variables["scale"] + variables["bias"])
        found = {"x": x, "count": x.argmax(), "kept": variables["table"], "name": "layer"}
        return found | {"positive": x > 0, "none": None, "number": 3, "given": variables["w"]}

    def way(f):
        def total(x):
            found = f(variables, x)
            assert found["name"] == "layer" and type(found["number"]) is int
            assert found["kept"] is variables["table"] and found["given"] is W
            assert found["none"] is None and found["positive"].dtype == bool
            assert jnp.issubdtype(found["count"].dtype, jnp.integer)
            return jnp.sin(found["x"]).sum(), (found["count"], found["positive"])

        return jax.grad(total, has_aux=True)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        way(network)(X), jax.jit(way(on_cpu(network)))(X),
    )  # fmt: skip
    assert on_cpu(network)(variables, X)["name"] == "layer"


def test_a_network_of_nnx():
    """Its state has its own kinds of leaves; a model may also be closed over."""

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(nnx.relu(self.norm(self.conv(x))))

    model = Net(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    for network in (lambda s, x: nnx.merge(graph, s)(x), lambda _, x: model(x)):
        found = [jax.jit(slope(f, state))(X) for f in (network, on_cpu(network))]
        np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_inside_of_other_people_s_transformations():
    """Axis names, checks of values and the state of a trace reach into the network."""

    def centred(w, x):
        return conv(w, x) - lax.pmean(conv(w, x), "batch")

    mapped = [jax.vmap(slope(f), axis_name="batch")(X[:, None]) for f in (centred, on_cpu(centred))]
    np.testing.assert_allclose(*mapped, rtol=1e-4, atol=1e-5)

    def checked(w, x):
        checkify.check(x.sum() > 1e6, "too small")
        return conv(w, x)

    errors = [checkify.checkify(jax.jit(slope(f)))(X)[0].get() for f in (checked, on_cpu(checked))]
    assert "too small" in errors[0] and "too small" in errors[1]

    def warned(w, x):
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        return conv(w, x)

    with pytest.warns(UserWarning, match="mind the gap") as caught:
        jax.jit(slope(on_cpu(warned)))(X)
    assert len(caught) == 1


def test_a_response_with_effects_is_visualized_and_inverted():
    """End to end: loops, callbacks and a layer without results, on and off."""

    def network(w, x):
        jax.jit(lambda x: jax.debug.callback(lambda x: None, x.sum()))(x)
        step = lambda x, k: (jnp.tanh(conv(k, x)), None)  # noqa: E731
        return lax.scan(step, x[..., :2], jnp.stack([w, w / 2]))[0] + 1

    found = []
    for rewrite in (True, False):
        response = ifv.make_response(
            network, ifv.sigmoid_pixels((4, 4, 3)), ifv.mean, rewrite=rewrite
        )
        v = jnp.asarray(normal(1, 4, 4, 3, seed=2))
        found.append(ifv.invert(response, W, v))
    np.testing.assert_allclose(found[0].objective, found[1].objective, atol=1e-4)
