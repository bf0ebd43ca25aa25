"""S_k and W: the formulas, the gradient identity, and safety at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ifv_jax as ifv
from tests import oracles

POWERS = (0, 0.5, 1, 2, 5)


def small_network(key, n=5, m=7):
    """f: R^m -> R^n, smooth, float64, with responses of either sign."""
    a, b = jax.random.normal(key, (2, n * m), jnp.float64).reshape(2, n, m)
    return lambda v: jnp.tanh(a @ v) + 0.3 * (b @ v) ** 2 - 0.2


@pytest.mark.parametrize("k", POWERS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_gradient_is_linear_in_the_objective(k, seed):
    """grad_v S_k(f(v), t) = |cos|^k J^T W t, for both signs of <r, t>."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), 3)
        f = small_network(keys[0])
        v = jax.random.normal(keys[1], (7,), jnp.float64)
        t = jax.random.normal(keys[2], (5,), jnp.float64)
        t = t / jnp.linalg.norm(t)
        r, j = f(v), jax.jacrev(f)(v)
        for sign in (1, -1):
            gradient = jax.grad(lambda v, t=sign * t: ifv.significance(f(v), t, cosine_power=k))(v)
            cosine = abs(r @ t) / jnp.linalg.norm(r)
            expected = cosine**k * j.T @ ifv.weight_matrix(r, cosine_power=k) @ (sign * t)
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("k", POWERS)
def test_values_are_the_formula(k):
    rng = np.random.default_rng(0)
    r, t = rng.standard_normal((2, 20, 6)).astype(np.float32)
    got = ifv.significance(jnp.asarray(r), jnp.asarray(t), cosine_power=k)
    # The oracle takes unit targets only up to scale: cos uses |t| = 1.
    expected = [oracles.significance(a, b, k) for a, b in zip(r, t, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=2e-5)


@pytest.mark.parametrize("k", POWERS)
@pytest.mark.parametrize("r", [(0, 0, 0), (0, 1, 0), (-1, 0, 0), (1e-30, 0, 0), (1e25, 1e25, 0)])
def test_no_nan_at_the_edges(k, r):
    r, t = jnp.asarray(r, jnp.float32), jnp.asarray((1.0, 0, 0))
    value, gradient = jax.value_and_grad(lambda r: ifv.significance(r, t, cosine_power=k))(r)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value.dtype == gradient.dtype == jnp.float32


def test_weight_matrix_has_eigenvalue_one_along_r():
    r = jnp.asarray((3.0, 4.0, 0.0))
    w = ifv.weight_matrix(r, cosine_power=2)
    np.testing.assert_allclose(w @ r, r, rtol=1e-6)
    np.testing.assert_allclose(w @ jnp.asarray((0, 0, 1.0)), (0, 0, 3), rtol=1e-6)
    np.testing.assert_allclose(w, oracles.weight_matrix(r, 2), atol=1e-6)


@pytest.mark.parametrize("k", [-1, float("nan"), float("inf"), "two", None])
def test_a_bad_power_is_refused(k):
    with pytest.raises(ifv.InputError, match="cosine power"):
        ifv.make_objective(ifv.make_response(lambda v, x: x, ifv.sigmoid_pixels((4, 4, 3))),
                           cosine_power=k)  # fmt: skip
