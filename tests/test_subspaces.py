"""Principal angles of two subspaces, and merging them."""

import numpy as np
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ifv_jax.subspaces import merge, principal_pairs
from tests import oracles_subspaces as oracles
from tests.oracles_subspaces import projector
from tests.planted import SEEDS, orthonormal


@given(seed=SEEDS, a=st.integers(1, 5), b=st.integers(1, 5), exponent=st.floats(-12, 0))
def test_principal_pairs(seed, a, b, exponent):
    rng = np.random.default_rng(seed)
    p = orthonormal(rng, 8, a)
    # From nearly the same directions to quite different ones, in another basis.
    near = np.linalg.qr(p + 10**exponent * rng.standard_normal((8, a)))[0]
    q = np.linalg.qr(np.hstack([near, orthonormal(rng, 8, b)])[:, :b])[0] @ orthonormal(rng, b, b)
    angles, left, right = principal_pairs(p, q)
    k = min(a, b)
    assert (np.diff(angles) >= 0).all()
    expected = np.sort(scipy.linalg.subspace_angles(p, q))
    np.testing.assert_allclose(angles, expected, rtol=1e-6, atol=1e-14)
    np.testing.assert_allclose(left.T @ left, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(right.T @ right, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(left.T @ right, np.diag(np.cos(angles)), atol=1e-12)
    np.testing.assert_allclose(projector(p) @ left, left, atol=1e-12)
    np.testing.assert_allclose(projector(q) @ right, right, atol=1e-12)


@given(seed=SEEDS, a=st.integers(0, 5), b=st.integers(0, 5), weight=st.floats(0, 1))
def test_merge_agrees_with_the_naive_version(seed, a, b, weight):
    rng = np.random.default_rng(seed)
    p, q = orthonormal(rng, 7, a), orthonormal(rng, 7, b)
    for max_angle_deg in (10, 45, 80):
        found = merge(p, q, weight=weight, max_angle_deg=max_angle_deg)
        expected = oracles.merge(p, q, weight, max_angle_deg)
        assert found.shape == expected.shape
        np.testing.assert_allclose(projector(found), projector(expected), atol=1e-7)
        np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-12)
        other = merge(q, p, weight=1 - weight, max_angle_deg=max_angle_deg)
        np.testing.assert_allclose(projector(found), projector(other), atol=1e-7)


@given(angle=st.floats(1e-9, 44.9), weight=st.floats(0, 1))
def test_lines_are_merged_by_interpolating_the_angle(angle, weight):
    def line(degrees):
        return np.array([[np.cos(np.deg2rad(degrees))], [np.sin(np.deg2rad(degrees))], [0.0]])

    found = merge(line(10), -line(10 + angle), weight=weight)
    np.testing.assert_allclose(projector(found), projector(line(10 + weight * angle)), atol=1e-12)
    assert merge(line(0), line(45.001)).shape == (3, 0)
    assert merge(line(0), line(45.001), max_angle_deg=45.01).shape == (3, 1)


def test_merging_keeps_the_exact_intersection():
    rng = np.random.default_rng(1)
    q = orthonormal(rng, 12, 8)
    found = merge(q[:, :5] @ orthonormal(rng, 5, 5), q[:, 3:] @ orthonormal(rng, 5, 5))
    np.testing.assert_allclose(projector(found), projector(q[:, 3:5]), atol=1e-12)
