"""Products of rounded factors, forwards and backwards, by hand and by `benchmarks.precision`."""

from functools import partial

import jax
import numpy as np
import pytest

from benchmarks.precision import MANTISSA_BITS, rounded_products
from tests import networks


def rounding(a, bits):
    """Of float32 to so many bits of the mantissa, half to even, in float64."""
    mantissa, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)


@pytest.mark.parametrize("bits", [7, 10])
def test_the_factors_of_a_product_and_of_its_gradient_are_rounded(bits):
    rng = np.random.default_rng(0)
    w, x, g = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (2, 4), (2, 3)))
    y, pull = jax.vjp(partial(rounded_products(lambda w, x: x @ w, bits), w), x)
    np.testing.assert_allclose(y, rounding(x, bits) @ rounding(w, bits), rtol=1e-5, atol=1e-6)
    (gradient,) = pull(g)
    expected = rounding(g, bits) @ rounding(w, bits).T
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(gradient - g @ w.T).max() > 2.0 ** -(bits + 4)


def test_gradients_written_by_hand_are_rounded_too_and_all_bits_change_nothing():
    @jax.custom_vjp
    def product(w, x):
        return x @ w

    product.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, g: (kept[1].T @ g, g @ kept[0].T))
    rng = np.random.default_rng(0)
    w, x, g = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (2, 4), (2, 3)))
    coarse = rounded_products(jax.jit(product), 7)
    (gradient,) = jax.vjp(partial(coarse, w), x)[1](g)
    np.testing.assert_allclose(gradient, rounding(g, 7) @ rounding(w, 7).T, rtol=1e-5, atol=1e-6)

    variables = networks.plain_variables()
    images = jax.random.uniform(jax.random.key(0), (2, *networks.SHAPE))
    whole = rounded_products(networks.relu_apply, MANTISSA_BITS["float32"])
    y, pull = jax.jit(lambda x: jax.vjp(partial(whole, variables), x))(images)
    y0, pull0 = jax.vjp(partial(networks.relu_apply, variables), images)
    np.testing.assert_allclose(y, y0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull(y)[0], pull0(y0)[0], rtol=1e-4, atol=1e-5)
