"""Opt. 3 against a float64 SVD, its space, its silent features and its statuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ifv_jax as ifv
from tests import networks, oracles


def solve(r, j, k=2.0, space=None, **options):
    data = ifv.linearize(ifv.Jacobian(jnp.asarray(r), jnp.asarray(j)))
    return ifv.solve(data, cosine_power=k, space=space, **options)


@given(
    seed=st.integers(0, 10_000),
    k=st.sampled_from([0, 0.5, 1, 2, 5]),
    smallest=st.sampled_from([1e-5, 1e-4, 1e-2, 0.3]),
    gap=st.sampled_from([0.5, 0.1]),
)
@settings(max_examples=40)
def test_as_exact_as_a_float64_svd(seed, k, smallest, gap):
    """Within 0.01 degrees of the SVD of the same float32 J, down to sigma_min / max = 1e-5."""
    rng = np.random.default_rng(seed)
    n, m = 6, 40
    r = rng.uniform(0.1, 1, n).astype(np.float32)
    # Prescribe the spectrum of W J, which is what is inverted.
    second = min(1.0, smallest / gap)
    sigma = [smallest, second, *np.geomspace(second, 1, n - 2)]
    wj = oracles.with_spectrum(rng, sigma, m)
    j = np.linalg.solve(oracles.weight_matrix(r, k), wj.astype(np.float64)).astype(np.float32)
    expected, values = oracles.invert(r, j, k)
    got = solve(r[None], j[None], k)
    assert oracles.angle(got.objective[0], expected) < 0.01
    np.testing.assert_allclose(got.singular_values[0], values, rtol=1e-4)
    np.testing.assert_allclose(got.gap[0], values[0] / values[1], rtol=1e-3)
    np.testing.assert_allclose(got.residual[0], values[0] / values[-1], rtol=1e-3)
    assert got.status[0] == ifv.Status.OK and r @ np.asarray(got.objective[0]) > 0


@given(seed=st.integers(0, 10_000), k=st.sampled_from([0, 2]))
@settings(max_examples=20)
def test_restricted_to_a_critical_space(seed, k):
    """With <r, u> = 0 the search is the paper's: B^T W J on C."""
    rng = np.random.default_rng(seed)
    n, m = 7, 30
    u = np.linalg.qr(rng.standard_normal((n, 2)))[0]
    r = rng.standard_normal(n)
    r = (r - u @ (u.T @ r)).astype(np.float32)
    j = rng.standard_normal((n, m)).astype(np.float32)
    space = ifv.critical_space_from_complement(u)
    expected, values = oracles.invert(r, j, k, space.basis)
    got = solve(r[None], j[None], k, space, left_vectors=True)
    assert oracles.angle(got.objective[0], expected) < 0.01
    np.testing.assert_allclose(got.singular_values[0, : n - 2], values, rtol=1e-4)
    assert np.isinf(got.singular_values[0, n - 2 :]).all()
    vectors = np.asarray(got.left_vectors[0])[:, : n - 2]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n - 2), atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, -0.05, -0.5, -5.0])
def test_a_constant_feature_far_from_zero(offset):
    """A class never seen: its row of J is zero, its logit is c. t is recovered up to W^-1 u."""
    rng = np.random.default_rng(1)
    n, m, k = 6, 50, 2.0
    t = np.abs(rng.standard_normal(n))
    t /= np.linalg.norm(t)
    r = rng.uniform(0.2, 1, n)
    r[-1] = offset
    # Make t an exact optimum: J^T W t = 0, with the last row of J zero.
    w = oracles.weight_matrix(r, k)
    j = rng.standard_normal((n, m))
    j[-1] = 0
    direction = (w @ t)[:-1]
    j[:-1] -= np.outer(direction, direction @ j[:-1]) / (direction @ direction)
    assert np.linalg.norm(j.T @ w @ t) < 1e-12
    u = np.eye(n)[:, -1:]
    space = ifv.critical_space_from_complement(u, response=r[None])
    np.testing.assert_allclose(space.offset, [abs(offset) / np.linalg.norm(r)])
    for chosen in (space, None):  # A zero row is noticed without being told.
        got = solve(r[None].astype(np.float32), j[None].astype(np.float32), k, chosen)
        found = np.asarray(got.objective[0], np.float64)
        # t modulo W^-1 u: the plane spanned by both holds the prediction before projection.
        null = np.linalg.solve(w, u[:, 0])
        plane = np.linalg.qr(np.stack([t, null], 1))[0]
        across = null / np.linalg.norm(null)
        before = t - across * (across @ t)
        expected = before.copy()
        expected[-1] = 0
        assert plane.shape == (n, 2) and oracles.angle(found, expected) < 0.01
        assert got.residual[0] < 1e-5 and got.undetermined[0, -1]


def test_silent_features_are_left_out():
    rng = np.random.default_rng(0)
    r = rng.uniform(0.1, 1, 6).astype(np.float32)
    j = rng.standard_normal((6, 20)).astype(np.float32)
    r[[1, 4]], j[[1, 4]] = 0, 0
    live = [0, 2, 3, 5]
    expected, _ = oracles.invert(r[live], j[live], 2)
    got = solve(r[None], j[None])
    np.testing.assert_array_equal(np.flatnonzero(got.undetermined[0]), [1, 4])
    assert oracles.angle(np.asarray(got.objective[0])[live], expected) < 0.01
    np.testing.assert_array_equal(np.asarray(got.objective[0])[[1, 4]], 0)
    assert np.isfinite(got.singular_values[0]).sum() == 4


