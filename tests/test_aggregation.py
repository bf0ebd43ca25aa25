"""A: pooling against the naive version, and layers that do not fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.aggregation import max_pool
from tests import oracles


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (2, 2, 5, 1), (1, 1, 1, 4)])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1), (1, 3)])
def test_max_pool(shape, window, stride):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = oracles.max_pool(x, window, stride)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), window=window, stride=stride), expected)
    got = partial(ifv.max_mean, window=window, stride=stride)(jnp.asarray(x))
    np.testing.assert_allclose(got, expected.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_max_pool_gradient_is_that_of_xlas_own():
    x = jax.random.normal(jax.random.key(0), (1, 9, 9, 2))
    weights = jax.random.normal(jax.random.key(1), (1, 4, 4, 2))

    def xla(x):
        y = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        return jnp.sum(weights * y)

    ours = jax.grad(lambda x: jnp.sum(weights * max_pool(x, window=3, stride=2)))(x)
    np.testing.assert_allclose(ours, jax.grad(xla)(x), atol=1e-6)


def test_mean_pick_identity():
    x = jnp.arange(2 * 4 * 5 * 3.0).reshape(2, 4, 5, 3)
    np.testing.assert_allclose(ifv.mean(x), x.mean((1, 2)))
    np.testing.assert_array_equal(ifv.pick(x), x[:, 2, 2])
    np.testing.assert_array_equal(ifv.pick(x, position=(3, 0)), x[:, 3, 0])
    np.testing.assert_array_equal(ifv.identity(x[:, 0, 0]), x[:, 0, 0])


def test_layers_that_do_not_fit():
    flat, space = jnp.zeros((2, 3)), jnp.zeros((2, 4, 4, 3))
    for aggregate in (ifv.max_mean, ifv.mean, ifv.pick):
        with pytest.raises(ifv.InputError, match="identity"):
            aggregate(flat)
    with pytest.raises(ifv.InputError, match="max_mean"):
        ifv.identity(space)
    with pytest.raises(ifv.InputError, match="position"):
        ifv.pick(space, position=(4, 0))
