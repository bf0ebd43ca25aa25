import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ifv_jax.checks import InputError
from ifv_jax.targets import (
    canonical_targets,
    hoyer_sparseness,
    project_sparseness,
    random_targets,
    sample_sparse,
    sample_targets,
)
from tests import oracles_subspaces as oracles

SIZES = st.sampled_from([2, 3, 10, 97, 1000])


def norm(t):
    return np.linalg.norm(np.asarray(t, np.float64), axis=-1)


@given(
    n=SIZES,
    seed=st.integers(0, 2**31),
    sparseness=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=8, max_size=8),
)
def test_sampled_target_has_the_sparseness_asked_for(n, seed, sparseness):
    t = sample_sparse(jax.random.key(seed), sparseness, features=n)
    assert t.shape == (8, n) and t.dtype == jnp.float32
    assert (np.asarray(t) >= 0).all()
    np.testing.assert_allclose(norm(t), 1, atol=1e-6)
    np.testing.assert_allclose(hoyer_sparseness(t), sparseness, atol=1e-6)


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_sparseness_at_and_near_its_limits(n):
    limits = np.array([0, 1e-12, 1e-6, 1 - 1e-6, 1 - 1e-12, 1])
    t = np.asarray(sample_sparse(jax.random.key(0), limits, features=n))
    np.testing.assert_allclose(hoyer_sparseness(t), limits, atol=1e-6)
    np.testing.assert_allclose(t[0], n**-0.5, rtol=1e-6)
    assert np.count_nonzero(t[-1]) == 1 and t[-1].max() == 1


@settings(max_examples=100)
@given(
    n=st.integers(2, 30),
    seed=st.integers(0, 2**32 - 1),
    sparseness=st.floats(0.01, 0.99),
    negative=st.booleans(),
)
def test_projection_agrees_with_thom_and_palm(n, seed, sparseness, negative):
    point = np.random.default_rng(seed).standard_normal(n)
    point = point if negative else np.abs(point)
    found = project_sparseness(point[None], [sparseness])[0]
    np.testing.assert_allclose(found, oracles.hoyer_projection(point, sparseness), atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), sparseness=st.floats(0, 1))
def test_projection_is_the_closest_point(seed, sparseness):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((50, 6)) ** 2
    others = project_sparseness(points, np.full(50, sparseness))
    point = rng.standard_normal(6) ** 2
    distance = norm(project_sparseness(point[None], [sparseness])[0] - point)
    assert (distance <= norm(others - point) + 1e-7).all()


def test_projection_tells_equal_entries_apart():
    sparseness = np.array([0, 0.2, 0.5, 0.9, 1])
    for point in (np.ones(6), np.array([1.0, 1, 1, 0, 0]), np.zeros(3)):
        t = project_sparseness(np.tile(point, (5, 1)), sparseness)
        assert (t >= 0).all()
        np.testing.assert_allclose(hoyer_sparseness(t), sparseness, atol=1e-12)


def test_drawn_sparseness_is_uniform_and_no_feature_is_favoured():
    t = np.asarray(sample_targets(jax.random.key(3), 4000, features=7), np.float64)
    assert scipy.stats.kstest(hoyer_sparseness(t), "uniform").pvalue > 0.01
    winners = np.bincount(t.argmax(1), minlength=7)
    assert scipy.stats.chisquare(winners).pvalue > 0.01
    # Exchangeable: any two features are distributed alike, and so is any pair of features.
    assert scipy.stats.kruskal(*t.T).pvalue > 0.01
    products = [(t[:, i] * t[:, j]) for i in range(7) for j in range(i)]
    deviation = [(p.mean() - np.mean(products)) / (p.std() / 4000**0.5) for p in products]
    assert np.abs(deviation).max() < 4


def test_seeded_and_independent_of_the_x64_flag():
    key = jax.random.key(5)
    once = sample_targets(key, 20, features=9, canonical=3)
    with jax.enable_x64(True):
        again = sample_targets(key, 20, features=9, canonical=3)
    assert once.dtype == again.dtype == jnp.float32
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(
        once, sample_targets(jax.random.PRNGKey(5), 20, features=9, canonical=3)
    )
    other = sample_targets(jax.random.key(6), 20, features=9, canonical=3)
    assert (np.asarray(once) != np.asarray(other)).any()
    # The stream is part of the contract: a key gives the same targets on every machine.
    np.testing.assert_allclose(
        sample_targets(jax.random.key(0), 1, features=3),
        [[0.344552, 0.841536, 0.416055]],
        atol=1e-6,
    )


