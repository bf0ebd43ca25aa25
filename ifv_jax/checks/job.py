"""Checks of the parts of a job: weights, parameters v, a folder, devices, a critical space.

`visualize`, `reoptimize`, `invert`, `linearize_all` and `jacobian` begin with calls of them.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import describe
from ifv_jax.checks.errors import InputError
from ifv_jax.types import Device, PyTree

_REACHED = "For given images use `parametrization.invert(images)`."


def check_variables(variables: PyTree) -> None:
    """Checks that the weights are a pytree of arrays, which may be empty.

    Args:
      variables: the network's weights.

    Raises:
      InputError: a leaf is not an array.
    """
    for leaf in jax.tree.leaves(variables):
        array = isinstance(leaf, jax.Array | bool | float | complex | jax.ShapeDtypeStruct)
        array = array or (isinstance(leaf, int) and abs(leaf) < 2**31)
        host = isinstance(leaf, np.ndarray | np.generic) and _has_meaning(leaf.dtype)
        if not (array or host):
            raise InputError(
                "a pytree of arrays as `variables`",
                f"{describe(leaf)} in it",
                "Pass the network's weights, such as what Linen's `init` returns; for NNX "
                "`nnx.split` gives them.",
            )


def _has_meaning(dtype: np.dtype) -> bool:
    return dtype.kind == "b" or jnp.issubdtype(dtype, jnp.number)


def check_parameters(
    parametrization: Any, v: PyTree, name: str = "v", *, count: int | None = None
) -> PyTree:
    """Checks parameters v. A sample may be non-finite; its status will say so.

    Args:
      parametrization: the parametrization that v belongs to.
      v: floating-point arrays with a leading batch axis, shaped as the parametrization's own.
      name: name of the argument, for messages.
      count: required number of samples; None accepts any.

    Returns:
      v with JAX arrays as leaves.

    Raises:
      InputError: v is anything else.
    """
    leaves, structure = jax.tree.flatten(v)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise InputError(f"arrays as `{name}`", f"{describe(leaf)} in it", _REACHED)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"floating-point arrays as `{name}`", describe(leaf), f"Convert it. {_REACHED}"
            )
    expected = f"parameters as `{name}`, a batch of them"
    if not leaves:
        raise InputError(expected, f"no array in {describe(v)}", _REACHED)
    own = _own_shapes(parametrization)
    if own is not None:
        shapes = [(one.shape[1:]) for one in jax.tree.leaves(own)]
        wanted = jax.tree.map(lambda one: ("batch", *one.shape[1:]), own)
        if jax.tree.structure(own) != structure:
            got = f"a pytree {structure}, not {jax.tree.structure(own)}"
            raise InputError(expected, got, _REACHED)
        if any(
            np.shape(a)[1:] != one or not np.ndim(a) for a, one in zip(leaves, shapes, strict=True)
        ):
            got = jax.tree.map(np.shape, v)
            do = _REACHED
            if [np.shape(leaf) for leaf in leaves] == shapes:
                do = "Add the batch axis, `v[None]`."
            raise InputError(f"`{name}` of shape {_shapes(wanted)}", f"{_shapes(got)}", do)
    if any(np.ndim(leaf) == 0 for leaf in leaves):
        raise InputError(expected, "an array without axes", "Add the batch axis, `v[None]`.")
    counts = sorted({np.shape(leaf)[0] for leaf in leaves})
    if len(counts) > 1:
        raise InputError(expected, f"leaves of {counts} samples", "Give each leaf the same batch.")
    if counts[0] == 0:
        raise InputError("at least one sample", "an empty batch", "Pass one sample or more.")
    if count is not None and counts[0] != count:
        got = f"{counts[0]} in `{name}`"
        raise InputError(f"{count} samples, one a target", got, "Pass one for each target.")
    v = jax.tree.map(jnp.asarray, v)
    jax.eval_shape(lambda v: images_of(parametrization, v, lambda function: function), v)
    return v


def _shapes(tree: PyTree) -> str:
    return str(tree).replace("'", "")


def _own_shapes(parametrization: Any) -> PyTree | None:
    """Returns the shapes of a new start, or None if `init` cannot be traced."""
    try:
        own = jax.eval_shape(lambda key: parametrization.init(key, 1), jax.random.key(0))
    except Exception:
        return None
    if not all(one.shape[:1] == (1,) for one in jax.tree.leaves(own)):
        return None
    return own


def images_of(parametrization: Any, v: PyTree, through: Callable[[Callable], Callable]):
    """Computes phi(v), and explains a failure in a sentence.

    Args:
      parametrization: the parametrization.
      v: its parameters, leading axis batch.
      through: transformation of `parametrization.apply` before it is called.

    Returns:
      The images through(parametrization.apply)(v), (batch, H, W, C).

    Raises:
      InputError: the parametrization fails, or returns something else.
    """
    expected = f"images of shape (batch, {', '.join(map(str, parametrization.shape))})"
    try:
        images = through(parametrization.apply)(v)
    except (InputError, jax.errors.JaxRuntimeError, MemoryError):
        raise
    except Exception as error:
        shapes = jax.tree.map(lambda a: getattr(a, "shape", type(a).__name__), v)
        raise InputError(
            f"parameters that parametrization.apply turns into {expected}",
            f"{type(error).__name__} for v of shape {_shapes(shapes)}: {error}",
            _REACHED,
        ) from error
    if not isinstance(images, jax.Array) or images.shape[1:] != parametrization.shape:
        raise InputError(
            f"{expected} from parametrization.apply(v)",
            describe(images),
            f"v belongs to images of another size, or `shape` is wrong. {_REACHED}",
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{expected}, floating point", describe(images), "Convert them.")
    return images


def check_run(run: Any):
    """Turns the argument `run` into a `Run`.

    Args:
      run: a `Run`, the path of a folder, or None for a run that keeps nothing.

    Returns:
      The run.

    Raises:
      InputError: `run` is none of these, or its folder cannot be used.
    """
    from ifv_jax.engine.runs import Run  # The module `runs` imports checks, so it comes late.

    if run is None or isinstance(run, str | os.PathLike):
        return Run(run)
    if not isinstance(run, Run):
        raise InputError(
            "a folder or a Run as `run`", describe(run), 'Pass "FOLDER" or Run("FOLDER").'
        )
    return run


def check_devices(devices: Any) -> tuple[Device, ...]:
    """Checks the argument `devices`.

    Args:
      devices: a device, several devices of one kind, or None for all local ones.

    Returns:
      The devices as a tuple.

    Raises:
      InputError: these are no devices, none at all, repeated, or of several kinds.
    """
    if devices is None:
        return tuple(jax.local_devices())
    if isinstance(devices, jax.Device):
        return (devices,)
    do = "Pass e.g. jax.devices()[:2], or leave `devices` out to use all."
    array = isinstance(devices, np.ndarray | jax.Array)  # as `Mesh.devices` is
    if array or isinstance(devices, str | bytes) or not isinstance(devices, Iterable):
        if isinstance(devices, np.ndarray) and devices.dtype == object:
            return check_devices(devices.ravel().tolist())
        raise InputError("a list of JAX devices as `devices`", describe(devices), do)
    found = tuple(devices)
    if not found:
        raise InputError("at least one device", "none", do)
    for one in found:
        if not isinstance(one, jax.Device):
            raise InputError("a list of JAX devices as `devices`", f"{describe(one)} in it", do)
    if len(set(found)) < len(found) or len({one.platform for one in found}) > 1:
        raise InputError("different devices of one kind", f"{list(found)}", do)
    return found


def check_space(space: Any, features: int) -> Any:
    """Checks the argument `space`.

    Args:
      space: a `CriticalSpace`, or None for all of feature space.
      features: n, the number of features.

    Returns:
      The same value.

    Raises:
      InputError: the space is over another number of features, or something else.
    """
    from ifv_jax.critical_space import check_critical_space

    if space is None:
        return None
    check_critical_space(space)
    n = space.complement.shape[0]
    if n != features:
        raise InputError(
            f"a critical space in {features} dimensions, the number of features",
            f"one in {n}",
            "Compute it for this layer and the same choice of features.",
        )
    return space


def check_jitter(jitter: int, shape: tuple[int, int, int]) -> None:
    """Checks that images are shifted by less than their size.

    Args:
      jitter: largest shift in pixels.
      shape: (H, W, C) of an image.

    Raises:
      InputError: the shift is too large.
    """
    if jitter >= min(shape[:2]):
        raise InputError(
            f"jitter below {min(shape[:2])}, the size of the image",
            f"{jitter}",
            "A few pixels do, such as a tenth of the size.",
        )
