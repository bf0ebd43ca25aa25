"""Aggregations A, which reduce the activations of a layer to one value per feature (Sec. 2.3).

Each function takes activations (batch, h, w, features) and returns (batch, features). Any callable
of that form can replace it. `functools.partial(max_mean, window=2)` sets parameters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ifv_jax.checks import InputError, as_array, check_integer, check_integers


def _check_spatial(activations, name: str) -> jax.Array:
    expected = f"activations of shape (batch, h, w, features) for {name}"
    activations = as_array(activations, expected, "Pass what the network returns.")
    if activations.ndim != 4:
        raise InputError(expected, f"shape {activations.shape}", _fitting(activations.ndim))
    return activations


def _fitting(ndim: int) -> str:
    """Suggests an aggregation for activations of so many axes, batch first and features last."""
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


def max_pool(
    activations: Float[Array, "batch h w c"], *, window: int, stride: int
) -> Float[Array, "batch h2 w2 c"]:
    """Applies max pooling without padding.

    The pooling is built from strided slices, because the gradient of XLA's own pooling
    (`select_and_scatter`) is slow on the CPU. Ties share the gradient evenly.

    Args:
      activations: (batch, h, w, c).
      window: side of the window in pixels. A window larger than the map is clipped to it.
      stride: step between windows in pixels.

    Returns:
      The maxima, (batch, h', w', c).
    """
    _, height, width, _ = activations.shape
    stride = min(stride, max(height, width, 1))  # a larger step would leave the map, too
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


def max_mean(
    activations: Float[ArrayLike, "batch h w features"], *, window: int = 3, stride: int = 2
) -> Float[Array, "batch features"]:
    """Computes the spatial mean after max pooling. The paper uses it because it is not linear.

    Args:
      activations: (batch, h, w, features).
      window: side of the pooling window in pixels, >= 1.
      stride: step between windows in pixels, >= 1.

    Returns:
      The response, (batch, features).

    Raises:
      InputError: the activations have another number of axes, or a parameter is not valid.
    """
    activations = _check_spatial(activations, "max_mean")
    window = check_integer(window, "window", least=1)
    stride = check_integer(stride, "stride", least=1)
    return max_pool(activations, window=window, stride=stride).mean(axis=(1, 2))


def mean(
    activations: Float[ArrayLike, "batch h w features"],
) -> Float[Array, "batch features"]:
    """Computes the spatial mean.

    Args:
      activations: (batch, h, w, features).

    Returns:
      The response, (batch, features).

    Raises:
      InputError: the activations have another number of axes.
    """
    return _check_spatial(activations, "mean").mean(axis=(1, 2))


def pick(
    activations: Float[ArrayLike, "batch h w features"],
    *,
    position: tuple[int, int] | None = None,
) -> Float[Array, "batch features"]:
    """Picks one activation per feature.

    Args:
      activations: (batch, h, w, features).
      position: (row, column) of the activation, or None for the centre (h // 2, w // 2).

    Returns:
      The response, (batch, features).

    Raises:
      InputError: the activations have another number of axes, or do not contain the position.
    """
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


def identity(activations: Float[ArrayLike, "batch features"]) -> Float[Array, "batch features"]:
    """Returns the activations themselves, for a layer without spatial axes, such as logits.

    Args:
      activations: (batch, features).

    Returns:
      The response, (batch, features).

    Raises:
      InputError: the activations have another number of axes.
    """
    expected = "activations of shape (batch, features) for identity"
    activations = as_array(activations, expected, "Pass what the network returns.")
    if activations.ndim != 2:
        raise InputError(expected, f"shape {activations.shape}", _fitting(activations.ndim))
    return activations


SPATIAL = (max_mean, mean, pick)
"""The aggregations that take activations (batch, h, w, features)."""
