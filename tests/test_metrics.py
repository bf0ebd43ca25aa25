import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifv_jax.checks import InputError
from ifv_jax.critical_space import critical_space_from_complement, full_space
from ifv_jax.metrics import angular_distance, coefficients, ssim
from tests import oracles_subspaces as oracles

SEEDS = st.integers(0, 2**32 - 1)


def turned(rng, angle_deg, n=7):
    """A random direction, and one that encloses the given angle with it, in float64."""
    q = np.linalg.qr(rng.standard_normal((n, 2)))[0]
    angle = np.deg2rad(angle_deg)
    return q[:, 0], np.cos(angle) * q[:, 0] + np.sin(angle) * q[:, 1]


@given(seed=SEEDS, exponent=st.floats(-4, np.log10(180)), flip=st.booleans())
def test_angle_is_accurate_near_0_and_180(seed, exponent, flip):
    rng = np.random.default_rng(seed)
    angle = 180 - 10**exponent if flip else 10**exponent
    a, b = turned(rng, angle)
    scale = 10.0 ** rng.integers(-25, 25, 2)  # lengths do not matter, nor do their squares overflow
    found = angular_distance(jnp.float32(a * scale[0]), jnp.float32(b * scale[1]))
    assert found.shape == () and found.dtype == jnp.float32
    assert abs(found - angle) < 1e-4
    with jax.enable_x64(True):
        found = angular_distance(jnp.asarray(a), jnp.asarray(b))
        assert found.dtype == jnp.float64
        assert abs(found - angle) < 1e-12


def test_angle_of_equal_opposite_and_orthogonal_directions():
    t = jnp.eye(3)
    np.testing.assert_array_equal(angular_distance(t, t), [0, 0, 0])
    np.testing.assert_allclose(angular_distance(t, -t), [180, 180, 180])
    np.testing.assert_allclose(angular_distance(t, t[0]), [0, 90, 90], atol=1e-5)
    np.testing.assert_allclose(angular_distance(t[1], t), [90, 0, 90], atol=1e-5)
    np.testing.assert_allclose(angular_distance(jnp.eye(3, dtype=int), t), [0, 0, 0])


@pytest.mark.parametrize("space", [None, full_space(3)])
def test_angle_where_there_is_no_direction_is_90(space):
    bad = jnp.array([[0, 0, 0], [np.nan, 1, 0], [np.inf, 1, 0], [-np.inf, 0, 0]], jnp.float32)
    good = jnp.array([1.0, 0, 0])
    np.testing.assert_array_equal(angular_distance(bad, good, space=space), [90] * 4)
    np.testing.assert_array_equal(angular_distance(good, bad, space=space), [90] * 4)
    np.testing.assert_array_equal(angular_distance(bad, bad, space=space), [90] * 4)


@given(seed=SEEDS, u=st.sampled_from([0, 1, 3]))
def test_angle_on_a_space_ignores_its_complement(seed, u):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    space = critical_space_from_complement(q[:, :u])
    a, b = rng.standard_normal((2, 5, 6))
    shifted = b + rng.standard_normal((5, u)) @ q[:, :u].T
    outside = np.eye(6) - oracles.projector(q[:, :u])
    with jax.enable_x64(True):
        expected = angular_distance(a @ outside, b @ outside)
        np.testing.assert_allclose(angular_distance(a, shifted, space=space), expected, atol=1e-8)
        if u:  # nothing is left of it
            assert angular_distance(q[:, 0], a[0], space=space) == 90


@given(seed=SEEDS)
def test_angle_is_a_metric_on_directions(seed):
    a, b, c = np.random.default_rng(seed).standard_normal((3, 4, 5)).astype(np.float32)
    ab, ba, bc, ac = (np.asarray(angular_distance(*p)) for p in ((a, b), (b, a), (b, c), (a, c)))
    np.testing.assert_array_equal(ab, ba)
    assert (ac <= ab + bc + 1e-4).all()
    np.testing.assert_allclose(angular_distance(a, -b), 180 - ab, atol=1e-4)


def images(rng, kind):
    shape = (3, 20, 17, 3)
    if kind == "noise":
        return rng.random(shape)
    if kind == "bright":  # the mean is large, the variance tiny: cancellation
        return 0.98 + 0.001 * rng.random(shape)
    y, x, phase = np.ogrid[:20, :17, :3]
    return np.stack([0.5 + 0.5 * np.sin(x / 3 + y / (5 + i) + phase) for i in range(3)])


