"""Checks of values and types at the public boundary: numbers, keys, indices, arrays, targets.

What is harmless is normalized (NumPy scalars, lists, NumPy arrays), the rest is refused before
expensive work. Shapes and dtypes are always looked at, values where they are known: inside a user's
`jit` they are tracers. There, what would have been an error of value becomes the status of the
sample. Images are checked in `image_checks`, what a job is made of in `job_checks`, the network in
`network_checks`.
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
from ifv_jax.status import Status
from ifv_jax.types import PyTree

T = TypeVar("T")

MOST_FEATURES = 1_000_000
"""More indices than any layer has features: the end of an iterator that has none."""


def is_concrete(*arrays) -> bool:
    """Whether the values are known now, that is, not traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays))


def describe(value) -> str:
    """What came, in a few words: a value if it is short, else its type, dtype and shape."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return reprlib.repr(value)
    name = type(value).__name__
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}, dtype {value.dtype}"
    if isinstance(value, list | tuple | set | dict | range):
        return f"{name} {reprlib.repr(value)}"
    return f"the class {value.__name__}" if isinstance(value, type) else name


def check_kind(value: Any, kind: type[T], name: str, do: str) -> T:
    """`value`, which has to be an instance of `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError(f"{article} {kind.__name__} as `{name}`", describe(value), do)
    return value


def check_integer(value, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """A Python integer; NumPy's and JAX's scalars are converted, booleans and floats refused."""
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
    """So many integers as a tuple; lists and NumPy arrays are converted."""
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
    """Compiled programs are found again by the function objects that they were made of."""
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
    """A finite Python float within bounds; integers and NumPy's and JAX's scalars are converted."""
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
    """True or False; NumPy's booleans are converted."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"True or False as `{name}`", describe(value), "Pass one of them.")
    return bool(value)


def check_key(key) -> jax.Array:
    """A single JAX PRNG key, `jax.random.key(seed)` or the older `PRNGKey`."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
    elif isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim == 1:
        # Fails where these are more or fewer words than a key has.
        with contextlib.suppress(TypeError, ValueError):
            return jax.random.wrap_key_data(jnp.asarray(key))
    raise InputError("a single PRNG key", describe(key), "Pass jax.random.key(seed).")


def check_indices(indices, name: str, *, count: int | None = None) -> tuple[int, ...]:
    """Distinct indices of features, at least one, in [0, count), as a tuple of Python integers.

    Any iterable of integers will do; nothing is cut to an integer, and no mask is taken for one.
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


def as_array(value, expected: str, do: str) -> jax.Array:
    """A real, numeric JAX array of `value`: an array, or nested lists of numbers."""
    try:
        array = jnp.asarray(value)
    except Exception as error:  # whatever JAX makes of an object, a string or ragged lists
        raise InputError(expected, describe(value), do) from error
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or jnp.issubdtype(
        array.dtype, jnp.complexfloating
    ):
        raise InputError(expected, describe(array), do)
    return array


def as_host(value, expected: str, do: str) -> np.ndarray:
    """The same as a NumPy float64 array; `value` must be known, not traced."""
    if value is not None:
        try:
            array = np.asarray(value)
            if array.dtype.kind in "iufb" or jnp.issubdtype(array.dtype, jnp.floating):
                return array.astype(np.float64)
        except Exception as error:  # a tracer, an object, ragged lists
            raise InputError(expected, describe(value), do) from error
    raise InputError(expected, describe(value), do)


def _is_integer_dtype(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


def check_batch(v: PyTree) -> int:
    """The number of samples in a pytree of parameters, leading axis batch; at least one."""
    leaves = jax.tree.leaves(v)
    if not leaves or leaves[0].shape[0] == 0:
        raise InputError("at least one sample", "an empty batch", "Pass one sample or more.")
    return leaves[0].shape[0]


def check_some_finite(status, where: str) -> None:
    """Raises if every single sample is non-finite: then it is the network, not the samples."""
    if np.all(np.asarray(status) == Status.NON_FINITE):
        raise InputError(
            "a network that is finite for at least one sample",
            f"NaN or infinity in {where} of all of them",
            "Check the weights and the preprocessing; feed it one image by hand.",
        )


def check_targets(targets, features: int | None = None) -> jax.Array:
    """Targets as given, checked: (batch, features), finite, of unit length within 1e-3."""
    expected = f"targets of shape (batch, {'features' if features is None else features})"
    do = "One target is a row over the features of the response; see `ifv_jax.sample_targets`."
    targets = as_array(targets, expected, do)
    if targets.ndim != 2 or (features is not None and targets.shape[1] != features):
        raise InputError(expected, f"shape {targets.shape}", do)
    if targets.shape[0] == 0:
        raise InputError("at least one target", "an empty batch", "Pass one target or more.")
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise InputError(
            expected + ", floating point", f"dtype {targets.dtype}", "Convert them first."
        )
    if is_concrete(targets):
        length = np.linalg.norm(np.asarray(targets, np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(length - 1) < 1e-3))
        if wrong.size:
            raise InputError(
                "finite targets of unit length",
                f"length {length[wrong[0]]:g} at target {wrong[0]} ({wrong.size} such)",
                "Divide each by its length; a zero or non-finite target has no direction.",
            )
    return targets
