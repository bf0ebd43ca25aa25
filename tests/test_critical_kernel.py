"""Spectra and Algorithm 1."""

import jax
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ifv_jax.checks import InputError
from ifv_jax.critical_candidates import (
    candidate_spaces,
)
from ifv_jax.critical_kernel import approximate_kernel, spectra
from tests import oracles_subspaces as oracles
from tests.oracles_subspaces import projector
from tests.planted import COMMON, SEEDS, messy, orthonormal, planted, spectra_of

GRAM = np.eye(3)[None].repeat(2, 0)


@given(seed=SEEDS, n=st.integers(1, 7), m=st.integers(1, 12))
def test_spectra_are_those_of_the_jacobians(seed, n, m):
    rng = np.random.default_rng(seed)
    jacobians = rng.standard_normal((3, n, m)) * 10.0 ** rng.integers(-30, 30, (3, 1, 1))
    found = spectra_of(jacobians)
    expected = np.linalg.svd(jacobians, compute_uv=False)
    expected = np.pad(expected, ((0, 0), (0, max(0, n - m))))[:, ::-1]
    scale = expected[:, -1:]
    np.testing.assert_allclose(found.values / scale, expected / scale, atol=1e-7)
    np.testing.assert_allclose(found.quotients, expected / scale, atol=1e-7)
    again = np.einsum("ijk,ik,ilk->ijl", found.vectors, found.values**2, found.vectors)
    np.testing.assert_allclose(
        again / scale[..., None] ** 2,
        jacobians @ jacobians.transpose(0, 2, 1) / scale[..., None] ** 2,
        atol=1e-12,
    )


def test_small_singular_directions_are_recovered():
    rng = np.random.default_rng(0)
    left = orthonormal(rng, 20, 20)
    values = np.concatenate([[1e-5, 3e-5], np.linspace(0.1, 1, 18)])
    jacobian = left * values @ orthonormal(rng, 50, 20).T
    found = spectra_of(jacobian[None])
    np.testing.assert_allclose(found.values[0], values, rtol=1e-4)
    np.testing.assert_allclose(
        projector(found.vectors[0, :, :1]), projector(left[:, :1]), atol=1e-6
    )


@pytest.mark.parametrize("common", COMMON)
@pytest.mark.parametrize("tree", ["balanced", "sequential"])
def test_exact_common_cokernel_is_found_in_any_order(common, tree):
    rng = np.random.default_rng(2)
    jacobians = planted(rng, common=COMMON[common], samples=7)
    for order in (None, rng.permutation(7), jax.random.key(1), jax.random.PRNGKey(2)):
        found = approximate_kernel(spectra_of(jacobians), 0.01, order=order, tree=tree)
        assert found.shape == COMMON[common].shape
        np.testing.assert_allclose(projector(found), projector(COMMON[common]), atol=1e-6)


@pytest.mark.parametrize("common", ["ones", "axis", "both"])
@pytest.mark.parametrize("tree", ["balanced", "sequential"])
def test_noisy_common_cokernel_is_averaged(common, tree):
    rng = np.random.default_rng(3)
    noise = 0.1
    jacobians = planted(rng, common=COMMON[common], samples=32, noise=noise)
    found = approximate_kernel(spectra_of(jacobians), 0.01, tree=tree)
    assert found.shape == COMMON[common].shape
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-12)
    # A mean of 32, so clearly better than any single one of them.
    assert scipy.linalg.subspace_angles(found, COMMON[common]).max() < noise / 2


@given(
    seed=SEEDS,
    samples=st.integers(1, 9),
    tree=st.sampled_from(["balanced", "sequential"]),
    tau=st.floats(1e-3, 1),
)
def test_algorithm_1_agrees_with_the_naive_version(seed, samples, tree, tau):
    rng = np.random.default_rng(seed)
    jacobians = messy(rng, samples=samples)
    order = rng.permutation(samples)
    found = approximate_kernel(spectra_of(jacobians), tau, order=order, tree=tree)
    expected = oracles.kernel(jacobians, tau, order=list(order), tree=tree)
    assert found.shape == expected.shape
    np.testing.assert_allclose(projector(found), projector(expected), atol=1e-6)