@pytest.mark.parametrize("kind", ["noise", "bright", "wave"])
@pytest.mark.parametrize(
    "options", [{}, {"window": 7, "sigma": 1.0}, {"data_range": 2.0, "k1": 0.02, "k2": 0.05}]
)
def test_ssim_agrees_with_the_naive_version(kind, options):
    rng = np.random.default_rng(0)
    a = images(rng, kind)
    b = np.clip(a + 0.1 * rng.standard_normal(a.shape), 0, 1)
    expected = [oracles.ssim(x, y, **options) for x, y in zip(a, b, strict=True)]
    found = ssim(jnp.float32(a), jnp.float32(b), **options)
    assert found.shape == (3,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    a = images(rng, "noise")
    b = np.clip(a + 0.1 * rng.standard_normal(a.shape), 0, 1)
    options = dict(gaussian_weights=True, use_sample_covariance=False, sigma=1.5, data_range=1)
    expected = [
        metrics.structural_similarity(x, y, channel_axis=-1, **options)
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(jnp.float32(a), jnp.float32(b)), expected, atol=2e-5)


def test_ssim_has_the_properties_it_is_used_for():
    rng = np.random.default_rng(2)
    a = jnp.float32(rng.random((2, 16, 16, 3)))
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(ssim(0 * a, 0 * a), 1, atol=1e-6)
    noise = jnp.float32(rng.standard_normal(a.shape))
    values = np.array([ssim(a, a + level * noise) for level in (0.01, 0.1, 0.5)])
    assert (np.diff(values, axis=0) < 0).all() and (np.abs(values) <= 1).all()
    np.testing.assert_allclose(ssim(a, a + noise), ssim(a + noise, a), rtol=1e-5)
    # Each image of a batch is judged for itself; one that is not finite resembles none.
    broken = (a + 0.1 * noise).at[1, 0, 0, 0].set(jnp.nan)
    np.testing.assert_allclose(ssim(a, broken), [float(ssim(a, a + 0.1 * noise)[0]), 0], rtol=1e-5)
    np.testing.assert_allclose(ssim(a[:1, :11, :11], a[:1, :11, :11]), 1, atol=1e-6)


def test_ssim_is_traced_once_for_a_shape(monkeypatch):
    traced = []
    slice_in_dim = jax.lax.slice_in_dim
    monkeypatch.setattr(
        jax.lax, "slice_in_dim", lambda *a, **k: (traced.append(1), slice_in_dim(*a, **k))[1]
    )
    a = jnp.float32(np.random.default_rng(3).random((2, 13, 12, 1)))
    ssim(a, a)
    assert traced
    traced.clear()
    ssim(a, a**2)
    ssim(a, a, k1=0.02, data_range=3.0)
    assert not traced


@given(seed=SEEDS, d=st.integers(1, 6))
def test_coefficients_are_squared_inner_products(seed, d):
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.standard_normal((4, 6, 6)))[0]
    weights = rng.standard_normal((4, 6))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    t = np.einsum("bij,bj->bi", u, weights)
    found = coefficients(jnp.float32(u[:, :, :d]), jnp.float32(t))
    assert found.shape == (4, d)
    np.testing.assert_allclose(found, weights[:, :d] ** 2, atol=1e-6)
    if d == 6:
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_traced_by_jit_and_vmap():
    rng = np.random.default_rng(4)
    a, b = jnp.float32(rng.standard_normal((2, 5, 6)))
    space = critical_space_from_complement(np.ones((6, 1)) / 6**0.5)
    inside = jax.jit(lambda s, x, y: angular_distance(x, y, space=s))(space, a, b)
    np.testing.assert_allclose(inside, angular_distance(a, b, space=space), atol=1e-4)
    np.testing.assert_allclose(jax.vmap(angular_distance)(a, b), angular_distance(a, b), atol=1e-4)
    x, y = jnp.float32(rng.random((2, 2, 12, 12, 1)))
    np.testing.assert_allclose(jax.jit(ssim)(x, y), ssim(x, y), rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: angular_distance(jnp.ones((2, 3)), jnp.ones((2, 4))),
        lambda: angular_distance(jnp.ones((2, 3)), jnp.ones((3, 3))),
        lambda: angular_distance(jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3))),
        lambda: angular_distance(jnp.ones((2, 3)), jnp.ones((2, 3)), space=full_space(4)),
        lambda: angular_distance(1.0, 2.0),
        lambda: ssim(jnp.ones((20, 20, 3)), jnp.ones((20, 20, 3))),
        lambda: ssim(jnp.ones((1, 20, 20, 3)), jnp.ones((1, 20, 20, 1))),
        lambda: ssim(jnp.ones((1, 20, 10, 3)), jnp.ones((1, 20, 10, 3))),
        lambda: ssim(jnp.ones((1, 20, 20, 3), int), jnp.ones((1, 20, 20, 3), int)),
        lambda: ssim(jnp.ones((1, 20, 20, 3)), jnp.ones((1, 20, 20, 3)), window=8),
        lambda: ssim(jnp.ones((1, 20, 20, 3)), jnp.ones((1, 20, 20, 3)), sigma=0),
        lambda: ssim(jnp.ones((1, 20, 20, 3)), jnp.ones((1, 20, 20, 3)), data_range=-1),
        lambda: coefficients(jnp.ones((2, 3, 3)), jnp.ones((2, 4))),
        lambda: coefficients(jnp.ones((3, 3)), jnp.ones((3,))),
    ],
)
def test_mistakes(wrong):
    with pytest.raises(InputError, match=r"Expected .*; got "):
        wrong()
