"""A: from the activations of a layer to one value per feature (Sec. 2.3 of the paper).

Each function takes activations (batch, h, w, features) and returns (batch, features); any callable
of that form will do. Set parameters with `functools.partial(max_mean, window=2)`.
"""

import jax
import jax.numpy as jnp

from ifv_jax.checks import InputError, as_array, check_integer, check_integers


def _check_spatial(activations, name: str) -> jax.Array:
    expected = f"activations of shape (batch, h, w, features) for {name}"
    activations = as_array(activations, expected, "Pass what the network returns.")
    if activations.ndim != 4:
        raise InputError(expected, f"shape {activations.shape}", _fitting(activations.ndim))
    return activations


def _fitting(ndim: int) -> str:
    """Which aggregation would do for activations of so many axes, batch first, features last."""
    if ndim == 2:
        return "For a layer without space, such as logits, use `ifv_jax.identity`."
    if ndim == 3:
        return (
            "For (batch, tokens, features) pass an aggregation of your own, such as "
            "`lambda a: a.mean(1)`, or `lambda a: a[:, 0]` for the class token."
        )
    if ndim == 4:
        return "For a layer with space use `ifv_jax.max_mean`, `mean` or `pick`."
    if ndim > 4:
        return (
            "Pass an aggregation of your own that leaves (batch, features), such as "
            f"`lambda a: a.mean({tuple(range(1, ndim - 1))})` where features are the last axis."
        )
    return "Tap a layer with a batch axis in front and features last."


def max_pool(activations: jax.Array, *, window: int, stride: int) -> jax.Array:
    """Max pooling without padding, (batch, h, w, c) -> (batch, h', w', c).

    Built from strided slices: the gradient of XLA's own pooling (`select_and_scatter`) is slow on
    the CPU. Ties share the gradient evenly. A window larger than the map is clipped to it.
    """
    _, height, width, _ = activations.shape
    stride = min(stride, max(height, width, 1))  # further on there is nothing
    window_y, window_x = min(window, height), min(window, width)
    rows = (height - window_y) // stride + 1
    columns = (width - window_x) // stride + 1
    pooled = None
    for y in range(window_y):
        for x in range(window_x):
            part = activations[
                :,
                y : y + stride * (rows - 1) + 1 : stride,
                x : x + stride * (columns - 1) + 1 : stride,
            ]
            pooled = part if pooled is None else jnp.maximum(pooled, part)
    assert pooled is not None
    return pooled


def max_mean(activations: jax.Array, *, window: int = 3, stride: int = 2) -> jax.Array:
    """Max pooling, then the spatial mean: the paper's choice, since it breaks linearity."""
    activations = _check_spatial(activations, "max_mean")
    window = check_integer(window, "window", least=1)
    stride = check_integer(stride, "stride", least=1)
    return max_pool(activations, window=window, stride=stride).mean(axis=(1, 2))


def mean(activations: jax.Array) -> jax.Array:
    """The spatial mean."""
    return _check_spatial(activations, "mean").mean(axis=(1, 2))


def pick(activations: jax.Array, *, position: tuple[int, int] | None = None) -> jax.Array:
    """One activation per feature: the centre (h // 2, w // 2), or `position` = (row, column)."""
    activations = _check_spatial(activations, "pick")
    _, height, width, _ = activations.shape
    row, column = height // 2, width // 2
    if position is not None:
        row, column = check_integers(
            position, "position", 2, "Leave it out to pick the centre.", least=0
        )
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"a position inside the layer's {height} x {width} map",
            f"position {(row, column)}",
            "Leave it out to pick the centre.",
        )
    return activations[:, row, column]


def identity(activations: jax.Array) -> jax.Array:
    """The activations themselves, for a layer without space, such as logits."""
    expected = "activations of shape (batch, features) for identity"
    activations = as_array(activations, expected, "Pass what the network returns.")
    if activations.ndim != 2:
        raise InputError(expected, f"shape {activations.shape}", _fitting(activations.ndim))
    return activations


SPATIAL = (max_mean, mean, pick)
"""Those that take (batch, h, w, features)."""
