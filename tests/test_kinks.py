"""Inversion at inputs that rest on kinks, made so that the answer is known, and at smooth ones."""

from functools import cache

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


def maximum(seed, off=1e-5, steepness=1.0):
    """(response, weights, target, v): v maximizes S for the target, `off` all creases at once."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.2, 1, FEATURES)
    target /= np.linalg.norm(target)
    smooth = PIXELS - CREASED
    weights = {
        "falls": steepness * rng.uniform(0.2, 1, (FEATURES, CREASED, 2)),
        "centres": 0.02 * rng.standard_normal((smooth, FEATURES)),
        "bowls": rng.uniform(0.5, 1, (smooth, FEATURES)),
    }
    # In each smooth pixel the features pull to centres of their own: W t balances them.
    x = np.zeros(smooth)
    for _ in range(50):  # W depends on r, r on x
        r = 2 - (np.square(x[:, None] - weights["centres"]) * weights["bowls"]).sum(0)
        pull = weights["bowls"] * (oracles.weight_matrix(r, 2.0) @ target)
        x = (pull * weights["centres"]).sum(1) / pull.sum(1)
    v = np.concatenate([0.5 + off * rng.standard_normal(CREASED), 0.5 + x])
    to_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    return creased_response(), jax.tree.map(to_32, weights), target, to_32(v)[None, None, :, None]


@cache
def creased_response():
    return ifv.make_response(creased, row(PIXELS), ifv.identity)


@pytest.mark.parametrize("off", [1e-6, 1e-5])
@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_on_kinks_is_inverted_along_them(seed, off):
    response, weights, target, v = maximum(seed, off)
    around = ifv.Perturbations(jax.random.key(1), 6, 1e-4)
    plain = ifv.invert(response, weights, v)
    found = ifv.invert(response, weights, v, kinks=around)
    assert oracles.angle(plain.objective[0], target) > 5
    assert oracles.angle(found.objective[0], target) < 0.5
    assert found.residual[0] < plain.residual[0] / 10


def ridged(weights, images):
    """As `creased`, by a maximum: its gradient exactly on a crease is the mean of both sides."""
    x = images[:, 0, :CREASED, 0, None] - 0.5
    falls = weights["falls"].transpose(2, 1, 0)
    both = jnp.maximum(falls[0] * x, -falls[1] * x).sum(1)
    return creased({**weights, "falls": 0 * weights["falls"]}, images) - both


@pytest.mark.parametrize("deviation", [1e-5, 1e-4])
@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_exactly_on_kinks(seed, deviation):
    """Jumps are odd there, as curvature is: they do not cancel in the sum of a pair elsewhere."""
    _, weights, target, v = maximum(seed, 0.0)
    around = ifv.Perturbations(jax.random.key(1), 6, deviation)
    response = ridged_response()
    assert oracles.angle(ifv.invert(response, weights, v).objective[0], target) > 5
    found = ifv.invert(response, weights, v, kinks=around)
    assert oracles.angle(found.objective[0], target) < 0.5


@cache
def ridged_response():
    return ifv.make_response(ridged, row(PIXELS), ifv.identity)


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


DEVIATIONS = [1e-7, 1e-6, 1e-5, 1.5e-4, 1e-3, 1e-2, 0.1]


def assert_nothing_is_taken_out(response, variables, v, deviation):
    plain = ifv.invert(response, variables, v, left_vectors=True)
    around = ifv.Perturbations(jax.random.key(3), 4, deviation)
    off = ifv.invert(response, variables, v, left_vectors=True, kinks=around)
    jax.tree.map(np.testing.assert_array_equal, plain, off)


@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("seed", range(2))
def test_curvature_and_round_off_of_an_optimum_are_not_taken_out(seed, deviation):
    """The gradient is round-off there, however large the terms that cancel in it."""
    response, weights, target, v = maximum(seed, steepness=0.0)
    assert_nothing_is_taken_out(response, weights, v, deviation)
    found = ifv.invert(response, weights, v, kinks=ifv.Perturbations(jax.random.key(3), 4))
    assert oracles.angle(found.objective[0], target) < 0.1


def smooth(activation):
    def apply(variables, images):
        """The mean of two convolutions, smooth in between."""
        x = jax.lax.conv_general_dilated(
            images - 0.5, variables["first"], (1, 1), "SAME", dimension_numbers=networks.DIMENSIONS
        )
        return jax.lax.conv_general_dilated(
            activation(x), variables["second"], (1, 1), "SAME",
            dimension_numbers=networks.DIMENSIONS,
        )  # fmt: skip

    return networks.response(apply, ifv.mean)


SMOOTH = {
    name: smooth(function)
    for name, function in {
        "tanh": jnp.tanh, "gelu": jax.nn.gelu, "softplus": jax.nn.softplus,
        "sin": lambda x: jnp.sin(5 * x),
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("name", SMOOTH)
def test_nothing_is_taken_out_of_a_smooth_network(name, deviation):
    """Wherever v is: where it is 0 and in the sample beside it, tanh has no curvature at first."""
    v = jax.random.normal(jax.random.key(9), (3, *networks.SHAPE))
    v = v * jnp.array([0.0, 0.01, 2.0])[:, None, None, None]
    assert_nothing_is_taken_out(SMOOTH[name], networks.plain_variables(), v, deviation)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_what_is_a_kink_does_not_depend_on_the_scale_of_the_response(scale):
    """Features in other units: the prediction stays, though squares leave the range of float32."""
    response, weights, _, v = maximum(0)
    around = ifv.Perturbations(jax.random.key(1), 6, 1e-4)
    found = ifv.invert(response, weights, v, kinks=around)

    def scaled(weights, images):
        return scale * creased(weights, images)

    response = ifv.make_response(scaled, row(PIXELS), ifv.identity)
    other = ifv.invert(response, weights, v, kinks=around)
    assert oracles.angle(other.objective[0], found.objective[0]) < 0.1


@pytest.mark.parametrize("pairs", [2, 12])
def test_round_off_changes_little_off_kinks(pairs):
    """Weights and parameters changed in their last bit, as another machine rounds."""
    response, variables = networks.response(), networks.plain_variables()
    targets = ifv.sample_targets(jax.random.key(1), 4, features=networks.FEATURES)
    config = ifv.FVConfig(adam_steps=30, lbfgs_steps=20, steps_per_call=10)
    objective = networks.objective()
    v = ifv.visualize(objective, variables, targets, jax.random.key(7), config=config).v
    up = lambda a: jnp.asarray(np.nextafter(a, np.float32(9)))  # noqa: E731
    for deviation in (1e-5, 1.5e-4, 1e-3):
        around = ifv.Perturbations(jax.random.key(3), pairs, deviation)
        found, other = (
            ifv.invert(response, *arguments, kinks=around).objective
            for arguments in ((variables, v), (jax.tree.map(up, variables), up(v)))
        )
        for a, b in zip(found, other, strict=True):
            assert oracles.angle(a, b) < 0.1


def test_a_gradient_nearby_that_is_not_finite_is_a_status():
    def apply(weights, images):  # infinitely steep on the other side of the edge
        steep = jnp.where(images > 0.50005, jnp.nan, 0.0) * images
        return creased(weights, images) + steep.sum((1, 2, 3))[:, None]

    _, weights, _, v = maximum(0)
    response = ifv.make_response(apply, row(PIXELS), ifv.identity)
    v = jnp.concatenate([jnp.minimum(v, 0.49999), v - 0.1])
    around = ifv.Perturbations(jax.random.key(1), 2, 1e-4)
    assert (ifv.invert(response, weights, v).status == ifv.Status.OK).all()
    status = ifv.invert(response, weights, v, kinks=around).status
    assert status.tolist() == [ifv.Status.NON_FINITE, ifv.Status.OK]


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
