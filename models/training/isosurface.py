"""Isosurfaces to geometry images: mask, normal, depth and ambient occlusion, seen from anywhere.

Orthographic rays march through the volume until it first exceeds the isovalue; bisection refines
the hit; the normal is the gradient there, by central differences, in view space (x to the right, y
up, z towards the viewer). Outside of its grid the volume is empty: the faces of the box close a
surface that they cut. The world is scaled so that the box's half diagonal is 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from models.training.volumes import Volume

STEPS = 256  # of the march across the box
BISECTIONS = 12
OVERVIEW = 32  # pixels of the image by which a view is framed
OCCLUSION_RAYS = 24
OCCLUSION_STEPS = 8
OCCLUSION_REACH = 0.3  # length of an occlusion ray; the box's half diagonal is 1
ON_FACE = 1e-4  # relative distance to a face of the box at which a point lies on it
CUT = 1e-3  # by which the field exceeds the isovalue where the box cuts: no surface is there
CHANNELS = 6  # mask, normal, depth, ambient occlusion


class View(NamedTuple):
    """An orthographic camera."""

    rotation: jax.Array  # (3, 3), rows: right, up and towards the viewer, in world coordinates
    centre: jax.Array  # (2,) of the image, along right and up
    half_width: jax.Array  # () of the image


class Scene(NamedTuple):
    """What is looked at, as arrays."""

    values: jax.Array  # (z, y, x) float32
    half_extent: jax.Array  # (3,) of the box, x, y, z
    isovalue: jax.Array  # ()


def scene(volume: Volume, isovalue: float | None = None) -> Scene:
    """A volume, scaled to a half diagonal of 1; the isovalue is its own unless another is given."""
    sizes = np.asarray(volume.values.shape[::-1]) - 1
    extent = sizes * np.asarray(volume.spacing, float) / 2
    level = volume.isovalue if isovalue is None else isovalue
    half_extent = jnp.asarray(extent / np.linalg.norm(extent), jnp.float32)
    return Scene(jnp.asarray(volume.values), half_extent, jnp.asarray(level, jnp.float32))


def random_view(key: jax.Array, scene: Scene) -> View:
    """From anywhere, near enough for the surface to fill much of the image."""
    key_rotation, key_centre, key_width = jax.random.split(key, 3)
    rotation = jax.random.orthogonal(key_rotation, 3)
    whole = View(rotation, jnp.zeros(2), jnp.ones(()))
    pixels = np.argwhere(np.asarray(render(scene, whole, OVERVIEW))[..., 0] > 0)
    if not len(pixels):  # too small to be seen from afar
        return whole
    low, high = pixels.min(0) / OVERVIEW * 2 - 1, (pixels.max(0) + 1) / OVERVIEW * 2 - 1
    (up, right), half = (low + high) / 2, np.max(high - low) / 2
    shift = jax.random.uniform(key_centre, (2,), minval=-0.3, maxval=0.3)
    factor = jax.random.uniform(key_width, (), minval=0.4, maxval=0.9)
    return View(rotation, jnp.asarray([right, -up]) + half * shift, half * factor)


@functools.partial(jax.jit, static_argnames="size")
def render(scene: Scene, view: View, size: int) -> jax.Array:
    """A geometry image (size, size, 6): mask {0, 1}, normal, depth [0, 1], ambient occlusion.

    Depth grows away from the viewer, 0 and 1 touch the ball around the box; ambient occlusion is
    the share of the directions that are open. All is zero where no surface is hit.
    """
    middle = (jnp.arange(size) + 0.5) / size * 2 - 1
    up, right = jnp.meshgrid(-middle, middle, indexing="ij")
    across = view.half_width * jnp.stack([right, up], -1) + view.centre
    origins = across @ view.rotation[:2] + view.rotation[2]
    trace = functools.partial(_trace, scene, view)
    return jax.vmap(jax.vmap(trace))(origins)


def _trace(scene: Scene, view: View, origin: jax.Array) -> jax.Array:
    """One ray: mask, normal, depth, ambient occlusion (6,)."""
    direction, step = -view.rotation[2], 2 / STEPS
    inside = lambda t: _closed_field(scene, origin + t * direction) >= 0  # noqa: E731

    def march(i, first):  # the number of the first step that ends inside
        return jnp.where((first == STEPS) & inside((i + 1) * step), i, first)

    first = jax.lax.fori_loop(0, STEPS, march, STEPS)
    hit = first < STEPS

    def bisect(_, bounds):
        outer, inner = bounds
        middle = (outer + inner) / 2
        within = inside(middle)
        return jnp.where(within, outer, middle), jnp.where(within, middle, inner)

    bounds = (first * step, (first + 1) * step)
    outer, inner = jax.lax.fori_loop(0, BISECTIONS, bisect, bounds)
    t = (outer + inner) / 2
    point = origin + t * direction
    normal = _normal(scene, point)
    # Differences over voxels may face away at a silhouette: only that component is turned round.
    normal -= 2 * jnp.maximum(normal @ direction, 0) * direction
    openness = _openness(scene, point, normal)
    parts = jnp.concatenate([jnp.ones(1), view.rotation @ normal, t[None] / 2, openness[None]])
    return jnp.where(hit, parts, 0)


def _field(scene: Scene, point: jax.Array) -> jax.Array:
    """Trilinear value minus isovalue at a point of the world; outside the box, that of its face."""
    shape = jnp.asarray(scene.values.shape[::-1])
    index = ((point / scene.half_extent + 1) / 2 * (shape - 1))[::-1]
    return map_coordinates(scene.values, list(index), order=1, mode="nearest") - scene.isovalue


def _closed_field(scene: Scene, point: jax.Array) -> jax.Array:
    """The field where the box is, -1 outside."""
    within = jnp.all(jnp.abs(point) <= scene.half_extent)
    return jnp.where(within, _field(scene, point), -1.0)


def _normal(scene: Scene, point: jax.Array) -> jax.Array:
    """Against the gradient; on a face of the box that cuts through what is inside, the face's."""
    spacing = 2 * scene.half_extent / (jnp.asarray(scene.values.shape[::-1]) - 1)
    offsets = jnp.diag(spacing)  # a voxel to either side: what a grid's central differences say
    difference = [_field(scene, point + o) - _field(scene, point - o) for o in offsets]
    gradient = -jnp.stack(difference) / spacing
    depth = jnp.abs(point) / scene.half_extent  # 1 on a face
    face = jnp.sign(point) * jax.nn.one_hot(jnp.argmax(depth), 3)
    cut = (depth.max() > 1 - ON_FACE) & (_field(scene, point) > CUT)
    normal = jnp.where(cut, face, gradient)
    return normal / jnp.maximum(jnp.linalg.norm(normal), 1e-12)


