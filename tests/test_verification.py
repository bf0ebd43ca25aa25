"""Re-optimization: an optimum stays, another direction moves it; the whole pipeline recovers t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from tests import networks

SHAPE = (12, 12, 3)


def apply(variables, images):
    """A bounded, smooth network with a unique optimum in reach for most objectives."""
    x = jnp.tanh(networks.plain_apply(variables, images))
    return x - 0.3 * x**2


@pytest.fixture(scope="module")
def pipeline():
    variables = networks.plain_variables(3)
    response = ifv.make_response(apply, ifv.sigmoid_pixels(SHAPE), ifv.mean)
    objective = ifv.make_objective(response)
    targets = ifv.sample_targets(jax.random.key(1), 6, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=300, lbfgs_steps=200, batch_size=6)
    found = ifv.visualize(objective, variables, targets, jax.random.key(2), config=config)
    return variables, response, objective, targets, found


def test_prediction_beats_response(pipeline):
    variables, response, _, targets, found = pipeline
    predicted = ifv.invert(response, variables, found.v, left_vectors=True)
    angle = np.asarray(ifv.angular_distance(predicted.objective, targets))
    response_angle = np.asarray(ifv.angular_distance(found.response, targets))
    assert np.median(angle) < 0.25 * np.median(response_angle)
    profile = np.asarray(ifv.coefficients(predicted.left_vectors, targets))
    np.testing.assert_allclose(profile.sum(axis=1), 1, atol=1e-4)
    from_profile = np.degrees(np.arccos(np.sqrt(np.minimum(profile[:, 0], 1))))
    np.testing.assert_allclose(from_profile, np.minimum(angle, 180 - angle), atol=0.2)


def test_an_optimum_stays_where_it_is(pipeline):
    variables, _, objective, targets, found = pipeline
    away = jnp.roll(targets, 1, axis=0)
    both = ifv.reoptimize(
        objective, variables, jnp.concatenate([found.v, found.v]),
        jnp.concatenate([targets, away]), steps=40, batch_size=12,
    )  # fmt: skip
    stay, moved = np.split(np.asarray(both.ssim), 2)
    assert np.median(stay) > np.median(moved)
    verdict = ifv.verdict(jnp.asarray(stay), jnp.asarray(moved), threshold=float(np.median(stay)))
    assert verdict.stable.sum() >= 3 and verdict.yardstick.shape == (6,)


def test_a_failed_prediction_is_not_similar(pipeline):
    variables, _, objective, targets, found = pipeline
    directions = targets.at[0].set(0.0)
    got = ifv.reoptimize(objective, variables, found.v, directions, steps=2, batch_size=6)
    assert got.ssim[0] == 0 and (got.ssim[1:] > 0.5).all()
