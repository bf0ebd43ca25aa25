"""Checks that arrays are those of a network: names, shapes and kinds first, then the numbers."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from models.stored import Stored, in_memory

_OTHER = "the file is damaged or of another architecture: fetch it or train it again"
_DAMAGED = "the file is damaged: fetch it or train it again"


class CheckError(ValueError):
    """Raised for arrays that are not the network's. The message names the first one."""


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens nested variables.

    Args:
      variables: nested dicts of arrays, or of their shapes.

    Returns:
      The leaves by names such as `params/conv1/kernel`.

    Raises:
      ValueError: two leaves have the same name.
    """
    flat = {}
    for path, value in traverse_util.flatten_dict(dict(variables)).items():
        name = "/".join(map(str, path))
        if name in flat:
            raise ValueError(
                f"expected a name for each array, got two of the name {name}; rename one of them"
            )
        flat[name] = value
    return flat


def describe(array: Any) -> str:
    """Describes an array for messages.

    Args:
      array: the array, or its shape and dtype.

    Returns:
      Its dtype and shape.
    """
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}"


def fit(arrays: Mapping[str, Any] | Stored, template: Any, source: Any) -> dict[str, Any]:
    """Checks arrays and nests them.

    Args:
      arrays: the arrays by names such as `params/conv1/kernel`.
      template: shapes and dtypes of the variables, nested.
      source: the file, for messages.

    Returns:
      The variables, nested as `template`.

    Raises:
      CheckError: an array is missing, superfluous, misshapen or impossible.
    """
    expected = flatten(template)
    taken = take(arrays, expected, source)
    paths = traverse_util.flatten_dict(dict(template))
    return traverse_util.unflatten_dict(
        {path: jnp.asarray(taken["/".join(map(str, path))]) for path in paths}
    )


def check(arrays: Mapping[str, Any] | Stored, expected: Mapping[str, Any], source: Any) -> None:
    """Checks arrays against names and shapes.

    Args:
      arrays: the arrays by name.
      expected: shape and dtype by name.
      source: the file, for messages.

    Raises:
      CheckError: an array is missing, superfluous, misshapen or impossible.
    """
    take(arrays, expected, source)


def take(
    arrays: Mapping[str, Any] | Stored, expected: Mapping[str, Any], source: Any
) -> dict[str, np.ndarray]:
    """Checks arrays and reads them.

    Names and shapes are compared before any data is read. Floating point is cast to the expected
    dtype. Integers are refused where floating point is expected.

    Args:
      arrays: the arrays by name.
      expected: shape and dtype by name.
      source: the file, for messages.

    Returns:
      The arrays by name, in the expected dtypes.

    Raises:
      CheckError: an array is missing, superfluous, misshapen or impossible.
    """
    found = arrays if isinstance(arrays, Stored) else in_memory(arrays)
    check_shapes(found.shapes, expected, source)
    read = found.read(list(expected))
    taken = {}
    for name, want in expected.items():
        with np.errstate(over="ignore"):  # numbers too large become infinite and are refused below
            taken[name] = np.asarray(read.pop(name), np.dtype(want.dtype))
    check_values(taken, source)
    return taken


def check_shapes(found: Mapping[str, Any], expected: Mapping[str, Any], source: Any) -> None:
    """Checks names, shapes and dtypes.

    Args:
      found: shape and dtype by name, as found.
      expected: shape and dtype by name.
      source: the file, for messages.

    Raises:
      CheckError: an array is missing, misshapen, of another kind or superfluous.
    """
    for name, want in expected.items():
        if name not in found:
            alike = [other for other in found if other.endswith((f".{name}", f"/{name}"))]
            got = f"none, but {alike[0]}; rename the arrays" if alike else f"none; {_OTHER}"
        elif tuple(found[name].shape) != tuple(want.shape):
            got = f"{describe(found[name])}; {_OTHER}"
        elif not _castable(found[name].dtype, want.dtype):
            got = f"{describe(found[name])}; save the floating-point weights of the network"
        else:
            continue
        raise CheckError(f"expected the array {name} of {describe(want)} in {source}, got {got}")
    for name in found:
        if name not in expected:
            raise CheckError(
                f"expected no array {name} in {source}, got one of {describe(found[name])}; "
                "the file is of another architecture: load it with the network it was made for"
            )


def _castable(got: Any, want: Any) -> bool:
    if jnp.issubdtype(got, np.floating) and jnp.issubdtype(want, np.floating):
        return True
    return np.dtype(got).newbyteorder("=") == np.dtype(want)


def check_values(arrays: Mapping[str, Any], source: Any) -> None:
    """Checks that a training can have led to these numbers.

    Args:
      arrays: the arrays by name.
      source: the file, for messages.

    Raises:
      CheckError: a number is not finite, or a variance or deviation is not positive.
    """
    for name, array in arrays.items():
        array = np.asarray(array)
        last = name.replace("/", ".").rpartition(".")[2]
        if not np.isfinite(array).all():
            expected, got = "finite numbers", "nan or infinity"
        elif last in ("var", "running_var") and (array < 0).any():
            expected, got = "variances, none negative,", str(array.min())
        elif name == "constants/std" and (array <= 0).any():
            expected, got = "positive deviations", str(array.min())
        else:
            continue
        raise CheckError(
            f"expected {expected} in the array {name} of {source}, got {got}; {_DAMAGED}"
        )