def test_single_feature():
    np.testing.assert_array_equal(
        sample_targets(jax.random.key(0), 3, features=1, canonical=1), np.ones((3, 1))
    )
    np.testing.assert_array_equal(random_targets(jax.random.key(0), 2, features=1), np.ones((2, 1)))


def test_among_is_zero_elsewhere():
    among = [8, 2, 5]
    t = np.asarray(sample_targets(jax.random.key(1), 400, features=10, among=among, canonical=3))
    others = np.setdiff1d(np.arange(10), among)
    assert (t[:, others] == 0).all()
    np.testing.assert_allclose(norm(t), 1, atol=1e-6)
    drawn = hoyer_sparseness(t[:-3][:, among])
    assert scipy.stats.kstest(drawn, "uniform").pvalue > 0.01
    assert sorted(t[-3:].argmax(1)) == sorted(among)
    one = sample_targets(jax.random.key(1), 2, features=4, among=[3])
    np.testing.assert_array_equal(one, canonical_targets([3, 1], features=4)[:1].repeat(2, 0))


def test_canonical_targets_come_last_and_are_different():
    t = np.asarray(sample_targets(jax.random.key(2), 30, features=12, canonical=10))
    np.testing.assert_allclose(hoyer_sparseness(t[-10:]), 1)
    assert np.unique(t[-10:].argmax(1)).size == 10
    assert (hoyer_sparseness(t[:-10]) < 1).all()
    all_canonical = sample_targets(jax.random.key(2), 4, features=12, canonical=4)
    np.testing.assert_array_equal(np.sort(all_canonical, axis=1)[:, -1], 1)
    np.testing.assert_array_equal(
        canonical_targets(np.array([2, 0]), features=3), [[0, 0, 1], [1, 0, 0]]
    )


def test_random_targets_are_uniform_on_the_sphere():
    t = np.asarray(random_targets(jax.random.key(4), 4000, features=2), np.float64)
    assert (t >= 0).all() and t.shape == (4000, 2)
    np.testing.assert_allclose(norm(t), 1, atol=1e-6)
    angle = np.arctan2(t[:, 1], t[:, 0]) / (np.pi / 2)
    assert scipy.stats.kstest(angle, "uniform").pvalue > 0.01
    # In n dimensions t_i^2 is distributed as Beta(1/2, (n - 1)/2).
    t = np.asarray(random_targets(jax.random.key(4), 4000, features=20), np.float64)
    assert scipy.stats.kstest(t[:, 7] ** 2, scipy.stats.beta(0.5, 9.5).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        lambda key: sample_targets(key, 0, features=3),
        lambda key: sample_targets(key, 2.0, features=3),  # type: ignore
        lambda key: sample_targets(key, True, features=3),
        lambda key: sample_targets(key, 2, features=0),
        lambda key: sample_targets(key, 2, features=3, canonical=-1),
        lambda key: sample_targets(key, 2, features=3, canonical=3),
        lambda key: sample_targets(key, 9, features=3, canonical=4),
        lambda key: sample_targets(key, 9, features=3, among=[]),
        lambda key: sample_targets(key, 9, features=3, among=[0, 3]),
        lambda key: sample_targets(key, 9, features=3, among=[0, -1]),
        lambda key: sample_targets(key, 9, features=3, among=[1, 1]),
        lambda key: sample_targets(key, 9, features=3, among=[True, False, True]),
        lambda key: sample_targets(0, 9, features=3),  # type: ignore
        lambda key: sample_targets(jax.random.split(key), 9, features=3),
        lambda key: sample_sparse(key, [0.5, 1.1], features=3),
        lambda key: sample_sparse(key, [np.nan], features=3),
        lambda key: sample_sparse(key, [], features=3),
        lambda key: sample_sparse(key, 0.5, features=3),
        lambda key: project_sparseness(np.ones((2, 3)), [0.5]),
        lambda key: project_sparseness(np.full((1, 3), np.nan), [0.5]),
        lambda key: canonical_targets([3], features=3),
        lambda key: canonical_targets([0.0], features=3),  # type: ignore
        lambda key: canonical_targets([0, 0], features=3),
        lambda key: random_targets(key, 0, features=3),
        lambda key: random_targets(key, 3, features=0),
        lambda key: hoyer_sparseness(np.ones((3, 1))),
        lambda key: hoyer_sparseness(np.zeros((2, 3))),
        lambda key: hoyer_sparseness(np.array([1.0, np.inf])),
        lambda key: hoyer_sparseness(2.0),
    ],
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match=r"Expected .*; got "):
        wrong(jax.random.key(0))
