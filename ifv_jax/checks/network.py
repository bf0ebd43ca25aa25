"""Checks of a network and an aggregation: their kind, what they return, and for how many images.

All checks are made while JAX traces, before anything is compiled or computed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import check_hashable, describe
from ifv_jax.checks.errors import InputError
from ifv_jax.types import AggregateFn, ApplyFn, PyTree

OUT_OF_RESOURCES = (jax.errors.JaxRuntimeError, MemoryError)
"""Exceptions that a call may raise without any mistake in the called function."""

_VMAP = (
    "Wrap it: `lambda variables, images: jax.vmap(lambda image: "
    "apply(variables, image[None])[0])(images)`."
)


def check_apply(apply: ApplyFn) -> None:
    """Checks that a network is a hashable function and not a module that contains one.

    Args:
      apply: the network.

    Raises:
      InputError: it is anything else.
    """
    if not callable(apply) or isinstance(apply, type):
        raise InputError(
            "a function (variables, images) -> activations as `apply`",
            describe(apply),
            "For Flax pass e.g. `lambda variables, x: model.apply(variables, x)`.",
        )
    if callable(getattr(apply, "apply", None)) and callable(getattr(apply, "init", None)):
        raise InputError(
            "a function (variables, images) -> activations as `apply`",
            f"the module {type(apply).__name__}",
            "Pass its method, `module.apply`.",
        )
    check_hashable(apply, "apply")


def check_aggregate(aggregate: AggregateFn) -> None:
    """Checks that an aggregation is a hashable function.

    Args:
      aggregate: the aggregation.

    Raises:
      InputError: it is anything else.
    """
    if not callable(aggregate) or isinstance(aggregate, type):
        raise InputError(
            "a function activations -> (batch, features) as `aggregate`",
            describe(aggregate),
            "Pass e.g. `ifv_jax.max_mean`, or `ifv_jax.identity` for logits.",
        )
    check_hashable(aggregate, "aggregate")


def activations(apply: ApplyFn, variables: PyTree, images: jax.Array) -> jax.Array:
    """Computes apply(variables, images), and explains a failure in a sentence.

    Args:
      apply: the network.
      variables: its weights.
      images: (batch, H, W, C).

    Returns:
      The activations (batch, ...).

    Raises:
      InputError: the network fails, or does not return activations.
    """
    try:
        found = apply(variables, images)
    except (InputError, *OUT_OF_RESOURCES):
        raise
    except Exception as error:
        _explain_failure(apply, variables, images, error)
        raise
    _check_array(found, "activations from `apply`")
    batch = images.shape[0]
    if found.ndim == 0 or found.shape[0] != batch:
        raise InputError(
            f"a network that returns a row for each of {batch} images, batch axis first",
            f"activations of shape {found.shape}",
            _VMAP,
        )
    return found


def aggregated(aggregate: AggregateFn, found: jax.Array) -> jax.Array:
    """Computes aggregate(activations), and explains a failure in a sentence.

    Args:
      aggregate: the aggregation.
      found: the activations (batch, ...).

    Returns:
      The response (batch, features).

    Raises:
      InputError: the aggregation fails, or returns something else.
    """
    batch = found.shape[0]
    try:
        r = aggregate(found)
    except (InputError, *OUT_OF_RESOURCES):
        raise
    except Exception as error:
        raise InputError(
            f"an aggregation of activations of shape {found.shape}",
            _brief(error),
            "Pass one that fits this layer, such as `lambda a: a.mean(1)`.",
        ) from error
    _check_array(r, "a response from the aggregation")
    if r.ndim != 2 or r.shape[0] != batch or r.shape[1] == 0:
        raise InputError(
            f"a response of shape ({batch}, features) after aggregation",
            f"shape {r.shape}",
            "Tap a layer with one leading batch axis and pass a fitting aggregation.",
        )
    return r


def _check_array(found, what: str) -> None:
    expected = f"{what} in a floating-point array"
    if isinstance(found, np.ndarray | np.generic):
        raise InputError(
            f"{what} computed by JAX", f"{describe(found)}, of NumPy", "Compute with jax.numpy."
        )
    if not isinstance(found, jax.Array):
        do = "Return one array."
        if isinstance(found, tuple | list) and found:
            do = (
                "Pick the array, `lambda variables, x: apply(variables, x)[0]`; for Flax Linen "
                "leave `mutable` out, which belongs to training."
            )
        elif isinstance(found, dict) or hasattr(found, "keys"):
            do = "Pick the layer, `lambda variables, x: apply(variables, x)[NAME]`."
        elif found is None:
            do = "Does it lack a `return`?"
        elif isinstance(found, int | float):
            do = "Return activations, a row for each image, rather than one number."
        raise InputError(expected, _structure(found), do)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        do = "Integers and booleans have no gradient: tap the layer before argmax or rounding."
        if jnp.issubdtype(found.dtype, jnp.complexfloating):
            do = "Take abs, real or imag of them."
        raise InputError(expected, f"dtype {found.dtype}, shape {found.shape}", do)


def _structure(found) -> str:
    if isinstance(found, tuple | list):
        inside = ", ".join(type(one).__name__ for one in found[:4])
        return f"a {type(found).__name__} of {len(found)} ({inside})"
    if isinstance(found, dict):
        return f"a {type(found).__name__} with keys {list(found)[:4]}"
    return describe(found)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:297] + '...'}"


def _explain_failure(apply: ApplyFn, variables: PyTree, images: jax.Array, error: Exception):
    """Raises an `InputError` that explains why apply(variables, images) failed."""
    batch = images.shape[0]
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    if batch > 1 and _traces(apply, variables, one):
        raise InputError(
            f"a network that takes several images at once, here {batch}",
            f"one that takes a single image ({_brief(error)})",
            _VMAP,
        ) from error
    if _traces(apply, variables, jax.ShapeDtypeStruct(images.shape[1:], images.dtype)):
        raise InputError(
            f"a network that takes images with a batch axis, here {images.shape}",
            f"one that takes a single image without it ({_brief(error)})",
            "Wrap it: `jax.vmap(apply, (None, 0))`.",
        ) from error
    do = "Check that weights and image shape are this network's; call it by hand on one image."
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
        do = "JAX traces it: write it with jax.numpy, and `jax.lax.cond` for `if`."
    raise InputError(
        f"a network (variables, images) that takes images of shape {images.shape}",
        _brief(error),
        do,
    ) from error


def _traces(apply: ApplyFn, variables: PyTree, images: jax.ShapeDtypeStruct) -> bool:
    try:
        jax.eval_shape(apply, variables, images)
    except Exception:
        return False
    return True


# --- layout ---------------------------------------------------------------------------------------


def innermost(function: Callable) -> Callable:
    """Returns the function inside nested `functools.partial` objects.

    Args:
      function: any function.

    Returns:
      The innermost function; `function` itself if it is no partial object.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return function


