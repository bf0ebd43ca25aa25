"""How close a prediction comes to its target: angles, image similarity (SSIM), coefficients.

The means of verification in Sec. 3 of the paper. All functions take a leading batch axis, compute
in the dtype of their arguments and can be traced by `jax.jit`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ifv_jax.checks import InputError, as_array, check_integer, check_real
from ifv_jax.critical_space import CriticalSpace, project


def angular_distance(a, b, *, space: CriticalSpace | None = None) -> jax.Array:
    """Angle between directions, in degrees in [0, 180]. The sign counts: -t is 180 away from t.

    Args:
      a, b: (batch, n), of any length; one of them may be (n,), compared with every row.
      space: compare the projections onto this critical space instead.

    Returns: (batch,), or a scalar for two (n,). 90 where a direction does not exist: zero, not
      finite, or orthogonal to the space. So a failed prediction counts like an arbitrary one.
      In float32 the error is below 1e-4 degrees, also near 0.
    Raises: `InputError` for shapes that do not fit.
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
    # Kahan's form. arccos of the inner product would lose half of the digits near 0 and 180.
    angle = 2 * jnp.arctan2(jnp.linalg.norm(a - b, axis=-1), jnp.linalg.norm(a + b, axis=-1))
    exist = jnp.any(a != 0, axis=-1) & jnp.any(b != 0, axis=-1) & jnp.isfinite(angle)
    return jnp.where(exist, jnp.rad2deg(angle), jnp.asarray(90, dtype))


def _unit(t: jax.Array) -> jax.Array:
    """t / |t|; zero stays zero, and unlike in `significance.unit` NaN stays NaN."""
    # Scaled first, so that the squares neither overflow nor underflow.
    largest = jnp.max(jnp.abs(t), axis=-1, keepdims=True)
    t = t / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(t, axis=-1, keepdims=True)
    return t / jnp.where(length > 0, length, 1)


def ssim(
    a,
    b,
    *,
    data_range: float = 1.0,
    window: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> jax.Array:
    """Structural similarity of image pairs, in [-1, 1]; 1 for equal images.

    Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
    IEEE Trans. Image Process. 13(4), 2004, Eq. 13 with alpha = beta = gamma = 1, averaged over the
    window positions inside the image (Eq. 17) and over the channels.

    Args:
      a, b: images (batch, H, W, C), floating point, H and W at least `window`.
      data_range: L, difference of the largest and smallest possible value.
      window, sigma: side, odd, and standard deviation of the Gaussian window, in pixels.
      k1, k2: stabilize the division, K_1 and K_2 in the paper.

    Returns: (batch,), in the dtype of the images. An image that is not finite resembles none: 0.
    Raises: `InputError` for other shapes and dtypes, and for images smaller than the window.
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
    """An odd number of pixels, no more than the height and width of the images."""
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
        # The window is separable: a sum of shifted images down, another one across.
        for axis in (1, 2):
            size = x.shape[axis] - window + 1
            parts = [lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(window)]
            x = jnp.zeros_like(parts[0])
            for weight, part in zip(weights, parts, strict=True):
                x = x + weight * part
        return x

    # E[x^2] - E[x]^2 cancels; less so around the mean of the image, which variances do not see.
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


def coefficients(left_vectors, targets) -> jax.Array:
    """a_i^2 of t = sum_i a_i u_i: how much of a target lies along each singular vector (Sec. 3.5).

    Args:
      left_vectors: (batch, n, d), orthonormal columns u_i by ascending singular value of W J.
      targets: (batch, n), unit length.

    Returns: (batch, d). A row sums to 1, or less where the vectors span only a critical space; the
      first entry near 1 means that the closed form works.
    Raises: `InputError` for shapes that do not fit.
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
