"""The identity of a job: hashes of values and of traced programs.

`fingerprint` hashes values such that different values have different hashes. Every part is hashed
with its kind and its length, so `(1, 23)` differs from `(12, 3)`, `{"a": x}` from `{"b": x}`, and
`1` from `1.0`. `program` hashes what a function computes, as JAX traces it, with all constants.
Both hashes are the same in another process, because they contain no addresses and no names of
functions' frames.
"""

import dataclasses
import enum
import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ifv_jax.checks import InputError

NEUTRAL = "neutral"
"""Key in the metadata of a dataclass field, for the value at which the field has no effect.

A field with that value is left out of the fingerprint, so that earlier results stay valid when an
option is added. All other fields are hashed, also at their defaults: a changed default is another
job.
"""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")

_NAMES = ["name", "debug", "debug_info"]
_LAYOUTS = ["in_shardings", "out_shardings", "in_layouts", "out_layouts", "ctx_mesh"]
_COMPILATION = ["inline", "keep_unused", "donated_invars", "compiler_options_kvs"]
_RULES = ["jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd"]
_RULES += ["out_trees", "symbolic_zeros"]
_WITHOUT_EFFECT = frozenset([*_NAMES, *_LAYOUTS, *_COMPILATION, *_RULES])
"""Parameters of equations that do not change values. The rules have already been applied."""


def fingerprint(*parts: Any) -> str:
    """Hashes values.

    Args:
      *parts: arrays, PRNG keys, numbers, strings, None, enums, paths, dtypes, functions (by their
        code, their defaults and the values they close over), dataclasses, and pytrees and
        containers of these.

    Returns:
      16 hexadecimal digits.

    Raises:
      InputError: an object has no representation that is the same in a later process.
    """
    digest = hashlib.sha256()
    _feed(digest, parts)
    return digest.hexdigest()[:16]


def program(function: Callable[..., Any], *args: Any) -> str:
    """Hashes the program that JAX traces `function(*args)` to, with its constants.

    Args:
      function: a function of pytrees of arrays. It is traced and not computed.
      *args: arrays, or their shapes as `jax.ShapeDtypeStruct`.

    Returns:
      16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    _feed_closed(digest, jax.make_jaxpr(function)(*args), {})
    return digest.hexdigest()[:16]


def _tell(digest, kind: str, content: bytes | str = b"") -> None:
    """Hashes one piece with its kind and length, so that adjacent pieces stay distinct."""
    content = content.encode() if isinstance(content, str) else content
    digest.update(f"{kind}:{len(content)}:".encode())
    digest.update(content)


def _feed(digest, value: Any) -> None:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum):
        _feed_plain(digest, value)
    elif isinstance(value, jax.Array | np.ndarray | np.generic):
        _feed_array(digest, value)
    elif isinstance(value, Mapping):
        _tell(digest, "dict", str(len(value)))
        for key_mark, key in sorted((fingerprint(key), key) for key in value):
            _tell(digest, "key", key_mark)
            _feed(digest, value[key])
    elif isinstance(value, set | frozenset):
        _tell(digest, "set", "".join(sorted(fingerprint(item) for item in value)))
    elif isinstance(value, list | tuple):
        fields = getattr(value, "_fields", ())
        _tell(digest, f"{'list' if isinstance(value, list) else 'tuple'}", str(len(value)))
        if fields:
            _tell(digest, "fields", f"{type(value).__qualname__} {fields}")
        for item in value:
            _feed(digest, item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed_fields(digest, value)
    elif isinstance(value, functools.partial):
        _tell(digest, "partial")
        _feed(digest, (value.func, value.args, value.keywords))
    elif callable(value) and hasattr(value, "__qualname__"):
        _feed_function(digest, value)
    else:
        _feed_other(digest, value)


def _feed_plain(digest, value: Any) -> None:
    kind = type(value).__qualname__
    _tell(digest, kind, value if isinstance(value, str | bytes) else repr(value))


def _feed_array(digest, value: Any) -> None:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        _tell(digest, "key", str(jax.random.key_impl(value)))
        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise _unstable(f"an array of {array.dtype}")
    _tell(digest, "array", f"{array.dtype} {array.shape}")
    _tell(digest, "values", np.ascontiguousarray(array).tobytes())


def _feed_fields(digest, value: Any) -> None:
    _tell(digest, "dataclass", type(value).__qualname__)
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        neutral = field.metadata.get(NEUTRAL, dataclasses.MISSING)
        if neutral is not dataclasses.MISSING and fingerprint(item) == fingerprint(neutral):
            continue
        _tell(digest, "field", field.name)
        _feed(digest, item)


def _feed_function(digest, value: Any) -> None:
    """Hashes a function's module, name, code, defaults and closure; of a class, only the name."""
    value = getattr(value, "__wrapped__", value)
    _tell(digest, "function", f"{getattr(value, '__module__', '')}.{value.__qualname__}")
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        _feed(digest, owner)
    code = getattr(value, "__code__", None)
    if code is None:
        return
    _feed_code(digest, code)
    _feed(digest, (value.__defaults__, value.__kwdefaults__))
    for cell in value.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if content is not value:  # a function that calls itself
            _feed(digest, content)


