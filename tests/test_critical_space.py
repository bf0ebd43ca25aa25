import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ifv_jax.choosing import (
    Candidate,
    ChoiceStatus,
    candidate_spaces,
    choose_space,
    enumerate_spaces,
)
from ifv_jax.critical_space import approximate_kernel, spectra
from ifv_jax.errors import InputError
from ifv_jax.subspaces import (
    critical_space_from_complement,
    fraction_outside,
    full_space,
    load_space,
    merge,
    principal_pairs,
    project,
    save_space,
)
from ifv_jax.targets import sample_targets
from tests import oracles_subspaces as oracles
from tests.oracles_subspaces import projector

SEEDS = st.integers(0, 2**32 - 1)
MANY = settings(max_examples=60, deadline=None, derandomize=True)


def orthonormal(rng, n, k):
    return np.linalg.qr(rng.standard_normal((n, k)))[0]


def planted(rng, *, common, samples=8, extra=1, noise=0.0, small=1e-3, m=25):
    """Jacobians (samples, n, m) that share a cokernel, `extra` more small directions of their own,
    and all other singular values between 0.3 and 1; `noise` tilts the shared ones, in radians."""
    n, u = common.shape
    jacobians = []
    for _ in range(samples):
        left = orthonormal(rng, n, n)
        left[:, :u] = common + noise * rng.standard_normal((n, u)) / n**0.5
        left = np.linalg.qr(left)[0]
        values = rng.uniform(0.3, 1, n)
        values[:u] = small * rng.uniform(0.1, 1, u) * (noise > 0)
        values[u : u + extra] = small * rng.uniform(0.1, 1, extra)
        values[-1] = 1
        jacobians.append(left * values @ orthonormal(rng, m, n).T * rng.uniform(0.1, 10))
    return np.array(jacobians)


def spectra_of(jacobians):
    return spectra(jacobians @ jacobians.transpose(0, 2, 1))


def messy(rng, *, n=6, samples=5):
    """Jacobians whose spectra decay evenly towards partly shared directions: no clear answer."""
    shared = orthonormal(rng, n, n)
    jacobians = []
    for _ in range(samples):
        left = np.linalg.qr(shared + 0.3 * rng.standard_normal((n, n)))[0]
        values = 10.0 ** rng.uniform(-3, 0, n)
        jacobians.append(left * np.sort(values) @ orthonormal(rng, 2 * n, n).T)
    return np.array(jacobians)


COMMON = {
    "ones": np.ones((10, 1)) / 10**0.5,
    "axis": np.eye(10)[:, [4]],
    "both": np.linalg.qr(np.stack([np.ones(10), np.eye(10)[4]], 1))[0],
    "none": np.zeros((10, 0)),
}


# Spectra


@MANY
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


# Principal angles and merging


@MANY
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


@MANY
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


@MANY
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


# Algorithm 1


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


@MANY
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


@MANY
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


# Nested intervals


def dimensions_by_threshold(data, tau_min, tau_max, **options):
    quotients = data.quotients
    inner = quotients[(quotients > tau_min) & (quotients <= tau_max)]
    taus = np.concatenate([[tau_min], np.unique(inner)])
    return taus, [approximate_kernel(data, tau, **options).shape[1] for tau in taus]


@settings(max_examples=80, deadline=None, derandomize=True)
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


# The critical space as a value


