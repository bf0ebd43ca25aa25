"""Fingerprints: different values and programs differ, equal ones agree, in every process."""

import enum
import functools
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ifv_jax as ifv
from ifv_jax.engine import runs
from ifv_jax.engine.fingerprints import NEUTRAL, fingerprint, program
from tests import networks


class Pair(NamedTuple):
    a: object
    b: object


class Twin(NamedTuple):
    a: object
    b: object


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Options:
    steps: int = 3
    rate: float = 0.1


def scaled(factor):
    return lambda x: factor * x


DIFFERENT = [
    None, 0, False, 0.0, 1, True, 1.0, 1 + 0j, -0.0, float("nan"), "1", b"1", "", b"", "None",
    (), [], {}, set(), (1, 23), (12, 3), (1, 2, 3), ((1, 2), 3), (1, (2, 3)), [1, 2, 3], [[1, 2]],
    ("ab", "c"), ("a", "bc"), ("abc",), (None,), (None, None), {1: 2}, {2: 1}, {"1": 2}, {"a": 1},
    {"b": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}, {"a.b": 1}, {1, 2}, {1, 3}, Pair(1, 2), Pair(2, 1),
    Twin(1, 2), (1, 2), Colour.RED, Colour.BLUE, Options(), Options(4), Options(rate=0.2),
    Path("1"),
    np.arange(3), np.arange(3.0), np.arange(3, dtype=np.int32), np.arange(4), np.arange(3)[None],
    np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(0), np.zeros((0, 1)), np.float32(1), np.float64(1),
    np.array([0.0, -0.0]), np.array([0.0, 0.0]), jnp.zeros(2, jnp.bfloat16),
    jnp.zeros(2, jnp.float16),
    jax.random.key(0), jax.random.key(1), jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0),
    jnp.float32, np.dtype("float32"), slice(1, 2), range(3), scaled(2.0), scaled(3.0),
    functools.partial(scaled, 2.0), functools.partial(scaled, 3.0), len, max, ifv.max_mean,
    ifv.mean, functools.partial(ifv.max_mean, window=2), ifv.sigmoid_pixels((8, 8, 3)),
    ifv.fourier((8, 8, 3)), ifv.sigmoid_pixels((8, 9, 3)),
    ifv.sigmoid_pixels((8, 8, 3), decorrelate=True),
]  # fmt: skip


def test_all_that_differs_is_told_apart():
    marks = {}
    for value in DIFFERENT:
        mark = fingerprint(value)
        assert mark not in marks, (value, marks[mark])
        marks[mark] = value
    assert fingerprint(1, 23) != fingerprint(12, 3)
    assert fingerprint() != fingerprint(None) != fingerprint(None, None)
    assert runs.fingerprint is fingerprint


def test_what_is_equal_has_one_fingerprint():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(np.arange(3.0, dtype=np.float32)) == fingerprint(jnp.arange(3.0))
    assert fingerprint(np.arange(6).reshape(2, 3).T) == fingerprint(
        np.arange(6).reshape(2, 3).T.copy()
    )
    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0))
    assert fingerprint({1, 2, 3}) == fingerprint({3, 2, 1})
    assert fingerprint(float("nan")) == fingerprint(float("nan"))


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=3) | st.floats(width=16),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100)
@given(NESTED, NESTED)
def test_nested_values_agree_exactly_where_they_are_equal(a, b):
    assert (fingerprint(a) == fingerprint(b)) == (repr(a) == repr(b) or same(a, b))


def same(a, b):
    """Equal in value and kind; the order of keys does not count, -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def test_an_option_that_does_nothing_may_be_new():
    before = make_dataclass("Options", [("steps", int, 3)])
    neutral = field(default=0, metadata={NEUTRAL: 0})
    after = make_dataclass("Options", [("steps", int, 3), ("jitter", int, neutral)])
    assert fingerprint(after()) == fingerprint(before())
    assert fingerprint(after(jitter=1)) != fingerprint(before())
    assert fingerprint(after(jitter=False)) != fingerprint(before())  # not the value that was named


def test_a_default_that_changes_is_another_job():
    """A field is hashed by its value, also at its default."""
    first = ifv.FVConfig()
    names = ("adam_steps", "learning_rate", "restarts", "lbfgs_memory", "jitter")
    marks = {fingerprint(first)}
    for name in names:
        marks.add(fingerprint(ifv.FVConfig(**{name: getattr(first, name) + 1})))
    assert len(marks) == 1 + len(names)


@pytest.mark.parametrize("value", [object(), iter([]), np.array([object()]), (1, object())])
def test_what_has_no_lasting_name_is_refused(value):
    with pytest.raises(ifv.InputError, match="told apart in a later process"):
        fingerprint(value)


# --- programs ------------------------------------------------------------------------------------


def conv(w, x, **options):
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=networks.DIMENSIONS, **options
    )


TABLE = jnp.arange(1.0, 4.0)


@jax.jit
def inner_constant(x):
    return x * TABLE


@jax.custom_vjp
def odd_gradient(x):
    return x


odd_gradient.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))


def constant(values):
    values = np.asarray(values, np.float32)
    return lambda w, x: conv(w, x) * values


def repeated(times):
    step = lambda x, _: (jnp.tanh(x), None)  # noqa: E731
    return lambda w, x: jax.lax.scan(step, conv(w, x), None, times)[0]


PROGRAMS = {
    "conv": conv,
    "relu": lambda w, x: jax.nn.relu(conv(w, x)),
    "gelu": lambda w, x: jax.nn.gelu(conv(w, x)),
    "exact gelu": lambda w, x: jax.nn.gelu(conv(w, x), approximate=False),
    "scalar": lambda w, x: 2 * conv(w, x),
    "other scalar": lambda w, x: 3 * conv(w, x),
    "constant": constant([1, 2, 3]),
    "other constant": constant([1, 2, 4]),
    "jit constant": lambda w, x: inner_constant(conv(w, x)),
    "scan": repeated(2),
    "longer scan": repeated(3),
    "odd gradient": lambda w, x: odd_gradient(conv(w, x)),
    "callback": lambda w, x: conv(w, x) + jax.pure_callback(
        lambda a: a, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x)
    ),
    "other callback": lambda w, x: conv(w, x) + jax.pure_callback(
        lambda a: 2 * a, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x)
    ),
    "precision": lambda w, x: conv(w, x, precision="highest"),
    "cond": lambda w, x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, conv(w, x)),
    "other cond": lambda w, x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.tan, conv(w, x)),
}  # fmt: skip


def mark(function):
    w, x = jnp.ones((3, 3, 3, 3)), jnp.ones((1, 4, 4, 3))
    return program(jax.value_and_grad(lambda x, w: function(w, x).sum()), x, w)


def test_programs_are_told_apart():
    marks = {name: mark(function) for name, function in PROGRAMS.items()}
    assert len(set(marks.values())) == len(marks), marks


def test_the_same_program_has_one_mark_whatever_its_functions_are_called():
    def another_name(w, x):
        return jax.nn.relu(conv(w, x))

    assert mark(another_name) == mark(PROGRAMS["relu"])
    assert mark(constant([1, 2, 3])) == mark(PROGRAMS["constant"])


def test_marks_are_the_same_in_another_process():
    code = """
import sys
from tests import test_fingerprints as here
print(*(here.fingerprint(value) for value in here.DIFFERENT))
print(*(here.mark(function) for function in here.PROGRAMS.values()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values, programs = done.stdout.splitlines()
    assert values.split() == [fingerprint(value) for value in DIFFERENT]
    assert programs.split() == [mark(function) for function in PROGRAMS.values()]