def _feed_code(digest, code: types.CodeType) -> None:
    _tell(digest, "code", code.co_code)
    _tell(digest, "names", " ".join((*code.co_names, *code.co_varnames)))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _feed_code(digest, constant)
        else:
            _feed(digest, constant)


def _feed_other(digest, value: Any) -> None:
    """Hashes a dtype, path, shape, registered pytree, or any object with a stable `repr`."""
    if isinstance(value, np.dtype | PurePath | range | slice):
        _tell(digest, type(value).__mro__[-2].__qualname__, str(value))
        return
    if isinstance(value, jax.ShapeDtypeStruct):
        _tell(digest, "shape", f"{value.dtype} {value.shape}")
        return
    if isinstance(value, Iterator):
        raise _unstable(f"{type(value).__qualname__}, whose items are not known yet")
    children, structure = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
    if not (len(children) == 1 and children[0] is value):  # a registered node
        paths = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)
        _tell(digest, "node", _ADDRESS.sub("", str(structure)))
        for path, child in paths[0]:
            _tell(digest, "key", jax.tree_util.keystr(path))
            _feed(digest, child)
        return
    text = repr(value)
    if _ADDRESS.search(text):
        raise _unstable(text)
    _tell(digest, type(value).__qualname__, text)


def _unstable(what: str) -> InputError:
    return InputError(
        "parts of a job that can be told apart in a later process",
        what,
        "Name it by numbers, strings or arrays that determine it.",
    )


# --- programs ------------------------------------------------------------------------------------


def _feed_closed(digest, closed: core.ClosedJaxpr, seen: dict[int, bytes]) -> None:
    for constant in closed.consts:
        _feed_array(digest, constant)
    _feed_jaxpr(digest, closed.jaxpr, seen)


def _feed_jaxpr(digest, jaxpr: core.Jaxpr, seen: dict[int, bytes]) -> None:
    """Hashes a program by its equations, with numbered variables. Inner programs are read once."""
    if id(jaxpr) not in seen:
        inner = hashlib.sha256()
        _feed_equations(inner, jaxpr, seen)
        seen[id(jaxpr)] = inner.digest()
    _tell(digest, "jaxpr", seen[id(jaxpr)])


def _feed_equations(digest, jaxpr: core.Jaxpr, seen: dict[int, bytes]) -> None:
    numbers: dict[Any, int] = {}

    def tell_atoms(kind: str, atoms: Iterable[Any]) -> None:
        for atom in atoms:
            if isinstance(atom, core.Literal):
                _feed_array(digest, np.asarray(atom.val))
                _tell(digest, "literal", str(atom.aval))
            else:
                number = numbers.setdefault(atom, len(numbers))
                _tell(digest, kind, f"{number} {atom.aval}")

    tell_atoms("in", (*jaxpr.constvars, *jaxpr.invars))
    for eqn in jaxpr.eqns:
        _tell(digest, "equation", eqn.primitive.name)
        tell_atoms("operand", eqn.invars)
        for name in sorted(set(eqn.params) - _WITHOUT_EFFECT):
            _tell(digest, "parameter", name)
            _feed_parameter(digest, eqn.params[name], seen)
        tell_atoms("result", eqn.outvars)
    tell_atoms("out", jaxpr.outvars)


def _feed_parameter(digest, value: Any, seen: dict[int, bytes]) -> None:
    if isinstance(value, core.ClosedJaxpr):
        _feed_closed(digest, value, seen)
    elif isinstance(value, core.Jaxpr):
        _feed_jaxpr(digest, value, seen)
    elif isinstance(value, tuple | list):
        _tell(digest, "tuple", str(len(value)))
        for item in value:
            _feed_parameter(digest, item, seen)
    else:
        try:
            _feed(digest, value)
        except InputError:  # an object without a stable form, represented by what JAX prints
            _tell(digest, type(value).__qualname__, _ADDRESS.sub("", repr(value)))
