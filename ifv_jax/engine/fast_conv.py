"""Convolutions whose gradient with respect to the input is itself a plain convolution.

JAX writes that gradient as a convolution with swapped dimension numbers, and of a dilated cotangent
if it was strided. XLA's CPU backend is slow at both, many times slower inside compiled loops. Here
the kernel is flipped and transposed explicitly, and a strided convolution's gradient takes the
sub-pixel form: one dense convolution to as many channels as there are phases of the stride, whose
results are then interleaved.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

Plain = Callable[[jax.Array, jax.Array], jax.Array]


def applies(params: dict[str, Any], x_dtype: Any, kernel_dtype: Any) -> bool:
    """Whether the form below holds for a `conv_general_dilated` of these parameters.

    Where dtypes are mixed, JAX chooses which of them each gradient has: its own rule stays.
    """
    dilated = max(params["rhs_dilation"], default=1) > 1
    strided = max(params["window_strides"], default=1) > 1
    return (
        params["feature_group_count"] == 1
        and params["batch_group_count"] == 1
        and max(params["lhs_dilation"], default=1) == 1
        and not (dilated and strided)
        and x_dtype == kernel_dtype
        and params["preferred_element_type"] in (None, x_dtype)
        and x_dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64)
    )


def fast_conv(plain: Plain, params: dict[str, Any]) -> Plain:
    """`plain`, a convolution (x, kernel) with these parameters, with the faster gradient.

    Forward mode works as well: the tangent is written as the transpose of the faster gradient, so
    that JAX, which transposes it again for reverse mode, arrives at that gradient.
    """

    @jax.custom_jvp
    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return plain(x, kernel)

    def tangent(primals, tangents):
        (x, kernel), (dx, dkernel) = primals, tangents
        y = plain(x, kernel)
        parts = []
        if not _is_zero(dx):
            gradient = lambda g: _input_gradient(g, kernel, x.shape, params)  # noqa: E731
            parts.extend(jax.linear_transpose(gradient, y)(dx))
        if not _is_zero(dkernel):
            parts.append(plain(x, dkernel))
        return y, functools.reduce(jnp.add, parts)

    # Without symbolic zeros, a kernel that nobody differentiates would cost a convolution.
    conv.defjvp(tangent, symbolic_zeros=True)
    return conv


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _input_gradient(g, kernel, shape, params) -> jax.Array:
    numbers = params["dimension_numbers"]
    # To (batch, space..., channels) and (space..., out, in), the layouts that XLA is best at.
    to_last = lambda spec: (spec[0], *spec[2:], spec[1])  # noqa: E731
    g = g.transpose(to_last(numbers.out_spec))
    out, inputs, *space = numbers.rhs_spec
    kernel = kernel.transpose(*space, out, inputs)
    sizes = [shape[axis] for axis in numbers.lhs_spec[2:]]
    if max(params["window_strides"], default=1) > 1:
        result = _strided(g, kernel, sizes, params)
    else:
        result = _dense(g, kernel, sizes, params)
    return result.transpose(np.argsort(to_last(numbers.lhs_spec)))


def _dense(g, kernel, sizes: Sequence[int], params) -> jax.Array:
    """Stride 1: correlate the padded cotangent with the flipped kernel."""
    rank = len(sizes)
    padding = []
    for i, size in enumerate(sizes):
        reach = (kernel.shape[i] - 1) * params["rhs_dilation"][i]
        before = reach - params["padding"][i][0]
        padding.append((before, size + reach - g.shape[i + 1] - before))
    return _correlate(g, jnp.flip(kernel, range(rank)), padding, params)


def _strided(g, kernel, sizes: Sequence[int], params) -> jax.Array:
    """Sub-pixel form: dx[s q + p] = sum_b g[q - b] kernel[s b + p], all phases p in one."""
    rank, strides = len(sizes), params["window_strides"]
    *taps, out, inputs = kernel.shape
    groups = [-(-k // s) for k, s in zip(taps, strides, strict=True)]  # b = 0 .. groups - 1
    extra = [(0, b * s - k) for k, s, b in zip(taps, strides, groups, strict=True)]
    kernel = jnp.pad(kernel, [*extra, (0, 0), (0, 0)])
    # (b0, p0, b1, p1, ..., out, in) -> (b0, b1, ..., out, p0, p1, ..., in)
    split = [n for pair in zip(groups, strides, strict=True) for n in pair]
    kernel = kernel.reshape(*split, out, inputs)
    order = [*range(0, 2 * rank, 2), 2 * rank, *range(1, 2 * rank, 2), 2 * rank + 1]
    kernel = kernel.transpose(order).reshape(*groups, out, -1)
    planes = _correlate(g, jnp.flip(kernel, range(rank)), [(b - 1, b - 1) for b in groups], params)
    # (batch, q0, q1, ..., p0, p1, ..., in) -> (batch, q0, p0, q1, p1, ..., in)
    batch, *counts, _ = planes.shape
    planes = planes.reshape(batch, *counts, *strides, inputs)
    order = [0, *(a for i in range(rank) for a in (1 + i, 1 + rank + i)), 1 + 2 * rank]
    whole = planes.transpose(order)
    whole = whole.reshape(batch, *(q * s for q, s in zip(counts, strides, strict=True)), inputs)
    return crop(whole, sizes, [low for low, _ in params["padding"]])


def _correlate(g, kernel, padding, params) -> jax.Array:
    rank = len(padding)
    space = "DHW"[-rank:] if rank <= 3 else "".join(chr(ord("a") + i) for i in range(rank))
    return lax.conv_general_dilated(
        g,
        kernel,
        (1,) * rank,
        padding,
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def crop(x: jax.Array, sizes: Sequence[int], starts: Sequence[int]) -> jax.Array:
    """x[:, start : start + size, ...] along the axes after the first; zeros where x ends early."""
    low = [(0, 0, 0)]
    for have, size, start in zip(x.shape[1:-1], sizes, starts, strict=True):
        low.append((-start, start + size - have, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), [*low, (0, 0, 0)])
