"""A renderer of isosurfaces as geometry images: mask, normal, depth and ambient occlusion.

Orthographic rays march through the volume until it first exceeds the isovalue, and bisection
refines the hit. The normal is the gradient at the hit, by central differences, in view space (x to
the right, y up, z towards the viewer). Outside of its grid the volume is empty, so the faces of the
box close a surface that they cut. The world is scaled so that the box's half diagonal is 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from models.training.volumes import Volume

STEPS = 256
"""Number of steps of the march across the box."""

BISECTIONS = 12
OVERVIEW = 32
"""Side of the image by which a view is framed, in pixels."""

OCCLUSION_RAYS = 24
OCCLUSION_STEPS = 8
OCCLUSION_REACH = 0.3
"""Length of an occlusion ray. The box's half diagonal is 1."""

ON_FACE = 1e-4
"""Relative distance to a face of the box up to which a point lies on the face."""

CUT = 1e-3
"""Excess of the field over the isovalue from which on a face cuts through the inside."""

CHANNELS = 6
"""Channels of an image: mask, normal x, y, z, depth, ambient occlusion."""


class View(NamedTuple):
    """An orthographic camera.

    Attributes:
      rotation: (3, 3) with rows right, up and towards the viewer, in world coordinates.
      centre: centre of the image along right and up, (2,).
      half_width: half the width of the image, a scalar.
    """

    rotation: jax.Array
    centre: jax.Array
    half_width: jax.Array


class Scene(NamedTuple):
    """A volume and its isovalue, as arrays.

    Attributes:
      values: float32 (z, y, x).
      half_extent: half the extent of the box along x, y, z, (3,).
      isovalue: a scalar.
    """

    values: jax.Array
    half_extent: jax.Array
    isovalue: jax.Array


def scene(volume: Volume, isovalue: float | None = None) -> Scene:
    """Makes a scene of a volume, scaled to a half diagonal of 1.

    Args:
      volume: the volume.
      isovalue: the isovalue; by default the volume's own.

    Returns:
      The scene.
    """
    sizes = np.asarray(volume.values.shape[::-1]) - 1
    extent = sizes * np.asarray(volume.spacing, float) / 2
    level = volume.isovalue if isovalue is None else isovalue
    half_extent = jnp.asarray(extent / np.linalg.norm(extent), jnp.float32)
    return Scene(jnp.asarray(volume.values), half_extent, jnp.asarray(level, jnp.float32))


def random_view(key: jax.Array, scene: Scene) -> View:
    """Draws a camera that is close enough for the surface to fill much of the image.

    Args:
      key: PRNG key.
      scene: the scene.

    Returns:
      The camera.
    """
    key_rotation, key_centre, key_width = jax.random.split(key, 3)
    rotation = jax.random.orthogonal(key_rotation, 3)
    whole = View(rotation, jnp.zeros(2), jnp.ones(()))
    pixels = np.argwhere(np.asarray(render(scene, whole, OVERVIEW))[..., 0] > 0)
    if not len(pixels):  # the surface is too small for this resolution
        return whole
    low, high = pixels.min(0) / OVERVIEW * 2 - 1, (pixels.max(0) + 1) / OVERVIEW * 2 - 1
    (up, right), half = (low + high) / 2, np.max(high - low) / 2
    shift = jax.random.uniform(key_centre, (2,), minval=-0.3, maxval=0.3)
    factor = jax.random.uniform(key_width, (), minval=0.4, maxval=0.9)
    return View(rotation, jnp.asarray([right, -up]) + half * shift, half * factor)


@functools.partial(jax.jit, static_argnames="size")
def render(scene: Scene, view: View, size: int) -> jax.Array:
    """Renders a geometry image.

    Args:
      scene: the scene.
      view: the camera.
      size: side of the image in pixels.

    Returns:
      (size, size, 6): mask in {0, 1}, normal, depth, ambient occlusion. Depth grows away from the
      viewer and is 0 and 1 where it touches the ball around the box. Ambient occlusion is the share
      of open directions. All channels are zero where no surface is hit.
    """
    middle = (jnp.arange(size) + 0.5) / size * 2 - 1
    up, right = jnp.meshgrid(-middle, middle, indexing="ij")
    across = view.half_width * jnp.stack([right, up], -1) + view.centre
    origins = across @ view.rotation[:2] + view.rotation[2]
    trace = functools.partial(_trace, scene, view)
    return jax.vmap(jax.vmap(trace))(origins)


