"""Inversion at inputs that rest on kinks, made so that the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax import kinks as module
from ifv_jax.parametrization import Parametrization
from tests import networks, oracles

FEATURES, PIXELS, CREASED = 4, 24, 6


def row(pixels):
    """v is the image, a row of grey pixels."""
    shape = (1, pixels, 1)
    return Parametrization(
        lambda key, batch: jnp.full((batch, *shape), 0.5), lambda v: v, shape, lambda images: images
    )


def creased(weights, images):
    """Features with a crease at 0.5 in each of the first pixels, smooth in the others."""
    x = images[:, 0, :, 0] - 0.5
    sides = jnp.stack([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1)[:, :CREASED]
    falls = jnp.einsum("bps,fps->bf", sides, weights["falls"])
    bowls = jnp.square(x[:, CREASED:, None] - weights["centres"]) * weights["bowls"]
    return 2 - falls - bowls.sum(1)


def maximum(seed):
    """(response, weights, target, v): v maximizes S for the target, on all creases at once."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.2, 1, FEATURES)
    target /= np.linalg.norm(target)
    smooth = PIXELS - CREASED
    weights = {
        "falls": rng.uniform(0.2, 1, (FEATURES, CREASED, 2)),
        "centres": 0.02 * rng.standard_normal((smooth, FEATURES)),
        "bowls": rng.uniform(0.5, 1, (smooth, FEATURES)),
    }
    # In each smooth pixel the features pull to centres of their own: W t balances them.
    x = np.zeros(smooth)
    for _ in range(50):  # W depends on r, r on x
        r = 2 - (np.square(x[:, None] - weights["centres"]) * weights["bowls"]).sum(0)
        pull = weights["bowls"] * (oracles.weight_matrix(r, 2.0) @ target)
        x = (pull * weights["centres"]).sum(1) / pull.sum(1)
    v = np.concatenate([0.5 + 1e-5 * rng.standard_normal(CREASED), 0.5 + x])
    to_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    response = ifv.make_response(creased, row(PIXELS), ifv.identity)
    return response, jax.tree.map(to_32, weights), target, to_32(v)[None, None, :, None]


@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_on_kinks_is_inverted_along_them(seed):
    response, weights, target, v = maximum(seed)
    around = ifv.Perturbations(jax.random.key(1), 6, 1e-4)
    plain = ifv.invert(response, weights, v)
    found = ifv.invert(response, weights, v, kinks=around)
    assert oracles.angle(plain.objective[0], target) > 5
    assert oracles.angle(found.objective[0], target) < 0.5
    assert found.residual[0] < plain.residual[0] / 10


def test_what_is_taken_out_is_what_gradients_differ_by():
    """Against the definition: J times the projector onto the complement of the differences."""
    response, weights, target, v = maximum(0)
    around = ifv.Perturbations(jax.random.key(1), 6, 1e-4)
    jac = ifv.jacobian(response, weights, v)
    cotangent = jnp.asarray(target, jnp.float32)[None]
    found = module.without_kinks(
        response, weights, v, jac, cotangent, around, np.arange(1), devices=None
    )
    crossing = np.zeros((CREASED, PIXELS))
    crossing[:, :CREASED] = np.eye(CREASED)
    j = np.asarray(jac.matrix[0], np.float64)
    expected = j @ (np.eye(PIXELS) - crossing.T @ crossing)
    # Curvature tilts what is taken out by about deviation / slope.
    np.testing.assert_allclose(found.gram[0], expected @ expected.T, atol=2e-2 * np.abs(j).max())
    assert np.linalg.eigvalsh(np.asarray(found.gram[0])).min() > -1e-9


def test_a_smooth_optimum_is_inverted_as_before():
    objective, variables = networks.objective(), networks.plain_variables()
    targets = ifv.sample_targets(jax.random.key(1), 3, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=200, lbfgs_steps=100)
    found = ifv.visualize(objective, variables, targets, jax.random.key(2), config=config)
    response, around = objective.response, ifv.Perturbations(jax.random.key(3), 4, 1e-4)
    plain = ifv.invert(response, variables, found.v)
    off = ifv.invert(response, variables, found.v, kinks=around)
    for a, b, t in zip(plain.objective, off.objective, targets, strict=True):
        assert oracles.angle(b, t) < oracles.angle(a, t) + 1


def test_perturbations_belong_to_the_sample_not_to_its_batch():
    response, variables = networks.response(), networks.plain_variables()
    v = response.parametrization.init(jax.random.key(1), 3)
    around = ifv.Perturbations(jax.random.key(2), 2, 0.1)
    whole = ifv.invert(response, variables, v, kinks=around, batch_size=3)
    parts = ifv.invert(response, variables, v, kinks=around, batch_size=2)
    np.testing.assert_allclose(whole.singular_values, parts.singular_values, rtol=1e-4)
    other = ifv.invert(response, variables, v, kinks=around._replace(key=jax.random.key(3)))
    assert not np.allclose(whole.singular_values, other.singular_values, rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"deviation": 0.0}, {"deviation": np.nan}])
def test_senseless_perturbations_are_refused(wrong):
    response, variables = networks.response(), networks.plain_variables()
    v = response.parametrization.init(jax.random.key(1), 1)
    around = ifv.Perturbations(jax.random.key(0))._replace(**wrong)
    with pytest.raises(ifv.InputError, match=next(iter(wrong))):
        ifv.invert(response, variables, v, kinks=around)


def test_more_pairs_than_directions_are_refused():
    response = ifv.make_response(creased, row(PIXELS), ifv.identity)
    _, weights, _, v = maximum(0)
    with pytest.raises(ifv.InputError, match="of at most 24, the parameters"):
        ifv.invert(response, weights, v, kinks=ifv.Perturbations(jax.random.key(0), 11))
