"""Candidate spaces by nested intervals and by enumeration, and the choice among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifv_jax.checks import InputError
from ifv_jax.critical_candidates import Candidate, candidate_spaces, enumerate_spaces
from ifv_jax.critical_choice import ChoiceStatus, choose_space
from ifv_jax.critical_kernel import approximate_kernel, spectra
from ifv_jax.critical_space import (
    critical_space_from_complement,
    full_space,
    project,
)
from ifv_jax.targets import sample_targets
from tests.oracles_subspaces import projector
from tests.planted import COMMON, SEEDS, messy, orthonormal, planted, spectra_of

GRAM = np.eye(3)[None].repeat(2, 0)


def dimensions_by_threshold(data, tau_min, tau_max, **options):
    quotients = data.quotients
    inner = quotients[(quotients > tau_min) & (quotients <= tau_max)]
    taus = np.concatenate([[tau_min], np.unique(inner)])
    return taus, [approximate_kernel(data, tau, **options).shape[1] for tau in taus]


@settings(max_examples=80)
@given(seed=SEEDS, tree=st.sampled_from(["balanced", "sequential"]))
def test_nested_intervals_find_what_enumeration_finds(seed, tree):
    data = spectra_of(messy(np.random.default_rng(seed)))
    nested = candidate_spaces(data, tau_max=0.5, tree=tree)
    enumerated = enumerate_spaces(data, tau_max=0.5, tree=tree)
    taus, dimensions = dimensions_by_threshold(data, 1e-6, 0.5, tree=tree)
    # Enumeration is complete.
    assert {c.space.complement.shape[1] for c in enumerated} == set(dimensions) - {6}
    for c in enumerated:
        inside = [d for t, d in zip(taus, dimensions, strict=True) if c.tau_low <= t < c.tau_high]
        assert set(inside) == {c.space.complement.shape[1]}
    if (np.diff(dimensions) >= 0).all():
        assert len(nested) == len(enumerated)
        for one, other in zip(nested, enumerated, strict=True):
            assert one[1:] == other[1:]
            np.testing.assert_array_equal(one.space.complement, other.space.complement)
    else:
        assert {c.space.complement.shape for c in nested} <= {
            c.space.complement.shape for c in enumerated
        }


def test_nested_intervals_on_planted_cokernels():
    rng = np.random.default_rng(6)
    jacobians = planted(rng, common=COMMON["both"], noise=0.05, samples=16)
    # The axis diminishes a hundred times more than the vector of ones does.
    response = rng.uniform(0.5, 1, (16, 10))
    response[:, 4] = 0
    candidates = candidate_spaces(spectra_of(jacobians), response=response, order=jax.random.key(0))
    dimensions = [c.space.basis.shape[1] for c in candidates]
    assert dimensions[0] == 10 and 8 in dimensions
    assert dimensions == sorted(set(dimensions), reverse=True)
    for space, tau_low, tau_high in candidates:
        assert 1e-6 <= tau_low < tau_high <= 0.1 and space.tau == tau_low
        assert np.isfinite(space.offset).all()
    limited = candidate_spaces(spectra_of(jacobians), order=jax.random.key(0), max_removed=1)
    assert {c.space.basis.shape[1] for c in limited} == {d for d in dimensions if d >= 9}


def test_what_nested_intervals_miss():
    def jacobian(angle, values):
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * values

    # At tau = 0.01 the lines at 0 and 40 degrees merge at 20, close enough to the third. At 0.05
    # the second is the whole plane, and the first stays where it is: too far from the third.
    lines = [jacobian(0, [0.01, 1, 1]), jacobian(40, [0.01, 0.05, 1]), jacobian(60, [0.01, 1, 1])]
    data = spectra_of(np.array(lines))
    assert dimensions_by_threshold(data, 1e-6, 0.1, tree="sequential")[1][0] == 0
    nested = candidate_spaces(data, tree="sequential")
    assert [c.space.basis.shape[1] for c in nested] == [3]
    found = enumerate_spaces(data, tree="sequential")
    assert [c.space.basis.shape[1] for c in found] == [3, 2]
    np.testing.assert_allclose(found[1][1:], [0.01, 0.05])
    assert len(candidate_spaces(data, intervals=3, tree="sequential")) == 2


def closed_form(jacobians, targets):
    """Opt. (3) with k = 0: the smallest singular vector on C, its sign from the response r = t."""

    def predict(space):
        inside = space.basis.T @ jacobians
        y = np.linalg.svd(inside)[0][:, :, -1]
        t = y @ space.basis.T
        return t * np.sign(np.sum(t * targets, axis=1, keepdims=True))

    return predict


def realizations(rng, common, samples=40):
    """Optima of FV: J_i^T t_i is small, but the shared cokernel diminishes even more."""
    n = common.shape[0]
    targets = np.asarray(sample_targets(jax.random.key(8), samples, features=n), np.float64)
    jacobians = []
    for t in targets:
        left = np.linalg.qr(np.hstack([common, t[:, None], rng.standard_normal((n, n))]))[0][:, :n]
        values = np.concatenate([np.full(common.shape[1], 1e-5), [1e-3], rng.uniform(0.3, 1, n)])[
            :n
        ]
        jacobian = left * values @ orthonormal(rng, 25, n).T
        jacobians.append(jacobian + 1e-6 * rng.standard_normal(jacobian.shape))
    return np.array(jacobians), targets


@pytest.mark.parametrize("common", COMMON)
def test_the_space_that_was_planted_is_chosen(common):
    rng = np.random.default_rng(9)
    jacobians, targets = realizations(rng, COMMON[common])
    candidates = candidate_spaces(spectra_of(jacobians[:16]), max_removed=4)
    small = critical_space_from_complement(orthonormal(rng, 10, 9))
    candidates += (Candidate(small, np.nan, np.nan),)
    choice = choose_space(candidates, closed_form(jacobians, targets), targets)
    assert choice.status is ChoiceStatus.CHOSEN
    assert choice.space.complement.shape == COMMON[common].shape
    np.testing.assert_allclose(
        projector(choice.space.complement), projector(COMMON[common]), atol=1e-3
    )
    table = {row.dimension: row for row in choice.table}
    assert [row.dimension for row in choice.table] == sorted(table, reverse=True)
    chosen = table[choice.space.basis.shape[1]]
    assert chosen.qualifies and chosen.median_deg < 1 and chosen.random_deg > 20
    assert chosen.median_deg <= chosen.p90_deg
    # In one dimension every guess with the right sign is right: no reason to choose it.
    assert table[1].median_deg < 1e-3 and table[1].random_deg == 0 and not table[1].qualifies
    if common == "none":
        assert chosen.outside == 0
    else:
        assert not table[10].qualifies and 0 < chosen.outside < 1


def test_the_largest_of_about_equal_spaces_is_chosen():
    targets = np.asarray(sample_targets(jax.random.key(9), 30, features=10), np.float64)
    rng = np.random.default_rng(10)
    basis = orthonormal(rng, 10, 10)
    candidates = [
        Candidate(critical_space_from_complement(basis[:, :u]), 0.01 * u, 0.01 * u + 0.01)
        for u in (3, 1, 2)
    ]
    error = {10: 20.0, 9: 3.5, 8: 2.8, 7: 2.6}

    def predict(space):
        known = np.asarray(project(space, targets), np.float64)
        away = rng.standard_normal(known.shape) @ projector(space.basis)
        away -= known * np.sum(known * away, 1, keepdims=True)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        angle = np.deg2rad(error[space.basis.shape[1]])
        return np.cos(angle) * known + np.sin(angle) * away

    choice = choose_space(candidates, predict, targets)
    assert choice.space.basis.shape[1] == 9
    assert [row.dimension for row in choice.table] == [10, 9, 8, 7]
    np.testing.assert_allclose([r.median_deg for r in choice.table], [20, 3.5, 2.8, 2.6], rtol=1e-3)
    assert choice.table[1].tau_low == 0.01 and np.isnan(choice.table[0].tau_low)
    assert choose_space(candidates, predict, targets, within_deg=0.5).space.basis.shape[1] == 8
    assert choose_space([], lambda space: targets, targets).space.basis.shape[1] == 10
    everything = choose_space(candidates, predict, targets, within_deg=50, below_random=2)
    assert everything.space.basis.shape[1] == 10
    # The full space is not added a second time.
    full = [Candidate(full_space(10), 0.0, 0.01)]
    assert len(choose_space(full, predict, targets).table) == 1


def test_no_space_qualifies():
    targets = np.asarray(sample_targets(jax.random.key(10), 30, features=10), np.float64)
    candidates = [
        Candidate(critical_space_from_complement(COMMON["ones"]), 0.01, 0.02),
        Candidate(critical_space_from_complement(np.eye(10)[:, 1:]), 0.02, 0.03),
    ]
    wrong = np.random.default_rng(11).standard_normal((30, 10))
    choice = choose_space(candidates, lambda space: wrong, targets)
    assert choice.status is ChoiceStatus.NONE_QUALIFIES
    assert choice.space.basis.shape[1] > 1
    assert not any(row.qualifies for row in choice.table)
    failed = choose_space(candidates, lambda space: np.full((30, 10), np.nan), targets)
    assert failed.status is ChoiceStatus.NONE_QUALIFIES
    assert all(row.median_deg == 90 for row in failed.table)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda data: candidate_spaces(data, tau_min=0),
        lambda data: candidate_spaces(data, tau_max=1e-9),
        lambda data: candidate_spaces(data, intervals=0),
        lambda data: candidate_spaces(data, max_removed=-1),
        lambda data: candidate_spaces(data, response=np.ones((2, 4))),
        lambda data: choose_space([], lambda space: jnp.eye(3), jnp.ones((2, 3))),
        lambda data: choose_space([], lambda space: jnp.eye(3), jnp.eye(3)[0]),
        lambda data: choose_space([], lambda space: jnp.eye(3)[:2], jnp.eye(3)),
        lambda data: choose_space(
            [Candidate(full_space(4), 0, 1)], lambda space: jnp.eye(3), jnp.eye(3)
        ),
    ],
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match=r"Expected .*; got "):
        wrong(spectra(GRAM))