def _trace(scene: Scene, view: View, origin: jax.Array) -> jax.Array:
    """Traces one ray and returns mask, normal, depth, ambient occlusion, (6,)."""
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
    # At a silhouette a normal by differences may face away. Only that component is reversed.
    normal -= 2 * jnp.maximum(normal @ direction, 0) * direction
    openness = _openness(scene, point, normal)
    parts = jnp.concatenate([jnp.ones(1), view.rotation @ normal, t[None] / 2, openness[None]])
    return jnp.where(hit, parts, 0)


def _field(scene: Scene, point: jax.Array) -> jax.Array:
    """Interpolates value minus isovalue at a point; outside the box it is that of the face."""
    shape = jnp.asarray(scene.values.shape[::-1])
    index = ((point / scene.half_extent + 1) / 2 * (shape - 1))[::-1]
    return map_coordinates(scene.values, list(index), order=1, mode="nearest") - scene.isovalue


def _closed_field(scene: Scene, point: jax.Array) -> jax.Array:
    """Returns the field inside the box and -1 outside."""
    within = jnp.all(jnp.abs(point) <= scene.half_extent)
    return jnp.where(within, _field(scene, point), -1.0)


def _normal(scene: Scene, point: jax.Array) -> jax.Array:
    """Returns the normal against the gradient, or of a face that cuts through the inside."""
    spacing = 2 * scene.half_extent / (jnp.asarray(scene.values.shape[::-1]) - 1)
    offsets = jnp.diag(spacing)  # one voxel to each side, as for central differences on the grid
    difference = [_field(scene, point + o) - _field(scene, point - o) for o in offsets]
    gradient = -jnp.stack(difference) / spacing
    depth = jnp.abs(point) / scene.half_extent  # 1 on a face
    face = jnp.sign(point) * jax.nn.one_hot(jnp.argmax(depth), 3)
    cut = (depth.max() > 1 - ON_FACE) & (_field(scene, point) > CUT)
    normal = jnp.where(cut, face, gradient)
    return normal / jnp.maximum(jnp.linalg.norm(normal), 1e-12)


def _openness(scene: Scene, point: jax.Array, normal: jax.Array) -> jax.Array:
    """Returns the share of cosine-weighted directions along which nothing is hit."""
    # A point of the sphere around the normal's tip is a cosine-weighted direction.
    directions = normal + 0.999 * jnp.asarray(_sphere(OCCLUSION_RAYS), jnp.float32)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    lengths = OCCLUSION_REACH * (jnp.arange(OCCLUSION_STEPS) + 1) / OCCLUSION_STEPS
    points = point + 0.01 * normal + directions[:, None] * lengths[:, None]
    blocked = jax.vmap(jax.vmap(lambda p: _closed_field(scene, p) >= 0))(points)
    return 1 - blocked.any(1).mean()


def _sphere(count: int) -> np.ndarray:
    """Spreads points evenly over the unit sphere (Fibonacci), (count, 3)."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def shade(image: np.ndarray) -> np.ndarray:
    """Shades a geometry image with light from the upper left.

    Args:
      image: (H, W, 6).

    Returns:
      A picture (H, W, 3) in [0, 1].
    """
    light = np.array([-0.4, 0.5, 0.77])
    diffuse = np.clip(image[..., 1:4] @ (light / np.linalg.norm(light)), 0, 1)
    brightness = (0.25 + 0.75 * diffuse) * (0.4 + 0.6 * image[..., 5])
    colour = np.array([0.95, 0.85, 0.7]) * brightness[..., None]
    mask = np.clip(image[..., :1], 0, 1)
    return np.clip(mask * colour + (1 - mask), 0, 1)