def _openness(scene: Scene, point: jax.Array, normal: jax.Array) -> jax.Array:
    """Share of the cosine-weighted directions along which nothing is hit."""
    # A point of the sphere around the normal's tip is a cosine-weighted direction.
    directions = normal + 0.999 * jnp.asarray(_sphere(OCCLUSION_RAYS), jnp.float32)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    lengths = OCCLUSION_REACH * (jnp.arange(OCCLUSION_STEPS) + 1) / OCCLUSION_STEPS
    points = point + 0.01 * normal + directions[:, None] * lengths[:, None]
    blocked = jax.vmap(jax.vmap(lambda p: _closed_field(scene, p) >= 0))(points)
    return 1 - blocked.any(1).mean()


def _sphere(count: int) -> np.ndarray:
    """Points spread evenly over the unit sphere (Fibonacci), (count, 3)."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def shade(image: np.ndarray) -> np.ndarray:
    """A geometry image (H, W, 6) as a picture (H, W, 3) in [0, 1]; light from the upper left."""
    light = np.array([-0.4, 0.5, 0.77])
    diffuse = np.clip(image[..., 1:4] @ (light / np.linalg.norm(light)), 0, 1)
    brightness = (0.25 + 0.75 * diffuse) * (0.4 + 0.6 * image[..., 5])
    colour = np.array([0.95, 0.85, 0.7]) * brightness[..., None]
    mask = np.clip(image[..., :1], 0, 1)
    return np.clip(mask * colour + (1 - mask), 0, 1)
