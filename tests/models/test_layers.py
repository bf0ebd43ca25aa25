"""The hand-written convolutions against XLA's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models import convolution, layers


def reference(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("CHWN", "HWIO", "CHWN")
    )


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


# Fewer, more and as many inputs as outputs: each side of the convolution is shifted once.
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (16, 4), (5, 5), (1, 1)])
@pytest.mark.parametrize(("height", "width"), [(6, 4), (1, 3)])
def test_conv3x3_is_xlas(inputs, outputs, height, width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((inputs, height, width, 2)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, inputs, outputs)).astype(np.float32)
    cotangent = rng.standard_normal((outputs, height, width, 2)).astype(np.float32)
    y, pull = jax.vjp(layers.conv3x3, x, kernel)
    expected, expected_pull = jax.vjp(reference, x, kernel)
    close(y, expected)
    for got, want in zip(pull(cotangent), expected_pull(cotangent), strict=True):
        close(got, want)


# Heights that divide into pieces of rows, and a prime one that does not.
@pytest.mark.parametrize("height", [16, 11, 1])
def test_convolution_is_xlas(height):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, 6, 5)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 5, 4)).astype(np.float32)
    cotangent = rng.standard_normal((2, height, 6, 4)).astype(np.float32)

    def reference(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def everything(conv):
        def run(x, kernel, cotangent):
            y, pull = jax.vjp(conv, x, kernel)
            inner = jax.grad(lambda k, x: jnp.sum(jnp.sin(conv(x, k))))
            outer = jax.grad(lambda x, k: jnp.sum(inner(k, x) ** 2))
            return y, *pull(cotangent), jax.vmap(outer, (0, None))(x[None], kernel)

        return jax.jit(run)(x, kernel, cotangent)

    for a, b in zip(everything(convolution.conv3x3), everything(reference), strict=True):
        close(a, b)


def test_pointwise_is_a_1x1_convolution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 4, 2)).astype(np.float32)
    kernel = rng.standard_normal((5, 7)).astype(np.float32)
    cotangent = rng.standard_normal((7, 3, 4, 2)).astype(np.float32)
    y, pull = jax.vjp(layers.pointwise, x, kernel)
    expected, expected_pull = jax.vjp(lambda x, k: reference(x, k[None, None]), x, kernel)
    close(y, expected)
    for got, want in zip(pull(cotangent), expected_pull(cotangent), strict=True):
        close(got, want)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_gradients_of_gradients_and_batches(transform):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 3, 4, 4, 1)).astype(np.float32)[0]
    kernel = rng.standard_normal((3, 3, 3, 2)).astype(np.float32)

    def loss(conv, kernel, x):
        return jnp.sum(jnp.sin(conv(x, kernel)))

    def second(conv):
        inner = jax.grad(lambda k, x: loss(conv, k, x))
        outer = jax.grad(lambda x, k: jnp.sum(inner(k, x) ** 2))
        return transform(jax.vmap(outer, (0, None)))(x, kernel)

    close(second(layers.conv3x3), second(reference))


def test_average_pool2_and_moments():
    x = np.random.default_rng(0).standard_normal((3, 4, 6, 5)).astype(np.float32) + 2
    pooled = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    close(layers.average_pool2(jnp.asarray(x)), pooled)
    mean, var = layers.moments(jnp.asarray(x))
    close(mean, x.mean((1, 2, 3)))
    close(var, x.var((1, 2, 3)))


def test_a_constant_channel_has_no_negative_variance():
    _, var = layers.moments(jnp.full((1, 3, 3, 3), 0.1234567))
    assert var[0] >= 0
