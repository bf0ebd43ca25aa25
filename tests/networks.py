"""Tiny networks for the tests, in the three ways people write them."""

from functools import cache

import jax
import jax.numpy as jnp

import ifv_jax as ifv

SHAPE = (8, 8, 3)
FEATURES = 6
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain_variables(seed=0):
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "first": 0.4 * jax.random.normal(first, (3, 3, 3, 8)),
        "second": 0.3 * jax.random.normal(second, (3, 3, 8, FEATURES)),
    }


def plain_apply(variables, images):
    """Two convolutions, smooth in between: a plain function over a dict."""
    x = images - 0.5
    x = jax.lax.conv_general_dilated(
        x, variables["first"].astype(x.dtype), (1, 1), "SAME", dimension_numbers=DIMENSIONS
    )
    return jax.lax.conv_general_dilated(
        jnp.tanh(x), variables["second"].astype(x.dtype), (1, 1), "SAME",
        dimension_numbers=DIMENSIONS,
    )  # fmt: skip


def relu_apply(variables, images):
    """The same, with a ReLU at the end: features can be silent."""
    return jax.nn.relu(plain_apply(variables, images))


def dividing_apply(variables, images):
    """With the divisions that networks are full of: by channel, by a constant, by a sum."""
    x = (images - 0.5) / jnp.array([0.2, 0.3, 0.7], images.dtype)
    return jax.nn.softmax(plain_apply(variables, x) / 1.7)[:, 1:]  # and 56 pixels to be averaged


@cache
def response(apply=plain_apply, aggregate=ifv.max_mean):
    return ifv.make_response(apply, ifv.sigmoid_pixels(SHAPE), aggregate)


@cache
def objective(apply=plain_apply, cosine_power=2.0):
    return ifv.make_objective(response(apply), cosine_power=cosine_power)