def check_layout(
    apply: ApplyFn,
    variables: PyTree,
    images: jax.Array | jax.ShapeDtypeStruct,
    shape: tuple[int, ...],
    *,
    thorough: bool = False,
) -> None:
    """Refuses activations that are channels first, (batch, c, h, w).

    The spatial axes are those that change when the image is made wider. The network is traced with
    a wider image only if the last two axes have the aspect ratio of the image and the first two do
    not.

    Args:
      apply: the network.
      variables: its weights.
      images: the images, or their shape and dtype, (batch, H, W, C).
      shape: shape of the activations for these images.
      thorough: also trace the network if both pairs of axes have the aspect ratio of the image.

    Raises:
      InputError: the activations are channels first.
    """
    if len(shape) != 4:
        return
    batch, height, width, channels = images.shape

    def spatial(h: int, w: int) -> bool:
        return abs(h * width - w * height) < max(width, height)

    if not spatial(*shape[2:]) or (spatial(*shape[1:3]) and not thorough):
        return
    wide = jax.ShapeDtypeStruct((batch, height, 2 * width, channels), images.dtype)
    try:
        other = jax.eval_shape(apply, variables, wide).shape
    except Exception:  # a network of one size only
        other = shape
    if other != shape and len(other) == 4:
        first = other[3] != shape[3] and other[1:3] == shape[1:3]
    else:
        # Square images have square maps. Here only the last two axes are equal.
        first = height == width and shape[2] == shape[3] != shape[1]
    if first:
        raise InputError(
            "activations of shape (batch, h, w, features), channels last",
            f"(batch, features, h, w) = {shape}",
            "Transpose in `apply`, `activations.transpose(0, 2, 3, 1)`, or pass an aggregation of "
            "your own, such as `lambda a: a.mean((2, 3))`.",
        )
