"""The critical space as a value and as a file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifv_jax.checks import InputError
from ifv_jax.critical_space import (
    critical_space_from_complement,
    fraction_outside,
    full_space,
    load_space,
    project,
    save_space,
)
from tests.oracles_subspaces import projector
from tests.planted import COMMON, SEEDS, orthonormal


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


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: critical_space_from_complement(np.eye(3)),
        lambda: critical_space_from_complement(np.ones(3)),
        lambda: critical_space_from_complement(np.ones((3, 1))),
        lambda: critical_space_from_complement(np.full((3, 1), np.nan)),
        lambda: critical_space_from_complement(np.eye(3)[:, :1], response=np.ones((2, 4))),
        lambda: critical_space_from_complement(np.eye(3)[:, :1], response=np.full((2, 3), np.inf)),
        lambda: full_space(0),
        lambda: full_space(2.0),  # type: ignore
        lambda: project(full_space(3), jnp.ones(4)),
        lambda: project(full_space(3), 1.0),
        lambda: fraction_outside(full_space(3), jnp.ones((2, 4))),
    ],
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match=r"Expected .*; got "):
        wrong()
