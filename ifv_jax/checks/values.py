"""Checks of values and types at the public boundary: numbers, functions, keys, indices.

Harmless deviations are normalized (NumPy scalars, lists, NumPy arrays). Everything else is refused
before expensive work starts. Shapes and dtypes are always checked, values only where they are
known: inside a user's `jit` they are tracers, and an invalid value becomes a status of its sample.
"""

import contextlib
import itertools
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks.errors import InputError

T = TypeVar("T")

MOST_FEATURES = 1_000_000
"""Largest number of indices that is read from an iterator, which may be endless."""


def is_concrete(*arrays) -> bool:
    """Tells whether values are known now, that is, not traced.

    Args:
      *arrays: pytrees of arrays.

    Returns:
      True if no leaf is a tracer.
    """
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays))


def describe(value) -> str:
    """Describes a value for a message.

    Args:
      value: anything.

    Returns:
      The value itself if it is short, otherwise its type, dtype and shape.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return reprlib.repr(value)
    name = type(value).__name__
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}, dtype {value.dtype}"
    if isinstance(value, list | tuple | set | dict | range):
        return f"{name} {reprlib.repr(value)}"
    return f"the class {value.__name__}" if isinstance(value, type) else name


def check_kind(value: Any, kind: type[T], name: str, do: str) -> T:
    """Checks that a value is an instance of a class.

    Args:
      value: the value.
      kind: the class.
      name: name of the argument, for the message.
      do: what to do about a mistake.

    Returns:
      The same value.

    Raises:
      InputError: the value is something else.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError(f"{article} {kind.__name__} as `{name}`", describe(value), do)
    return value


def check_integer(value, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """Checks an integer. Scalars of NumPy and JAX are converted; booleans and floats are refused.

    Args:
      value: the integer.
      name: name of the argument, for the message.
      least: smallest valid value, or None.
      most: largest valid value, or None.

    Returns:
      The value as a Python integer.

    Raises:
      InputError: the value is not an integer, or out of range.
    """
    expected = f"an integer {name}" + ("" if least is None else f" >= {least}")
    expected += "" if most is None else f" and <= {most}" if least is not None else f" <= {most}"
    array = isinstance(value, np.ndarray | jax.Array | np.generic) and is_concrete(value)
    if array and value.ndim == 0 and _is_integer_dtype(value):
        value = np.asarray(value).item()
    if isinstance(value, bool) or not isinstance(value, int):
        do = "Pass a plain Python integer."
        if isinstance(value, float) and value.is_integer():
            do = f"Pass {int(value)}."
        raise InputError(expected, describe(value), do)
    if (least is not None and value < least) or (most is not None and value > most):
        raise InputError(expected, describe(value), "Pass one in that range.")
    return int(value)


def check_integers(
    values, name: str, count: int, do: str, *, what: str | None = None, least: int = 1
) -> tuple[int, ...]:
    """Checks a sequence of integers. Lists, NumPy arrays and JAX arrays are converted.

    Args:
      values: the integers.
      name: name of the argument, for the message.
      count: required number of integers.
      do: what to do about a mistake.
      what: what is expected, for the message; by default a description of count and range.
      least: smallest valid value.

    Returns:
      The values as a tuple of Python integers.

    Raises:
      InputError: the values are anything else.
    """
    expected = f"{what or f'{count} integers >= {least}'} as `{name}`"
    if isinstance(values, np.ndarray | jax.Array) and is_concrete(values):
        values = np.asarray(values).tolist() if _is_integer_dtype(values) else values
    if not isinstance(values, tuple | list) or len(values) != count:
        raise InputError(expected, describe(values), do)
    try:
        return tuple(check_integer(one, name, least=least) for one in values)
    except InputError as error:
        raise InputError(expected, describe(values), do) from error


def check_hashable(function: Callable, name: str) -> None:
    """Checks that a function is hashable: compiled programs are looked up by function objects.

    Args:
      function: the function.
      name: name of the argument, for the message.

    Raises:
      InputError: the function is not hashable.
    """
    try:
        hash(function)
    except TypeError as error:
        raise InputError(
            f"a hashable function as `{name}`",
            f"{type(function).__name__}, which is not ({error})",
            "Wrap it once, `lambda *args: f(*args)`, and keep that.",
        ) from error


def check_real(
    value, name: str, expected: str, *, least=None, above=None, most=None, below=None, do: str
) -> float:
    """Checks a finite real number. Integers and scalars of NumPy and JAX are converted.

    Args:
      value: the number.
      name: name of the argument, for the message.
      expected: what is expected, for the message.
      least: smallest valid value, or None.
      above: the value must be larger than this one, or None.
      most: largest valid value, or None.
      below: the value must be smaller than this one, or None.
      do: what to do about a mistake.

    Returns:
      The value as a Python float.

    Raises:
      InputError: the value is not a finite real number, or out of range.
    """
    number = float("nan")
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        kind = value.dtype
        real = jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)
        real = real and value.ndim == 0 and is_concrete(value)
    if real:
        with contextlib.suppress(OverflowError):
            number = float(value)
    fits = np.isfinite(number)
    fits = fits and (least is None or number >= least) and (above is None or number > above)
    fits = fits and (most is None or number <= most) and (below is None or number < below)
    if not fits:
        raise InputError(f"{expected} as `{name}`", describe(value), do)
    return number


