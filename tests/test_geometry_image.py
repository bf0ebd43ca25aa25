"""Geometry images: valid whatever v is, reached from given ones, and free of dead ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.parametrization import CLIP

SIZE = (12, 14)
MASKS = ["fixed", "continuous"]


@pytest.mark.parametrize("mask", MASKS)
def test_images_are_valid_and_the_inverse_reaches_them(mask):
    phi = ifv.geometry_image(SIZE, mask=mask)
    images = phi.apply(300 * phi.init(jax.random.key(0), 5))
    assert images.shape == (5, *SIZE, 5) and phi.shape == (*SIZE, 5)
    np.testing.assert_allclose(jnp.linalg.norm(images[..., 1:4], axis=-1), 1, atol=1e-6)
    assert images[..., 3].min() >= 0
    for channel in (0, 4):
        assert images[..., channel].min() >= 0 and images[..., channel].max() <= 1
    if mask == "fixed":
        np.testing.assert_array_equal(images[..., 0], 1)
    else:
        assert images[..., 0].std() > 0.1
    # Up to the clipping of what stands under a sigmoid: for psi that is pi / 2 times as much.
    np.testing.assert_allclose(phi.apply(phi.invert(images)), images, atol=np.pi / 2 * CLIP + 1e-4)
    unit = phi.in_unit_range(images)
    assert unit.shape[-1] == (4 if mask == "fixed" else 5)
    assert unit.min() >= 0 and unit.max() <= 1


@pytest.mark.parametrize("mask", MASKS)
def test_no_gradient_is_cut_off(mask):
    phi = ifv.geometry_image(SIZE, mask=mask)
    # Angles far beyond a full turn still turn the normal.
    v = phi.init(jax.random.key(1), 1) + jnp.asarray([40.0, 1.0, 1.0, 1.0])[: phi.init(
        jax.random.key(1), 1).shape[-1]]  # fmt: skip
    weights = jax.random.normal(jax.random.key(2), (1, *SIZE, 5))
    gradient = jax.grad(lambda v: (weights * phi.apply(v)).sum())(v)
    assert np.isfinite(gradient).all() and (np.abs(gradient) > 0).mean() > 0.99


def test_the_normal_is_made_of_its_angles():
    v = np.zeros((1, *SIZE, 3), np.float32)
    v[..., 0], v[..., 1] = 0.3, 0.0  # psi = pi / 4
    expected = np.array([np.cos(0.3), np.sin(0.3), 1]) / np.sqrt(2)
    found = ifv.geometry_image(SIZE).apply(jnp.asarray(v))[0, 0, 0]
    np.testing.assert_allclose(found, [1, *expected, 0.5], atol=1e-6)


def good(mask=1.0):
    images = np.zeros((2, *SIZE, 5), np.float32)
    images[..., 0], images[..., 3], images[..., 4] = mask, 1, 0.5
    return images


def changed(channel, value):
    images = good()
    images[0, 0, 0, channel] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (good()[0], "at least one"),
        (good()[..., :4], r"geometry images \(batch, 12, 14, 5\)"),
        (good()[:0], "at least one"),
        (good(0.5), "mask of one"),
        (changed(1, 0.5), "unit normals"),
        (changed(3, -1.0), "z >= 0"),
        (changed(4, 1.5), "depth in"),
        (changed(4, np.nan), "finite"),
    ],
)
def test_bad_geometry_images_are_refused(images, message):
    with pytest.raises(ifv.InputError, match=message):
        ifv.geometry_image(SIZE).invert(images)


def test_mistakes():
    ifv.geometry_image(SIZE, mask="continuous").invert(good(0.5))
    with pytest.raises(ifv.InputError, match="continuous"):
        ifv.geometry_image(SIZE, mask="discrete")
    with pytest.raises(ifv.InputError, match="size"):
        ifv.geometry_image((12, 14, 5))  # type: ignore[arg-type]
