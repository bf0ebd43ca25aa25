"""The parametrization of geometry images by angles, depth and mask (Sec. 4, SRNet)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ifv_jax.checks import InputError, as_array, check_integers, describe, is_concrete
from ifv_jax.checks.images import PIXEL_ROUNDING
from ifv_jax.parametrization import CLIP, START_SCALE, Parametrization

CHANNELS = 5
"""Channels of a geometry image: mask, normal x, y, z, depth."""


def geometry_image(size: tuple[int, int], *, mask: str = "fixed") -> Parametrization:
    """Makes the parametrization of images (batch, H, W, 5) with mask, unit normal and depth.

    Mask and depth lie in [0, 1], and normals have z >= 0. The normal is (sin psi cos theta,
    sin psi sin theta, cos psi). The angle theta is unbounded, so that no gradient is cut at the end
    of an interval; a sigmoid and an affine map give psi in [0, pi/2]; a sigmoid gives the depth.

    v is (batch, H, W, 3) and contains theta and the raw psi and depth. A continuous mask adds a
    fourth channel, the raw mask.

    Args:
      size: height and width in pixels.
      mask: "fixed" for a mask of one everywhere, "continuous" for a mask by a sigmoid.

    Returns:
      The parametrization, with an inverse.

    Raises:
      InputError: `size` or `mask` is not valid.
    """
    if not isinstance(mask, str) or mask not in ("fixed", "continuous"):
        raise InputError('mask "fixed" or "continuous"', describe(mask), "See geometry_image.")
    height, width = check_integers(
        size, "size", 2, "E.g. (32, 32).", what="(height, width), positive integers"
    )
    size = (height, width)
    fixed = mask == "fixed"
    shape = (*size, 3 if fixed else 4)
    return Parametrization(
        init=lambda key, batch: START_SCALE * jax.random.normal(key, (batch, *shape)),
        apply=_apply,
        shape=(*size, CHANNELS),
        invert=partial(_invert, size=size, fixed=fixed),
        in_unit_range=_visible_part if fixed else _in_unit_range,
    )


def _apply(v: Float[Array, "batch h w _"]) -> Float[Array, "batch h w 5"]:
    theta, psi = v[..., 0], jnp.pi / 2 * jax.nn.sigmoid(v[..., 1])
    mask = jax.nn.sigmoid(v[..., 3]) if v.shape[-1] == 4 else jnp.ones_like(theta)
    normal = (jnp.sin(psi) * jnp.cos(theta), jnp.sin(psi) * jnp.sin(theta), jnp.cos(psi))
    return jnp.stack([mask, *normal, jax.nn.sigmoid(v[..., 2])], axis=-1)


def _invert(
    images: Float[Array, "batch h w 5"], *, size: tuple[int, int], fixed: bool
) -> Float[Array, "batch h w _"]:
    images = _check(images, size, fixed)
    mask, x, y, z, depth = (images[..., i] for i in range(CHANNELS))
    psi = jnp.arctan2(jnp.hypot(x, y), z)
    parts = [jnp.arctan2(y, x), _logit(psi / (jnp.pi / 2)), _logit(depth)]
    return jnp.stack(parts if fixed else [*parts, _logit(mask)], axis=-1)


def _logit(value: jax.Array) -> jax.Array:
    value = jnp.clip(value, CLIP, 1 - CLIP)
    return jnp.log(value) - jnp.log1p(-value)


def _check(images: jax.Array, size: tuple[int, int], fixed: bool) -> jax.Array:
    expected = f"geometry images (batch, {size[0]}, {size[1]}, {CHANNELS}), at least one"
    images = as_array(images, expected, "Channels are mask, normal x, y, z, depth.")
    if images.ndim != 4 or images.shape[1:] != (*size, CHANNELS) or images.shape[0] == 0:
        raise InputError(
            expected,
            f"shape {images.shape}",
            "Channels are mask, normal x, y, z, depth.",
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"{expected}, floating point", f"dtype {images.dtype}", "Divide bytes by 255 first."
        )
    if not is_concrete(images):
        return images
    flat = images[..., ::4]
    near = (flat >= -PIXEL_ROUNDING) & (flat <= 1 + PIXEL_ROUNDING)
    images = images.at[..., ::4].set(jnp.where(near, jnp.clip(flat, 0, 1), flat))
    rules: dict[str, Callable[[], jax.Array]] = {
        "finite numbers": lambda: jnp.isfinite(images),
        "mask and depth in [0, 1]": lambda: (images[..., ::4] >= 0) & (images[..., ::4] <= 1),
        "unit normals": lambda: abs(jnp.linalg.norm(images[..., 1:4], axis=-1) - 1) < 1e-3,
        "normals with z >= 0": lambda: images[..., 3] >= 0,
    }
    if fixed:
        rules["a mask of one everywhere"] = lambda: images[..., 0] == 1
    for what, holds in rules.items():
        if not bool(holds().all()):
            raise InputError(
                f"geometry images of {what}",
                "some that are not",
                "Normals are in view space, z towards the viewer; a mask that is not one "
                'everywhere wants mask="continuous".',
            )
    return images


def _in_unit_range(images: Float[Array, "*batch 5"]) -> Float[Array, "*batch 5"]:
    return jnp.concatenate([images[..., :1], (images[..., 1:4] + 1) / 2, images[..., 4:]], axis=-1)


def _visible_part(images: Float[Array, "*batch 5"]) -> Float[Array, "*batch 4"]:
    """Leaves out the mask: it is the same in all images and would raise their similarity."""
    return _in_unit_range(images)[..., 1:]