def check_flag(value, name: str) -> bool:
    """Checks a boolean. NumPy's booleans are converted.

    Args:
      value: the boolean.
      name: name of the argument, for the message.

    Returns:
      True or False.

    Raises:
      InputError: the value is something else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"True or False as `{name}`", describe(value), "Pass one of them.")
    return bool(value)


def check_key(key) -> jax.Array:
    """Checks a single PRNG key.

    Args:
      key: `jax.random.key(seed)`, or the older `PRNGKey`, which is converted.

    Returns:
      The key, a typed scalar array.

    Raises:
      InputError: it is no key, or several.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
    elif isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim == 1:
        # This fails if a key has another number of words.
        with contextlib.suppress(TypeError, ValueError):
            return jax.random.wrap_key_data(jnp.asarray(key))
    raise InputError("a single PRNG key", describe(key), "Pass jax.random.key(seed).")


def check_indices(indices, name: str, *, count: int | None = None) -> tuple[int, ...]:
    """Checks distinct indices of features. Floats are not rounded, and masks are refused.

    Args:
      indices: an iterable of at least one integer.
      name: name of the argument, for the message.
      count: n, the number of features; None accepts any index >= 0.

    Returns:
      The indices as a tuple of Python integers in [0, count).

    Raises:
      InputError: the indices are anything else.
    """
    hint = "List them, such as [0, 5, 7] or range(12)."
    if isinstance(indices, np.ndarray | jax.Array):
        if not is_concrete(indices) or not _is_integer_dtype(indices) or indices.ndim != 1:
            if indices.dtype == bool:
                hint = "Turn a mask into indices with numpy.flatnonzero."
            raise InputError(f"`{name}` as a list of integers", describe(indices), hint)
        indices = np.asarray(indices).tolist()
    if isinstance(indices, str | bytes | dict | set | frozenset) or not isinstance(
        indices, Iterable
    ):
        raise InputError(f"`{name}` as a list of integers", describe(indices), hint)
    try:
        found = list(itertools.islice(indices, MOST_FEATURES + 1))
    except Exception as error:
        raise InputError(f"`{name}` as a list of integers", f"{error!r}", hint) from error
    if not 0 < len(found) <= MOST_FEATURES:
        got = f"more than {MOST_FEATURES}" if found else "none"
        raise InputError(f"at least one index in `{name}`, and no more than features", got, hint)
    if any(isinstance(i, bool | np.bool_) for i in found):
        hint = "Turn a mask into indices with numpy.flatnonzero."
        raise InputError(f"`{name}` as a list of integers", "booleans", hint)
    most = None if count is None else count - 1
    found = [check_integer(i, f"index in `{name}`", least=0, most=most) for i in found]
    if len(set(found)) != len(found):
        (most_common, times), *_ = Counter(found).most_common(1)
        got = f"{most_common} {times} times"
        raise InputError(f"distinct indices in `{name}`", got, "Use numpy.unique.")
    return tuple(found)


def _is_integer_dtype(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)
