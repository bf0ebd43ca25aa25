"""Pairs of gradients made of kinks, curvature and round-off in known parts."""

import jax.numpy as jnp
import numpy as np
import pytest

import ifv_jax as ifv
from ifv_jax import crossings

SIZE = 300


def directions(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, SIZE)) / np.sqrt(SIZE)
    return rows.astype(np.float32)


def judged(plus, minus, aside=0.0, noise=1e-5):
    aside = np.broadcast_to(np.float32(aside), (SIZE,))
    found = crossings.sizes(
        *(jnp.asarray(a)[None] for a in (plus, minus)), jnp.asarray(aside)[None]
    )
    return found, crossings.crossed(found, np.array([noise]))[0]


JUMP, OTHER, BEND, ROUGH, AGAIN = directions(5)

CASES = {
    "round-off": (1e-6 * ROUGH, 1e-6 * AGAIN, False),
    "curvature": (BEND, -BEND, False),
    "curvature and round-off": (BEND + 1e-6 * ROUGH, -BEND + 1e-6 * AGAIN, False),
    "curvature that changes": (1.1 * BEND, -0.9 * BEND, False),
    "a kink on one side": (JUMP, 0 * JUMP, True),
    "a kink on the other side": (0 * JUMP, JUMP, True),
    "a kink and curvature": (JUMP + BEND, -BEND, True),
    "kinks on both sides": (JUMP + BEND, OTHER - BEND, True),
    "a small kink, less curvature": (1e-3 * JUMP + 1e-3 * BEND, -1e-3 * BEND, True),
    "a kink below round-off": (1e-6 * JUMP, 0 * JUMP, False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_kink_is_told_from_curvature_and_round_off(name):
    plus, minus, expected = CASES[name]
    assert judged(plus[None], minus[None])[1].tolist() == [expected]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_in_any_units(scale):
    for plus, minus, expected in CASES.values():
        scaled = (np.float32(scale) * a[None] for a in (plus, minus))
        assert judged(*scaled, noise=1e-5 * scale)[1].tolist() == [expected]


def test_exactly_on_a_kink_its_jump_is_odd():
    """|x| at 0: the gradient is 0, then 1 and -1. A small step tells it from curvature."""
    half = JUMP / 2
    assert judged(half[None], -half[None], aside=half)[1].all()
    assert not judged(half[None], -half[None], aside=crossings.ASIDE * half)[1].any()


def test_an_even_part_that_shrinks_is_no_kink():
    bend, even, jump = (jnp.asarray(a)[None] for a in (BEND, 3 * OTHER, JUMP))
    assert crossings.shrinks(bend + even, even - bend, bend / 2 + even / 4, even / 4 - bend / 2)
    assert not crossings.shrinks(bend + jump, -bend, bend / 2 + jump, -bend / 2)
    assert not crossings.shrinks(bend + jump, -bend, bend / 2, -bend / 2)  # crossed further out


def test_what_is_taken_out_is_free_of_curvature_where_one_side_crossed():
    bend = 0.01 * BEND
    plus, minus = np.stack([JUMP + bend, JUMP + bend, bend]), np.stack([-bend, OTHER - bend, -bend])
    found, kept = judged(plus, minus)
    assert kept.tolist() == [True, True, False]
    pairs = (jnp.asarray(a)[None] for a in (plus, minus))
    rows = np.asarray(crossings.crossing_rows(*pairs, found, kept[None]))[0]
    expected = [JUMP, JUMP + bend, 0 * JUMP, 0 * JUMP, OTHER - bend, 0 * JUMP]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e15])
def test_round_off_is_measured_by_the_terms_that_cancel(size):
    """At an optimum the gradient is nearly zero, and as inexact as its terms are large."""
    first = size * JUMP
    matrix = jnp.asarray(np.stack([first, -first]))[None]
    c = jnp.ones((1, 2), jnp.float32)
    jac = ifv.Jacobian(c, matrix)
    gram = np.asarray(ifv.linearize(jac).gram)
    terms = np.sqrt(2) * np.linalg.norm(first.astype(np.float64))
    least = crossings.NOISE * crossings.LEAST_NOISE * np.finfo(np.float32).eps * terms
    exact = crossings.noise(jac, gram, c, jnp.zeros((1, SIZE)))
    np.testing.assert_allclose(exact, least, rtol=1e-5)
    # A network of low precision: pulled back at once, the gradient is another one.
    measured = crossings.noise(jac, gram, c, jnp.asarray(0.01 * first)[None])
    np.testing.assert_allclose(measured, crossings.NOISE * 0.01 * terms / np.sqrt(2), rtol=1e-4)
