"""What every `load` in this package returns, and the check of the images it is given."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Network(NamedTuple):
    """A network with its weights: `apply(variables, images, *, upto=LAYER) -> activations`."""

    apply: Callable[..., jax.Array]  # pure; images (B, *input_shape), activations (B, h, w, c)
    variables: Any  # pytree of arrays
    input_shape: tuple[int, int, int]  # height, width, channels
    layers: tuple[str, ...]  # what `upto` may be, in the order of computation
    card: Mapping[str, Any]  # where the weights come from


def check_images(images: Any, input_shape: tuple[int, int, int]) -> None:
    """Raise unless images are floating point of shape (B, *input_shape). Costs no computation."""
    shape, dtype = np.shape(images), np.dtype(images.dtype)
    expected = f"(B, {', '.join(map(str, input_shape))})"
    height, width, channels = input_shape
    content = "pixels in [0, 1]" if channels == 3 else "geometry images (mask, normal, depth)"
    hint = None
    if shape[1:] != input_shape or len(shape) != 4:
        hint = f"resize them to {height} x {width}"
        if shape == input_shape:
            hint = "add the batch axis: images[None]"
        elif shape[1:] == (channels, height, width):
            hint = "move the channels last: images.transpose(0, 2, 3, 1)"
    elif dtype not in (np.float32, np.float64):
        hint = "convert bytes by images.astype('float32') / 255"
    if hint:
        raise ValueError(
            f"expected images of shape {expected}, float32, {content}, got {dtype} {shape}; {hint}"
        )