@MANY
@given(seed=SEEDS, u=st.integers(0, 4))
def test_critical_space_is_an_orthogonal_decomposition(seed, u):
    rng = np.random.default_rng(seed)
    complement = orthonormal(rng, 5, u)
    response = rng.standard_normal((6, 5))
    response[2] = 0
    space = critical_space_from_complement(complement, response=response, tau=0.02)
    whole = np.hstack([space.basis, space.complement])
    np.testing.assert_allclose(whole.T @ whole, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(projector(space.complement), projector(complement), atol=1e-12)
    assert space.basis.dtype == space.complement.dtype == space.offset.dtype == np.float64
    assert space.tau == 0.02
    directions = np.delete(response, 2, 0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(
        space.offset, np.median(np.abs(directions @ space.complement), axis=0), atol=1e-12
    )
    assert np.isnan(critical_space_from_complement(complement).offset).all()
    assert all(isinstance(leaf, np.ndarray | float) for leaf in jax.tree.leaves(space))


def test_offset_is_carried_by_one_vector():
    """A never seen class: <r, u> = -3 along one direction of U, zero along all others."""
    rng = np.random.default_rng(7)
    complement = orthonormal(rng, 8, 3)
    u = complement @ np.array([0.6, 0.0, 0.8])
    response = rng.standard_normal((30, 8)) @ (np.eye(8) - projector(complement)) - 3 * u
    space = critical_space_from_complement(complement, response=response)
    np.testing.assert_allclose(
        projector(space.complement[:, :1]), projector(u[:, None]), atol=1e-12
    )
    assert space.offset[0] > 0.5 and (space.offset[1:] < 1e-12).all()
    silent = critical_space_from_complement(complement, response=np.zeros((2, 8)))
    assert np.isnan(silent.offset).all()


@MANY
@given(seed=SEEDS, u=st.sampled_from([0, 1, 3]))
def test_projection_and_what_is_outside(seed, u):
    rng = np.random.default_rng(seed)
    space = critical_space_from_complement(orthonormal(rng, 5, u))
    t = rng.standard_normal((4, 5)) * 10.0 ** rng.integers(-20, 15, (4, 1))
    inside = t @ projector(space.basis)
    expected = inside / np.linalg.norm(inside, axis=1, keepdims=True)
    found = project(space, jnp.float32(t))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(project(space, found), found, atol=1e-6)
    outside = fraction_outside(space, jnp.float32(t))
    assert outside.dtype == jnp.float32 and outside.shape == (4,)
    lost = 1 - np.sum(inside**2, 1) / np.sum(t**2, 1)
    np.testing.assert_allclose(outside, lost, atol=1e-5)
    with jax.enable_x64(True):
        found = project(space, t)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_projection_without_a_direction():
    space = critical_space_from_complement(COMMON["both"])
    t = jnp.asarray(
        np.stack([np.zeros(10), 3 * np.ones(10), np.ones(10) - np.eye(10)[4]]), jnp.float32
    )
    np.testing.assert_array_equal(project(space, t), np.zeros((3, 10)))
    np.testing.assert_allclose(fraction_outside(space, t), [0, 1, 1], atol=1e-6)
    assert np.isnan(project(space, t.at[0, 0].set(jnp.nan))[0]).all()
    assert np.isnan(fraction_outside(space, t.at[0, 0].set(jnp.nan))[0])
    axis = project(full_space(3), jnp.array([0, 2, 0]))
    assert axis.dtype == jnp.float32
    np.testing.assert_array_equal(axis, [0, 1, 0])
    np.testing.assert_array_equal(full_space(3).basis, np.eye(3))


def test_space_is_a_pytree_for_jit_and_grad():
    space = critical_space_from_complement(COMMON["ones"])
    t = jnp.arange(10.0)
    np.testing.assert_allclose(jax.jit(project)(space, t), project(space, t), atol=1e-6)
    # `project` is constant along t and along U.
    slope = jax.jacrev(lambda t: project(space, t))(t)
    np.testing.assert_allclose(slope @ t, 0, atol=1e-5)
    np.testing.assert_allclose(slope @ jnp.ones(10), 0, atol=1e-5)


# Files


def test_file_gives_back_what_was_saved(tmp_path):
    space = critical_space_from_complement(COMMON["both"], response=np.eye(10) + 1, tau=0.03)
    for value in (space, full_space(4), critical_space_from_complement(COMMON["axis"])):
        save_space(tmp_path / "space.npz", value)
        loaded = load_space(tmp_path / "space.npz", features=value.basis.shape[0])
        for one, other in zip(loaded, value, strict=True):
            np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["space.npz"]


def test_files_that_are_no_critical_space(tmp_path):
    path = tmp_path / "space"
    with pytest.raises(InputError, match="no such file"):
        load_space(path)
    save_space(path, critical_space_from_complement(COMMON["ones"]))
    with pytest.raises(InputError, match="over 10"):
        load_space(path, features=8)
    whole = path.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="Expected a critical space at"):
            load_space(path)
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    with pytest.raises(InputError):
        load_space(path)
    for content in (b"hello", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(InputError):
            load_space(path)
    with path.open("wb") as file:
        np.save(file, np.eye(3))
    with pytest.raises(InputError):
        load_space(path)
    good = dict(format=1, **critical_space_from_complement(COMMON["ones"])._asdict())
    for change in (
        dict(format=2),
        dict(format="x"),
        dict(basis=np.ones((10, 9))),
        dict(basis=np.eye(10)),
        dict(offset=np.zeros(2)),
        dict(complement=np.full((10, 1), np.nan)),
        dict(complement=np.zeros((9, 1))),
        dict(tau=np.zeros(2)),
        dict(basis=np.array(["a"])),
    ):
        with path.open("wb") as file:
            np.savez(file, **{**good, **change})
        with pytest.raises(InputError):
            load_space(path)


# Choosing


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


# Mistakes

GRAM = np.eye(3)[None].repeat(2, 0)


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
        lambda data: candidate_spaces(data, tau_min=0),
        lambda data: candidate_spaces(data, tau_max=1e-9),
        lambda data: candidate_spaces(data, intervals=0),
        lambda data: candidate_spaces(data, max_removed=-1),
        lambda data: candidate_spaces(data, response=np.ones((2, 4))),
        lambda data: critical_space_from_complement(np.eye(3)),
        lambda data: critical_space_from_complement(np.ones(3)),
        lambda data: critical_space_from_complement(np.ones((3, 1))),
        lambda data: critical_space_from_complement(np.full((3, 1), np.nan)),
        lambda data: critical_space_from_complement(np.eye(3)[:, :1], response=np.ones((2, 4))),
        lambda data: critical_space_from_complement(
            np.eye(3)[:, :1], response=np.full((2, 3), np.inf)
        ),
        lambda data: full_space(0),
        lambda data: full_space(2.0),  # type: ignore
        lambda data: project(full_space(3), jnp.ones(4)),
        lambda data: project(full_space(3), 1.0),
        lambda data: fraction_outside(full_space(3), jnp.ones((2, 4))),
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