def test_a_bad_sample_leaves_the_others_alone():
    rng = np.random.default_rng(0)
    r = rng.uniform(0.1, 1, (5, 4)).astype(np.float32)
    j = rng.standard_normal((5, 4, 9)).astype(np.float32)
    alone = solve(r[:1], j[:1])
    r[1], j[2, 0, 0], r[3, 0], j[4] = 0, np.nan, np.inf, 0
    got = solve(r, j)
    expected = ["OK", "NO_RESPONSE", "NON_FINITE", "NON_FINITE", "UNDETERMINED"]
    assert [ifv.Status(int(s)).name for s in got.status] == expected
    np.testing.assert_array_equal(got.objective[1:], 0)
    np.testing.assert_allclose(got.objective[0], alone.objective[0], atol=1e-6)
    assert np.isfinite(got.objective).all() and got.objective.dtype == jnp.float32
    assert ifv.status_counts(got.status)["non_finite"] == 2
    assert all(ifv.Status(int(s)).message for s in got.status)


@pytest.mark.parametrize("k", [0.0, 2.0])
@pytest.mark.parametrize("silent", [(), (0,), (2, 3)])
def test_where_no_response_is_positive_the_sign_is_a_convention(silent, k):
    """Log-probabilities, say: no non-negative objective has a positive significance there."""
    rng = np.random.default_rng(0)
    r = -rng.uniform(0.1, 1, (1, 6)).astype(np.float32)
    j = rng.standard_normal((1, 6, 20)).astype(np.float32)
    j[:, list(silent)] = 0
    r[:, list(silent)] = 5  # this input says nothing about them, positive or not
    got = solve(r, j, k)
    assert got.status.tolist() == [ifv.Status.SIGN_CONVENTION]
    assert ifv.status_counts(got.status) == {"sign_convention": 1}
    live = [i for i in range(6) if i not in silent]
    np.testing.assert_allclose(np.linalg.norm(got.objective[0]), 1, rtol=1e-6)
    assert np.isfinite([got.residual, got.gap]).all()
    if not silent:
        expected, values = oracles.invert(r[0], j[0], k)
        assert oracles.angle(got.objective[0], expected) < 0.01
        np.testing.assert_allclose(got.singular_values[0], values, rtol=1e-4)
    r[0, live[0]] = 0.1
    assert solve(r, j, k).status.tolist() == [ifv.Status.OK]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-8, 1e12])
def test_units_of_the_response_do_not_matter(scale):
    rng = np.random.default_rng(0)
    r, j = rng.uniform(0.1, 1, (1, 5)), rng.standard_normal((1, 5, 9))
    expected, scaled = (
        solve((a * r).astype(np.float32), (a * j).astype(np.float32)) for a in (1, scale)
    )
    assert oracles.angle(scaled.objective[0], expected.objective[0]) < 0.01
    np.testing.assert_allclose(
        np.asarray(scaled.singular_values, np.float64) / scale, expected.singular_values, rtol=1e-4
    )
    np.testing.assert_allclose(scaled.residual, expected.residual, rtol=1e-4)
    np.testing.assert_allclose(scaled.gap, expected.gap, rtol=1e-4)


def ignoring(variables, images):
    return jnp.broadcast_to(jnp.array([1.0, 0.5, 0.2]), (images.shape[0], 3))


def stopping(variables, images):
    return jax.lax.stop_gradient(images.reshape(images.shape[0], -1)[:, :3])


def rounding(variables, images):
    return jnp.round(10 * images.reshape(images.shape[0], -1)[:, :3])


@pytest.mark.parametrize("kinks", [None, ifv.Perturbations(jax.random.key(0), 2, 1e-3)])
@pytest.mark.parametrize("apply", [ignoring, stopping, rounding])
def test_a_network_without_a_gradient_determines_nothing(apply, kinks):
    response = ifv.make_response(apply, ifv.sigmoid_pixels((4, 4, 3)), ifv.identity)
    v = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    got = ifv.invert(response, {}, v, kinks=kinks)
    assert got.status.tolist() == 2 * [ifv.Status.UNDETERMINED]
    np.testing.assert_array_equal(got.objective, 0)
    assert got.undetermined.all() and np.isnan(got.residual).all()


def test_a_space_of_another_layer_is_refused():
    with pytest.raises(ifv.InputError, match="6 dimensions"):
        ifv.invert(
            networks.response(), networks.plain_variables(),
            jnp.zeros((1, *networks.SHAPE)), space=ifv.full_space(7),
        )  # fmt: skip


def test_a_network_that_is_never_finite_is_an_error():
    broken = jax.tree.map(lambda a: a * jnp.nan, networks.plain_variables())
    with pytest.raises(ifv.InputError, match="finite"):
        ifv.invert(networks.response(), broken, jnp.zeros((2, *networks.SHAPE)))
    with pytest.raises(ifv.InputError, match="empty batch"):
        ifv.invert(networks.response(), broken, jnp.zeros((0, *networks.SHAPE)))


def test_solve_inside_jit():
    rng = np.random.default_rng(0)
    r = jnp.asarray(rng.uniform(0.1, 1, (2, 4)), jnp.float32)
    j = jnp.asarray(rng.standard_normal((2, 4, 9)), jnp.float32)
    u = np.full((4, 1), 0.5)
    for space in (None, ifv.critical_space_from_complement(u)):
        inside = jax.jit(lambda r, j, space=space: solve(r, j, space=space).objective)(r, j)
        np.testing.assert_allclose(inside, solve(r, j, space=space).objective, atol=1e-6)
