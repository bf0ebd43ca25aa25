"""Angles, image similarity (SSIM) and coefficients: how close a prediction is to its target.

Sec. 3 of the paper verifies its predictions with these. All functions take a leading batch axis,
compute in the dtype of their arguments and can be traced by `jax.jit`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ifv_jax.checks import InputError, as_array, check_integer, check_real
from ifv_jax.critical_space import CriticalSpace, project


def angular_distance(
    a: Float[ArrayLike, "*#batch n"],
    b: Float[ArrayLike, "*#batch n"],
    *,
    space: CriticalSpace | None = None,
) -> Float[Array, "..."]:
    """Computes the angle between directions, in degrees in [0, 180].

    The sign counts: -t is 180 degrees away from t. In float32 the error is below 1e-4 degrees, also
    near 0.

    Args:
      a: directions (batch, n) of any length, or a single one (n,) to compare with every row of `b`.
      b: directions (batch, n) of any length, or a single one (n,) to compare with every row of `a`.
      space: critical space onto which both are projected first; by default all of feature space.

    Returns:
      The angles (batch,), or a scalar for two single directions. The angle is 90 where a direction
      is zero, not finite, or orthogonal to the space. Thus a failed prediction counts as an
      arbitrary one.

    Raises:
      InputError: the shapes do not fit.
    """
    expected = "two batches of directions of one shape, (batch, n)"
    a, b = (as_array(t, expected, "Pass arrays of directions.") for t in (a, b))
    fits = 1 <= a.ndim <= 2 and 1 <= b.ndim <= 2 and a.shape[-1] == b.shape[-1]
    if not fits or (a.ndim == b.ndim == 2 and a.shape[0] != b.shape[0]):
        raise InputError(
            expected,
            f"shapes {a.shape} and {b.shape}",
            "Compare each prediction with its own target, in the same feature space.",
        )
    if space is not None:
        a, b = project(space, a), project(space, b)
    return _angular_distance(a, b)


@jax.jit
def _angular_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    dtype = jnp.result_type(a, b)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    a, b = _unit(a.astype(dtype)), _unit(b.astype(dtype))
    # This is Kahan's form. arccos of the inner product loses half of the digits near 0 and 180.
    angle = 2 * jnp.arctan2(jnp.linalg.norm(a - b, axis=-1), jnp.linalg.norm(a + b, axis=-1))
    exist = jnp.any(a != 0, axis=-1) & jnp.any(b != 0, axis=-1) & jnp.isfinite(angle)
    return jnp.where(exist, jnp.rad2deg(angle), jnp.asarray(90, dtype))


def _unit(t: jax.Array) -> jax.Array:
    """Computes t / |t|. Zero stays zero; NaN stays NaN, in contrast to `significance.unit`."""
    # t is scaled first, so that the squares neither overflow nor underflow.
    largest = jnp.max(jnp.abs(t), axis=-1, keepdims=True)
    t = t / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(t, axis=-1, keepdims=True)
    return t / jnp.where(length > 0, length, 1)


def ssim(
    a: Float[ArrayLike, "batch h w c"],
    b: Float[ArrayLike, "batch h w c"],
    *,
    data_range: float = 1.0,
    window: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Float[Array, " batch"]:
    """Computes the structural similarity of image pairs.

    Source: Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE Trans. Image Process. 13(4), 2004, Eq. 13 with alpha = beta = gamma = 1,
    averaged over the window positions inside the image (Eq. 17) and over the channels.

    Args:
      a: images (batch, H, W, C), floating point, with H and W at least `window`.
      b: the images to compare them with, of the same shape.
      data_range: L, the difference between the largest and the smallest possible value.
      window: side of the Gaussian window in pixels, odd.
      sigma: standard deviation of the Gaussian window in pixels.
      k1: K_1 in the source, which stabilizes the division.
      k2: K_2 in the source, which stabilizes the division.

    Returns:
      Similarities (batch,) in [-1, 1], in the dtype of the images: 1 for equal images, and 0 where
      an image is not finite.

    Raises:
      InputError: a shape, dtype or parameter is not valid, or an image is smaller than the window.
    """
    expected = "two batches of images of one shape, (batch, H, W, C)"
    a, b = (as_array(images, expected, "Pass arrays of images.") for images in (a, b))
    if a.ndim != 4 or a.shape != b.shape:
        raise InputError(
            expected,
            f"shapes {a.shape} and {b.shape}",
            "Add a batch or channel axis, or resize them first.",
        )
    dtype = jnp.result_type(a, b)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError("floating-point images", f"dtype {dtype}", "Divide 8-bit images by 255.")
    window = check_window(window, a.shape[1:3])
    usual = "The usual choice is 1.5 pixels, a range of 1, 0.01 and 0.03."
    for name, value in (("sigma", sigma), ("data_range", data_range)):
        check_real(value, name, f"a {name} > 0", above=0, do=usual)
    for name, value in (("k1", k1), ("k2", k2)):
        check_real(value, name, f"a {name} >= 0", least=0, do=usual)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    return _ssim(a.astype(dtype), b.astype(dtype), c1, c2, window=int(window), sigma=float(sigma))


def check_window(window, size: tuple[int, ...]) -> int:
    """Checks the side of an SSIM window.

    Args:
      window: side in pixels.
      size: height and width of the images in pixels.

    Returns:
      The side as a Python integer.

    Raises:
      InputError: the side is not odd, or larger than the images.
    """
    window = check_integer(window, "window", least=1)
    if window % 2 == 0:
        raise InputError("an odd window", f"window={window}", "The usual choice is 11.")
    smallest = min(size)
    if smallest < window:
        do = f"Pass window={smallest - 1 + smallest % 2}, and say so with the result."
        if smallest < 1:
            do = "Pass images with pixels."
        raise InputError(
            f"images of at least {window} x {window} pixels", f"{size[0]} x {size[1]}", do
        )
    return window


@partial(jax.jit, static_argnames=("window", "sigma"))
def _ssim(a: jax.Array, b: jax.Array, c1, c2, *, window: int, sigma: float) -> jax.Array:
    offset = np.arange(window) - window // 2
    weights = np.exp(-(offset**2) / (2 * sigma**2))
    weights = [float(w) for w in weights / weights.sum()]

    def smooth(x: jax.Array) -> jax.Array:
        # The window is separable: one sum of images shifted down, one of images shifted across.
        for axis in (1, 2):
            size = x.shape[axis] - window + 1
            parts = [lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(window)]
            x = jnp.zeros_like(parts[0])
            for weight, part in zip(weights, parts, strict=True):
                x = x + weight * part
        return x

    # E[x^2] - E[x]^2 loses digits. It loses fewer after the mean of the image is subtracted, which
    # does not change variances.
    shift_a, shift_b = a.mean((1, 2), keepdims=True), b.mean((1, 2), keepdims=True)
    x, y = a - shift_a, b - shift_b
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x = smooth(x * x) - mean_x**2
    variance_y = smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    mu_a, mu_b = mean_x + shift_a, mean_y + shift_b
    index = ((2 * mu_a * mu_b + c1) * (2 * covariance + c2)) / (
        (mu_a**2 + mu_b**2 + c1) * (variance_x + variance_y + c2)
    )
    value = index.mean((1, 2, 3))
    return jnp.where(jnp.isfinite(value), value, 0)


def coefficients(
    left_vectors: Float[ArrayLike, "batch n d"] | None, targets: Float[ArrayLike, "batch n"]
) -> Float[Array, "batch d"]:
    """Computes a_i^2 of t = sum_i a_i u_i, the part of a target along each vector (Sec. 3.5).

    Args:
      left_vectors: `Predictions.left_vectors`, (batch, n, d), orthonormal columns u_i by ascending
        singular value of W J. None, which stands there if they were not requested, is refused.
      targets: (batch, n), unit length.

    Returns:
      The squared coefficients (batch, d). A row sums to 1, or to less where the vectors span only a
      critical space. A first entry near 1 means that the closed form works.

    Raises:
      InputError: the shapes do not fit.
    """
    expected = "left_vectors (batch, n, d) and targets (batch, n)"
    do = "Pass `invert(..., left_vectors=True).left_vectors` and the targets."
    left_vectors, targets = (as_array(a, expected, do) for a in (left_vectors, targets))
    if left_vectors.ndim != 3 or targets.ndim != 2 or left_vectors.shape[:2] != targets.shape:
        raise InputError(
            expected,
            f"shapes {left_vectors.shape} and {targets.shape}",
            "Vectors are columns; pass one target for each sample.",
        )
    a = jnp.einsum("bnd,bn->bd", left_vectors, targets, precision=lax.Precision.HIGHEST)
    return a**2
