"""phi: range, inverses, the spectrum, and bad images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax.parametrization import CLIP, COLOUR_CORRELATION, fourier_scale

SHAPE = (6, 10, 3)
ALL = [
    ifv.sigmoid_pixels(SHAPE),
    ifv.sigmoid_pixels(SHAPE, decorrelate=True),
    ifv.fourier(SHAPE),
    ifv.fourier(SHAPE, scaled=True),
    ifv.fourier((7, 5, 3), scaled=True, decorrelate=True),
]


@pytest.mark.parametrize("phi", ALL)
def test_images_are_valid_and_the_inverse_reaches_them(phi):
    v = 20 * phi.init(jax.random.key(0), 4)
    images = phi.apply(v)
    assert images.shape == (4, *phi.shape) and images.dtype == jnp.float32
    assert images.min() > 0 and images.max() < 1 and images.std() > 0
    again = phi.apply(phi.invert(images))
    np.testing.assert_allclose(again, np.clip(images, CLIP, 1 - CLIP), atol=2e-5)


@pytest.mark.parametrize("phi", ALL)
def test_black_and_white_are_clipped(phi):
    for value in (0.0, 1.0):
        image = jnp.full((1, *phi.shape), value)
        np.testing.assert_allclose(phi.apply(phi.invert(image)), abs(value - CLIP), atol=1e-4)


def test_start_depends_on_the_key_alone():
    phi = ifv.fourier(SHAPE)
    first, again = (phi.init(jax.random.key(3), 2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, phi.init(jax.random.key(4), 2))
    assert 0.008 < first.std() < 0.012


def test_the_scaled_spectrum_is_lucids():
    """Lucid: sqrt(w h) / max(f, 1 / max(w, h)), unnormalized irfft2, divided by 4."""
    height, width = 6, 10
    rng = np.random.default_rng(0)
    z = rng.standard_normal((height, width // 2 + 1)) + 1j * rng.standard_normal((height, 6))
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2)
    lucid = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width))
    ours = np.fft.irfft2(fourier_scale(height, width) * z, s=(height, width), norm="ortho")
    # An orthonormal transform is sqrt(w h) times the unnormalized inverse.
    np.testing.assert_allclose(ours, np.fft.irfft2(lucid * z, s=(height, width)) / 4, atol=1e-12)


def test_colour_correlation():
    np.testing.assert_allclose(np.linalg.norm(COLOUR_CORRELATION, axis=0).max(), 1)
    phi, plain = ifv.sigmoid_pixels(SHAPE, decorrelate=True), ifv.sigmoid_pixels(SHAPE)
    v = jax.random.normal(jax.random.key(0), (1, *SHAPE))
    np.testing.assert_allclose(
        phi.apply(v), plain.apply(v @ jnp.asarray(COLOUR_CORRELATION.T, jnp.float32)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 5, 5, 3), np.float32), r"shape \(2, 5, 5, 3\)"),
        (np.zeros(SHAPE, np.float32), "batch axis"),
        (np.zeros((0, *SHAPE), np.float32), "empty batch"),
        (np.zeros((1, *SHAPE), np.uint8), "255"),
        (np.full((1, *SHAPE), 1.5, np.float32), "values from 1.5 to 1.5"),
        (np.full((1, *SHAPE), np.nan, np.float32), "nan"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(ifv.InputError, match=message):
        ifv.sigmoid_pixels(SHAPE).invert(images)


def test_decorrelation_needs_three_channels():
    with pytest.raises(ifv.InputError, match="3 channels"):
        ifv.fourier((4, 4, 1), decorrelate=True)
    with pytest.raises(ifv.InputError, match="image shape"):
        ifv.sigmoid_pixels((4, 4))
