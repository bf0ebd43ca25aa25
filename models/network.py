"""The value that every `load` in this package returns, and the check of images."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Network(NamedTuple):
    """A network with its weights.

    Attributes:
      apply: pure function apply(variables, images, *, upto=LAYER) with images (B, *input_shape). It
        returns the activations of the layer, (B, h, w, c).
      variables: the weights, a pytree of arrays.
      input_shape: height, width and channels of an image.
      layers: valid values of `upto`, in the order of computation.
      card: the origin of the weights.
    """

    apply: Callable[..., jax.Array]
    variables: Any
    input_shape: tuple[int, int, int]
    layers: tuple[str, ...]
    card: Mapping[str, Any]


def check_images(images: Any, input_shape: tuple[int, int, int]) -> None:
    """Checks the shape and dtype of images, which costs no computation.

    Args:
      images: the images.
      input_shape: height, width and channels that are expected.

    Raises:
      ValueError: the images are not floating point of shape (B, *input_shape).
    """
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
