"""The renderer against a ball, of which everything is known."""

import jax
import numpy as np
import pytest

from models.training import isosurface, srnet_data, volumes
from models.training.isosurface import View

RADIUS = 0.6  # of the ball, in half box widths
SIZE = 24


def ball(size=48) -> volumes.Volume:
    axis = np.linspace(-1, 1, size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    values = 1 - np.sqrt(x * x + y * y + z * z) / np.sqrt(3)
    return volumes.Volume("ball", values.astype(np.float32), (1.0, 1.0, 1.0), 1 - RADIUS / 3**0.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_ball_looks_like_one_from_everywhere(seed):
    radius = RADIUS / np.sqrt(3)  # the box's half diagonal is 1
    rotation = jax.random.orthogonal(jax.random.key(seed), 3)
    view = View(rotation, np.zeros(2, np.float32), np.float32(0.5))
    image = np.asarray(isosurface.render(isosurface.scene(ball()), view, SIZE))
    assert image.shape == (SIZE, SIZE, 6) and np.isfinite(image).all()
    middle = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * 0.5
    up, right = np.meshgrid(-middle, middle, indexing="ij")
    distance = np.hypot(up, right)
    inside = image[..., 0] > 0.5
    np.testing.assert_array_equal(inside[distance < radius - 0.01], True)
    np.testing.assert_array_equal(image[distance > radius + 0.01], 0)
    # Away from the rim, where the trilinear ball is the ball.
    core = distance < 0.8 * radius
    towards = np.sqrt(np.maximum(radius**2 - distance**2, 0))
    normal = np.stack([right, up, towards], -1) / radius
    assert np.abs(image[..., 1:4] - normal)[core].max() < 0.05
    np.testing.assert_allclose(image[..., 4][core], ((1 - towards) / 2)[core], atol=3e-3)
    # A convex body hides nothing of the sky.
    np.testing.assert_allclose(image[..., 5][core], 1, atol=0.05)


def test_a_corner_is_darker_than_the_open():
    values = np.zeros((32, 32, 32), np.float32)
    values[:16] = 1  # a floor, z up
    values[:, :, :16] = 1  # and a wall
    volume = volumes.Volume("corner", values, (1.0, 1.0, 1.0), 0.5)
    # From above: x to the right, y up, z towards the viewer; the floor is seen at x > 0.
    view = View(np.eye(3, dtype=np.float32), np.zeros(2, np.float32), np.float32(0.5))
    image = np.asarray(isosurface.render(isosurface.scene(volume), view, SIZE))
    row = image[SIZE // 2]
    floor = row[:, 4] > row[:, 4].min() + 0.05
    assert floor[SIZE // 2 + 2 :].all() and not floor[: SIZE // 2 - 2].any()
    assert row[SIZE // 2 + 2, 5] < 0.8 and row[-2, 5] > 0.95
    np.testing.assert_allclose(row[-2, 1:4], [0, 0, 1], atol=1e-2)


def test_where_the_box_cuts_the_normal_is_the_faces():
    z, y, x = np.meshgrid(*[np.linspace(0, 1, 16, dtype=np.float32)] * 3, indexing="ij")
    volume = volumes.Volume("ramp", (x + 2 * y - z + 1) / 4, (1.0, 1.0, 1.0), 0.5)
    view = View(np.eye(3, dtype=np.float32), np.zeros(2, np.float32), np.float32(0.5))
    image = np.asarray(isosurface.render(isosurface.scene(volume), view, SIZE))
    top = image[image[..., 0] > 0]
    on_face = np.isclose(top[:, 4], top[:, 4].min(), atol=1e-4)
    assert 0.2 < on_face.mean() < 1  # the rest is the surface itself, which slants
    np.testing.assert_allclose(top[on_face, 1:4], [[0, 0, 1]] * on_face.sum(), atol=1e-6)
    assert (top[~on_face, 3] < 0.9).all()


def test_normals_at_a_rim_point_outwards_and_to_the_viewer():
    view = View(np.eye(3, dtype=np.float32), np.zeros(2, np.float32), np.float32(0.8))
    image = np.asarray(isosurface.render(isosurface.scene(ball(9)), view, SIZE))  # coarse voxels
    middle = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    up, right = np.meshgrid(-middle, middle, indexing="ij")
    outwards = image[..., 1] * right + image[..., 2] * up
    inside = image[..., 0] > 0.5
    assert (image[..., 3][inside] >= 0).all() and (outwards[inside] > 0).all()


def test_both_resolutions_see_the_same(tmp_path):
    pairs = srnet_data.views(ball(24), 2, 32, 3, tmp_path)
    assert pairs.low.shape == (2, 8, 8, 5) and pairs.high.shape == (2, 32, 32, 6)
    coarse = pairs.high[..., 0].reshape(2, 8, 4, 8, 4).mean((2, 4))
    assert np.abs(coarse - pairs.low[..., 0]).mean() < 0.1
    assert len(list(tmp_path.iterdir())) == 1
    again = srnet_data.views(ball(24), 2, 32, 3, tmp_path)  # read, not rendered
    np.testing.assert_array_equal(again.high, pairs.high)
    places = srnet_data.crops(pairs, 4)
    assert len(places) and (places[:, 1:] + 4 <= 8).all()
    low, high = srnet_data.batch(pairs, places[:3], 4)
    assert low.shape[1:] == (4, 4, 5) and high.shape[1:] == (16, 16, 6)
    assert (low[..., 0].mean((1, 2)) >= srnet_data.LEAST_FILLED).all()
    i, y, x = places[0]
    np.testing.assert_array_equal(high[0], pairs.high[i, 4 * y : 4 * y + 16, 4 * x : 4 * x + 16])


def test_mirror_images_of_a_ball_are_that_ball():
    view = View(np.eye(3, dtype=np.float32), np.zeros(2, np.float32), np.float32(0.8))
    image = np.asarray(isosurface.render(isosurface.scene(ball(33)), view, SIZE))
    many = srnet_data.Pairs(np.stack([image[..., :5]] * 64), np.stack([image] * 64))
    low, high = srnet_data.mirrored(many, np.random.default_rng(0))
    np.testing.assert_allclose(high, many.high, atol=2e-3)
    np.testing.assert_array_equal(low, high[..., :5])
    # Of an image without symmetry there are eight.
    odd = np.random.default_rng(1).normal(size=(4, 4, 6)).astype(np.float32)
    made = srnet_data.mirrored(
        srnet_data.Pairs(np.stack([odd[..., :5]] * 64), np.stack([odd] * 64)),
        np.random.default_rng(0),
    )
    assert len({image.tobytes() for image in made.high}) == 8


def test_no_volume_is_in_both_splits():
    train, test = srnet_data.split([ball()._replace(name=name) for name in ("engine", "fuel")])
    assert [v.name for v in test] == ["engine"] and "fuel" in [v.name for v in train]
    train, test = srnet_data.split([])
    assert test and not {v.name for v in train} & {v.name for v in test}


def test_a_volume_that_shows_nothing():
    values = np.zeros((16, 16, 16), np.float32)
    volume = volumes.Volume("nothing", values, (1.0, 1.0, 1.0), 0.5)
    with pytest.raises(ValueError, match="another isovalue"):
        srnet_data.views(volume, 1, 16, 0)