@given(seed=SEEDS, tau=st.floats(1e-3, 0.5))
def test_symmetries_of_algorithm_1(seed, tau):
    rng = np.random.default_rng(seed)
    jacobians = messy(rng, samples=8)
    data = spectra_of(jacobians)
    expected = projector(approximate_kernel(data, tau))

    def found(jacobians, **options):
        return projector(approximate_kernel(spectra_of(jacobians), tau, **options))

    # Siblings of the balanced tree may trade places.
    swapped = [5, 4, 6, 7, 2, 3, 0, 1]
    np.testing.assert_allclose(found(jacobians, order=swapped), expected, atol=1e-6)
    # An order is the order of the samples.
    order = rng.permutation(8)
    np.testing.assert_allclose(found(jacobians, order=order), found(jacobians[order]), atol=1e-9)
    # Each Jacobian may have a unit of its own, and parameter space any coordinates.
    turn = orthonormal(rng, 12, 12)
    scaled = jacobians * rng.uniform(0.1, 10, (8, 1, 1)) @ turn
    np.testing.assert_allclose(found(scaled), expected, atol=1e-6)
    # Turning feature space turns U.
    turn = orthonormal(rng, 6, 6)
    np.testing.assert_allclose(found(turn @ jacobians), turn @ expected @ turn.T, atol=1e-6)


def test_one_sample_and_jacobians_that_are_zero():
    rng = np.random.default_rng(4)
    jacobians = planted(rng, common=COMMON["ones"], samples=1, extra=0)
    found = approximate_kernel(spectra_of(jacobians), 0.01)
    np.testing.assert_allclose(projector(found), projector(COMMON["ones"]), atol=1e-6)
    # A Jacobian that is zero does not restrict the intersection.
    both = np.concatenate([jacobians, 0 * jacobians])
    found = approximate_kernel(spectra_of(both), 0.01)
    np.testing.assert_allclose(projector(found), projector(COMMON["ones"]), atol=1e-6)
    nothing = spectra_of(0 * both)
    assert approximate_kernel(nothing, 0.01).shape == (10, 10)
    assert candidate_spaces(nothing) == ()


def test_a_key_draws_one_order():
    data = spectra_of(messy(np.random.default_rng(5), samples=9))
    results = [
        projector(approximate_kernel(data, 0.3, order=jax.random.key(seed))) for seed in range(8)
    ]
    again = projector(approximate_kernel(data, 0.3, order=jax.random.key(3)))
    np.testing.assert_array_equal(results[3], again)
    assert any(np.abs(result - results[0]).max() > 1e-6 for result in results)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda data: spectra(np.eye(3)),
        lambda data: spectra(np.zeros((0, 3, 3))),
        lambda data: spectra(np.zeros((2, 3, 4))),
        lambda data: spectra(GRAM.astype(np.float32)),
        lambda data: spectra(GRAM * np.nan),
        lambda data: spectra(GRAM + np.triu(np.ones((3, 3)), 1)),
        lambda data: approximate_kernel(data, -0.1),
        lambda data: approximate_kernel(data, np.nan),
        lambda data: approximate_kernel(data, 0.1, order=[0, 0]),
        lambda data: approximate_kernel(data, 0.1, order=[0, 1, 2]),
        lambda data: approximate_kernel(data, 0.1, order=[[0, 1]]),  # type: ignore
        lambda data: approximate_kernel(data, 0.1, tree="random"),  # type: ignore
        lambda data: approximate_kernel(data, 0.1, max_angle_deg=0),
        lambda data: approximate_kernel(data, 0.1, max_angle_deg=91),
    ],
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match=r"Expected .*; got "):
        wrong(spectra(GRAM))
