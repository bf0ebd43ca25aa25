"""One small convolution and its gradient, what the tests of rewritten networks are made of."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def conv(w, x):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


W, X = normal(3, 3, 2, 2), normal(2, 4, 4, 2, seed=1)


def slope(f, w=W):
    return jax.grad(lambda x: jnp.sin(f(w, x)).sum())
