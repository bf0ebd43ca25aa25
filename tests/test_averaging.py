"""Jacobians averaged over perturbations, against the closed forms they must approach."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import ifv_jax as ifv
from ifv_jax.parametrization import Parametrization
from tests import networks, oracles


def row(pixels):
    """v is the image, a row of grey pixels."""
    shape = (1, pixels, 1)
    return Parametrization(
        lambda key, batch: jnp.full((batch, *shape), 0.5), lambda v: v, shape, lambda images: images
    )


def ramps(variables, images):
    """Two features of one pixel: a ReLU and its mirror image, of different slopes."""
    x = images[:, 0, 0, :]
    return jnp.concatenate([variables * jax.nn.relu(x), jax.nn.relu(-x)], axis=1)


def test_a_kink_is_seen_from_both_sides():
    """E[J] of a ReLU at distance d from its kink is the normal distribution function of d / h."""
    response = ifv.make_response(ramps, row(2), ifv.identity)
    distance, h, pairs = 0.5e-3, 1e-3, 100
    v = jnp.full((1, 1, 2, 1), distance)
    around = ifv.Perturbations(jax.random.key(0), pairs, h)
    mean = ifv.average_jacobian(response, jnp.asarray(3.0), v, around)
    above = norm.cdf(distance / h)
    expected = np.zeros((2, 2))
    expected[:, 0] = 3 * above, -(1 - above)
    deviation = 3 * np.sqrt(above * (1 - above) / pairs)  # of the mean; pairs are not independent
    np.testing.assert_allclose(mean.matrix[0], expected, atol=3 * deviation)
    assert np.abs(mean.matrix[0, 1, 0]) > 0.1  # invisible to a single Jacobian
    assert ifv.jacobian(response, jnp.asarray(3.0), v).matrix[0, 1, 0] == 0


def test_a_smooth_network_has_the_same_jacobian():
    response, variables = networks.response(), networks.plain_variables()
    v = response.parametrization.init(jax.random.key(1), 3)
    plain = ifv.linearize_all(response, variables, v)
    around = ifv.Perturbations(jax.random.key(2), 2, 1e-5)
    averaged = ifv.linearize_all(response, variables, v, around=around)
    np.testing.assert_allclose(averaged.response, plain.response, rtol=1e-3)
    np.testing.assert_allclose(averaged.gram, plain.gram, rtol=1e-3, atol=1e-3 * plain.gram.max())


def test_perturbations_belong_to_the_sample_not_to_its_batch():
    response, variables = networks.response(networks.relu_apply), networks.plain_variables()
    v = response.parametrization.init(jax.random.key(1), 5)
    around = ifv.Perturbations(jax.random.key(2), 2, 0.1)
    linearize = partial(ifv.linearize_all, response, variables, around=around)
    whole, parts = linearize(v, batch_size=5), linearize(v, batch_size=2)
    np.testing.assert_allclose(whole.gram, parts.gram, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(whole.response, parts.response, rtol=1e-5)
    other = linearize(v, around=around._replace(key=jax.random.key(3)))
    assert not np.allclose(whole.gram, other.gram, rtol=1e-5)


def tents(variables, images):
    """Features that fall to both sides of 0.5 in each pixel, each with slopes of its own."""
    x = images[:, 0, :, 0] - 0.5
    sides = jnp.stack([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1)
    return 2 - jnp.einsum("bps,fps->bf", sides, variables)


def test_a_maximum_on_kinks_needs_the_average():
    """Where w^T E[J] = 0 the average finds the target, and no single Jacobian does.

    A pixel's slope is one value below 0.5 and another above; with P the probability of lying above,
    P * fall above = (1 - P) * fall below. Optimization that jumps over a kink ends up like this.
    """
    features, pixels, h = 4, 6, 1e-3
    rng = np.random.default_rng(0)
    slopes = rng.uniform(0.2, 1, (features, pixels, 2))
    target = rng.uniform(0.2, 1, features)
    target /= np.linalg.norm(target)
    w = oracles.weight_matrix(np.full(features, 2.0), 2.0) @ target  # r is 2 up to h
    above, below = np.einsum("f,fps->sp", w, slopes)
    response = ifv.make_response(tents, row(pixels), ifv.identity)
    v = jnp.asarray(0.5 + h * norm.ppf(below / (above + below)), jnp.float32)[None, None, :, None]
    slopes = jnp.asarray(slopes, jnp.float32)
    around = ifv.Perturbations(jax.random.key(1), 100, h)
    single = ifv.invert(response, slopes, v)
    averaged = ifv.invert(response, slopes, v, around=around)
    off = oracles.angle(averaged.objective[0], target)
    assert off < 8  # 200 draws know P within 0.035
    assert oracles.angle(single.objective[0], target) > 4 * off
    assert averaged.residual[0] < single.residual[0] / 3


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"deviation": 0.0}, {"deviation": np.nan}])
def test_senseless_perturbations_are_refused(wrong):
    response, variables = networks.response(), networks.plain_variables()
    v = response.parametrization.init(jax.random.key(1), 1)
    with pytest.raises(ifv.InputError, match=next(iter(wrong))):
        around = ifv.Perturbations(jax.random.key(0))._replace(**wrong)
        ifv.invert(response, variables, v, around=around)
