"""Networks that compute in another precision than v: forwards, backwards, end to end."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from tests import networks, oracles

TYPES = {"bfloat16": jnp.bfloat16, "float16": jnp.float16, "float32": jnp.float32}
EPS = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-24}


@cache
def response(inside, outside=None, aggregate=ifv.mean):
    """Layers of dtype `inside`; what they return is converted to `outside`, if given."""

    def apply(variables, images):
        variables = jax.tree.map(lambda a: a.astype(inside), variables)
        activations = networks.plain_apply(variables, images.astype(inside))
        return activations if outside is None else activations.astype(outside)

    return ifv.make_response(apply, ifv.sigmoid_pixels(networks.SHAPE), aggregate)


def accumulating(variables, images):
    """A layer of bfloat16 whose products are summed in float32, as accelerators do."""
    x, w = images.astype(jnp.bfloat16), variables["first"].astype(jnp.bfloat16)
    x = jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=networks.DIMENSIONS,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    return jnp.tanh(x.astype(jnp.bfloat16))[..., : networks.FEATURES]


def parameters(count=2, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (count, *networks.SHAPE)).astype(dtype)


def exact(v):
    """J of the same network in float32."""
    v = v.astype(jnp.float32)
    return ifv.jacobian(response(jnp.float32), networks.plain_variables(), v)


@pytest.mark.parametrize("outside", [None, jnp.float32])
@pytest.mark.parametrize("inside", TYPES)
def test_rows_have_the_dtype_of_v(inside, outside):
    v = parameters()
    got = ifv.jacobian(response(TYPES[inside], outside), networks.plain_variables(), v)
    assert got.matrix.dtype == jnp.float32
    assert got.response.dtype == (outside or TYPES[inside])
    expected = np.asarray(exact(v).matrix)
    error = np.linalg.norm(got.matrix - expected) / np.linalg.norm(expected)
    assert error < 4 * EPS[inside]


@pytest.mark.parametrize(
    "inside, v_dtype",
    [
        ("bfloat16", "float32"), ("float16", "float32"), ("float32", "bfloat16"),
        ("float32", "float16"), ("bfloat16", "bfloat16"), ("float16", "bfloat16"),
    ],
)  # fmt: skip
def test_what_is_inverted_may_have_any_dtype(inside, v_dtype):
    """The prediction is as exact as J; it is never kept in half precision."""
    v = parameters(dtype=TYPES[v_dtype])
    variables = networks.plain_variables()
    jac = ifv.jacobian(response(TYPES[inside]), variables, v)
    assert jac.matrix.dtype == v.dtype
    for kinks in (None, ifv.Perturbations(jax.random.key(0), 2)):
        got = ifv.invert(response(TYPES[inside]), variables, v, kinks=kinks)
        assert (got.status == ifv.Status.OK).all()
        assert got.objective.dtype == got.residual.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(got.objective, axis=1), 1, rtol=1e-6)
        for objective, r, j in zip(got.objective, jac.response, jac.matrix, strict=True):
            assert oracles.angle(objective, oracles.invert(r, j, 2.0)[0]) < 0.01
    data = ifv.linearize_all(response(TYPES[inside]), variables, v)
    assert data.gram.dtype == np.float64


def test_products_summed_in_another_precision():
    made = ifv.make_response(accumulating, ifv.sigmoid_pixels(networks.SHAPE), ifv.mean)
    got = ifv.invert(made, networks.plain_variables(), parameters())
    assert (got.status == ifv.Status.OK).all()


@pytest.mark.parametrize("inside", ["bfloat16", "float16"])
def test_what_was_visualized_in_half_precision_is_recovered(inside):
    made, variables = response(TYPES[inside]), networks.plain_variables()
    targets = ifv.sample_targets(jax.random.key(1), 3, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=150, lbfgs_steps=0)
    objective = ifv.make_objective(made)
    found = ifv.visualize(objective, variables, targets, jax.random.key(2), config=config)
    plain = ifv.invert(made, variables, found.v)
    around = ifv.Perturbations(jax.random.key(3), 4)
    off = ifv.invert(made, variables, found.v, kinks=around)
    for predicted, other, r, t in zip(
        plain.objective, off.objective, found.response, targets, strict=True
    ):
        assert oracles.angle(predicted, t) < min(10, oracles.angle(r, t) / 2)
        # What half precision makes of a smooth network's gradients is round-off, not kinks.
        assert oracles.angle(other, predicted) < 1e-3


@pytest.mark.parametrize("v_dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "inside, outside",
    [(jnp.float64, None), (jnp.float32, None), (jnp.float32, jnp.float64), (jnp.bfloat16, None)],
)
def test_with_x64_switched_on(inside, outside, v_dtype):
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), networks.plain_variables())
        made = response(inside, outside)
        v = jnp.asarray(parameters(), v_dtype)
        jac = ifv.jacobian(made, variables, v)
        assert jac.matrix.dtype == v_dtype
        for kinks in (None, ifv.Perturbations(jax.random.key(0), 2, 1e-5)):
            got = ifv.invert(made, variables, v, kinks=kinks)
            assert (got.status == ifv.Status.OK).all()
            wide = jnp.promote_types(jac.response.dtype, jnp.float32)
            assert got.objective.dtype == got.gap.dtype == wide
            for objective, r, j in zip(got.objective, jac.response, jac.matrix, strict=True):
                assert oracles.angle(objective, oracles.invert(r, j, 2.0)[0]) < 0.01


def test_with_x64_what_was_visualized_is_recovered():
    with jax.enable_x64(True):
        variables = networks.plain_variables()
        targets = ifv.sample_targets(jax.random.key(1), 2, features=networks.FEATURES)
        config = ifv.FVConfig(adam_steps=150, lbfgs_steps=30)
        made = response(jnp.float32)  # of float32, whose v is float64
        objective = ifv.make_objective(made)
        found = ifv.visualize(objective, variables, targets, jax.random.key(2), config=config)
        assert found.v.dtype == jnp.float64
        got = ifv.invert(made, variables, found.v)
        for predicted, t in zip(got.objective, targets, strict=True):
            assert oracles.angle(predicted, t) < 3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_leaves_of_v_may_have_dtypes_of_their_own(dtype):
    def pixels(v):
        return jax.nn.sigmoid(jnp.concatenate([v["a"], v["b"].astype(jnp.float32)], axis=-1))

    def init(key, batch):
        fine, coarse = jax.random.split(key)
        return {
            "a": jax.random.normal(fine, (batch, 8, 8, 1)),
            "b": jax.random.normal(coarse, (batch, 8, 8, 2)).astype(dtype),
        }

    made = ifv.make_response(
        networks.plain_apply, ifv.Parametrization(init, pixels, networks.SHAPE), ifv.mean
    )
    variables, v = networks.plain_variables(), init(jax.random.key(0), 2)
    got = ifv.jacobian(made, variables, v)
    assert got.matrix.dtype == jnp.float32
    together = jnp.concatenate([v["a"], v["b"].astype(jnp.float32)], axis=-1)
    expected = exact(together).matrix.reshape(2, networks.FEATURES, *networks.SHAPE)
    parts = [expected[..., :1].reshape(2, 6, -1), expected[..., 1:].reshape(2, 6, -1)]
    expected = np.concatenate(parts, axis=-1)
    eps = EPS[jnp.dtype(dtype).name]
    np.testing.assert_allclose(got.matrix, expected, rtol=2 * eps, atol=1e-6)
    for kinks in (None, ifv.Perturbations(jax.random.key(0), 2)):
        predicted = ifv.invert(made, variables, v, kinks=kinks)
        assert (predicted.status == ifv.Status.OK).all()
